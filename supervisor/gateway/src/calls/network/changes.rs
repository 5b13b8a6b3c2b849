//! Changes of a part of a network's definition, and of what is noted about it.

use std::sync::Arc;

use reeve_ipc::api::call::{NetworkDefinitionGet, NetworkLabelSet, NetworkUpdate};
use reeve_ipc::model::{EditCommand, NetworkEdit};

use super::super::Context;
use super::super::context::{Impact, impact};
use super::super::failure::{Code, Failure, Origin};
use super::super::labels::{change, noted};
use super::life::of_document;
use super::{as_network, check_flags, details, invalid, of_network, reference};
use crate::wire::types::handles;
use crate::wire::types::network as wire;
use crate::xml::network::{Section, parse_part};

/// Where a change of a network goes. Flags are those of changes of domains (libvirt `virNetworkUpdateFlags`).
async fn impact_of(
    context: &Context,
    network: &handles::Network,
    flags: u32,
) -> Result<Impact, Failure> {
    let summary = details(context, network).await?.summary;
    let (mut live, mut persistent) = (flags & impact::LIVE != 0, flags & impact::CONFIG != 0);
    if !live && !persistent {
        live = summary.active;
        persistent = !summary.active;
    }
    if live && !summary.active {
        return Err(invalid("network is not running"));
    }
    if persistent && !summary.persistent {
        return Err(invalid(
            "cannot change persistent config of a transient network",
        ));
    }
    Ok(Impact { live, persistent })
}

/// What is done (libvirt `virNetworkUpdateCommand`).
fn command(number: u32) -> Result<EditCommand, Failure> {
    match number {
        1 => Ok(EditCommand::Modify),
        2 => Ok(EditCommand::Delete),
        3 => Ok(EditCommand::AddLast),
        4 => Ok(EditCommand::AddFirst),
        _ => {
            let why = format!("unrecognized network update command code {number}");
            Err(Failure::of(Origin::Network, Code::NoSupport, why))
        }
    }
}

/// With what (libvirt `virNetworkUpdateSection`). What libvirt has a number for and cannot change is not changed
/// here.
fn section(number: u32, network: &str) -> Result<Section, Failure> {
    let name = match number {
        4 => return Ok(Section::DhcpHost),
        5 => return Ok(Section::DhcpRange),
        7 => return Ok(Section::ForwardInterface),
        9 => return Ok(Section::PortGroup),
        10 => return Ok(Section::DnsHost),
        11 => return Ok(Section::DnsText),
        12 => return Ok(Section::DnsService),
        1 => "bridge",
        2 => "domain",
        3 => "ip",
        6 => "forward",
        8 => "forward pf",
        _ => {
            let why = "can't update unrecognized section of network";
            return Err(Failure::of(Origin::Network, Code::NoSupport, why));
        }
    };
    let why = format!("can't update '{name}' section of network '{network}'");
    let unsupported = Code::OperationUnsupported;
    Err(Failure::of(Origin::Network, unsupported, why))
}

pub(in super::super) async fn update(
    context: Arc<Context>,
    of: wire::NetworkUpdate,
) -> Result<(), Failure> {
    check_flags(of.flags, impact::ANY, "virNetworkUpdate")?;
    let command = command(of.command)?;
    let name = &of.network.name;
    let section = section(of.section, name)?;
    // -1 is whichever it is about.
    let address = u32::try_from(of.parent_index).ok();
    let part = parse_part(&of.xml, section, command, address, name);
    let part = part.map_err(|error| as_network(error.into()))?;
    let Impact { live, persistent } = impact_of(&context, &of.network, of.flags).await?;
    let update = NetworkUpdate {
        network: reference(&of.network),
        edit: Box::new(NetworkEdit { command, part }),
        live,
        persistent,
    };
    let updated = of_network(&context, &of.network, update).await;
    updated.map_err(of_document)
}

pub(in super::super) async fn metadata(
    context: Arc<Context>,
    of: wire::NetworkGetMetadata,
) -> Result<String, Failure> {
    check_flags(of.flags, impact::ANY, "virNetworkGetMetadata")?;
    if of.flags & impact::ANY == impact::ANY {
        let why = "flags 'VIR_NETWORK_UPDATE_AFFECT_LIVE' and 'VIR_NETWORK_UPDATE_AFFECT_CONFIG' are mutually \
                   exclusive";
        return Err(Failure::of(Origin::Network, Code::InvalidArgument, why));
    }
    let Impact { live, .. } = impact_of(&context, &of.network, of.flags).await?;
    let get = NetworkDefinitionGet {
        network: reference(&of.network),
        persistent: !live,
    };
    let labels = of_network(&context, &of.network, get).await?.labels;
    noted(labels, of.kind, of.uri, "virNetworkGetMetadata").map_err(as_network)
}

pub(in super::super) async fn set_metadata(
    context: Arc<Context>,
    of: wire::NetworkSetMetadata,
) -> Result<(), Failure> {
    let function = "virNetworkSetMetadata";
    check_flags(of.flags, impact::ANY, function)?;
    let label = change(function, of.kind, of.metadata, of.key, of.uri).map_err(as_network)?;
    let Impact { live, persistent } = impact_of(&context, &of.network, of.flags).await?;
    let set = NetworkLabelSet {
        network: reference(&of.network),
        label,
        live,
        persistent,
    };
    of_network(&context, &of.network, set).await
}
