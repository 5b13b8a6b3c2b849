//! What runs domains, as the domain actor sees it: the KVM worker, or one without KVM for tests.
//!
//! ```text
//!   actor ── StartOrder ──► Driver::start ── Recorder ──► run-time status, before each thing is made
//!                               │
//!                               ▼
//!                 Running { instance, notices }
//!                               │ calls, kill, console           ▲ events, Gone as the last
//!                               ▼                                │
//!                             worker ────────────────────────────┘
//! ```
//!
//! A driver releases what it made when its worker is gone, and tells [`Notice::Gone`] after that: whoever
//! hears it may rely on the uid, the cgroup and the directory being free. Dropping an
//! [`Instance`] leaves the worker alone: a supervisor that ends does not touch its domains.

use std::fmt::Debug;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use reeve_ipc::api::figures::{DomainUsage, VcpuFigures};
use reeve_ipc::api::view::{DomainStats, VcpuStats, WorkerDetails};
use reeve_ipc::device::{DeviceChange, DeviceReport};
use reeve_ipc::event::CrashReport;
use reeve_ipc::model::{DevicePlace, Domain};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::PeekPlace;
use reeve_ipc::spec::{PciSlot, WatchdogAction};
use reeve_ipc::vcpus::VcpuStanding;
use tokio::sync::mpsc;

use crate::host::tap::{MacvtapRecord, TapId};

/// A future of a driver's own making.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Makes workers, and finds those of an earlier supervisor.
pub trait Driver: Debug + Send + Sync {
    /// Builds the domain's machine in a worker of its own. Whatever was made is undone, and its
    /// record with it, before an error is given.
    fn start(
        &self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Later<Result<Running, StartFailure>>;

    /// Resolves once what was begun by starts whose futures were dropped is undone: a process that
    /// was being made just then goes a moment later. A driver whose starts are undone as they are
    /// dropped has nothing to wait for.
    fn settled(&self) -> Later<()> {
        Box::pin(std::future::ready(()))
    }

    /// Takes over the worker that `recorded` tells of. Everything of a worker that is gone, or that
    /// is killed because it cannot be believed, is released before the answer. Answers within about
    /// a second.
    fn adopt(&self, domain: Domain, recorded: Resources) -> Later<Adoption>;
}

/// What to start.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// The domain.
    pub domain: Domain,
    /// Let it stand with no vCPU running.
    pub paused: bool,
    /// A directory of the domain's own in the run directory, for its socket; it exists.
    pub directory: PathBuf,
}

/// Writes what a worker holds of the host into the run-time status, so that a supervisor which
/// dies loses nothing of it. Does not block: the run directory is in memory.
pub trait Recorder: Debug + Send + Sync {
    /// Called before each of `resources` that is new is made, and again with the process once there
    /// is one: before it is sent its launch.
    ///
    /// # Errors
    /// It could not be written; the start must be undone.
    fn record(&self, resources: &Resources) -> Result<(), String>;
}

/// What a worker holds of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Its uid, which is its gid too.
    pub uid: u32,
    /// Whether that uid is its own.
    pub own_uid: bool,
    /// Its cgroup's directory, where it has one.
    pub cgroup: Option<PathBuf>,
    /// The socket on which it waits for a supervisor.
    pub socket: PathBuf,
    /// What binds the worker to this record.
    pub digest: [u8; 16],
    /// The process, once it exists.
    pub process: Option<ProcessIdentity>,
    /// Another process, to which it is handing its machine over.
    pub successor: Option<ProcessIdentity>,
    /// Its launch was answered.
    pub launched: bool,
    /// What its devices hold, of those that hold anything with a name.
    pub devices: Vec<DeviceResources>,
}

impl Resources {
    /// The sockets that its devices listen on.
    pub fn device_sockets(&self) -> impl Iterator<Item = &PathBuf> {
        self.devices.iter().flat_map(|device| &device.sockets)
    }
}

/// What one device, or one port of a serial controller, holds of the host, of what has a name there. Images
/// have their locks, which end with the worker's last descriptor of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceResources {
    /// Where it is.
    pub place: DevicePlace,
    /// The taps of a network interface. They end with the worker's last descriptor of each, but for macvtaps.
    pub taps: Vec<TapId>,
    /// Those of them that are macvtaps, which stay until they are deleted.
    pub macvtaps: Vec<MacvtapRecord>,
    /// The sockets that it listens on.
    pub sockets: Vec<PathBuf>,
}

impl DeviceResources {
    /// What does not end with it, of a device that was there.
    #[must_use]
    pub fn remains(&self) -> Option<Self> {
        let last = !self.taps.is_empty() && !self.macvtaps.is_empty();
        last.then(|| Self {
            taps: Vec::new(),
            sockets: Vec::new(),
            ..self.clone()
        })
    }

    /// Whether it is what remains of a device that is gone.
    #[must_use]
    pub fn is_remainder(&self) -> bool {
        self.taps.is_empty() && !self.macvtaps.is_empty()
    }

    /// Whether it holds nothing that has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty() && self.macvtaps.is_empty() && self.sockets.is_empty()
    }
}

/// Writes what a device holds that comes while its domain runs, as a [`Recorder`] does for those that a
/// domain starts with. Does not block.
pub trait DeviceLedger: Debug + Send + Sync {
    /// Called before anything is made that would outlive this process.
    ///
    /// # Errors
    /// It could not be written; the device must not be made.
    fn hold(&self, device: DeviceResources) -> Result<(), String>;

    /// Nothing of the device at that place is left.
    fn let_go(&self, place: DevicePlace);
}

/// Writes to which process a machine goes, as a [`Recorder`] does. Does not block.
pub trait SuccessionLedger: Debug + Send + Sync {
    /// Called before anything is asked of `successor`, and with none when it is gone.
    ///
    /// # Errors
    /// It could not be written; the machine must not be handed over.
    fn appoint(&self, successor: Option<ProcessIdentity>) -> Result<(), String>;

    /// The successor has the machine.
    fn succeeded(&self);
}

/// One process of one boot: a pid alone is used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc(5), `starttime`).
    pub start_ticks: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// A worker under supervision.
#[derive(Debug)]
pub struct Running {
    /// What can be asked of it.
    pub instance: Arc<dyn Instance>,
    /// What it and the kernel tell; the last is [`Notice::Gone`].
    pub notices: mpsc::Receiver<Notice>,
    /// The phase it is in.
    pub phase: Phase,
}

/// What came of an adoption.
#[derive(Debug)]
pub enum Adoption {
    /// It lives and is believed. The guest's last end, where it is [`Phase::Off`] or
    /// [`Phase::Crashed`], tells why.
    Adopted {
        /// The worker.
        running: Running,
        /// Why it stands still, if it does by itself.
        end: Option<GuestEnd>,
        /// Resets since its launch.
        resets: u64,
        /// Bytes its console had by then.
        console_position: u64,
        /// Where it has devices, if it was asked.
        devices: Option<Vec<DevicePlace>>,
    },
    /// It lives and says nothing. [`Notice::Responsive`] may come, and it can be killed.
    Silent(Running),
    /// It never was launched, and is undone.
    NeverLaunched,
    /// It is gone, and everything of it is released.
    Gone {
        /// One line.
        why: String,
    },
}

/// Why nothing was started. One line; all is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartFailure {
    /// What kind.
    pub kind: StartFailureKind,
    /// What failed, on what, what to do.
    pub message: String,
}

/// What kind of failure a start met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailureKind {
    /// The definition asks for what cannot be.
    Definition,
    /// A path that clients may not name.
    Path,
    /// The host lacks something or refused it.
    Host,
    /// The worker refused, failed or died.
    Worker,
    /// This build does not do what the definition asks for.
    Unsupported,
    /// There is no virtual network of that name.
    NoNetwork,
    /// A virtual network is not active.
    WrongState,
}

/// What can be asked of a worker within a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkerCall {
    /// Stop every vCPU.
    Pause,
    /// Let them run.
    Resume,
    /// Press the power button.
    PowerButton,
    /// Put the machine to its power-on state.
    Reset,
    /// End.
    Stop,
}

/// What can be asked of a worker's devices and vCPUs within a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceCall {
    /// Make a device and put it on the bus, or a port of the controller that is there. What it needs of the
    /// host is opened first, and let go of where it fails; where the worker does not answer in time it may
    /// have the device, or get it yet.
    Attach {
        /// The definition that has the device, with every address.
        domain: Box<Domain>,
        /// Where it is.
        place: DevicePlace,
    },
    /// Ask the guest to let go of a device, or take it. A port is taken in any case.
    /// [`Notice::DeviceRemoved`] tells that it is gone.
    Detach {
        /// Where it is.
        place: DevicePlace,
        /// Take it.
        force: bool,
    },
    /// Change a device.
    Update {
        /// Where it is on the bus.
        slot: PciSlot,
        /// To what.
        change: DeviceChange,
    },
    /// Put another medium into a disk, or none. What it needs of the host is opened first, and let go of where
    /// it fails.
    Medium {
        /// The definition that has the disk with its new medium.
        domain: Box<Domain>,
        /// Where it is on the bus.
        slot: PciSlot,
    },
    /// Give the port of an interface other tags. No worker is asked: its switch is.
    Tags {
        /// The definition that has the interface with its new tags.
        domain: Box<Domain>,
        /// Where it is on the bus.
        slot: PciSlot,
    },
    /// See whether an interface can have the network filter that it is to have. Changes nothing.
    FilterCheck {
        /// The definition that has the interface with its new filter.
        domain: Box<Domain>,
        /// Where it is on the bus.
        slot: PciSlot,
    },
    /// Give an interface another network filter, or none. No worker is asked: the rules of its tap are replaced.
    Filter {
        /// The definition that has the interface with its new filter.
        domain: Box<Domain>,
        /// Where it is on the bus.
        slot: PciSlot,
    },
    /// See whether the host lets what runs the machine be bound and limited as the definition says. Changes
    /// nothing.
    TuneCheck {
        /// The definition by which it would be.
        domain: Box<Domain>,
        /// The one by which it is: what is in that too is not looked for.
        before: Option<Box<Domain>>,
    },
    /// Bind and limit what runs the machine as the definition says. Where that fails it is as before.
    Tune {
        /// The definition by which it is bound and limited.
        domain: Box<Domain>,
        /// The one before; none where that is not known, as of what an earlier supervisor left half way.
        before: Option<Box<Domain>>,
    },
    /// Give the machine so many vCPUs, or ask its guest to let go of as many. [`Notice::Vcpus`] follows, and
    /// again at each change.
    Vcpus {
        /// The definition that it runs with, by which those that come are bound and limited.
        domain: Box<Domain>,
        /// How many.
        count: u32,
    },
}

impl DeviceCall {
    /// Whether it looks only, and changes nothing.
    #[must_use]
    pub const fn is_look(&self) -> bool {
        matches!(self, Self::TuneCheck { .. } | Self::FilterCheck { .. })
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The worker refused, in one line.
    #[error("{0}")]
    Refused(String),
    /// It has begun, could not finish in time, and does yet, in one line.
    #[error("{0}")]
    Late(String),
    /// It did not answer in time.
    #[error("the worker did not answer in time")]
    Deadline,
    /// As many calls as may wait for it do so already.
    #[error("as many calls as may wait for the worker do so already; try again later")]
    Busy,
    /// It is gone, or about to be.
    #[error("the worker is gone")]
    Gone,
    /// What a device needs of the host is not to be had, and the worker was not asked.
    #[error(transparent)]
    NotMade(StartFailure),
}

/// A worker that can be asked.
pub trait Instance: Debug + Send + Sync {
    /// Asks; a deadline is kept by the driver.
    fn call(&self, call: WorkerCall) -> Later<Result<(), CallFailure>>;

    /// Sends `SIGKILL`, now.
    fn kill(&self);

    /// Attaches a client to the console, from the given byte on or from the oldest that is held:
    /// our end of the stream, and the position of its first byte.
    fn console(&self, from: Option<u64>, input: bool)
    -> Later<Result<(OwnedFd, u64), CallFailure>>;

    /// What the kernel and the worker say.
    fn stats(&self) -> Later<Result<DomainStats, CallFailure>>;

    /// Asks of a device; a deadline is kept by the driver.
    fn device(
        &self,
        call: DeviceCall,
        ledger: Arc<dyn DeviceLedger>,
    ) -> Later<Result<(), CallFailure>>;

    /// Has a fresh worker take the machine over. The guest stands meanwhile, and then goes on there; if that
    /// fails it goes on here. From then on all else is asked of the fresh one.
    fn hand_over(
        &self,
        domain: Domain,
        ledger: Arc<dyn SuccessionLedger>,
    ) -> Later<Result<(), CallFailure>>;

    /// Asks where it has devices, for [`Notice::Devices`]. Waits for nothing. A later question takes the
    /// place of one that is not answered; one to a worker that is silent may never be, and
    /// [`Notice::Responsive`] comes when it is not any more.
    fn ask_devices(&self, number: u64);

    /// Lets go of what a device held that is gone. Waits for nothing.
    fn release(&self, device: DeviceResources);

    /// What the worker says of its devices.
    fn device_reports(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>>;

    /// What the kernel says of its vCPUs, by rising number.
    fn vcpu_stats(&self) -> Later<Result<Vec<VcpuStats>, CallFailure>>;

    /// What it uses of the host, by the kernel's books. Waits for nothing.
    ///
    /// # Errors
    /// [`CallFailure::Gone`].
    fn usage(&self) -> Result<DomainUsage, CallFailure>;

    /// How its vCPUs stand, by the kernel's books and by rising number. Waits for nothing.
    fn vcpu_figures(&self) -> Vec<VcpuFigures>;

    /// As [`Self::device_reports`], for whoever asks every few seconds: the worker is asked once, and what its
    /// guest says of its memory, where that is old, is for the next time.
    fn device_figures(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>>;

    /// Sends every vCPU an interrupt that the guest cannot mask.
    fn inject_nmi(&self) -> Later<Result<(), CallFailure>>;

    /// Bytes of the guest's memory or of a disk: as many as were asked for.
    fn peek(&self, at: PeekPlace, offset: u64, length: u32) -> Later<Result<Vec<u8>, CallFailure>>;

    /// How large the disk in that slot is for its guest, in bytes, by the worker's word.
    fn disk_bytes(&self, slot: PciSlot) -> Later<Result<u64, CallFailure>>;

    /// What it is on the host.
    fn details(&self) -> WorkerDetails;
}

/// How a guest ended by itself, its machine kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// It powered off.
    PoweredOff,
    /// It asked for a reset, and the definition does not let the worker do it.
    Reset,
    /// It cannot go on.
    Crashed(CrashReport),
}

/// What happens to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few wait at a time, and none is kept"
)]
pub enum Notice {
    /// Its guest ended by itself; the machine stands still and is kept.
    GuestEnded(GuestEnd),
    /// The machine was reset and runs on; so many times since its launch.
    Reset(u64),
    /// It does not answer.
    Silent,
    /// It answers again, or for the first time since it was found.
    Responsive {
        /// The phase it is in.
        phase: Phase,
        /// Resets since its launch.
        resets: u64,
        /// How its guest had ended when it was found: of one notice with the phase, so that nothing
        /// it is asked comes between. `None` where a notice of its own has told, or will.
        end: Option<GuestEnd>,
    },
    /// It has told what nobody has heard.
    Lost,
    /// Where it has devices, as it was asked by that number: in order with all else that it tells.
    Devices(u64, Vec<DevicePlace>),
    /// A device is gone. Of one that the domain does not have it means nothing.
    DeviceRemoved(DevicePlace),
    /// The guest has changed what it has lent or plugged of its memory.
    Memory(GuestMemory),
    /// Which vCPUs there are: at the adoption, and at each change.
    Vcpus(VcpuStanding),
    /// The guest starts its crash kernel.
    CrashKernel,
    /// The guest has panicked, while nobody was there to be told. How it stands is told apart.
    Panicked,
    /// The watchdog has expired, and this is done about it; a guest that is paused for it stands already.
    Watchdog(WatchdogAction),
    /// Which ports of the serial controller at that place the guest has open: at the adoption, and at each change.
    Ports(PciSlot, OpenPorts),
    /// The process is gone and what it held is released. The last notice.
    Gone(Verdict),
}

/// What a guest has done with its memory, in bytes: any numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// In its balloon.
    pub lent: u64,
    /// Plugged beyond what it started with.
    pub plugged: u64,
}

/// The ports of a serial controller that a guest has open, a bit for each: any numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenPorts(pub u32);

impl OpenPorts {
    /// Whether it has that one open.
    #[must_use]
    pub fn has(self, number: u8) -> bool {
        let bit = 1_u32.checked_shl(number.into()).unwrap_or(0);
        self.0 & bit != 0
    }
}

/// How a worker's end is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was told to end, or killed on request.
    Asked,
    /// Anything else, in one line.
    Failed(String),
}
