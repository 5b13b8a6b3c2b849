//! A network device whose queues a switch of the host's serves: another process, by the vhost-user protocol
//! ([`crate::virtio::vhost_user`]).
//!
//! The switch moves the frames, and decides on what the guest may send and how much; here are features, the
//! configuration space and the control queue, which is this process' own. All that it is asked for is how many
//! pairs of queues are in use. The link is up as long as the device works: whoever serves it says nothing
//! of its own.

use crate::event::Event;
use crate::state::StateError;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{Queue, QueueFault, QueueProgress};
use crate::virtio::vhost_user::{OwnQueue, VhostUser};
use crate::virtio::{
    BrokenQueue, DeviceId, QueueWorker, RunningQueue, Start, StartError, VirtioDevice, queue,
    read_config_space,
};

use super::control::{MacAddress, is_unicast};
use super::features::{
    F_CSUM, F_CTRL_VQ, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, F_MAC,
    F_MQ, F_MRG_RXBUF, F_MTU, F_STATUS,
};
use super::{LEAST_MTU, MAX_PAIRS, NetError, STATUS_LINK_UP, take_pair};

/// What a switch may offer the driver of what frames are like.
const OF_FRAMES: u64 =
    F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF;
/// Bytes of the configuration space: address, status, pairs, MTU.
const CONFIG_BYTES: usize = 12;
/// `VIRTIO_NET_OK`.
const OK: u8 = 0;
/// `VIRTIO_NET_ERR`.
const ERR: u8 = 1;
/// `VIRTIO_NET_CTRL_MQ`, `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
const PAIRS_SET: [u8; 2] = [4, 0];

/// What a device is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchedConfig {
    /// Its address: not zero, and not a group's.
    pub mac: MacAddress,
    /// The MTU to tell the driver, at least 68; none if `None`.
    pub mtu: Option<u16>,
    /// Entries of each queue: a power of two, at most [`queue::MAX_SIZE`].
    pub queue_size: u16,
    /// Pairs of queues, 1 to [`MAX_PAIRS`].
    pub pairs: u16,
}

impl SwitchedConfig {
    /// Queues that the switch serves.
    #[must_use]
    pub fn served_queues(&self) -> usize {
        usize::from(self.pairs) * 2
    }
}

/// The front half.
#[derive(Debug)]
pub struct SwitchedNet {
    config: SwitchedConfig,
    features: u64,
    queue_sizes: Vec<u16>,
    back_end: VhostUser,
}

impl SwitchedNet {
    /// A device that `back_end` serves, which was told of [`SwitchedConfig::served_queues`].
    ///
    /// # Errors
    /// [`NetError::Config`]: a field that it cannot have, or more pairs of queues than one at a switch that
    /// serves one only.
    pub fn new(config: SwitchedConfig, back_end: VhostUser) -> Result<Self, NetError> {
        let several = config.pairs > 1;
        for (good, field) in [
            (is_unicast(config.mac), "address"),
            (config.mtu.is_none_or(|mtu| mtu >= LEAST_MTU), "MTU"),
            (
                config.queue_size.is_power_of_two() && config.queue_size <= queue::MAX_SIZE,
                "queue size",
            ),
            (
                (1..=MAX_PAIRS).contains(&usize::from(config.pairs))
                    && (!several || back_end.features() & F_MQ != 0),
                "number of queues",
            ),
        ] {
            if !good {
                return Err(NetError::Config(field));
            }
        }
        let own = [
            (true, F_MAC | F_STATUS),
            (config.mtu.is_some(), F_MTU),
            (several, F_CTRL_VQ | F_MQ),
        ];
        let own = own.into_iter().filter(|(has, _)| *has);
        let offered = back_end.features() & OF_FRAMES;
        Ok(Self {
            features: own.fold(offered, |features, (_, bits)| features | bits),
            queue_sizes: vec![config.queue_size; config.served_queues() + usize::from(several)],
            config,
            back_end,
        })
    }

    fn config_space(&self) -> [u8; CONFIG_BYTES] {
        let [m0, m1, m2, m3, m4, m5] = self.config.mac;
        let [s0, s1] = STATUS_LINK_UP.to_le_bytes();
        let [p0, p1] = self.config.pairs.to_le_bytes();
        let [t0, t1] = self.config.mtu.unwrap_or(0).to_le_bytes();
        [m0, m1, m2, m3, m4, m5, s0, s1, p0, p1, t0, t1]
    }
}

impl VirtioDevice for SwitchedNet {
    fn id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn ring_features(&self) -> u64 {
        self.back_end.ring_features()
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
        let several = features & (F_MQ | F_CTRL_VQ) == F_MQ | F_CTRL_VQ;
        let most = if several { self.config.pairs } else { 1 };
        let mut served = Vec::new();
        for pair in 0..most {
            // Pairs are numbered without a gap: one behind a gap can never be in use.
            match take_pair(&mut queues, pair) {
                Some((rx, tx)) => served.extend([Some(rx), Some(tx)]),
                None if pair == 0 => return Err(StartError::MissingQueue(0)),
                None => break,
            }
        }
        let pairs = u16::try_from(served.len() / 2).unwrap_or(1);
        let control = queues
            .get_mut(usize::from(most) * 2)
            .filter(|_| features & F_CTRL_VQ != 0)
            .and_then(Option::take);
        let own = Control {
            queue: control,
            idle: queues.into_iter().flatten().collect(),
            several,
            pairs,
            broken: BrokenQueue::new("network"),
            chain: Chain::new(),
        };
        let start = Start {
            // The switch is not told of what is none of its business.
            features: features & !(F_MAC | F_STATUS | F_MTU | F_CTRL_VQ),
            queues: served,
            interrupts,
        };
        self.back_end
            .start_with("network interface", start, Some(Box::new(own)))
    }

    /// Where its queues are is known to the switch alone, and is no part of any state.
    fn restore(&mut self, _version: u32, _bytes: &[u8]) -> Result<(), StateError> {
        Err(StateError::Invalid {
            field: "network interface on a switch",
        })
    }
}

/// The control queue (§5.1.6.5), if the driver uses it, and the queues that nobody serves.
#[derive(Debug)]
struct Control {
    queue: Option<RunningQueue>,
    idle: Vec<RunningQueue>,
    /// Several pairs were negotiated.
    several: bool,
    /// The pairs that may be in use.
    pairs: u16,
    broken: BrokenQueue,
    chain: Chain,
}

impl OwnQueue for Control {
    fn kick(&self) -> Option<&Event> {
        self.queue.as_ref().map(|queue| &*queue.kick)
    }

    /// One pair, until the driver says otherwise (§5.1.5).
    fn served_at_first(&self) -> u16 {
        2
    }

    fn turn(&mut self) -> Option<u16> {
        let queue = self.queue.as_mut()?;
        if self.broken.is_broken() {
            queue.kick.take();
            return None;
        }
        let most = if self.several { self.pairs } else { 0 };
        let mut wanted = None;
        let result = queue.turn(&mut self.chain, |chain, queue| {
            serve(chain, queue, most, &mut wanted).map(Some)
        });
        self.broken.note(result, &*queue.interrupts);
        wanted.map(|pairs: u16| pairs * 2)
    }

    fn stop(self: Box<Self>) -> Vec<(u16, QueueProgress)> {
        let queues = self.queue.into_iter().chain(self.idle);
        queues
            .map(|queue| (queue.index, queue.queue.progress()))
            .collect()
    }
}

/// Executes a command; `wanted` is how many pairs, at most `most`, are to be in use after it.
fn serve(
    chain: &Chain,
    queue: &Queue,
    most: u16,
    wanted: &mut Option<u16>,
) -> Result<u32, QueueFault> {
    if chain.writable_bytes() == 0 {
        return Err(QueueFault::Request(
            "control command without room for its status",
        ));
    }
    let mut command = [0; 4];
    let read = chain.read_at(queue.ram(), 0, &mut command);
    let [class, number, low, high] = command;
    let pairs = u16::from_le_bytes([low, high]);
    let good = read == 4
        && chain.readable_bytes() == 4
        && [class, number] == PAIRS_SET
        && (1..=most).contains(&pairs);
    if good {
        *wanted = Some(pairs);
    }
    chain.write_at(queue.ram(), 0, &[if good { OK } else { ERR }]);
    Ok(1)
}

#[cfg(test)]
#[path = "tests/switched.rs"]
mod tests;
