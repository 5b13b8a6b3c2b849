//! Reeve itself, through the supervisor's library: what `reeve run` and the daemon do, in this
//! process. The whole sandbox is on; nothing is spawned or prepared before the request.
//!
//! The clock starts at the call of [`reeved::domain::worker::start`], which plans the domain, makes
//! its memory, claims its uid and spawns the jailed worker. The guest's console is a socket whose
//! other end is read on the same runtime, as `reeve run` reads it: the clock stops when the first
//! byte has been read.

use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use reeved::domain::worker::{self, DeathCause, StartOptions, Worker};
use reeved::host::Host;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Contender, DEADLINE, Guest, Running};
use crate::GUEST_MEMORY_BYTES;

/// The supervisor's library, opened once.
#[derive(Debug)]
pub struct Reeve {
    // Left behind when the process ends: it lives as long as everything that borrows from it.
    host: &'static Host,
    runtime: &'static Runtime,
}

/// Gives each domain a name of its own.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Reeve {
    /// Opens the host, with the worker next to this executable.
    ///
    /// # Errors
    /// The worker was not built, or the host lacks something.
    pub fn open() -> anyhow::Result<Self> {
        let host = Host::open().context("cannot open the host")?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            host: Box::leak(Box::new(host)),
            runtime: Box::leak(Box::new(runtime)),
        })
    }
}

impl Reeve {
    /// Starts a domain of that command line and these devices.
    ///
    /// # Errors
    /// It cannot be started, or prints nothing.
    pub fn start_with(
        &self,
        command_line: &str,
        devices: Devices,
    ) -> anyhow::Result<Box<dyn Running>> {
        let domain = domain(command_line, devices)?;
        let started = self
            .runtime
            .block_on(start(self.host, &domain))
            .context("Reeve")?;
        Ok(Box::new(ReeveDomain {
            started,
            runtime: self.runtime,
        }))
    }
}

/// A started domain with its console.
#[derive(Debug)]
struct Started {
    worker: Worker,
    first_byte: Duration,
    console: UnixStream,
}

#[derive(Debug)]
struct ReeveDomain {
    started: Started,
    runtime: &'static Runtime,
}

fn domain(command_line: &str, mut devices: Devices) -> anyhow::Result<Domain> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let uuid = DomainUuid(uuid::Uuid::from_u128(u128::from(number)));
    devices.complete(uuid)?;
    Ok(Domain {
        name: format!("bench-{number}").parse()?,
        uuid,
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1)?,
        max_vcpus: Vcpus::try_from(1)?,
        platform: Platform::default(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize(GUEST_MEMORY_BYTES as u64),
        boot: BootSource::BuiltIn {
            command_line: command_line.to_owned(),
        },
        devices,
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    })
}

async fn start(host: &Host, domain: &Domain) -> anyhow::Result<Started> {
    let (mut console, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    let requested = Instant::now();
    let options = StartOptions {
        console: Some(theirs.into()),
        ..StartOptions::default()
    };
    let first_byte = async {
        let byte = console.read_u8().await;
        (byte, requested.elapsed())
    };
    let (worker, (byte, first_byte)) = {
        let mut first_byte = pin!(first_byte);
        let mut start = pin!(worker::start(host, domain, options));
        // A start that fails closes the console too, but says more.
        tokio::select! {
            biased;
            worker = &mut start => (worker?, timeout(DEADLINE, first_byte).await?),
            byte = &mut first_byte => (timeout(DEADLINE, start).await??, byte),
        }
    };
    ensure!(byte? == b'R', "the guest's first byte is another");
    Ok(Started {
        worker,
        first_byte,
        console,
    })
}

async fn ended(started: Started) -> anyhow::Result<()> {
    let death = timeout(DEADLINE, started.worker.death())
        .await
        .context("the domain does not end")?;
    ensure!(death.cause.is_orderly(), "the domain ended: {death}");
    Ok(())
}

impl Contender for Reeve {
    fn name(&self) -> &'static str {
        "reeve"
    }

    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>> {
        self.start_with(guest.command_line(), Devices::default())
    }

    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        let host = self.host;
        let one = move || async move {
            let domain = domain(Guest::Bench.command_line(), Devices::default())?;
            ended(start(host, &domain).await?).await
        };
        let requested = Instant::now();
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for _ in 0..count {
                if running.len() >= at_once {
                    running.join_next().await.context("none runs")???;
                }
                running.spawn(one());
            }
            while let Some(result) = running.join_next().await {
                result??;
            }
            anyhow::Ok(())
        })?;
        Ok(requested.elapsed())
    }
}

impl Running for ReeveDomain {
    fn first_byte(&self) -> Duration {
        self.started.first_byte
    }

    fn pid(&self) -> u32 {
        self.started.worker.pid()
    }

    fn console(&self) -> BorrowedFd<'_> {
        self.started.console.as_fd()
    }

    fn wait(self: Box<Self>) -> anyhow::Result<()> {
        self.runtime.block_on(ended(self.started)).context("Reeve")
    }

    fn destroy(self: Box<Self>) -> anyhow::Result<Duration> {
        let worker = &self.started.worker;
        self.runtime.block_on(async {
            let requested = Instant::now();
            let death = worker.destroy().await?;
            let gone = requested.elapsed();
            ensure!(
                matches!(death.cause, DeathCause::Destroyed),
                "Reeve: {death}"
            );
            Ok(gone)
        })
    }
}
