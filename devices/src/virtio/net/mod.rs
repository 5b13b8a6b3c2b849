//! The network device (virtio 1.3 §5.1).
//!
//! ```text
//!             vCPU threads          device threads, one for each pair of queues
//!  driver ──► Net (front) ──start──► PairWorker: rx ◄── Port (tap) ◄── host
//!                │                               tx ──►
//!                │                   the first one: control queue
//!                └────────► Link ◄───────┘ (with vhost-net the kernel moves the frames: kernel/)
//!                             ▲
//!       control thread ── NetHandle: link, limits, counters, announcement
//! ```
//!
//! Frames go between guest memory and the tap without a copy; headers are copied, checked and rebuilt
//! both ways. What source addresses a guest may use is the host's business, at the other end of the
//! tap. A port that fails or disappears costs frames and nothing else.

use std::io;
use std::sync::Arc;

mod control;
mod features;
mod header;
mod held;
mod kernel;
mod limit;
mod link;
mod rx;
mod state;
mod stats;
mod stream;
mod switched;
mod tap;
#[cfg(test)]
mod tests;
mod transport;
mod tx;
mod vectored;
mod worker;

use self::control::{ControlQueue, ControlState, is_unicast};
use self::features::{
    F_CSUM, F_CTRL_GUEST_OFFLOADS, F_CTRL_MAC_ADDR, F_CTRL_RX, F_CTRL_RX_EXTRA, F_CTRL_VQ,
    F_GUEST_ANNOUNCE, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6,
    F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, F_MAC, F_MQ, F_MRG_RXBUF, F_MTU, F_SPEED_DUPLEX,
    F_STATUS,
};
use self::kernel::{Engine, Kernel};
use self::link::Link;
use self::rx::Receiver;
use self::state::NetStateV1;
use self::tx::Transmitter;
use self::worker::{Lead, PairWorker};
use super::{
    DeviceId, QueueWorker, RunningQueue, Start, StartError, VirtioDevice, queue, read_config_space,
    take_queue,
};
use crate::shared::lock;
use crate::state::StateError;

pub use self::control::MacAddress;
pub use self::features::Offloads;
pub use self::kernel::VhostNet;
pub use self::limit::Bandwidth;
pub use self::link::NetHandle;
pub use self::stats::{DirectionCounters, NetCounters};
pub use self::stream::Stream;
pub use self::switched::{SwitchedConfig, SwitchedNet};
pub use self::tap::{Port, Tap};

/// The most pairs of queues: with the control queue they need 33 queues and as many interrupts.
pub const MAX_PAIRS: usize = 16;
/// The least MTU that may be told (§5.1.4.1).
const LEAST_MTU: u16 = 68;
/// `VIRTIO_NET_S_LINK_UP`.
const STATUS_LINK_UP: u16 = 1;
/// `VIRTIO_NET_S_ANNOUNCE`.
const STATUS_ANNOUNCE: u16 = 2;
/// Bytes of the configuration space that there are.
const CONFIG_BYTES: usize = 17;

/// What a device is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address: not zero, and not a group's.
    pub mac: MacAddress,
    /// Whether the driver may choose another.
    pub mac_may_change: bool,
    /// The MTU to tell the driver, at least 68; none if `None`.
    pub mtu: Option<u16>,
    /// Speed to tell the driver, in Mbit/s, as full duplex; none if `None`.
    pub speed: Option<u32>,
    /// Entries of each queue: a power of two, at most [`queue::MAX_SIZE`].
    pub queue_size: u16,
    /// Whether the link is up to begin with.
    pub link_up: bool,
    /// Whether UDP may be left uncut, both ways: only hosts with Linux 6.2 or later can, and a machine
    /// that has it goes on on no other.
    pub udp_segmentation: bool,
}

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A field of the configuration that the device cannot have.
    #[error("network device cannot have this {0}")]
    Config(&'static str),
    /// The host has no descriptor left.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// The front half of a network device.
#[derive(Debug)]
pub struct Net {
    link: Arc<Link>,
    features: u64,
    queue_sizes: Vec<u16>,
    /// One for each port, or none.
    kernel: Vec<Arc<Engine>>,
}

impl Net {
    /// A device with one pair of queues for each of `ports`, all of the same interface.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn new(config: NetConfig, ports: Vec<Arc<dyn Port>>) -> Result<Self, NetError> {
        for (good, field) in [
            (is_unicast(config.mac), "address"),
            (config.mtu.is_none_or(|mtu| mtu >= LEAST_MTU), "MTU"),
            (
                config.queue_size.is_power_of_two() && config.queue_size <= queue::MAX_SIZE,
                "queue size",
            ),
            ((1..=MAX_PAIRS).contains(&ports.len()), "number of queues"),
            (
                ports.len() == 1 || ports.iter().all(|port| port.stream().is_none()),
                "number of queues of a stream",
            ),
            (
                !config.udp_segmentation || ports.iter().all(|port| port.cuts_udp()),
                "segmentation of UDP on this host",
            ),
        ] {
            if !good {
                return Err(NetError::Config(field));
            }
        }
        let queues = ports.len() * 2 + 1;
        Ok(Self {
            features: offered(&config, &ports),
            queue_sizes: vec![config.queue_size; queues],
            link: Arc::new(Link::new(config, ports)?),
            kernel: Vec::new(),
        })
    }

    /// The same device, whose pairs the kernel serves between guest memory and ports that are queues of taps,
    /// each by one of `kernel`; while the link is down or there is a limit, this process does.
    ///
    /// # Errors
    /// [`NetError`]: there are more or less of them than pairs.
    pub fn with_kernel(self, kernel: Vec<VhostNet>) -> Result<Self, NetError> {
        let kernel = kernel.into_iter().map(|vhost| Box::new(vhost) as _);
        self.with_engines(kernel.collect())
    }

    fn with_engines(mut self, kernel: Vec<Box<dyn kernel::Calls>>) -> Result<Self, NetError> {
        if kernel.len() != self.link.ports.len() {
            return Err(NetError::Config("number of descriptors of vhost-net"));
        }
        let engines = kernel
            .into_iter()
            .map(|calls| Engine::new(calls).map(Arc::new));
        self.kernel = engines.collect::<io::Result<_>>()?;
        self.link.set_by_kernel();
        Ok(self)
    }

    /// The control thread's side of the device.
    #[must_use]
    pub fn handle(&self) -> NetHandle {
        NetHandle(Arc::clone(&self.link))
    }

    fn pairs(&self) -> u16 {
        // At most MAX_PAIRS.
        u16::try_from(self.link.ports.len()).unwrap_or(1)
    }

    fn config_space(&self) -> [u8; CONFIG_BYTES] {
        let config = &self.link.config;
        let (mac, announce) = {
            let control = lock(&self.link.control);
            (control.mac, control.announce)
        };
        let mut status = 0;
        if self.link.is_up() {
            status |= STATUS_LINK_UP;
        }
        if announce {
            status |= STATUS_ANNOUNCE;
        }
        let [m0, m1, m2, m3, m4, m5] = mac;
        let [s0, s1] = status.to_le_bytes();
        let [p0, p1] = self.pairs().to_le_bytes();
        let [t0, t1] = config.mtu.unwrap_or(0).to_le_bytes();
        let [v0, v1, v2, v3] = config.speed.unwrap_or(0).to_le_bytes();
        // DUPLEX_FULL.
        let duplex = u8::from(config.speed.is_some());
        [
            m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, t0, t1, v0, v1, v2, v3, duplex,
        ]
    }
}

/// Follows from the configuration alone: a saved machine must find the same on another host.
fn offered(config: &NetConfig, ports: &[Arc<dyn Port>]) -> u64 {
    let always =
        F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE;
    [
        (config.mtu.is_some(), F_MTU),
        (config.speed.is_some(), F_SPEED_DUPLEX),
        (config.mac_may_change, F_CTRL_MAC_ADDR),
        (ports.len() > 1, F_MQ),
        (
            ports.iter().all(|port| port.stream().is_none()),
            F_CSUM
                | F_GUEST_CSUM
                | F_CTRL_GUEST_OFFLOADS
                | F_GUEST_TSO4
                | F_GUEST_TSO6
                | F_HOST_TSO4
                | F_HOST_TSO6,
        ),
        (
            config.udp_segmentation,
            F_GUEST_USO4 | F_GUEST_USO6 | F_HOST_USO,
        ),
    ]
    .into_iter()
    .filter(|(has, _)| *has)
    .fold(always, |features, (_, bits)| features | bits)
}

/// The queues of pair `pair`, if the driver uses both.
fn take_pair(
    queues: &mut [Option<RunningQueue>],
    pair: u16,
) -> Option<(RunningQueue, RunningQueue)> {
    let at = usize::from(pair) * 2;
    let [rx, tx] = queues.get_mut(at..at + 2)? else {
        return None;
    };
    if rx.is_none() || tx.is_none() {
        return None;
    }
    rx.take().zip(tx.take())
}

impl VirtioDevice for Net {
    fn id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config_space(), offset, data);
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let Start {
            features,
            mut queues,
            interrupts,
        } = start;
        if self.kernel.iter().any(|engine| engine.is_stuck()) {
            return Err(StartError::Host("the kernel has its queues".to_owned()));
        }
        let has = |bits: u64| features & bits == bits;
        let most = if has(F_MQ | F_CTRL_VQ) {
            self.pairs()
        } else {
            1
        };
        let mut pairs = vec![(take_queue(&mut queues, 0)?, take_queue(&mut queues, 1)?)];
        for pair in 1..most {
            // Pairs are numbered without a gap: one behind a gap can never be in use.
            let Some(queues) = take_pair(&mut queues, pair) else {
                break;
            };
            pairs.push(queues);
        }
        let control = queues
            .get_mut(usize::from(most) * 2)
            .filter(|_| has(F_CTRL_VQ))
            .and_then(Option::take)
            .map(ControlQueue::new);
        let mut lead = Some(Lead {
            control,
            idle: queues.into_iter().flatten().collect(),
        });

        let served = u16::try_from(pairs.len()).unwrap_or(1);
        self.link.begin(features, served, interrupts);
        let offloads = Offloads::of_host(features);
        let workers = pairs.into_iter().zip(0_u16..).zip(&self.link.ports);
        Ok(workers
            .map(|(((rx, tx), pair), port)| {
                Box::new(PairWorker::new(
                    pair,
                    Arc::clone(&self.link),
                    Arc::clone(port),
                    Receiver::new(rx, pair, has(F_MRG_RXBUF)),
                    Transmitter::new(tx, pair, offloads),
                    lead.take(),
                    self.kernel
                        .get(usize::from(pair))
                        .map(|engine| Kernel::new(Arc::clone(engine), features)),
                )) as Box<dyn QueueWorker>
            })
            .collect())
    }

    fn stopped(&mut self) {
        self.link.end();
    }

    fn reset(&mut self) {
        *lock(&self.link.control) = ControlState::initial(self.link.config.mac);
    }

    fn save(&self) -> Vec<u8> {
        NetStateV1 {
            link_up: self.link.is_up(),
            control: lock(&self.link.control).clone(),
        }
        .encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        NetStateV1::SCHEMA.expect_version(version)?;
        let state = NetStateV1::decode(bytes, self.features, self.pairs())?;
        let config = &self.link.config;
        crate::state::check(
            config.mac_may_change || state.control.mac == config.mac,
            "mac",
        )?;
        self.link.set_up(state.link_up);
        *lock(&self.link.control) = state.control;
        Ok(())
    }
}
