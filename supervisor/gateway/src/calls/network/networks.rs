//! Which networks there are, and how one stands.

use std::sync::Arc;

use reeve_ipc::api::call::{
    NetworkDefinitionGet, NetworkFilter, NetworkGet, NetworkList, NetworkRef,
};
use reeve_ipc::api::network::NetworkSummary;
use reeve_ipc::model::{NetworkName, NetworkUuid};
use uuid::Uuid;

use super::super::Context;
use super::super::failure::{Code, Failure, Origin};
use super::super::list::{count, most, wanted};
use super::{call, check_flags, details, handle, of_network, reference};
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles;
use crate::wire::types::network as wire;
use crate::wire::xdr::List;
use crate::xml;

/// Filters (libvirt `virConnectListAllNetworksFlags`): in pairs, where neither or both of a pair are set it filters
/// nothing.
mod only {
    pub(super) const INACTIVE: u32 = 0x1;
    pub(super) const ACTIVE: u32 = 0x2;
    pub(super) const PERSISTENT: u32 = 0x4;
    pub(super) const TRANSIENT: u32 = 0x8;
    pub(super) const AUTOSTART: u32 = 0x10;
    pub(super) const NO_AUTOSTART: u32 = 0x20;
    pub(super) const ALL: u32 = 0x3f;
}

/// The networks that filters leave.
fn filter(flags: u32) -> NetworkFilter {
    let pair = |yes, no| wanted(flags, yes, no);
    NetworkFilter {
        active: pair(only::ACTIVE, only::INACTIVE),
        persistent: pair(only::PERSISTENT, only::TRANSIENT),
        autostart: pair(only::AUTOSTART, only::NO_AUTOSTART),
    }
}

/// Every network that passes, by name.
async fn networks(
    context: &Context,
    filter: NetworkFilter,
) -> Result<Vec<NetworkSummary>, Failure> {
    let mut all: Vec<NetworkSummary> = Vec::new();
    loop {
        let after: Option<NetworkName> = all.last().map(|last| last.name.clone());
        let page = call(context, NetworkList { after, filter }).await?;
        let more = page.more && !page.networks.is_empty();
        all.extend(page.networks);
        if !more {
            return Ok(all);
        }
    }
}

async fn with_activity(context: &Context, active: bool) -> Result<Vec<NetworkSummary>, Failure> {
    let filter = NetworkFilter {
        active: Some(active),
        ..NetworkFilter::default()
    };
    networks(context, filter).await
}

fn names(networks: &[NetworkSummary], asked: i32) -> List<String, OBJECTS_MAX> {
    let names = networks
        .iter()
        .map(|network| network.name.as_str().to_owned());
    names.take(most(asked).min(OBJECTS_MAX)).collect()
}

pub(in super::super) async fn all(
    context: Arc<Context>,
    call: wire::ConnectListAllNetworks,
) -> Result<wire::NetworkList, Failure> {
    check_flags(call.flags, only::ALL, "virConnectListAllNetworks")?;
    let found = networks(&context, filter(call.flags)).await?;
    let ret = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let networks = match call.need_results {
        true => found.iter().map(handle).collect(),
        false => List::default(),
    };
    Ok(wire::NetworkList { networks, ret })
}

pub(in super::super) async fn active_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfNetworks,
) -> Result<i32, Failure> {
    Ok(count(with_activity(&context, true).await?.len()))
}

pub(in super::super) async fn active_names(
    context: Arc<Context>,
    call: wire::ConnectListNetworks,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    Ok(names(&with_activity(&context, true).await?, call.maxnames))
}

pub(in super::super) async fn inactive_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfDefinedNetworks,
) -> Result<i32, Failure> {
    Ok(count(with_activity(&context, false).await?.len()))
}

pub(in super::super) async fn inactive_names(
    context: Arc<Context>,
    call: wire::ConnectListDefinedNetworks,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    Ok(names(&with_activity(&context, false).await?, call.maxnames))
}

/// The network of that reference; there is none by what was asked for otherwise.
async fn find(
    context: &Context,
    network: NetworkRef,
    absent: impl FnOnce() -> Failure,
) -> Result<handles::Network, Failure> {
    match call(context, NetworkGet { network }).await {
        Ok(details) => Ok(handle(&details.summary)),
        Err(failure) if failure.code == Code::NoNetwork => Err(absent()),
        Err(failure) => Err(failure),
    }
}

pub(in super::super) async fn by_name(
    context: Arc<Context>,
    call: wire::NetworkLookupByName,
) -> Result<handles::Network, Failure> {
    let absent = || {
        let why = format!("no network with matching name '{}'", call.name);
        Failure::not_found(Code::NoNetwork, why)
    };
    // No network has a name that none may have.
    let reference = NetworkRef::Name(call.name.parse().map_err(|_| absent())?);
    find(&context, reference, absent).await
}

pub(in super::super) async fn by_uuid(
    context: Arc<Context>,
    call: wire::NetworkLookupByUuid,
) -> Result<handles::Network, Failure> {
    let uuid = Uuid::from_bytes(call.uuid);
    let why = format!("no network with matching uuid '{uuid}'");
    let absent = || Failure::not_found(Code::NoNetwork, why);
    find(&context, NetworkRef::Uuid(NetworkUuid(uuid)), absent).await
}

pub(in super::super) async fn xml_desc(
    context: Arc<Context>,
    call: wire::NetworkGetXmlDesc,
) -> Result<String, Failure> {
    const INACTIVE: u32 = 1;
    check_flags(call.flags, INACTIVE, "virNetworkGetXMLDesc")?;
    let summary = details(&context, &call.network).await?.summary;
    let inactive = call.flags & INACTIVE != 0;
    let get = NetworkDefinitionGet {
        network: reference(&call.network),
        // Of one that has but one definition it is that, as in libvirt.
        persistent: summary.persistent && (inactive || !summary.active),
    };
    let network = of_network(&context, &call.network, get).await?;
    let connections = (summary.active && !inactive).then_some(summary.ports);
    Ok(xml::network::format_network(&network, connections))
}

pub(in super::super) async fn bridge_name(
    context: Arc<Context>,
    call: wire::NetworkGetBridgeName,
) -> Result<String, Failure> {
    let summary = details(&context, &call.network).await?.summary;
    let none = || {
        let why = format!("network '{}' does not have a bridge name.", summary.name);
        Failure::of(Origin::Network, Code::InternalError, why)
    };
    let bridge = summary.bridge.as_ref().ok_or_else(none)?;
    Ok(bridge.as_str().to_owned())
}

pub(in super::super) async fn autostart(
    context: Arc<Context>,
    call: wire::NetworkGetAutostart,
) -> Result<bool, Failure> {
    Ok(details(&context, &call.network).await?.summary.autostart)
}

pub(in super::super) async fn is_active(
    context: Arc<Context>,
    call: wire::NetworkIsActive,
) -> Result<bool, Failure> {
    Ok(details(&context, &call.network).await?.summary.active)
}

pub(in super::super) async fn is_persistent(
    context: Arc<Context>,
    call: wire::NetworkIsPersistent,
) -> Result<bool, Failure> {
    Ok(details(&context, &call.network).await?.summary.persistent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_and_both_of_a_pair_filter_nothing() {
        assert_eq!(filter(0), NetworkFilter::default());
        assert_eq!(filter(only::ALL), NetworkFilter::default());
        let kept = NetworkFilter {
            active: Some(false),
            persistent: Some(true),
            autostart: Some(false),
        };
        let flags = only::INACTIVE | only::PERSISTENT | only::NO_AUTOSTART;
        assert_eq!(filter(flags), kept);
    }
}
