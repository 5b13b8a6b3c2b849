//! The ports: what the host has made of each, what the driver said of it, and what it must be told.
//!
//! What a driver has to be told is never queued. It follows from what it was told and what is so
//! now, so that it is bounded, and changes that cancel each other before the driver had a buffer
//! cost nothing. But for a channel that was closed: it is always told closed before it is told open
//! again, as the guest must not take the next client for the last.

use std::sync::Arc;

use super::PortParams;
use super::end::Peer;
use super::input::PortInput;
use super::message::{FromDriver, ToDriver};
use super::state::PortStateV1;
use crate::console::{ConsoleReader, ConsoleRing, ConsoleSink};
use crate::error::GuestFault;
use crate::shared::NoWake;
use crate::virtio::{FAULTS, Interrupts};

/// Where a port's bytes go.
#[derive(Debug)]
pub(super) enum End {
    /// Nowhere.
    Nothing,
    /// To and from another thread.
    Ring {
        sink: Arc<dyn ConsoleSink>,
        input: Arc<PortInput>,
    },
    /// To and from a descriptor.
    Peer(Peer),
}

/// The part of the guest's output that a console's descriptor has not taken.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) ring: Arc<ConsoleRing>,
    pub(super) reader: ConsoleReader,
}

/// What the driver is still to be told of a port it has made ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Untold {
    pub(super) console: bool,
    pub(super) size: bool,
    pub(super) name: bool,
    /// That it was closed, though it may be open again.
    pub(super) closed: bool,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    name: String,
    pub(super) console: bool,
    pub(super) end: End,
    pub(super) backlog: Option<Backlog>,
    /// Somebody on the host takes what it says.
    host_open: bool,
    /// The driver has made it ready.
    ready: bool,
    /// Somebody in the guest has it open.
    pub(super) guest_open: bool,
    /// What the driver was told last.
    told_open: bool,
    untold: Untold,
    /// Bytes of the chain at the head of the transmit queue that have gone out already.
    pub(super) sent: u64,
}

impl Port {
    fn new(params: PortParams) -> Self {
        let backlog = match (&params.end, params.console) {
            (End::Peer(_) | End::Nothing, true) => {
                let ring = Arc::new(ConsoleRing::new(
                    ConsoleRing::DEFAULT_CAPACITY,
                    Arc::new(NoWake),
                ));
                let reader = ring.reader();
                Some(Backlog { ring, reader })
            }
            _ => None,
        };
        let mut port = Self {
            name: params.name,
            console: params.console,
            end: params.end,
            backlog,
            host_open: false,
            ready: false,
            // A console's driver reads from the start.
            guest_open: params.console,
            told_open: false,
            untold: Untold::default(),
            sent: 0,
        };
        port.update_host();
        port
    }

    /// Looks whether somebody is there on the host; true if that has changed.
    pub(super) fn update_host(&mut self) -> bool {
        // A console is open whether or not somebody looks.
        let open = self.console || self.is_connected();
        let changed = open != self.host_open;
        self.host_open = open;
        if changed && !open {
            self.untold.closed = self.told_open;
            self.sent = 0;
        }
        changed
    }

    /// Whether what the guest says is kept for somebody.
    pub(super) fn is_host_open(&self) -> bool {
        self.host_open
    }

    /// Whether its queues are the port's own: a driver of several ports may still have in them what it meant for
    /// one that was there before, until it has made this one ready.
    pub(super) fn has_queues(&self, multiport: bool) -> bool {
        self.ready || !multiport
    }

    /// Whether a client is there, or whatever else takes the client's place.
    pub(super) fn is_connected(&self) -> bool {
        match &self.end {
            End::Nothing => false,
            End::Ring { .. } => true,
            End::Peer(peer) => peer.is_connected(),
        }
    }

    fn reset(&mut self) {
        self.ready = false;
        self.guest_open = self.console;
        self.told_open = false;
        self.untold = Untold::default();
        self.sent = 0;
    }

    fn made_ready(&mut self) {
        self.ready = true;
        self.told_open = false;
        self.untold = Untold {
            console: self.console,
            size: self.console,
            name: !self.name.is_empty(),
            closed: false,
        };
    }

    fn untold(&self, size: (u16, u16)) -> Option<ToDriver<'_>> {
        if !self.ready {
            return None;
        }
        let (columns, rows) = size;
        Some(if self.untold.console {
            ToDriver::Console
        } else if self.untold.size {
            ToDriver::Resize { columns, rows }
        } else if self.untold.name {
            ToDriver::Name(&self.name)
        } else if self.untold.closed {
            ToDriver::Open(false)
        } else if self.told_open != self.host_open {
            ToDriver::Open(self.host_open)
        } else {
            return None;
        })
    }

    fn told(&mut self) {
        let untold = &mut self.untold;
        if untold.console {
            untold.console = false;
        } else if untold.size {
            untold.size = false;
        } else if untold.name {
            untold.name = false;
        } else if untold.closed {
            untold.closed = false;
            self.told_open = false;
        } else {
            self.told_open = self.host_open;
        }
    }
}

/// A number that a port may have.
#[derive(Debug, Default)]
struct Slot {
    port: Option<Port>,
    /// The driver was told of a port here.
    known: bool,
    /// That one is gone, and the driver is to be told.
    stale: bool,
}

/// All of them, and what they share.
#[derive(Debug)]
pub(super) struct Ports {
    slots: Vec<Slot>,
    /// Characters in a line, and lines.
    pub(super) size: (u16, u16),
    /// The driver can use several ports.
    driver_ready: bool,
    /// A worker runs, and has its turns.
    pub(super) running: bool,
    /// Of the driver that runs.
    pub(super) multiport: bool,
    pub(super) interrupts: Option<Arc<dyn Interrupts>>,
    /// Peers that were replaced while the worker may wait for them; it closes them.
    pub(super) retired: Vec<Peer>,
}

impl Ports {
    pub(super) fn new(count: u32, size: (u16, u16)) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            size,
            driver_ready: false,
            running: false,
            multiport: false,
            interrupts: None,
            retired: Vec::new(),
        }
    }

    /// One more than the highest number of a port.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(id).ok()?)
    }

    pub(super) fn port(&mut self, id: u32) -> Option<&mut Port> {
        self.slot(id)?.port.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Port)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(id, slot)| Some((id, slot.port.as_ref()?)))
    }

    /// Puts a port in a free place; false if there is one, or no such place.
    pub(super) fn add(&mut self, params: PortParams) -> bool {
        match self.slot(params.id) {
            Some(slot) if slot.port.is_none() => {
                slot.port = Some(Port::new(params));
                true
            }
            _ => false,
        }
    }

    /// Takes a port away; false if there is none.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let Some(port) = slot.port.take() else {
            return false;
        };
        slot.stale |= slot.known;
        slot.known = false;
        self.retire(port.end);
        true
    }

    /// Gives a port another end; false if there is no such port.
    pub(super) fn connect(&mut self, id: u32, end: End) -> bool {
        let Some(port) = self.port(id) else {
            return false;
        };
        let old = std::mem::replace(&mut port.end, End::Nothing);
        // Whoever was there is gone, also if somebody is there again.
        port.update_host();
        port.end = end;
        port.update_host();
        self.retire(old);
        true
    }

    fn retire(&mut self, end: End) {
        let End::Peer(peer) = end else {
            return;
        };
        // At once, whenever the worker gets to close it.
        peer.shut_down();
        if self.running {
            self.retired.push(peer);
        }
    }

    /// The consoles' size has changed.
    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        self.size = (columns, rows);
        for slot in &mut self.slots {
            if let Some(port) = slot.port.as_mut() {
                port.untold.size = port.console;
            }
        }
    }

    /// The driver was reset; true if that has closed a port.
    pub(super) fn reset(&mut self) -> bool {
        self.driver_ready = false;
        let mut closed = false;
        for slot in &mut self.slots {
            slot.known = false;
            slot.stale = false;
            if let Some(port) = &mut slot.port {
                closed |= port.guest_open && !port.console;
                port.reset();
            }
        }
        closed
    }

    /// Takes what the driver said; true if somebody in the guest opened or closed a port.
    pub(super) fn hear(&mut self, id: u32, message: FromDriver) -> bool {
        match message {
            FromDriver::DeviceReady(true) => {
                let closed = self.reset();
                self.driver_ready = true;
                closed
            }
            FromDriver::DeviceReady(false) => {
                FAULTS.report(GuestFault::PortsRefused);
                false
            }
            FromDriver::PortReady(ready) => {
                self.hear_after_reset(id, ready);
                match self.slot(id) {
                    Some(Slot {
                        port: Some(port),
                        known: true,
                        ..
                    }) if ready => port.made_ready(),
                    Some(Slot { known: true, .. }) => {
                        FAULTS.report(GuestFault::PortRefused { id });
                    }
                    _ => {}
                }
                false
            }
            // What it says before it has made a port ready is of one that was there before.
            FromDriver::PortOpen(open) => {
                self.port(id).filter(|port| port.ready).is_some_and(|port| {
                    // A console's input is not held back: its driver need not say so.
                    let open = open || port.console;
                    let changed = port.guest_open != open;
                    port.guest_open = open;
                    changed
                })
            }
        }
    }

    /// Linux that was suspended resets the device, and goes on with the ports that it knew by making them ready,
    /// without a word of itself: whoever does so is ready, and knows of the port.
    fn hear_after_reset(&mut self, id: u32, ready: bool) {
        if self.driver_ready || !ready {
            return;
        }
        if let Some(slot) = self.slot(id).filter(|slot| slot.port.is_some()) {
            slot.known = true;
            self.driver_ready = true;
        }
    }

    /// The next thing the driver is to be told, and of which port.
    pub(super) fn untold(&self) -> Option<(u32, ToDriver<'_>)> {
        if !self.driver_ready {
            return None;
        }
        (0..).zip(&self.slots).find_map(|(id, slot)| {
            let message = match &slot.port {
                _ if slot.stale => Some(ToDriver::Remove),
                Some(_) if !slot.known => Some(ToDriver::Add),
                Some(port) => port.untold(self.size),
                None => None,
            };
            Some((id, message?))
        })
    }

    /// The driver was told it.
    pub(super) fn told(&mut self, id: u32) {
        let Some(slot) = self.slot(id) else {
            return;
        };
        if slot.stale {
            slot.stale = false;
        } else if !slot.known {
            slot.known = true;
        } else if let Some(port) = &mut slot.port {
            port.told();
        }
    }

    pub(super) fn driver_ready(&self) -> bool {
        self.driver_ready
    }

    /// What is saved of each number that is in use or that the driver knows of.
    pub(super) fn save(&self) -> Vec<PortStateV1> {
        let slots = (0..).zip(&self.slots);
        let used = slots.filter(|(_, slot)| slot.port.is_some() || slot.stale);
        used.map(|(id, slot)| {
            let mut state = PortStateV1 {
                id,
                known: slot.known,
                stale: slot.stale,
                ..PortStateV1::default()
            };
            if let Some(port) = &slot.port {
                state.present = true;
                state.ready = port.ready;
                state.guest_open = port.guest_open;
                state.told_open = port.told_open;
                state.untold_console = port.untold.console;
                state.untold_size = port.untold.size;
                state.untold_name = port.untold.name;
                state.sent = port.sent;
            }
            state
        })
        .collect()
    }

    /// Whether [`restore`](Self::restore) can take these: of ports there are, or that are gone.
    pub(super) fn can_restore(&self, states: &[PortStateV1]) -> bool {
        states.iter().all(|state| {
            let slot = usize::try_from(state.id).ok();
            slot.and_then(|id| self.slots.get(id))
                .is_some_and(|slot| slot.port.is_some() || !state.present)
        })
    }

    /// Takes saved state. Ports of which it says nothing are new to the driver. The clients of the
    /// saved machine are not those of this one: what was told open is told closed first.
    pub(super) fn restore(&mut self, driver_ready: bool, states: &[PortStateV1]) {
        self.reset();
        self.driver_ready = driver_ready;
        for state in states {
            let Some(slot) = self.slot(state.id) else {
                continue;
            };
            slot.known = state.known;
            slot.stale = state.stale;
            let Some(port) = slot.port.as_mut().filter(|_| state.present) else {
                continue;
            };
            port.ready = state.ready;
            port.guest_open = state.guest_open || port.console;
            port.told_open = state.told_open;
            port.sent = state.sent;
            port.untold = Untold {
                console: state.untold_console && port.console,
                size: state.untold_size && port.console,
                name: state.untold_name,
                closed: state.told_open && !port.console,
            };
        }
    }
}
