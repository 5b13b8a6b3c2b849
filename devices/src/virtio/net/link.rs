//! What the front of the device, its workers and the worker's control thread share, and the handle by
//! which the last of these reaches a device that is in its transport's hands.
//!
//! Every lock here is taken for an instant, and nothing is called with it held.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::NetConfig;
use super::control::{ControlState, MacAddress};
use super::features::{F_GUEST_ANNOUNCE, F_STATUS, GUEST_OFFLOADS, Offloads};
use super::limit::{Bandwidth, Limiter};
use super::stats::{Direction, NetCounters};
use super::tap::Port;
use crate::event::Event;
use crate::shared::lock;
use crate::virtio::Interrupts;

/// The shared half of a device.
#[derive(Debug)]
pub(super) struct Link {
    /// What the device was made with.
    pub(super) config: NetConfig,
    /// One for each pair of queues.
    pub(super) ports: Vec<Arc<dyn Port>>,
    /// What the driver has set up.
    pub(super) control: Mutex<ControlState>,
    /// Frames to the guest.
    pub(super) rx: Direction,
    /// Frames from the guest.
    pub(super) tx: Direction,
    /// Limit on frames to the guest.
    pub(super) inbound: Limiter,
    /// Limit on frames from the guest.
    pub(super) outbound: Limiter,
    /// One for each pair's worker: something here has changed.
    nudges: Vec<Event>,
    up: AtomicBool,
    /// The kernel moves frames that are not counted here.
    by_kernel: AtomicBool,
    features: AtomicU64,
    /// Pairs that have both queues and a worker.
    served: AtomicU16,
    /// Pairs in use; 0 until the first pair's worker has set up the host's side.
    active: AtomicU16,
    /// What is left to the driver at present.
    offloads: AtomicU64,
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

impl Link {
    pub(super) fn new(config: NetConfig, ports: Vec<Arc<dyn Port>>) -> io::Result<Self> {
        let nudges = ports
            .iter()
            .map(|_| Event::new())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ports,
            control: Mutex::new(ControlState::initial(config.mac)),
            rx: Direction::default(),
            tx: Direction::default(),
            inbound: Limiter::default(),
            outbound: Limiter::default(),
            nudges,
            up: AtomicBool::new(config.link_up),
            by_kernel: AtomicBool::new(false),
            features: AtomicU64::new(0),
            served: AtomicU16::new(0),
            active: AtomicU16::new(0),
            offloads: AtomicU64::new(0),
            interrupts: Mutex::new(None),
            config,
        })
    }

    /// The driver is ready; nothing is served before [`open`](Self::open).
    pub(super) fn begin(&self, features: u64, served: u16, interrupts: Arc<dyn Interrupts>) {
        self.features.store(features, Ordering::Relaxed);
        self.served.store(served, Ordering::Relaxed);
        self.active.store(0, Ordering::Release);
        *lock(&self.interrupts) = Some(interrupts);
    }

    /// Sets the host's side up as the driver has it, and lets the workers serve. Called by the first
    /// pair's worker: it waits for the host, which a vCPU must not.
    pub(super) fn open(&self) {
        let (pairs, chosen) = {
            let control = lock(&self.control);
            (control.pairs, control.offloads)
        };
        let agreed = self.features.load(Ordering::Relaxed) & GUEST_OFFLOADS;
        let offloads = chosen.map_or(agreed, |chosen| chosen & agreed);
        if let Err(error) = self.set_offloads(offloads) {
            tracing::warn!(%error, "offloads of a network device were not set");
        }
        // Those without a worker have nobody else to do it.
        for port in self.ports.iter().skip(self.served().into()) {
            attach(&**port, false);
        }
        self.set_active(pairs.clamp(1, self.served()));
    }

    /// The workers have ended.
    pub(super) fn end(&self) {
        self.features.store(0, Ordering::Relaxed);
        *lock(&self.interrupts) = None;
    }

    /// Refuses unless every feature of `bits` was negotiated.
    pub(super) fn negotiated(&self, bits: u64) -> Option<()> {
        let features = self.features.load(Ordering::Relaxed);
        (features & bits == bits).then_some(())
    }

    pub(super) fn served(&self) -> u16 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn active(&self) -> u16 {
        self.active.load(Ordering::Acquire)
    }

    /// Uses the first `pairs` pairs from now on.
    pub(super) fn set_active(&self, pairs: u16) {
        lock(&self.control).pairs = pairs;
        self.active.store(pairs, Ordering::Release);
        self.nudge();
    }

    pub(super) fn offload_bits(&self) -> u64 {
        self.offloads.load(Ordering::Relaxed)
    }

    /// What may be left to the driver.
    pub(super) fn offloads(&self) -> Offloads {
        Offloads::of_guest(self.offload_bits())
    }

    /// Leaves to the driver what `bits` says from now on.
    ///
    /// # Errors
    /// The host's; everything is as before.
    pub(super) fn set_offloads(&self, bits: u64) -> io::Result<()> {
        let before = self.offload_bits();
        // What is newly allowed must be known before it can come, and what no longer is, after.
        self.offloads.store(before | bits, Ordering::Relaxed);
        let result = self
            .ports
            .first()
            .map_or(Ok(()), |port| port.set_offloads(Offloads::of_guest(bits)));
        let now = if result.is_ok() { bits } else { before };
        self.offloads.store(now, Ordering::Relaxed);
        result
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(super) fn set_by_kernel(&self) {
        self.by_kernel.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// What the first pair's worker and others wait for; `None` for a pair there is not.
    pub(super) fn nudged(&self, pair: u16) -> Option<&Event> {
        self.nudges.get(usize::from(pair))
    }

    fn nudge(&self) {
        for event in &self.nudges {
            event.signal();
        }
    }

    fn changed(&self) {
        // Cloned, so that the lock is not held while it is called.
        let interrupts = lock(&self.interrupts).clone();
        if let Some(interrupts) = interrupts {
            interrupts.config();
        }
    }
}

/// Attaches or detaches a port; what fails is logged, and shows as a port that brings nothing.
pub(super) fn attach(port: &dyn Port, attached: bool) {
    if let Err(error) = port.set_attached(attached) {
        tracing::warn!(%error, attached, "queue of a tap interface was not switched");
    }
}

/// The control thread's side of a device. A clone is the same device.
#[derive(Debug, Clone)]
pub struct NetHandle(pub(super) Arc<Link>);

impl NetHandle {
    /// Puts the link up or down. While it is down, frames of the guest are dropped, and none are taken
    /// from the host.
    pub fn set_link(&self, up: bool) {
        if self.0.up.swap(up, Ordering::Relaxed) != up {
            self.0.nudge();
            if self.0.negotiated(F_STATUS).is_some() {
                self.0.changed();
            }
        }
    }

    /// Whether the link is up.
    #[must_use]
    pub fn link(&self) -> bool {
        self.0.is_up()
    }

    /// Limits frames to the guest from now on.
    pub fn set_inbound(&self, bandwidth: Option<Bandwidth>) {
        self.0.inbound.set(bandwidth, Instant::now());
        self.0.nudge();
    }

    /// Limits frames from the guest from now on.
    pub fn set_outbound(&self, bandwidth: Option<Bandwidth>) {
        self.0.outbound.set(bandwidth, Instant::now());
        self.0.nudge();
    }

    /// Whether the kernel moves frames, where it may: they are not among the [`counters`](Self::counters).
    #[must_use]
    pub fn by_kernel(&self) -> bool {
        self.0.by_kernel.load(Ordering::Relaxed)
    }

    /// What has passed through this process.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        NetCounters {
            rx: self.0.rx.read(),
            tx: self.0.tx.read(),
        }
    }

    /// The address at present: the driver's own if it was allowed one.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        lock(&self.0.control).mac
    }

    /// Asks the driver to announce itself on the network, as after a migration (§5.1.6.5.4). False if
    /// it has not agreed to be asked.
    pub fn announce(&self) -> bool {
        if self.0.negotiated(F_GUEST_ANNOUNCE | F_STATUS).is_none() {
            return false;
        }
        lock(&self.0.control).announce = true;
        self.0.changed();
        true
    }
}
