//! What the supervisor takes from the host: the worker's executable, identities, the spawning
//! thread; and what `reeve doctor` checks of it.

pub mod block_device;
pub mod confinement;
pub mod cpuid;
pub mod doctor;
pub mod filter;
pub(crate) mod holdings;
pub mod identity;
pub mod image_lock;
pub mod image_reader;
pub mod image_worker;
pub mod interfaces;
mod kvm;
pub(crate) mod memory_nodes;
mod netlink;
pub mod network;
mod nf_tables;
pub mod node;
mod ofd_lock;
pub mod open_vswitch;
pub mod paths;
pub(crate) mod process;
pub mod program;
pub mod shares;
pub mod sockets;
pub(crate) mod spawn_thread;
pub(crate) mod spawner;
pub mod tap;
pub mod uid_blocks;
pub mod user_network;
pub mod vcpus;
pub(crate) mod vhost_net;
pub(crate) mod watch;
pub mod worker_binary;

use rustix::io::Errno;

use self::confinement::CgroupPlace;
use self::cpuid::HostCpuid;
use self::identity::{Identities, IdentityError};
use self::image_reader::ImageReader;
use self::open_vswitch::OpenVswitch;
use self::shares::ShareServers;
use self::sockets::acceptor::Connectors;
use self::spawner::Spawner;
use self::worker_binary::{WorkerBinary, WorkerBinaryError};
use crate::domain::plan::NicPolicy;
use crate::nwfilter::book::SharedBook;

/// Why the host cannot run workers at all.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No worker to execute.
    #[error(transparent)]
    WorkerBinary(#[from] WorkerBinaryError),
    /// No identities for workers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No thread to spawn from.
    #[error("cannot start the spawning thread: {0}")]
    Spawner(#[source] std::io::Error),
    /// No descriptor left.
    #[error("cannot open the worker's executable again: {}", reason(*.0))]
    Descriptor(Errno),
}

/// The host as one supervisor sees it; opened once, shared by every domain.
#[derive(Debug)]
pub struct Host {
    pub(crate) identities: Identities,
    pub(crate) spawner: Spawner,
    pub(crate) cpuid: HostCpuid,
    pub(crate) cgroups: CgroupPlace,
    pub(crate) shares: ShareServers,
    pub(crate) images: ImageReader,
    pub(crate) network: NicPolicy,
    pub(crate) connectors: Connectors,
}

impl Host {
    /// Opens the host with the worker's executable at its usual places.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open() -> Result<Self, HostError> {
        Self::with_worker(WorkerBinary::find()?)
    }

    /// Opens the host with a worker's executable of the caller's choice.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn with_worker(binary: WorkerBinary) -> Result<Self, HostError> {
        Self::with_identities(binary, Identities::for_this_process()?)
    }

    /// Opens the host for a daemon, with a worker's executable and a source of identities of the
    /// caller's choice ([`WorkerBinary::find`], [`Identities::for_instance`]).
    ///
    /// # Errors
    /// [`HostError::Spawner`], [`HostError::Descriptor`].
    pub fn with_identities(
        binary: WorkerBinary,
        identities: Identities,
    ) -> Result<Self, HostError> {
        // As it is now: what a definition binds to nothing runs there.
        vcpus::own_cpus();
        let launcher =
            rustix::io::fcntl_dupfd_cloexec(&binary, 0).map_err(HostError::Descriptor)?;
        let reader = rustix::io::fcntl_dupfd_cloexec(&binary, 0).map_err(HostError::Descriptor)?;
        Ok(Self {
            shares: ShareServers::new(launcher, None),
            images: ImageReader::new(reader, identities.clone()),
            identities,
            spawner: Spawner::start(binary).map_err(HostError::Spawner)?,
            cpuid: HostCpuid::ask_early(),
            cgroups: CgroupPlace::Own,
            network: NicPolicy::default(),
            connectors: Connectors::new(),
        })
    }

    /// The same host with the program that serves shared directories at `program`; where there is none,
    /// it is looked for ([`shares::PLACES`]).
    #[must_use]
    pub fn with_virtiofsd(self, program: Option<std::path::PathBuf>) -> Self {
        Self {
            shares: self.shares.with_program(program),
            ..self
        }
    }

    /// The same host; with `multi_tenant` its guests are of several tenants, who reach one another through
    /// what is behind their bridges only.
    #[must_use]
    pub fn with_tenants(mut self, multi_tenant: bool) -> Self {
        self.network.multi_tenant = multi_tenant;
        self
    }

    /// The same host, whose kernel moves guests' frames by vhost-net where a definition says so only if it is
    /// `allowed`.
    #[must_use]
    pub fn with_vhost_net(mut self, allowed: bool) -> Self {
        self.network.without_vhost_net = !allowed;
        self
    }

    /// The same host, whose interfaces get the network filters of `book`.
    #[must_use]
    pub(crate) fn with_filters(mut self, book: SharedBook) -> Self {
        self.network.book = book;
        self
    }

    /// Removes what earlier supervisors left of the filters of taps that are gone, and their ports. For the start of a daemon.
    pub fn sweep(&self) {
        self.network.filters.sweep();
        self.network.open_vswitch.sweep();
    }

    /// The same host for a daemon with that run directory, which has the database of Open vSwitch at that socket make
    /// ports for guests.
    #[must_use]
    pub fn with_open_vswitch(
        mut self,
        database: std::path::PathBuf,
        run: &std::path::Path,
    ) -> Self {
        self.network.open_vswitch = OpenVswitch::new(database, run);
        self
    }

    /// The same host with the domains' cgroups elsewhere.
    #[must_use]
    pub fn with_cgroups(self, cgroups: CgroupPlace) -> Self {
        Self { cgroups, ..self }
    }
}

/// Why no descriptor was to be had, and what to do where that is known; for the end of a line.
pub(crate) fn no_descriptor(error: &std::io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(errno @ Errno::MFILE) => format!("{}; raise LimitNOFILE of reeved", reason(errno)),
        Some(errno) => reason(errno),
        None => error.to_string(),
    }
}

/// An error number in lower-case words, for the middle of a sentence.
pub(crate) fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
