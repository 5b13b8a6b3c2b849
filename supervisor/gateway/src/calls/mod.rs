//! What each procedure does: its arguments in, calls of the native API, its reply out. No policy: what a client
//! may not do, the supervisor refuses, and what a read-only connection may not do stands in the table of
//! procedures.
//!
//! | module | procedures |
//! |---|---|
//! | [`connect`], `host`, `cpus` | the connection itself, the host, and models of processors |
//! | `list`, `lookup` | which domains there are |
//! | `info`, `statistics`, `domstats`, `memory`, `vcpus` | how one stands, what it has and has done |
//! | `pinning`, `scheduler`, `throttle`, `bandwidth`, `block_shares`, `memory_nodes` | where it runs, and what it may use of the host |
//! | `threads`, `measures`, `security` | what there is none of, asked for of one domain |
//! | `lifecycle`, `define`, `labels` | its life, its document, what is noted about it |
//! | `devices`, [`console`] | its devices and its console |
//! | [`agent`] | what the guest's agent is asked, and channels |
//! | `inside`, `job` | its bytes, and what goes on in it |
//! | [`storage`] | pools and volumes |
//! | `network` | virtual networks, their leases and ports |
//! | `nwfilter` | network filters, and the interfaces that have one |
//! | `absent`, `empty` | objects that there are none of |
//!
//! What is asked for again is answered from what is `known` for as long as it stands. Events, streams and the rest
//! that outlives a call are the session's.

mod absent;
pub(crate) mod agent;
mod bandwidth;
mod block_shares;
pub(crate) mod connect;
pub(crate) mod console;
mod context;
mod cpus;
mod define;
mod devices;
mod domstats;
mod empty;
pub mod failure;
mod host;
mod info;
mod inside;
mod interfaces;
mod job;
mod known;
mod labels;
mod lifecycle;
mod list;
mod lookup;
mod measures;
mod memory;
mod memory_limits;
mod memory_nodes;
mod network;
mod nwfilter;
mod params;
mod pinning;
mod scheduler;
mod security;
mod state;
mod statistics;
pub(crate) mod storage;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod threads;
mod throttle;
mod vcpus;

use std::pin::Pin;
use std::sync::Arc;

pub use self::context::Context;
use self::failure::Failure;
pub(crate) use self::scheduler::tuned;
pub(crate) use self::state::{id_of, kib};
pub(crate) use self::table::begin;
use crate::wire::call::Call;
use crate::wire::frame::{self, Header, Program};
use crate::wire::procedures::{self, Procedure};
use crate::wire::xdr::{Decode, decode};

/// A call that is under way; it ends in a whole packet.
pub(crate) type Begun = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// The arguments of a call.
///
/// # Errors
/// They are not its arguments.
pub(crate) fn arguments<A: Decode>(payload: &[u8]) -> Result<A, Failure> {
    decode(payload).map_err(|error| Failure::undecodable(&error))
}

/// Whether a connection may make a call.
///
/// # Errors
/// There is no such procedure, or the connection is a read-only one and it is not for those.
pub(crate) fn permit(header: Header, read_only: bool) -> Result<(), Failure> {
    let procedure = procedure(header)?;
    if read_only && procedure.needs_write(0) {
        return Err(Failure::read_only(procedure));
    }
    Ok(())
}

/// The procedure of a call.
///
/// # Errors
/// There is none.
pub(crate) fn procedure(header: Header) -> Result<&'static Procedure, Failure> {
    let program = Program::from_number(header.program);
    let known = program.and_then(|program| procedures::find(program, header.procedure));
    let known = known.filter(|procedure| procedure.is_call());
    known.ok_or_else(|| Failure::unknown_procedure(header.procedure))
}

/// Begins a call of that type.
fn start<C, F>(
    context: &Arc<Context>,
    header: Header,
    payload: &[u8],
    handler: fn(Arc<Context>, C) -> F,
) -> Result<Begun, Failure>
where
    C: Call,
    F: Future<Output = Result<C::Reply, Failure>> + Send + 'static,
{
    let call = handler(Arc::clone(context), arguments(payload)?);
    Ok(Box::pin(async move {
        let mut packet = Vec::new();
        match frame::reply(&mut packet, header, &call.await?) {
            Ok(()) => Ok(packet),
            Err(error) => Err(Failure::unencodable(&error)),
        }
    }))
}
