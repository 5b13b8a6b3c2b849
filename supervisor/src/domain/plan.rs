//! Model to machine specification and descriptors: the only such mapping.
//!
//! Runs in the supervisor, before a worker exists, on a thread that may wait: a file system can take as
//! long as it likes to open a file. Everything a worker will ever use is opened here;
//! the worker gets numbers. Nothing of a file's content is read here: images are the worker's to parse, and
//! what one builds upon is read by a process of its own (`plan/chain.rs`).
//! All descriptors are close-on-exec, and dropping a [`Plan`] undoes it: locks of images and taps end
//! with their descriptors. Sockets have names that outlive theirs, and so are bound apart
//! (`Plan::listen`), once they are recorded.

mod boot;
mod chain;
mod devices;
mod directs;
mod disks;
mod ends;
mod nics;
mod paths;
mod unserved;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::model::{
    DeviceError, DeviceName, DevicePlace, Devices, Domain, GenerationId, MemorySize, ModelError,
};
use reeve_ipc::spec::{
    ControlLoss, DeviceSpec, LayerSpec, MachineSpec, MemoryBacking, MemorySpec, PciSlot, SpecDigest,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use self::boot::{guest_memory, plan_boot};
pub(crate) use self::chain::Chain;
pub use self::chain::{BackingReader, ChainError, ReadError};
use self::directs::Directs;
pub use self::disks::DiskError;
use self::ends::{end_policy, kept_policy};
pub use self::nics::NicPolicy;
pub(crate) use self::paths::called;
pub use self::paths::{AnyPath, ImageAccess, PathError, PathPolicy};
use self::unserved::Unserved;
use crate::domain::driver::DeviceResources;
use crate::host::cpuid::HostCpuid;
use crate::host::filter::FilterError;
use crate::host::open_vswitch::OpenVswitchError;
use crate::host::reason;
use crate::host::shares::{ShareError, ShareServers, Sharer};
use crate::host::sockets::{DeviceSockets, SocketError};
use crate::host::tap::{Macvtap, MacvtapError, TapError};
use crate::host::user_network::UserNetworkError;
use crate::host::vhost_net::VhostNetError;

/// Where the kernel offers KVM.
pub const KVM_PATH: &str = "/dev/kvm";

/// Why a domain cannot be planned. Each line says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The definition itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open {KVM_PATH}: {reason}; {mend}", reason = reason(*.0), mend = mend_kvm(*.0))]
    Kvm(Errno),
    /// KVM does not say what its guests may see of the CPU.
    #[error("cannot ask {KVM_PATH} for its CPU features: {}; {}", reason(*.0), mend_kvm(*.0))]
    Cpuid(Errno),
    /// Interfaces that cannot be had yet.
    #[error("network interfaces of type '{0}' are not provided yet; use a bridge of the host")]
    NicSource(&'static str),
    /// No random bytes for a generation id.
    #[error("the host gives no random bytes: {}", reason(*.0))]
    Random(Errno),
    /// It has no kernel.
    #[error(
        "there is no firmware that boots a disk; give a <kernel>, as virt-install does for --boot \
         kernel=...,initrd=...,kernel_args=..."
    )]
    NoFirmware,
    /// A boot image cannot be opened.
    #[error(
        "cannot open the {what} {path}: {reason}; check --{what}",
        path = .path.display(),
        reason = reason(*.errno)
    )]
    Image {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A path that may not be named: which, why, and what would allow it, in one line.
    #[error("{0}")]
    Forbidden(String),
    /// A boot image is no file.
    #[error("the {what} {path} is {kind}, not a file; check --{what}", path = .path.display())]
    NotAFile {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A memfd could not be made.
    #[error("cannot make the {what} ({size}): {reason}", reason = reason(*.errno))]
    Memfd {
        /// What it was for.
        what: &'static str,
        /// Its size.
        size: MemorySize,
        /// Why.
        errno: Errno,
    },
    /// Other starts wait for files, and may do so for ever.
    #[error(
        "{0} other starts wait for a kernel or initrd whose file system does not answer; look for a \
         network file system that is down; a restart of reeved, which no domain notices, lets go of them"
    )]
    Stalled(usize),
    /// Earlier ones of the same domain do.
    #[error(
        "{0} starts or devices of its own wait for files whose file system does not answer; look for a network \
         file system that is down; a restart of reeved, which no domain notices, lets go of them"
    )]
    StalledBefore(usize),
    /// A file system has not answered, of a device for a machine that runs.
    #[error(
        "a file system has not answered for {0} s; look for a network file system that is down"
    )]
    NoAnswer(u64),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network interface.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// One upon a device of the host.
    #[error(transparent)]
    Macvtap(#[from] MacvtapError),
    /// What it may send.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Its port of a switch.
    #[error(transparent)]
    OpenVswitch(#[from] OpenVswitchError),
    /// What the kernel serves one by.
    #[error(transparent)]
    VhostNet(#[from] VhostNetError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A shared directory.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Who speaks for an interface.
    #[error(transparent)]
    UserNetwork(#[from] UserNetworkError),
    /// More descriptors than a launch carries.
    #[error(transparent)]
    Descriptors(#[from] FdError),
}

fn model_error(error: DeviceError) -> PlanError {
    PlanError::Model(error.into())
}

/// What the command that mends an unusable `/dev/kvm` is.
#[must_use]
pub fn mend_kvm(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            "allow it with 'sudo usermod -aG kvm $USER', then log in again"
        }
        _ => {
            "load KVM with 'sudo modprobe kvm_intel' or 'sudo modprobe kvm_amd', and switch \
             virtualisation on in the firmware if that fails"
        }
    }
}

/// How a plan comes by files.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Who opens what is named.
    pub paths: &'a dyn PathPolicy,
    /// Who reads what an image builds upon.
    pub images: &'a dyn BackingReader,
}

/// What is not of the definition.
#[derive(Debug)]
pub struct PlanOptions<'a> {
    /// Who opens what the definition names, and reads what images name.
    pub files: Files<'a>,
    /// What guests may do on the network.
    pub network: NicPolicy,
    /// The worker outlives its supervisor, and leaves every end of its guest to it; what binds it to
    /// its record. [`Plan::wait_on`] is to follow.
    pub kept: Option<SpecDigest>,
    /// Build the machine and let it stand paused.
    pub hold: bool,
    /// A client of the console from the first byte on: the worker's end of a stream socket.
    pub console: Option<OwnedFd>,
    /// What the worker does without its supervisor, if it is not kept.
    pub on_control_loss: ControlLoss,
}

/// All that a launch sends.
#[derive(Debug)]
pub struct Plan {
    /// What the worker builds.
    pub spec: MachineSpec,
    /// What its slots name.
    pub fds: FdTable,
    /// The devices with every address.
    devices: Devices,
    /// Directories and interfaces that no process serves yet.
    unserved: Unserved,
    /// Macvtaps, which are made once they are recorded.
    directs: Directs,
}

impl Plan {
    /// Gives the worker the listening socket on which it waits for a later supervisor.
    ///
    /// # Errors
    /// [`PlanError::Descriptors`].
    pub fn wait_on(&mut self, listener: OwnedFd) -> Result<(), PlanError> {
        self.spec.adoption = Some(self.fds.push(listener)?);
        Ok(())
    }

    /// What its devices hold that has a name: the sockets are those that `Plan::listen` binds.
    #[must_use]
    pub fn held(&self) -> Vec<DeviceResources> {
        devices::held(&self.devices, &self.spec.devices, &self.directs)
    }

    /// Starts what serves its shared directories and interfaces, and adds those devices. To be called once; it waits for
    /// processes. They end when what the plan holds of them is dropped.
    ///
    /// # Errors
    /// [`PlanError::Share`], [`PlanError::UserNetwork`], [`PlanError::Descriptors`].
    pub(crate) fn serve(
        &mut self,
        servers: &ShareServers,
        sharer: &Sharer,
    ) -> Result<(), PlanError> {
        let unserved = std::mem::take(&mut self.unserved);
        let served = unserved.serve(servers, sharer, &mut self.fds)?;
        self.spec.devices.extend(served);
        self.spec.devices.sort_unstable_by_key(DeviceSpec::slot);
        Ok(())
    }

    /// Whether something of it is served by a process.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !self.unserved.is_empty()
    }

    /// Whether it has macvtaps that are not made yet.
    #[must_use]
    pub fn makes_macvtaps(&self) -> bool {
        self.directs.any()
    }

    /// For a machine of which nothing is recorded.
    ///
    /// # Errors
    /// [`MacvtapError::Unrecorded`].
    pub(crate) fn makes_nothing_lasting(&self) -> Result<(), PlanError> {
        match self.directs.any() {
            true => Err(MacvtapError::Unrecorded.into()),
            false => Ok(()),
        }
    }

    /// Makes its macvtaps, which are recorded ([`Plan::held`]), and adds those devices. To be called once; it waits for
    /// the kernel. What it gives back deletes them when it is dropped.
    ///
    /// # Errors
    /// [`PlanError`]; none is left.
    pub(crate) fn make_macvtaps(&mut self) -> Result<Vec<Macvtap>, PlanError> {
        let (specs, made) = self.directs.make(&mut self.fds)?;
        self.spec.devices.extend(specs);
        self.spec.devices.sort_unstable_by_key(DeviceSpec::slot);
        Ok(made)
    }

    /// Binds what devices listen on, and adds those devices. To be called once; it may wait for a file
    /// system. What it gives back unlinks the sockets when it is dropped, and is to answer for the guest's
    /// connections (`DeviceSockets::serve`).
    ///
    /// # Errors
    /// [`PlanError::Socket`], [`PlanError::Descriptors`]; nothing is bound then.
    pub(crate) fn listen(&mut self, paths: &dyn PathPolicy) -> Result<DeviceSockets, PlanError> {
        let mut sockets = DeviceSockets::default();
        let listening = devices::plan_listeners(&self.devices, paths, &mut self.fds, &mut sockets)?;
        self.spec.devices.extend(listening);
        self.spec.devices.sort_unstable_by_key(DeviceSpec::slot);
        Ok(sockets)
    }
}

/// Plans `domain` for the host whose KVM `cpuid` has asked.
///
/// # Errors
/// [`PlanError`]; nothing is left open then.
pub fn plan(
    domain: &Domain,
    cpuid: &HostCpuid,
    options: PlanOptions<'_>,
) -> Result<Plan, PlanError> {
    domain.accept()?;
    let all = devices::completed(domain)?;
    let mut fds = FdTable::new();
    let kvm = open_kvm().map_err(PlanError::Kvm)?;
    let supported_cpuid = cpuid.entries().map_err(PlanError::Cpuid)?;
    let kvm = fds.push(kvm)?;
    let boot = plan_boot(&domain.boot, options.files.paths, &mut fds)?;
    let devices =
        devices::plan_devices(&all, options.files, &options.network.of(domain), &mut fds)?;
    let unserved = Unserved::plan(&all, options.files.paths, &options.network)?;
    let directs = Directs::plan(&all, options.network.of(domain))?;
    let size_bytes = domain.memory.bytes();
    let mut memory = MemorySpec {
        size_bytes,
        backing: MemoryBacking::Shared { fd: kvm },
        pluggable: domain.pluggable(),
    };
    // What was validated fits.
    let file_bytes = MemorySize(memory.file_bytes().unwrap_or(u64::MAX));
    let fd = fds.push(guest_memory(file_bytes)?)?;
    memory.backing = MemoryBacking::Shared { fd };
    let console = options
        .console
        .map(|console| fds.push(console))
        .transpose()?;
    let (digest, policy, on_control_loss) = match options.kept {
        Some(digest) => (
            digest,
            kept_policy(domain.lifecycle),
            ControlLoss::KeepRunning,
        ),
        None => (
            SpecDigest::default(),
            end_policy(domain.lifecycle),
            options.on_control_loss,
        ),
    };
    let spec = MachineSpec {
        name: domain.name.as_str().to_owned(),
        uuid: domain.uuid.0,
        machine: domain.machine,
        vcpus: domain.vcpus.count(),
        cpu: domain.cpu,
        supported_cpuid,
        memory,
        kvm,
        boot,
        devices,
        console,
        hold: options.hold,
        policy,
        on_control_loss,
        adoption: None,
        digest,
        max_vcpus: domain.max_vcpus.count(),
        generation_id: generation_id(domain.platform.generation_id)?,
        panic_port: domain.platform.panic_port,
        watchdog: devices::plan_watchdog(&all)?,
    };
    Ok(Plan {
        spec,
        fds,
        devices: all,
        unserved,
        directs,
    })
}

/// The generation id of a machine that starts now.
fn generation_id(wanted: GenerationId) -> Result<Option<[u8; 16]>, PlanError> {
    let id = match wanted {
        GenerationId::Absent => return Ok(None),
        GenerationId::Fixed(id) => id,
        GenerationId::Random => {
            let mut bytes = [0; 16];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                let more = rustix::rand::getrandom(rest, GetRandomFlags::empty());
                filled += more.map_err(PlanError::Random)?;
            }
            uuid::Builder::from_random_bytes(bytes).into_uuid()
        }
    };
    Ok(Some(id.to_bytes_le()))
}

/// All that is sent to give a machine one more device.
#[derive(Debug)]
pub struct DevicePlan {
    /// It alone, with its address.
    device: Devices,
    /// What the worker builds; of a device that listens once [`DevicePlan::listen`] has bound its socket.
    specs: Vec<DeviceSpec>,
    fds: FdTable,
    unserved: Unserved,
    /// Macvtaps, which are made once they are recorded.
    directs: Directs,
}

impl DevicePlan {
    /// What it holds that has a name, it and each of its ports.
    #[must_use]
    pub fn held(&self) -> Vec<DeviceResources> {
        devices::held(&self.device, &self.specs, &self.directs)
    }

    /// As [`Plan::listen`].
    ///
    /// # Errors
    /// [`PlanError::Socket`], [`PlanError::Descriptors`]; nothing is bound then.
    pub(crate) fn listen(&mut self, paths: &dyn PathPolicy) -> Result<DeviceSockets, PlanError> {
        let mut sockets = DeviceSockets::default();
        let listening = devices::plan_listeners(&self.device, paths, &mut self.fds, &mut sockets)?;
        self.specs.extend(listening);
        Ok(sockets)
    }

    /// As [`Plan::serve`].
    ///
    /// # Errors
    /// [`PlanError::Share`], [`PlanError::UserNetwork`], [`PlanError::Descriptors`].
    pub(crate) fn serve(
        &mut self,
        servers: &ShareServers,
        sharer: &Sharer,
    ) -> Result<(), PlanError> {
        let unserved = std::mem::take(&mut self.unserved);
        let served = unserved.serve(servers, sharer, &mut self.fds)?;
        self.specs.extend(served);
        Ok(())
    }

    /// Whether something of it is served by a process.
    #[must_use]
    pub fn is_served(&self) -> bool {
        !self.unserved.is_empty()
    }

    /// As [`Plan::makes_macvtaps`].
    #[must_use]
    pub fn makes_macvtaps(&self) -> bool {
        self.directs.any()
    }

    /// As [`Plan::make_macvtaps`].
    ///
    /// # Errors
    /// [`PlanError`]; none is left.
    pub(crate) fn make_macvtaps(&mut self) -> Result<Vec<Macvtap>, PlanError> {
        let (specs, made) = self.directs.make(&mut self.fds)?;
        self.specs.extend(specs);
        Ok(made)
    }

    /// What is sent, once it listens where it does; `None` where there is no such device.
    #[must_use]
    pub fn into_parts(mut self) -> Option<(DeviceSpec, FdTable)> {
        Some((self.specs.pop()?, self.fds))
    }
}

/// Plans the device that `domain` has at that place, every address filled in; of a port its controller, with
/// it alone.
///
/// # Errors
/// [`PlanError`]; nothing is left open then.
pub fn plan_device(
    domain: &Domain,
    place: DevicePlace,
    files: Files<'_>,
    network: &NicPolicy,
) -> Result<DevicePlan, PlanError> {
    domain.validate()?;
    let device = domain.devices.only_at(place);
    let mut fds = FdTable::new();
    let specs = devices::plan_devices(&device, files, &network.of(domain), &mut fds)?;
    let unserved = Unserved::plan(&device, files.paths, network)?;
    let directs = Directs::plan(&device, network.of(domain))?;
    Ok(DevicePlan {
        device,
        specs,
        fds,
        unserved,
        directs,
    })
}

/// Opens what is in the disk that `domain` has at that place on the bus: nothing where there is no medium.
///
/// # Errors
/// [`PlanError`]; nothing is left open then.
pub fn plan_medium(
    domain: &Domain,
    slot: PciSlot,
    files: Files<'_>,
) -> Result<(Vec<LayerSpec>, FdTable), PlanError> {
    domain.validate()?;
    let device = domain.devices.only(slot);
    let mut fds = FdTable::new();
    let layers = match device.disks.first() {
        Some(disk) => disks::plan_layers(disk, files, &mut fds)?,
        None => return Err(model_error(DeviceError::NoDevice(DeviceName::Slot(slot)))),
    };
    Ok((layers, fds))
}

/// Opens `/dev/kvm` for reading and writing.
pub(crate) fn open_kvm() -> Result<OwnedFd, Errno> {
    rustix::fs::open(KVM_PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests;
