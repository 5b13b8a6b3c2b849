//! What is connected to networks. Ports come and go with the interfaces of domains: nobody makes one here.

use std::sync::Arc;

use reeve_ipc::api::call::NetworkPortList;
use reeve_ipc::api::network::{NetworkForward, PortDetails};
use reeve_ipc::model::PortUuid;
use uuid::Uuid;

use super::super::Context;
use super::super::bandwidth::{INBOUND, OUTBOUND, parameters as of_way};
use super::super::failure::{Code, Failure, Origin};
use super::super::params::{TEXT_OKAY, within};
use super::{check_flags, details, invalid, of_network, reference};
use crate::wire::types::handles;
use crate::wire::types::network as wire;
use crate::wire::xdr::List;
use crate::xml;

/// Every port of a network.
async fn ports(context: &Context, of: &handles::Network) -> Result<Vec<PortDetails>, Failure> {
    let mut all: Vec<PortDetails> = Vec::new();
    loop {
        let list = NetworkPortList {
            network: reference(of),
            after: all.last().map(|last| last.port.uuid),
        };
        let page = of_network(context, of, list).await?;
        let more = page.more && !page.ports.is_empty();
        all.extend(page.ports);
        if !more {
            return Ok(all);
        }
    }
}

/// The port of that UUID.
async fn find(
    context: &Context,
    of: &handles::Network,
    uuid: handles::Uuid,
) -> Result<PortDetails, Failure> {
    let uuid = PortUuid(Uuid::from_bytes(uuid));
    let found = ports(context, of).await?.into_iter();
    let found = found.into_iter().find(|port| port.port.uuid == uuid);
    found.ok_or_else(|| {
        let why = format!("Network port with UUID {uuid} does not exist");
        Failure::not_found(Code::NoNetworkPort, why)
    })
}

pub(in super::super) async fn all(
    context: Arc<Context>,
    of: wire::NetworkListAllPorts,
) -> Result<wire::NetworkPortList, Failure> {
    check_flags(of.flags, 0, "virNetworkListAllPorts")?;
    if !details(&context, &of.network).await?.summary.active {
        return Err(invalid(format!(
            "network '{}' is not active",
            of.network.name
        )));
    }
    let found = ports(&context, &of.network).await?;
    let ret = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let handles = found.iter().map(|port| handles::NetworkPort {
        network: of.network.clone(),
        uuid: *port.port.uuid.0.as_bytes(),
    });
    let ports = match of.need_results {
        true => handles.collect(),
        false => List::default(),
    };
    Ok(wire::NetworkPortList { ports, ret })
}

pub(in super::super) async fn by_uuid(
    context: Arc<Context>,
    of: wire::NetworkPortLookupByUuid,
) -> Result<handles::NetworkPort, Failure> {
    find(&context, &of.network, of.uuid).await?;
    Ok(handles::NetworkPort {
        network: of.network,
        uuid: of.uuid,
    })
}

pub(in super::super) async fn xml_desc(
    context: Arc<Context>,
    of: wire::NetworkPortGetXmlDesc,
) -> Result<String, Failure> {
    check_flags(of.flags, 0, "virNetworkPortGetXMLDesc")?;
    let network = &of.port.network;
    let port = find(&context, network, of.port.uuid).await?;
    let forward = details(&context, network).await?.summary.forward;
    let own_bridge = !matches!(forward, Some(NetworkForward::Bridge));
    Ok(xml::network::format_port(&port, own_bridge))
}

/// What the network gave the port; an interface may have been given less by its domain.
pub(in super::super) async fn parameters(
    context: Arc<Context>,
    of: wire::NetworkPortGetParameters,
) -> Result<wire::PortParams, Failure> {
    check_flags(of.flags, TEXT_OKAY, "virNetworkPortGetParameters")?;
    let port = find(&context, &of.port.network, of.port.uuid).await?.port;
    let mut params = of_way(INBOUND, port.inbound);
    params.extend(of_way(OUTBOUND, port.outbound));
    let (params, nparams) = within(params, of.nparams);
    Ok(wire::PortParams {
        params: params.into(),
        nparams,
    })
}

fn unsupported<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::of(
        Origin::Network,
        Code::OperationUnsupported,
        why,
    ))
}

pub(in super::super) async fn set_parameters(
    context: Arc<Context>,
    of: wire::NetworkPortSetParameters,
) -> Result<(), Failure> {
    check_flags(of.flags, TEXT_OKAY, "virNetworkPortSetParameters")?;
    find(&context, &of.port.network, of.port.uuid).await?;
    unsupported("what may go through an interface is set at its domain (domiftune)")
}

pub(in super::super) async fn create(
    context: Arc<Context>,
    of: wire::NetworkPortCreateXml,
) -> Result<handles::NetworkPort, Failure> {
    const RECLAIM: u32 = 1;
    const VALIDATE: u32 = 2;
    check_flags(of.flags, RECLAIM | VALIDATE, "virNetworkPortCreateXML")?;
    details(&context, &of.network).await?;
    unsupported("ports are made by starting domains")
}

pub(in super::super) async fn delete(
    context: Arc<Context>,
    of: wire::NetworkPortDelete,
) -> Result<(), Failure> {
    check_flags(of.flags, 0, "virNetworkPortDelete")?;
    find(&context, &of.port.network, of.port.uuid).await?;
    unsupported("ports go with the interfaces of domains: detach the interface, or stop its domain")
}
