//! The worker that gives its machine away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use reeve_ipc::codec;
use reeve_ipc::endpoint::{Endpoint, EndpointError};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::{FdSlot, FdTable};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::spec::PciSlot;
use reeve_ipc::transfer::{
    MAX_CONSOLE_CLIENTS, PIECE_BYTES, Taken, Transfer, TransferredClient, TransferredConsole,
    TransferredMachine,
};
use reeve_ipc::{BuildId, MAX_MESSAGE_FDS, PROTOCOL};
use rustix::event::PollFlags;

use super::{PATIENCE, failed, wait};
use crate::machine::Machine;

/// A machine that was given and stands here, until the other worker takes it or goes.
#[derive(Debug)]
pub struct Giving {
    link: Endpoint<Transfer, Taken>,
}

/// What came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Open,
    /// The other worker has the machine.
    Taken,
    /// The other worker does not take it.
    Stays,
}

impl Giving {
    /// What has come of it.
    pub fn outcome(&mut self) -> Outcome {
        match self.link.receive() {
            Ok(None) => Outcome::Open,
            Ok(Some((Taken::Taken, _))) => Outcome::Taken,
            Err(EndpointError::Socket(_) | EndpointError::Codec(_) | EndpointError::Stalled(_)) => {
                Outcome::Stays
            }
        }
    }
}

impl AsFd for Giving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// How the machine stood before.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Its vCPUs ran.
    pub running: bool,
    /// When they were told to stand, in nanoseconds of the monotonic clock.
    pub stood_since_ns: u64,
}

/// Sends `machine`, whose vCPUs stand, to the worker at the other end of `socket`. Its devices are stopped
/// and its console's clients left alone then, until it goes on.
///
/// # Errors
/// It cannot be saved, has what cannot be handed over, or the other worker does not take it.
pub fn give(
    machine: &Machine,
    adoption: Option<BorrowedFd<'_>>,
    socket: OwnedFd,
    before: Before,
) -> Result<Giving, WireError> {
    rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
    let (mut spec, parts) = machine.parts().ok_or_else(|| {
        let why = "its memory is a private copy of another's, which no other worker can map";
        WireError::new(ErrorCode::Unsupported, why)
    })?;
    let records = machine.save()?;
    let clients = machine.io().give_clients();
    let (written, held) = machine.console().held();

    let mut descriptors = parts;
    descriptors.extend(adoption);
    spec.console = None;
    if adoption.is_none() {
        spec.adoption = None;
    }
    let mut number = 0..;
    let mut next = || FdSlot(number.next().unwrap_or(u16::MAX));
    // The kernel's device is the taker's own; there is no console among them.
    let slots = spec.slots_mut().into_iter().zip(&descriptors);
    for (slot, _) in slots {
        *slot = next();
    }
    for kept in machine.devices().kept() {
        let (device, files) = kept.parts();
        let mut device = device.clone();
        device
            .slots_mut()
            .into_iter()
            .for_each(|slot| *slot = next());
        spec.devices.push(device);
        descriptors.extend(files);
    }
    let leaving = machine.devices().leaving();
    let leaving = leaving.iter().map(|slot| PciSlot::try_from(slot.number()));
    let newest = clients.len().saturating_sub(MAX_CONSOLE_CLIENTS);
    let clients = clients.get(newest..).unwrap_or_default();
    let transferred = clients.iter().map(|client| TransferredClient {
        stream: next(),
        input: client.input,
        position: client.position,
    });
    let console = TransferredConsole {
        written,
        held: u32::try_from(held.len()).unwrap_or(u32::MAX),
        clients: transferred.collect(),
    };
    descriptors.extend(clients.iter().map(|client| client.stream.as_fd()));
    let count = u16::try_from(descriptors.len()).unwrap_or(u16::MAX);
    if usize::from(count) > FdTable::MAX {
        let why = format!("it has {count} descriptors, more than can be handed over");
        return Err(WireError::new(ErrorCode::Unsupported, why));
    }
    let first = Transfer::Machine(TransferredMachine {
        protocol: PROTOCOL,
        build: BuildId::this(),
        spec,
        running: before.running,
        stood_since_ns: before.stood_since_ns,
        leaving: leaving.flatten().collect(),
        descriptors: count,
        console,
        records_bytes: records.len() as u64,
    });

    let to = Sender {
        socket: socket.as_fd(),
        deadline: Instant::now() + PATIENCE,
    };
    to.send(&first, &[])?;
    for batch in descriptors.chunks(MAX_MESSAGE_FDS) {
        let count = u16::try_from(batch.len()).unwrap_or(u16::MAX);
        to.send(&Transfer::Descriptors { count }, batch)?;
    }
    for piece in held.chunks(PIECE_BYTES) {
        to.send(&Transfer::Console(piece.to_vec()), &[])?;
    }
    for piece in records.chunks(PIECE_BYTES) {
        to.send(&Transfer::Records(piece.to_vec()), &[])?;
    }
    Ok(Giving {
        link: Endpoint::new(socket),
    })
}

struct Sender<'a> {
    socket: BorrowedFd<'a>,
    deadline: Instant,
}

impl Sender<'_> {
    fn send(&self, message: &Transfer, descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let bytes = codec::encode(message).map_err(failed)?;
        loop {
            match scm::send(self.socket, &bytes, descriptors) {
                Ok(()) => return Ok(()),
                Err(ScmError::WouldBlock) => wait(self.socket, PollFlags::OUT, self.deadline)?,
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
