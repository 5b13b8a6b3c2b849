//! `api_roundtrip`: one call of the native API from a blocking client to its answer: one domain's
//! details.
//!
//! Client and daemon share one CPU, which both are bound to: on two, the time is mostly that of
//! waking an idle CPU, which is the machine's and no program's. The floor is an echo of the same two
//! message sizes' worth on the same kind of socket by `cat`, bound alike. A sample is the mean over a
//! batch.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainGet, DomainRef};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{Figure, Group, Kind, Target};
use crate::daemon::{Instance, define, definition};
use crate::load::Load;
use crate::stats::Samples;

/// Calls in a sample.
const BATCH: u32 = 500;
/// Bytes of an echo: about what the answer has.
const ECHOED: usize = 256;

const KIND: Kind = Kind {
    name: "api_roundtrip",
    unit: "us",
    less_is_better: true,
    target: Some(Target::AtMost(20.0)),
};

/// The figure.
pub const GROUP: Group = Group {
    kinds: &[KIND],
    take: |_, samples| {
        let before = Load::now()?;
        let bound = Bound::to_one_cpu()?;
        let instance = Instance::start()?;
        let mut connection = instance.connect()?;
        define(&mut connection, 1)?;
        let domain = DomainRef::Uuid(definition(0)?.uuid);
        let mut echo = Echo::start()?;
        let (mut calls, mut echoes) = (Samples::default(), Samples::default());
        // The first round fills caches and does not count.
        for round in 0..=samples {
            let called = batch(|| call(&mut connection, &domain))?;
            let echoed = batch(|| echo.once())?;
            if round > 0 {
                calls.push(called);
                echoes.push(echoed);
            }
        }
        drop((echo, instance, bound));
        let span = Load::now()?.since(&before);
        let less = KIND.less_is_better;
        Ok(vec![Figure {
            kind: KIND,
            reeve: calls.summary(less).context("no samples")?,
            floor: echoes.summary(less),
            peers: BTreeMap::new(),
            span,
            notes: Vec::new(),
        }])
    },
};

/// Microseconds of one of a batch.
fn batch(mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    for _ in 0..BATCH {
        once()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH))
}

fn call(connection: &mut Connection, domain: &DomainRef) -> anyhow::Result<()> {
    let domain = domain.clone();
    connection.call(DomainGet { domain })?;
    Ok(())
}

/// This thread and what it spawns are bound to one CPU until this is dropped.
struct Bound {
    before: CpuSet,
}

impl Bound {
    fn to_one_cpu() -> anyhow::Result<Self> {
        let before = sched_getaffinity(None)?;
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu));
        let mut one = CpuSet::new();
        one.set(first.context("no CPU")?);
        sched_setaffinity(None, &one)?;
        Ok(Self { before })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// A process that sends back what it gets.
struct Echo {
    socket: Option<OwnedFd>,
    process: Child,
    buffer: [u8; ECHOED],
}

impl Echo {
    fn start() -> anyhow::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let process = Command::new("cat")
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .spawn()
            .context("cannot execute cat")?;
        Ok(Self {
            socket: Some(ours),
            process,
            buffer: [0; ECHOED],
        })
    }

    fn once(&mut self) -> anyhow::Result<()> {
        let socket = self.socket.as_ref().context("no socket")?;
        rustix::net::send(socket, &self.buffer, SendFlags::empty())?;
        let (length, _) = rustix::net::recv(socket, &mut self.buffer[..], RecvFlags::empty())?;
        ensure!(length == ECHOED, "the echo ended");
        Ok(())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It ends with its input.
        self.socket = None;
        let _ = self.process.wait();
    }
}
