//! Why a machine could not be built.

use std::error::Error;

use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdError;
use rustix::io::Errno;

use crate::arch::x86_64::acpi::AcpiError;
use crate::boot::BootError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::spawner::SpawnerError;
use crate::vcpu::VcpuError;

/// An error of [`super::machine`] or of a reset.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A descriptor is missing or was named twice.
    #[error(transparent)]
    Descriptor(#[from] FdError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Memory that can be plugged in where the CPU cannot reach it.
    #[error(
        "the memory that the machine can be given would end at {end:#x}, and its CPUs have addresses of \
         {address_bits} bits; lower its maximum"
    )]
    Unaddressable {
        /// Its end.
        end: u64,
        /// Bits of a physical address.
        address_bits: u32,
    },
    /// A memory device without memory, or a second one.
    #[error("there is no memory to be plugged in by this device")]
    NoBlocks,
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The boot image.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The firmware.
    #[error(transparent)]
    Firmware(#[from] crate::firmware::FirmwareError),
    /// The ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The tables of the entry state do not fit (a bug of the layout).
    #[error("boot tables could not be written to guest memory")]
    EntryTables(#[source] vm_memory::GuestMemoryError),
    /// CPUID has no room for what is added (a bug).
    #[error("the list of CPUID leaves is full")]
    Cpuid,
    /// A counter that the host cannot scale.
    #[error("the TSC of the guest runs at {khz} kHz, that of this host at {host_khz} and no other")]
    TscFrequency {
        /// The guest's.
        khz: u32,
        /// The host's.
        host_khz: u32,
    },
    /// A vCPU beyond those that the machine can have.
    #[error("the machine has no place for vCPU {0}")]
    NoSuchVcpu(u32),
    /// A machine without a vCPU.
    #[error("a machine needs at least one vCPU")]
    NoVcpu,
    /// Two devices want one address (a bug of the layout).
    #[error(transparent)]
    Bus(#[from] reeve_devices::bus::BusError),
    /// A device wants a line that does not exist (a bug of the layout).
    #[error(transparent)]
    Device(#[from] reeve_devices::error::DeviceError),
    /// An eventfd.
    #[error("the host has no descriptor left")]
    Eventfd(#[from] Errno),
    /// The I/O thread.
    #[error("cannot start the I/O thread")]
    IoThread(#[source] std::io::Error),
    /// The console's stream.
    #[error("the console is no stream that can be served")]
    Console(#[source] Errno),
    /// The vCPU threads.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// A port of a serial controller.
    #[error(transparent)]
    Port(#[from] reeve_devices::virtio::console::PortError),
    /// A socket device.
    #[error(transparent)]
    Vsock(#[from] reeve_devices::virtio::vsock::VsockError),
    /// A disk's files.
    #[error("cannot use the image of disk {name}")]
    Disk {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A disk that cannot be as its specification says.
    #[error(transparent)]
    Block(#[from] reeve_devices::virtio::block::BlockError),
    /// A network interface.
    #[error("cannot use the tap {name}")]
    Nic {
        /// Its name.
        name: String,
        /// Why.
        source: reeve_devices::virtio::net::NetError,
    },
    /// A shared directory that nobody serves.
    #[error("share '{tag}' is not served")]
    Share {
        /// Its tag.
        tag: String,
        /// Why.
        source: reeve_devices::virtio::vhost_user::BackEndError,
    },
    /// A network interface that its switch does not serve.
    #[error("the switch {path} does not serve")]
    Switch {
        /// Its socket.
        path: String,
        /// Why.
        source: reeve_devices::virtio::vhost_user::BackEndError,
    },
    /// One that cannot be as it is specified.
    #[error("cannot use the switch {path}")]
    SwitchedNic {
        /// Its socket.
        path: String,
        /// Why.
        source: reeve_devices::virtio::net::NetError,
    },
    /// A shared directory for a guest whose memory is its worker's alone.
    #[error("a directory cannot be shared with this guest")]
    NotShared(#[from] reeve_devices::virtio::vhost_user::NotShared),
    /// The tag of a shared directory.
    #[error(transparent)]
    Tag(#[from] reeve_devices::virtio::fs::BadTag),
    /// A device's place on the bus.
    #[error(transparent)]
    DeviceSet(#[from] crate::device_set::DeviceSetError),
    /// A device that does not fit on PCI.
    #[error(transparent)]
    Function(#[from] reeve_devices::virtio::transport::pci::VirtioPciError),
    /// The watchdog's registers (a bug of the layout).
    #[error("the watchdog does not fit on PCI")]
    Watchdog(#[from] reeve_devices::pci::config_space::LayoutError),
    /// No random bytes for a new generation id.
    #[error("the host gives no random bytes")]
    Random(#[source] Errno),
    /// The spawner.
    #[error("cannot start the spawner thread")]
    Spawner(#[source] std::io::Error),
    /// The spawner did not do it.
    #[error(transparent)]
    NotSpawned(#[from] SpawnerError),
    /// A device's thread.
    #[error("cannot start the thread of a device")]
    DeviceThread(#[source] std::io::Error),
}

impl From<BuildError> for WireError {
    fn from(error: BuildError) -> Self {
        let code = match &error {
            BuildError::Descriptor(_) | BuildError::Console(_) => ErrorCode::Descriptor,
            BuildError::Memory(_) | BuildError::Unaddressable { .. } => ErrorCode::Memory,
            BuildError::Kvm(KvmError::TooManyVcpus { .. })
            | BuildError::NoVcpu
            | BuildError::NoSuchVcpu(_) => ErrorCode::InvalidArgument,
            BuildError::Kvm(_) | BuildError::Cpuid | BuildError::TscFrequency { .. } => {
                ErrorCode::Hypervisor
            }
            BuildError::Boot(_)
            | BuildError::Firmware(_)
            | BuildError::Acpi(_)
            | BuildError::EntryTables(_) => ErrorCode::BootImage,
            BuildError::Vcpu(VcpuError::Unresponsive(_))
            | BuildError::NotSpawned(SpawnerError::Slow(_) | SpawnerError::Busy) => {
                ErrorCode::Timeout
            }
            BuildError::Block(_)
            | BuildError::Port(_)
            | BuildError::Vsock(_)
            | BuildError::NoBlocks
            | BuildError::Tag(_)
            | BuildError::NotShared(_) => ErrorCode::InvalidArgument,
            BuildError::Disk { .. } | BuildError::Nic { .. } => ErrorCode::Descriptor,
            BuildError::Bus(_)
            | BuildError::Device(_)
            | BuildError::Eventfd(_)
            | BuildError::IoThread(_)
            | BuildError::DeviceSet(_)
            | BuildError::DeviceThread(_)
            | BuildError::Share { .. }
            | BuildError::Switch { .. }
            | BuildError::SwitchedNic { .. }
            | BuildError::Function(_)
            | BuildError::Watchdog(_)
            | BuildError::Random(_)
            | BuildError::Spawner(_)
            | BuildError::NotSpawned(SpawnerError::Gone)
            | BuildError::Vcpu(_) => ErrorCode::Host,
        };
        Self::new(code, one_line(&error))
    }
}

/// An error with its sources on one line.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line
}
