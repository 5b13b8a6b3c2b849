//! A kernel for tests, which keeps what it is told and does what a test has it do.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use super::calls::{Call, Calls};
use crate::event::Event;
use crate::shared::{Shared, lock, share};

/// What a test sees of it, and has it do.
#[derive(Debug, Clone)]
pub(in super::super) struct Fake {
    told: Shared<Vec<String>>,
    /// Calls that begin with one of these are refused.
    refused: Shared<Vec<&'static str>>,
    /// By which it interrupts: for each ring, and for errors.
    events: Shared<[Option<Event>; 3]>,
    /// It was told of memory by its owner, without which it switches no port, on or off.
    memory: Arc<AtomicBool>,
    /// The next available entries it tells of.
    pub(in super::super) next: Arc<[AtomicU16; 2]>,
}

impl Fake {
    pub(in super::super) fn new() -> Self {
        Self {
            told: share(Vec::new()),
            refused: share(Vec::new()),
            events: share([None, None, None]),
            memory: Arc::default(),
            next: Arc::default(),
        }
    }

    /// What it was told since it was last asked.
    pub(in super::super) fn told(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.told))
    }

    /// Whether ring 0 and ring 1 are served, by what it was told since it was last asked; `None` where that
    /// has not changed.
    pub(in super::super) fn served(&self) -> [Option<bool>; 2] {
        let told = self.told();
        [0, 1].map(|ring| {
            let ports = told.iter().rev();
            let mut ports = ports.filter_map(|told| told.strip_prefix(&format!("port {ring} ")));
            ports.next().map(|port| port == "on")
        })
    }

    /// Refuses such calls from now on, and no others.
    pub(in super::super) fn refuse(&self, calls: &[&'static str]) {
        *lock(&self.refused) = calls.to_vec();
    }

    /// Signals what it was given for a ring's interrupts (0, 1) or for errors (2).
    pub(in super::super) fn signal(&self, which: usize) {
        let events = lock(&self.events);
        events[which].as_ref().expect("it was given one").signal();
    }
}

impl Calls for Fake {
    fn make(&self, call: &Call<'_>) -> io::Result<u64> {
        let told = match call {
            Call::SetOwner => "owner".to_owned(),
            Call::ResetOwner => "nobody's".to_owned(),
            Call::SetFeatures(features) => format!("features {features:#x}"),
            Call::SetMemory(ram) => format!("memory {}", ram.pieces(64).len()),
            Call::SetSize(ring, size) => format!("size {ring} {size}"),
            Call::SetBase(ring, next) => format!("base {ring} {next}"),
            Call::SetAddresses(ring, queue) => {
                format!("addresses {ring} {:#x}", queue.layout().descriptors)
            }
            Call::SetKick(ring, _) => format!("kick {ring}"),
            Call::SetInterrupt(ring, _) => format!("call {ring}"),
            Call::SetError(ring, _) => format!("error {ring}"),
            Call::SetPort(ring, port) => {
                format!("port {ring} {}", if port.is_some() { "on" } else { "off" })
            }
            Call::Base(ring) => format!("base of {ring}"),
        };
        let refused = lock(&self.refused)
            .iter()
            .any(|call| told.starts_with(call));
        lock(&self.told).push(told);
        if refused {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let copy = |event: &Event| {
            let copy = event.as_fd().try_clone_to_owned().expect("a descriptor");
            Some(Event::of(copy))
        };
        match call {
            Call::SetInterrupt(ring, event) => lock(&self.events)[usize::from(*ring)] = copy(event),
            Call::SetError(_, event) => lock(&self.events)[2] = copy(event),
            Call::Base(ring) => {
                return Ok(self.next[usize::from(*ring)].load(Ordering::Relaxed).into());
            }
            Call::SetMemory(_) => self.memory.store(true, Ordering::Relaxed),
            Call::ResetOwner => self.memory.store(false, Ordering::Relaxed),
            Call::SetPort(..) if !self.memory.load(Ordering::Relaxed) => {
                return Err(io::Error::from_raw_os_error(libc::EFAULT));
            }
            _ => {}
        }
        Ok(0)
    }
}
