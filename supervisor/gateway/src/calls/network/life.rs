//! The life of a network.

use std::sync::Arc;

use reeve_ipc::api::call::{
    NetworkAutostartSet, NetworkCreate, NetworkDefine, NetworkStart, NetworkStop, NetworkUndefine,
};
use reeve_ipc::model::{Network, NetworkUuid};

use super::super::Context;
use super::super::define::drawn;
use super::super::failure::{Code, Failure};
use super::{as_network, call, check_flags, handle, of_network, reference};
use crate::wire::types::handles;
use crate::wire::types::network as wire;
use crate::xml::{self, XmlErrorKind};

/// A document is only taken if it is valid (libvirt `VIR_NETWORK_DEFINE_VALIDATE`, and the same for a creation).
const VALIDATE: u32 = 1;

/// What a document says; strict whether its validation is asked for or not.
fn parse(text: &str, flags: u32) -> Result<Box<Network>, Failure> {
    let uuid = NetworkUuid(drawn()?);
    let network = xml::network::parse_network(text, uuid).map_err(|error| match error.kind {
        XmlErrorKind::Invalid if flags & VALIDATE != 0 => {
            Failure::new(Code::XmlInvalidSchema, error.message)
        }
        _ => error.into(),
    });
    network.map(Box::new).map_err(as_network)
}

/// The supervisor's refusal of a definition, which here is a document's.
pub(super) fn of_document(failure: Failure) -> Failure {
    match failure.code {
        Code::InvalidArgument => Failure {
            code: Code::ConfigUnsupported,
            ..failure
        },
        _ => failure,
    }
}

async fn define_with(
    context: &Context,
    text: &str,
    flags: u32,
) -> Result<handles::Network, Failure> {
    let define = NetworkDefine {
        network: parse(text, flags)?,
        only_new: false,
    };
    let defined = call(context, define).await.map_err(of_document)?;
    Ok(handle(&defined))
}

pub(in super::super) async fn define(
    context: Arc<Context>,
    of: wire::NetworkDefineXml,
) -> Result<handles::Network, Failure> {
    define_with(&context, &of.xml, 0).await
}

pub(in super::super) async fn define_flags(
    context: Arc<Context>,
    of: wire::NetworkDefineXmlFlags,
) -> Result<handles::Network, Failure> {
    check_flags(of.flags, VALIDATE, "virNetworkDefineXMLFlags")?;
    define_with(&context, &of.xml, of.flags).await
}

async fn create_with(
    context: &Context,
    text: &str,
    flags: u32,
) -> Result<handles::Network, Failure> {
    let create = NetworkCreate {
        network: parse(text, flags)?,
    };
    let created = call(context, create).await.map_err(of_document)?;
    Ok(handle(&created))
}

pub(in super::super) async fn create_xml(
    context: Arc<Context>,
    of: wire::NetworkCreateXml,
) -> Result<handles::Network, Failure> {
    create_with(&context, &of.xml, 0).await
}

pub(in super::super) async fn create_xml_flags(
    context: Arc<Context>,
    of: wire::NetworkCreateXmlFlags,
) -> Result<handles::Network, Failure> {
    check_flags(of.flags, VALIDATE, "virNetworkCreateXMLFlags")?;
    create_with(&context, &of.xml, of.flags).await
}

pub(in super::super) async fn create(
    context: Arc<Context>,
    of: wire::NetworkCreate,
) -> Result<(), Failure> {
    let network = reference(&of.network);
    let started = of_network(&context, &of.network, NetworkStart { network }).await;
    started.map(|_| ())
}

pub(in super::super) async fn destroy(
    context: Arc<Context>,
    of: wire::NetworkDestroy,
) -> Result<(), Failure> {
    let network = reference(&of.network);
    of_network(&context, &of.network, NetworkStop { network }).await
}

pub(in super::super) async fn undefine(
    context: Arc<Context>,
    of: wire::NetworkUndefine,
) -> Result<(), Failure> {
    let network = reference(&of.network);
    of_network(&context, &of.network, NetworkUndefine { network }).await
}

pub(in super::super) async fn set_autostart(
    context: Arc<Context>,
    of: wire::NetworkSetAutostart,
) -> Result<(), Failure> {
    let set = NetworkAutostartSet {
        network: reference(&of.network),
        autostart: of.autostart,
    };
    of_network(&context, &of.network, set).await
}
