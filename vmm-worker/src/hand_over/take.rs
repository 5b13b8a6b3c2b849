//! The worker that takes a machine over.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use reeve_devices::console::ConsoleRing;
use reeve_devices::pci::Slot;
use reeve_ipc::accepts;
use reeve_ipc::codec;
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::spec::{ControlLoss, EndPolicy, SpecDigest};
use reeve_ipc::transfer::{Taken, Transfer, TransferredMachine};
use rustix::event::PollFlags;

use super::{PATIENCE, failed, wait};
use crate::adoption::Adoption;
use crate::build::{self, Lineage};
use crate::machine::Machine;
use crate::state::Origin;
use crate::state::container::MAX_BYTES;
use crate::state::time::monotonic;

/// A machine that was received and stands here, with what makes it this worker's own.
#[derive(Debug)]
pub struct Taking {
    link: OwnedFd,
    /// Its vCPUs are to run.
    pub running: bool,
    stood_since_ns: u64,
    /// What the guest's end means.
    pub policy: EndPolicy,
    /// What the loss of the supervisor means, once the machine is this worker's.
    pub on_control_loss: ControlLoss,
    /// What binds the worker to the record of it.
    pub digest: SpecDigest,
    /// Where a supervisor may come back, then.
    pub adoption: Option<Adoption>,
    clients: Vec<(OwnedFd, bool, u64)>,
}

impl Taking {
    /// Tells the other worker that the machine is this one's: it ends, or has ended and this fails.
    ///
    /// # Errors
    /// The other worker is gone; what it had not sent by then nobody knows.
    pub fn declare(&self) -> Result<(), WireError> {
        let bytes = codec::encode(&Taken::Taken).map_err(failed)?;
        scm::send(self.link.as_fd(), &bytes, &[]).map_err(failed)
    }

    /// Lets the machine, which is this worker's now, go on; gives for how many nanoseconds it stood.
    ///
    /// # Errors
    /// A device does not.
    pub fn go_on(self, machine: &mut Machine) -> Result<u64, WireError> {
        machine.go_on(self.running)?;
        let stood = monotonic().saturating_sub(self.stood_since_ns);
        for (stream, input, position) in self.clients {
            machine.attach_console(stream, input, Some(position))?;
        }
        Ok(stood)
    }
}

/// Receives a machine from the worker at the other end of `socket` and builds it.
///
/// # Errors
/// What was sent makes no machine, or did not come in time; nothing of it is left.
pub fn take(socket: OwnedFd, kvm: OwnedFd) -> Result<(Machine, Taking), WireError> {
    rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
    let received = Receiver {
        deadline: Instant::now() + PATIENCE,
        socket: &socket,
    }
    .receive()?;
    let Received {
        machine: facts,
        mut table,
        console,
        records,
    } = received;
    let refuse = |error| WireError::new(ErrorCode::Descriptor, format!("{error}"));
    let mut spec = facts.spec;
    spec.kvm = table.push(kvm).map_err(refuse)?;
    spec.console = None;
    let adoption = match spec.adoption {
        None => None,
        Some(slot) => {
            let listener = table.take(slot).map_err(refuse)?;
            Some(Adoption::new(listener).map_err(failed)?)
        }
    };
    let clients = facts.console.clients.iter().map(|client| {
        let stream = table.take(client.stream).map_err(refuse)?;
        Ok((stream, client.input, client.position))
    });
    let clients = clients.collect::<Result<Vec<_>, WireError>>()?;
    let (policy, on_control_loss, digest) = (spec.policy, spec.on_control_loss, spec.digest);

    let mut machine = build::restore(spec, &records, Origin::ThisBoot, Lineage::Same, &mut table)?;
    machine
        .console()
        .go_on_from(facts.console.written, &console);
    for slot in facts.leaving {
        let slot = Slot::new(slot.number());
        let devices = &mut machine.plugging().devices;
        if let Some(Err(error)) = slot.map(|slot| devices.mark_leaving(slot)) {
            machine.close();
            return Err(error.into());
        }
    }
    let taking = Taking {
        link: socket,
        running: facts.running,
        stood_since_ns: facts.stood_since_ns,
        policy,
        on_control_loss,
        digest,
        adoption,
        clients,
    };
    Ok((machine, taking))
}

struct Received {
    machine: TransferredMachine,
    table: FdTable,
    console: Vec<u8>,
    records: Vec<u8>,
}

struct Receiver<'a> {
    socket: &'a OwnedFd,
    deadline: Instant,
}

impl Receiver<'_> {
    fn receive(&self) -> Result<Received, WireError> {
        let (first, _) = self.next()?;
        let Transfer::Machine(machine) = first else {
            return Err(nonsense("a machine comes first"));
        };
        if !accepts(machine.protocol) {
            let why = format!("the other worker is of build {}", machine.build.as_str());
            return Err(WireError::new(ErrorCode::Unsupported, why));
        }
        let descriptors = usize::from(machine.descriptors);
        let held = usize::try_from(machine.console.held).unwrap_or(usize::MAX);
        let length = usize::try_from(machine.records_bytes).unwrap_or(usize::MAX);
        let most_held = ConsoleRing::DEFAULT_CAPACITY;
        if descriptors > FdTable::MAX || held > most_held || length > MAX_BYTES {
            return Err(nonsense("more is to follow than a machine has"));
        }
        let (mut table, mut console, mut records) = (FdTable::new(), Vec::new(), Vec::new());
        while table.remaining() < descriptors || console.len() < held || records.len() < length {
            let before = (table.remaining(), console.len(), records.len());
            match self.next()? {
                (Transfer::Descriptors { count }, fds) if usize::from(count) == fds.len() => {
                    for fd in fds {
                        table.push(fd).map_err(failed)?;
                    }
                }
                (Transfer::Console(piece), _) => console.extend_from_slice(&piece),
                (Transfer::Records(piece), _) => records.extend_from_slice(&piece),
                _ => return Err(nonsense("descriptors are missing")),
            }
            let now = (table.remaining(), console.len(), records.len());
            if now == before || now.0 > descriptors || now.1 > held || now.2 > length {
                return Err(nonsense("something else follows than was announced"));
            }
        }
        Ok(Received {
            machine,
            table,
            console,
            records,
        })
    }

    fn next(&self) -> Result<(Transfer, Vec<OwnedFd>), WireError> {
        loop {
            match scm::receive_message(self.socket.as_fd()) {
                Ok((bytes, fds)) => {
                    let message = codec::decode(&bytes).map_err(failed)?;
                    return Ok((message, fds));
                }
                Err(ScmError::WouldBlock) => {
                    wait(self.socket.as_fd(), PollFlags::IN, self.deadline)?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn nonsense(rule: &str) -> WireError {
    let why = format!("the other worker sent what makes no machine: {rule}");
    WireError::new(ErrorCode::InvalidArgument, why)
}
