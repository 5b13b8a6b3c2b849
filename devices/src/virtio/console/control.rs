//! What the control thread does with a console: ports come and go, clients are connected, consoles
//! change their size.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::PortParams;
use super::end::Peer;
use super::input::PortInput;
use super::message::MAX_NAME_BYTES;
use super::ports::{End, Ports};
use crate::console::ConsoleSink;
use crate::event::Event;
use crate::shared::{Shared, Wake, lock};

/// The host's end of a port.
///
/// Descriptors are made non-blocking, and are closed with the port, or when nobody holds their
/// other end (but for listeners and ptys).
#[derive(Debug)]
pub enum PortEnd {
    /// Nobody. What a channel says is dropped, what a console says is kept as far as its ring goes.
    Nothing,
    /// A sink for what the guest says, and what others offer for it to read.
    Ring {
        /// Takes what the guest says.
        sink: Arc<dyn ConsoleSink>,
        /// From [`ConsoleControl::input`].
        input: Arc<PortInput>,
    },
    /// A connected stream socket.
    Stream(OwnedFd),
    /// A listening stream socket, of which one client at a time is served.
    Listener(OwnedFd),
    /// The master of a pty.
    Pty(OwnedFd),
}

/// A port that comes.
#[derive(Debug)]
pub struct PortSpec {
    /// Its number. Number 0 is the one that drivers know which know of one port only: a console's.
    pub id: u32,
    /// The name by which a guest finds it, at most 255 bytes of UTF-8 without control characters;
    /// may be empty.
    pub name: String,
    /// It is a terminal: the guest is never held up by it, whoever looks.
    pub console: bool,
    /// The host's end.
    pub end: PortEnd,
}

/// A port whose end is ready for use, and which no console has yet. What is dropped is closed.
#[derive(Debug)]
pub struct PreparedPort(PortParams);

impl PreparedPort {
    /// Makes the end ready. This is what may be done on a thread that others wait for: no console is changed.
    ///
    /// # Errors
    /// [`PortError::Name`], [`PortError::Descriptor`]; the descriptor is closed then.
    pub fn new(spec: PortSpec) -> Result<Self, PortError> {
        if spec.name.len() > MAX_NAME_BYTES || spec.name.chars().any(char::is_control) {
            return Err(PortError::Name);
        }
        Ok(Self(PortParams {
            id: spec.id,
            name: spec.name,
            console: spec.console,
            end: to_end(spec.end)?,
        }))
    }
}

/// Why a port could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A number that is in use, or higher than the device has ports.
    #[error("port {0} cannot be had")]
    Id(u32),
    /// No such port.
    #[error("there is no port {0}")]
    Missing(u32),
    /// A name that is too long, or has control characters.
    #[error("not a name for a port")]
    Name,
    /// A descriptor that cannot be made non-blocking.
    #[error("a port's descriptor cannot be used: {0}")]
    Descriptor(Errno),
}

/// How a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// Its number.
    pub id: u32,
    /// Somebody in the guest has it open.
    pub guest_open: bool,
    /// Somebody on the host has; always so for a console.
    pub host_open: bool,
    /// A client is connected, or whatever else is at the host's end.
    pub connected: bool,
}

/// A console as the control thread holds it; any thread may.
#[derive(Debug, Clone)]
pub struct ConsoleControl {
    pub(super) ports: Shared<Ports>,
    /// Tells the worker that something of the above has changed, or that there is input.
    pub(super) changed: Arc<Event>,
    /// Tells the control thread that a port was opened or closed.
    pub(super) opened: Arc<dyn Wake>,
}

impl ConsoleControl {
    /// Makes a port. A driver that is there is told.
    ///
    /// # Errors
    /// [`PortError`]; the descriptor is closed then.
    pub fn attach(&self, spec: PortSpec) -> Result<(), PortError> {
        self.add(PreparedPort::new(spec)?)
    }

    /// Makes a port of what is ready for it. A driver that is there is told.
    ///
    /// # Errors
    /// [`PortError::Id`]; the descriptor is closed then.
    pub fn add(&self, port: PreparedPort) -> Result<(), PortError> {
        let id = port.0.id;
        self.change(|ports| ports.add(port.0).then_some(()).ok_or(PortError::Id(id)))
    }

    /// Takes a port away, and closes its end. A driver that is there is told.
    ///
    /// # Errors
    /// [`PortError::Missing`].
    pub fn detach(&self, id: u32) -> Result<(), PortError> {
        self.change(|ports| found(id, ports.remove(id)))
    }

    /// Gives a port another end; the old one is closed.
    ///
    /// # Errors
    /// [`PortError::Missing`], [`PortError::Descriptor`]; the descriptor is closed then.
    pub fn connect(&self, id: u32, end: PortEnd) -> Result<(), PortError> {
        let end = to_end(end)?;
        self.change(|ports| found(id, ports.connect(id, end)))
    }

    /// Input for a port with [`PortEnd::Ring`]; `room` is woken once for a refusal, when there is
    /// room again.
    #[must_use]
    pub fn input(&self, room: Arc<dyn Wake>) -> Arc<PortInput> {
        Arc::new(PortInput::new(self.changed.clone(), room))
    }

    /// The consoles are now `columns` by `rows` characters.
    pub fn resize(&self, columns: u16, rows: u16) {
        let interrupts = {
            let mut ports = lock(&self.ports);
            ports.resize(columns, rows);
            // A driver of several ports is told of each.
            let alone = !ports.multiport;
            ports.interrupts.clone().filter(|_| alone)
        };
        self.changed.signal();
        if let Some(interrupts) = interrupts {
            interrupts.config();
        }
    }

    /// How the ports are, by rising number. Whoever made the device is woken when it changes.
    #[must_use]
    pub fn ports(&self) -> Vec<PortStatus> {
        let ports = lock(&self.ports);
        let status = ports.iter().map(|(id, port)| PortStatus {
            id,
            guest_open: port.guest_open,
            host_open: port.is_host_open(),
            connected: port.is_connected(),
        });
        status.collect()
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Ports) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        change(&mut lock(&self.ports))?;
        self.changed.signal();
        self.opened.wake();
        Ok(())
    }
}

fn found(id: u32, found: bool) -> Result<(), PortError> {
    found.then_some(()).ok_or(PortError::Missing(id))
}

fn to_end(end: PortEnd) -> Result<End, PortError> {
    let ready = |fd: OwnedFd| {
        rustix::io::ioctl_fionbio(&fd, true).map_err(PortError::Descriptor)?;
        Ok(fd)
    };
    Ok(match end {
        PortEnd::Nothing => End::Nothing,
        PortEnd::Ring { sink, input } => End::Ring { sink, input },
        PortEnd::Stream(fd) => End::Peer(Peer::stream(ready(fd)?)),
        PortEnd::Listener(fd) => End::Peer(Peer::listener(ready(fd)?)),
        PortEnd::Pty(fd) => End::Peer(Peer::pty(ready(fd)?)),
    })
}
