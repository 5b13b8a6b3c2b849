//! The control queue (§5.1.6.5): what the driver asks of the device while it runs, and what the device
//! remembers of it.
//!
//! A command that is not exactly as the specification has it, was not negotiated or is refused is
//! answered with an error and changes nothing. One without room for an answer breaks the queue. Receive
//! modes and MAC tables are remembered, bounded, and filter nothing: whatever the host lets through to
//! the tap is for this guest.

use std::time::Instant;

use super::features::{
    F_CTRL_GUEST_OFFLOADS, F_CTRL_MAC_ADDR, F_CTRL_RX, F_CTRL_RX_EXTRA, F_GUEST_ANNOUNCE, F_MQ,
    GUEST_OFFLOADS,
};
use super::link::Link;
use crate::memory::GuestRam;
use crate::shared::lock;
use crate::token_bucket::{BucketRate, TokenBucket};
use crate::virtio::chain::Chain;
use crate::virtio::queue::{Queue, QueueFault, QueueProgress};
use crate::virtio::{BrokenQueue, RunningQueue};

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// The most addresses remembered of a table.
pub(super) const MAX_ADDRESSES: usize = 64;
/// Receive modes: promiscuous, all-multicast, all-unicast, no-multicast, no-unicast, no-broadcast.
pub(super) const RECEIVE_MODES: u8 = 6;

/// `VIRTIO_NET_OK`.
const OK: u8 = 0;
/// `VIRTIO_NET_ERR`.
const ERR: u8 = 1;

const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
const CLASS_ANNOUNCE: u8 = 3;
const CLASS_MQ: u8 = 4;
const CLASS_GUEST_OFFLOADS: u8 = 5;

const MAC_TABLE_SET: u8 = 0;
const MAC_ADDR_SET: u8 = 1;
const ANNOUNCE_ACK: u8 = 0;
const VQ_PAIRS_SET: u8 = 0;
const GUEST_OFFLOADS_SET: u8 = 0;
/// The receive modes that `F_CTRL_RX` is enough for.
const BASIC_RX_MODES: u8 = 2;

/// Commands that change the interface on the host take the host's own locks, which other guests wait
/// for: a driver gets this many of them.
pub(super) const HOST_CHANGES: BucketRate = BucketRate {
    per_second: 8,
    capacity: 64,
};

/// Addresses a driver wants to receive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MacTable {
    /// The first of them.
    pub(super) addresses: Vec<MacAddress>,
    /// There were more than are remembered.
    pub(super) overflow: bool,
}

/// What a driver has set up by commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlState {
    /// The device's address.
    pub(super) mac: MacAddress,
    /// One bit for each of [`RECEIVE_MODES`].
    pub(super) modes: u8,
    /// Single addresses.
    pub(super) unicast: MacTable,
    /// Group addresses.
    pub(super) multicast: MacTable,
    /// Pairs of queues in use, at least 1.
    pub(super) pairs: u16,
    /// What is left to the driver; everything negotiated if it has not said.
    pub(super) offloads: Option<u64>,
    /// The driver was asked to announce itself and has not answered.
    pub(super) announce: bool,
}

impl ControlState {
    /// That of a driver which has said nothing.
    pub(super) fn initial(mac: MacAddress) -> Self {
        Self {
            mac,
            modes: 0,
            unicast: MacTable::default(),
            multicast: MacTable::default(),
            pairs: 1,
            offloads: None,
            announce: false,
        }
    }
}

/// Whether `mac` may be a device's own: not zero, and not a group's.
pub(super) fn is_unicast(mac: MacAddress) -> bool {
    let [first, ..] = mac;
    mac != MacAddress::default() && first & 1 == 0
}

/// The control queue of a running device.
#[derive(Debug)]
pub(super) struct ControlQueue {
    running: RunningQueue,
    broken: BrokenQueue,
    chain: Chain,
    changes: TokenBucket,
}

impl ControlQueue {
    pub(super) fn new(running: RunningQueue) -> Self {
        Self {
            running,
            broken: BrokenQueue::new("network"),
            chain: Chain::new(),
            changes: TokenBucket::new(HOST_CHANGES, Instant::now()),
        }
    }

    pub(super) fn running(&self) -> &RunningQueue {
        &self.running
    }

    /// Executes the commands that wait.
    pub(super) fn turn(&mut self, link: &Link) {
        if self.broken.is_broken() {
            self.running.kick.take();
            return;
        }
        let changes = &mut self.changes;
        let result = self.running.turn(&mut self.chain, |chain, queue| {
            serve(chain, queue, link, changes).map(Some)
        });
        self.broken.note(result, &*self.running.interrupts);
    }

    /// Ends it; gives the queue's number and progress.
    pub(super) fn stop(self) -> (u16, QueueProgress) {
        (self.running.index, self.running.queue.progress())
    }
}

fn serve(
    chain: &Chain,
    queue: &Queue,
    link: &Link,
    changes: &mut TokenBucket,
) -> Result<u32, QueueFault> {
    if chain.writable_bytes() == 0 {
        return Err(QueueFault::Request(
            "control command without room for its status",
        ));
    }
    let mut command = Command {
        chain,
        ram: queue.ram(),
        offset: 0,
    };
    let status = match command.execute(link, changes) {
        Some(()) => OK,
        None => ERR,
    };
    chain.write_at(queue.ram(), 0, &[status]);
    Ok(1)
}

/// A command, read from front to back, each byte once. `None` from any of its calls refuses it.
struct Command<'a> {
    chain: &'a Chain,
    ram: &'a GuestRam,
    offset: u64,
}

impl Command<'_> {
    fn left(&self) -> u64 {
        self.chain.readable_bytes().saturating_sub(self.offset)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let read = self.chain.read_at(self.ram, self.offset, &mut bytes);
        self.offset = self.offset.checked_add(N as u64)?;
        (read == N).then_some(bytes)
    }

    /// The last field of the command.
    fn last<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.take()?;
        self.end()?;
        Some(bytes)
    }

    fn end(&self) -> Option<()> {
        (self.left() == 0).then_some(())
    }

    /// A table of MAC addresses (§5.1.6.5.2).
    fn table(&mut self, group: bool) -> Option<MacTable> {
        let count = u64::from(u32::from_le_bytes(self.take()?));
        let bytes = count * size_of::<MacAddress>() as u64;
        if bytes > self.left() {
            return None;
        }
        let end = self.offset + bytes;
        let mut table = MacTable::default();
        while self.offset < end && table.addresses.len() < MAX_ADDRESSES {
            let mac: MacAddress = self.take()?;
            let [first, ..] = mac;
            if (first & 1 != 0) != group {
                return None;
            }
            table.addresses.push(mac);
        }
        table.overflow = self.offset < end;
        self.offset = end;
        Some(table)
    }

    fn execute(&mut self, link: &Link, changes: &mut TokenBucket) -> Option<()> {
        let [class, command] = self.take()?;
        match (class, command) {
            (CLASS_RX, mode) if mode < RECEIVE_MODES => {
                link.negotiated(if mode < BASIC_RX_MODES {
                    F_CTRL_RX
                } else {
                    F_CTRL_RX_EXTRA
                })?;
                let [on] = self.last()?;
                let mut control = lock(&link.control);
                match on {
                    0 => control.modes &= !(1 << mode),
                    1 => control.modes |= 1 << mode,
                    _ => return None,
                }
                Some(())
            }
            (CLASS_MAC, MAC_TABLE_SET) => {
                link.negotiated(F_CTRL_RX)?;
                let unicast = self.table(false)?;
                let multicast = self.table(true)?;
                self.end()?;
                let mut control = lock(&link.control);
                control.unicast = unicast;
                control.multicast = multicast;
                Some(())
            }
            (CLASS_MAC, MAC_ADDR_SET) => {
                link.negotiated(F_CTRL_MAC_ADDR)?;
                let mac = self.last()?;
                if !is_unicast(mac) {
                    return None;
                }
                lock(&link.control).mac = mac;
                Some(())
            }
            (CLASS_ANNOUNCE, ANNOUNCE_ACK) => {
                link.negotiated(F_GUEST_ANNOUNCE)?;
                self.end()?;
                lock(&link.control).announce = false;
                Some(())
            }
            (CLASS_MQ, VQ_PAIRS_SET) => {
                link.negotiated(F_MQ)?;
                let pairs = u16::from_le_bytes(self.last()?);
                if pairs == 0 || pairs > link.served() {
                    return None;
                }
                if pairs != link.active() {
                    charge(changes)?;
                    link.set_active(pairs);
                }
                Some(())
            }
            (CLASS_GUEST_OFFLOADS, GUEST_OFFLOADS_SET) => {
                link.negotiated(F_CTRL_GUEST_OFFLOADS)?;
                let offloads = u64::from_le_bytes(self.last()?);
                if offloads & !GUEST_OFFLOADS != 0 {
                    return None;
                }
                link.negotiated(offloads)?;
                if offloads != link.offload_bits() {
                    charge(changes)?;
                    link.set_offloads(offloads).ok()?;
                }
                lock(&link.control).offloads = Some(offloads);
                Some(())
            }
            _ => None,
        }
    }
}

/// Takes a driver's share of the host's time for one change.
pub(super) fn charge(changes: &mut TokenBucket) -> Option<()> {
    if changes.wait(Instant::now()).is_some() {
        return None;
    }
    changes.take(1);
    Some(())
}

#[cfg(test)]
#[path = "tests/control.rs"]
mod tests;
