//! Who is measured: Reeve, the floor, and the peers that are installed.
//!
//! A contender starts the built-in guest and says when its first byte came. The clock starts where
//! a user's request is accepted: for Reeve the call of the supervisor's library, for the others the
//! moment before their process is spawned, since they have no supervisor. What a contender needs
//! only once on a host (an image written to disk, a configuration file, a jail's directory with its
//! kernel image) is prepared before the clock starts.

mod cloud_hypervisor;
mod firecracker;
mod floor;
pub(crate) mod process;
pub(crate) mod qemu;
mod reeve;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use reeve_guest::mode;
use rustix::fs::{Mode, OFlags};

pub use reeve::Reeve;

/// How long anything may take before it counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Prints two bytes and powers off.
    Bench,
    /// Prints two bytes and sleeps until it is destroyed.
    Hold,
}

impl Guest {
    /// The command line for machines with the power-off port of Reeve's machine type.
    const fn command_line(self) -> &'static str {
        match self {
            Self::Bench => mode::BENCH,
            Self::Hold => mode::HOLD,
        }
    }

    /// The command line for other monitors: the same guest, which ends by what they know as an end.
    const fn command_line_anywhere(self) -> &'static str {
        match self {
            Self::Bench => mode::BENCH_ANYWHERE,
            Self::Hold => mode::HOLD,
        }
    }
}

/// A machine that prints.
pub trait Running {
    /// From the request to the first byte.
    fn first_byte(&self) -> Duration;

    /// The process whose memory and CPU time count.
    fn pid(&self) -> u32;

    /// What the guest prints after the first byte.
    fn console(&self) -> BorrowedFd<'_>;

    /// Waits until a guest that ends by itself has done so and its process is gone.
    ///
    /// # Errors
    /// It does not end, or not well.
    fn wait(self: Box<Self>) -> anyhow::Result<()>;

    /// Kills the process; from the request until it is gone.
    ///
    /// # Errors
    /// It does not go, or was gone before.
    fn destroy(self: Box<Self>) -> anyhow::Result<Duration>;
}

/// One monitor.
pub trait Contender {
    /// Its name in the table and in `bench.json`.
    fn name(&self) -> &'static str;

    /// Starts a machine and waits for its first byte.
    ///
    /// # Errors
    /// It cannot be started, or prints nothing.
    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>>;

    /// Starts `count` machines whose guests end at once, `at_once` at a time, and waits for all;
    /// from the first request to the last end.
    ///
    /// # Errors
    /// One of them failed.
    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration>;
}

/// Everyone who can be measured here.
#[allow(
    missing_debug_implementations,
    reason = "contenders have nothing to show"
)]
pub struct Field {
    /// What the figures are about.
    pub reeve: Box<dyn Contender>,
    /// The least that runs the same guest.
    pub floor: Box<dyn Contender>,
    /// The installed peers.
    pub peers: Vec<Box<dyn Contender>>,
}

impl Field {
    /// Looks for everyone; `directory` is for the files they need, and must outlive them.
    ///
    /// # Errors
    /// Reeve or the floor is missing, or `/dev/kvm` is. A missing peer is no error.
    pub fn find(directory: &Path) -> anyhow::Result<Self> {
        rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .context("cannot open /dev/kvm")?;
        let kernel = directory.join("guest.elf");
        std::fs::write(&kernel, reeve_guest::IMAGE).context("cannot write the guest's image")?;
        let mut peers: Vec<Box<dyn Contender>> = Vec::new();
        if let Some(program) = find_program(qemu::PROGRAM) {
            peers.push(Box::new(qemu::Qemu::new(program, &kernel)));
        }
        if let (Some(firecracker), Some(jailer)) = (
            find_program(firecracker::PROGRAM),
            find_program(firecracker::JAILER),
        ) {
            peers.push(Box::new(firecracker::Firecracker::new(
                firecracker,
                jailer,
                directory,
            )));
        }
        if let Some(program) = find_program(cloud_hypervisor::PROGRAM) {
            peers.push(Box::new(cloud_hypervisor::CloudHypervisor::new(
                program, &kernel,
            )));
        }
        Ok(Self {
            reeve: Box::new(Reeve::open()?),
            floor: Box::new(floor::Floor::find()?),
            peers,
        })
    }
}

/// An executable on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}
