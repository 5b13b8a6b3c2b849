//! A device between a driver and a host, both played by a test.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::super::*;
use crate::memory::GuestRam;
use crate::memory::testing::ram;
use crate::reactor::Reactor;
use crate::virtio::Progress;
use crate::virtio::queue::QueueProgress;
use crate::virtio::testing::{Driver, RecordInterrupts};

pub(in crate::virtio::net) const QUEUE_SIZE: u16 = 256;
/// Where a test puts its buffers.
pub(in crate::virtio::net) const BUFFERS: u64 = 0x10_0000;
const RAM_BYTES: usize = 0x80_0000;
const RINGS: u64 = 0x2000;
const _: () = assert!(Driver::bytes(QUEUE_SIZE) <= RINGS);

pub(in crate::virtio::net) const MAC: MacAddress = [0x52, 0x54, 0, 1, 2, 3];

/// One end of a socket pair, in place of a tap.
#[derive(Debug)]
pub(in crate::virtio::net) struct FakePort {
    fd: OwnedFd,
    pub(in crate::virtio::net) offloads: Mutex<Vec<Offloads>>,
    pub(in crate::virtio::net) attached: AtomicBool,
    pub(in crate::virtio::net) switched: AtomicUsize,
    pub(in crate::virtio::net) refuses: AtomicBool,
    pub(in crate::virtio::net) cuts_udp: bool,
}

impl AsFd for FakePort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port for FakePort {
    fn cuts_udp(&self) -> bool {
        self.cuts_udp
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        lock(&self.offloads).push(offloads);
        Ok(())
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        if self.attached.swap(attached, Ordering::Relaxed) != attached {
            self.switched.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A port, and the host's end of it.
pub(in crate::virtio::net) fn port() -> (Arc<FakePort>, OwnedFd) {
    port_on(true)
}

/// As `port`, on a host that can leave UDP uncut or cannot.
pub(in crate::virtio::net) fn port_on(cuts_udp: bool) -> (Arc<FakePort>, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, host) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket pair");
    let port = FakePort {
        fd: ours,
        offloads: Mutex::default(),
        attached: AtomicBool::new(true),
        switched: AtomicUsize::new(0),
        refuses: AtomicBool::new(false),
        cuts_udp,
    };
    (Arc::new(port), host)
}

pub(in crate::virtio::net) fn config() -> NetConfig {
    NetConfig {
        mac: MAC,
        mac_may_change: false,
        mtu: None,
        speed: None,
        queue_size: QUEUE_SIZE,
        link_up: true,
        udp_segmentation: false,
    }
}

pub(in crate::virtio::net) struct Rig {
    pub(in crate::virtio::net) ram: GuestRam,
    /// Receive and transmit queue of each pair, then the control queue.
    pub(in crate::virtio::net) drivers: Vec<Driver>,
    pub(in crate::virtio::net) kicks: Vec<Arc<crate::event::Event>>,
    pub(in crate::virtio::net) net: Net,
    pub(in crate::virtio::net) handle: NetHandle,
    pub(in crate::virtio::net) interrupts: Arc<RecordInterrupts>,
    pub(in crate::virtio::net) workers: Vec<Box<dyn QueueWorker>>,
    pub(in crate::virtio::net) reactor: Reactor,
    pub(in crate::virtio::net) features: u64,
}

impl Rig {
    pub(in crate::virtio::net) fn new(
        config: NetConfig,
        ports: Vec<Arc<dyn Port>>,
        features: u64,
    ) -> Self {
        Self::of(
            Net::new(config, ports).expect("a good configuration"),
            features,
        )
    }

    /// Of a device that was made.
    pub(in crate::virtio::net) fn of(net: Net, features: u64) -> Self {
        let ram = ram(RAM_BYTES);
        let queues = if features & F_MQ != 0 {
            net.queue_sizes().len() as u64
        } else {
            3
        };
        let features = features & net.features();
        let mut rig = Self {
            drivers: (0..queues)
                .map(|index| Driver::new(&ram, index * RINGS, QUEUE_SIZE))
                .collect(),
            ram,
            kicks: Vec::new(),
            handle: net.handle(),
            net,
            interrupts: Arc::default(),
            workers: Vec::new(),
            reactor: Reactor::new().expect("an epoll instance"),
            features,
        };
        rig.start(&[]);
        rig
    }

    /// Starts the device, its queues going on from `progress`.
    pub(in crate::virtio::net) fn start(&mut self, progress: &[(u16, QueueProgress)]) {
        let mut queues = Vec::new();
        self.kicks.clear();
        for (driver, index) in self.drivers.iter().zip(0..) {
            let mut running = driver.running(index, &self.interrupts);
            let from = progress.iter().find(|(number, _)| *number == index);
            if let Some((_, from)) = from {
                running.queue = crate::virtio::queue::Queue::new(
                    self.ram.clone(),
                    driver.layout,
                    QUEUE_SIZE,
                    driver.features,
                    *from,
                )
                .expect("a good layout");
            }
            self.kicks.push(Arc::clone(&running.kick));
            queues.push(Some(running));
        }
        let start = Start {
            features: self.features,
            queues,
            interrupts: Arc::clone(&self.interrupts) as _,
        };
        self.workers = self.net.start(start).expect("all queues are there");
        for (worker, slot) in self.workers.iter_mut().zip(0..) {
            worker.start(&self.reactor.sources(slot));
        }
        self.run();
    }

    pub(in crate::virtio::net) fn stop(&mut self) -> Progress {
        let mut progress = Vec::new();
        for (worker, slot) in self.workers.drain(..).zip(0..) {
            progress.extend(worker.stop(&self.reactor.sources(slot)));
        }
        self.net.stopped();
        progress
    }

    /// Lets the workers run until nothing is ready; gives how many times one was called. A device that
    /// never comes to rest fails the test.
    pub(in crate::virtio::net) fn run(&mut self) -> usize {
        let (mut calls, mut ready) = (0, Vec::new());
        loop {
            self.reactor
                .wait(Some(Duration::ZERO), &mut ready)
                .expect("epoll works");
            if ready.is_empty() {
                return calls;
            }
            for event in ready.drain(..) {
                calls += 1;
                assert!(calls < 2000, "the device spins");
                let sources = self.reactor.sources(event.slot);
                self.workers[event.slot as usize].ready(event.token, event.hung_up, &sources);
            }
        }
    }

    /// Lets time pass until the workers want nothing of it any more.
    pub(in crate::virtio::net) fn tick(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let next = self.workers.iter().filter_map(|worker| worker.next_event());
            let Some(next) = next.min().filter(|next| *next < end) else {
                return;
            };
            thread::sleep(next.saturating_duration_since(Instant::now()));
            for (worker, slot) in self.workers.iter_mut().zip(0..) {
                worker.tick(&self.reactor.sources(slot));
            }
            self.run();
        }
    }

    pub(in crate::virtio::net) fn kick(&mut self, queue: usize) -> usize {
        self.kicks[queue].signal();
        self.run()
    }

    pub(in crate::virtio::net) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(address, &mut bytes).expect("in RAM");
        bytes
    }
}

/// Takes one frame, with its header, from the host's end.
pub(in crate::virtio::net) fn take(host: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 0x2_0000];
    let len = rustix::io::read(host, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Gives the device a frame of `len` bytes without offloads; gives the frame.
pub(in crate::virtio::net) fn give(host: &OwnedFd, len: usize, seed: u8) -> Vec<u8> {
    let frame: Vec<u8> = (0..251_u8).cycle().take(len).map(|at| at ^ seed).collect();
    let mut bytes = vec![0; header::HEADER_BYTES];
    bytes.extend(&frame);
    rustix::io::write(host, &bytes).expect("room");
    frame
}
