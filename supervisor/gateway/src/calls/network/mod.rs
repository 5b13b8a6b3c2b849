//! Virtual networks.
//!
//! A network is found by the UUID of its handle, a port by its own among those of its network. What is wrong is said
//! by libvirt's network driver, not by its hypervisor.

pub(super) mod changes;
pub(super) mod leases;
pub(super) mod life;
pub(super) mod neighbours;
pub(super) mod networks;
pub(super) mod ports;

use reeve_ipc::api::call::{Call, NetworkGet, NetworkRef, Operation};
use reeve_ipc::api::network::{NetworkDetails, NetworkSummary};
use reeve_ipc::model::NetworkUuid;
use uuid::Uuid;

use super::Context;
use super::failure::{Code, Failure, Origin, said_by};
use crate::wire::types::handles;

/// Calls the supervisor. A network that something else is done to is waited for.
///
/// # Errors
/// Its own, as libvirt's network driver says them.
async fn call<C: Call + Clone>(context: &Context, call: C) -> Result<C::Answer, Failure> {
    context.call(call).await.map_err(as_network)
}

fn as_network(failure: Failure) -> Failure {
    said_by(Origin::Network, failure)
}

/// Refuses flags that `function` does not know.
///
/// # Errors
/// [`Failure::unknown_flags`].
fn check_flags(flags: u32, known: u32, function: &str) -> Result<(), Failure> {
    super::failure::check_flags(flags, known, function).map_err(as_network)
}

fn invalid(why: impl Into<String>) -> Failure {
    Failure::of(Origin::Network, Code::OperationInvalid, why)
}

/// As [`call`], about the network of a handle: that there is none, and that it is in the wrong state, is said as
/// libvirt says it.
async fn of_network<C: Call + Clone>(
    context: &Context,
    network: &handles::Network,
    call: C,
) -> Result<C::Answer, Failure> {
    let failure = match self::call(context, call).await {
        Ok(answer) => return Ok(answer),
        Err(failure) => failure,
    };
    Err(match failure.code {
        Code::NoNetwork => absent(network),
        Code::OperationInvalid => match details(context, network).await {
            Ok(found) => wrong_state(C::OPERATION, &found.summary).map_or(failure, invalid),
            Err(_) => failure,
        },
        _ => failure,
    })
}

/// What libvirt says of an operation that a network is in the wrong state for, if its state shows why.
fn wrong_state(operation: Operation, summary: &NetworkSummary) -> Option<String> {
    let NetworkSummary {
        name,
        active,
        persistent,
        ..
    } = summary;
    match operation {
        Operation::NetworkStart if *active => Some("network is already active".to_owned()),
        Operation::NetworkStop if !active => Some(format!("network '{name}' is not active")),
        Operation::NetworkUndefine if !persistent => {
            Some("can't undefine transient network".to_owned())
        }
        Operation::NetworkAutostartSet if !persistent => {
            Some("cannot set autostart for transient network".to_owned())
        }
        _ => None,
    }
}

/// The network of a handle.
async fn details(context: &Context, network: &handles::Network) -> Result<NetworkDetails, Failure> {
    let get = NetworkGet {
        network: reference(network),
    };
    self::call(context, get)
        .await
        .map_err(|failure| match failure.code {
            Code::NoNetwork => absent(network),
            _ => failure,
        })
}

fn absent(network: &handles::Network) -> Failure {
    let (uuid, name) = (Uuid::from_bytes(network.uuid), &network.name);
    let why = format!("no network with matching uuid '{uuid}' ({name})");
    Failure::not_found(Code::NoNetwork, why)
}

/// The network of a handle: its UUID names it, whatever else the handle says.
const fn reference(network: &handles::Network) -> NetworkRef {
    NetworkRef::Uuid(NetworkUuid(Uuid::from_bytes(network.uuid)))
}

/// The handle of a network.
fn handle(network: &NetworkSummary) -> handles::Network {
    handles::Network {
        name: network.name.as_str().to_owned(),
        uuid: *network.uuid.0.as_bytes(),
    }
}
