//! The arguments of the commands that give a domain devices, take them and change them.

use clap::Args;
use reeve_ipc::api::call::DomainRef;
use reeve_ipc::model::{DeviceName, Medium, MemorySize};
use reeve_ipc::spec::{DiskThrottle, Rate};

use super::domain;
use crate::devices::{OneDevice, limits, medium};

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    #[command(flatten)]
    pub device: OneDevice,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A device is named by a disk's target (vda), by an interface's address or name on the \
host, as share:TAG, channel:NAME, console:PORT, rng, balloon, vsock, ports (all channels and consoles), watchdog or memory, or by \
its address on the bus (5). 'reeve stats' shows those of a domain that runs."
)]
pub struct DetachArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The device.
    pub device: DeviceName,
    /// Take it, whatever its guest does with it. Otherwise the guest is asked, and has ten seconds; for a
    /// channel or console it is asked only where that is the last.
    #[arg(long)]
    pub force: bool,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The device, named as for 'reeve detach'.
    pub device: DeviceName,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ChangeArgs {
    /// Plug in, or pull, the cable of a network interface.
    #[arg(long, value_name = "up|down", value_parser = limits::link)]
    pub link: Option<bool>,
    /// How fast a disk may be used, or none: total-bytes=N, or read-bytes=N and write-bytes=N; the same
    /// with iops. N is as in 10M; N:BURST:SECONDS allows more for a while. What is not said is not limited.
    #[arg(long, value_name = "KEY=N[,...]|none", value_parser = limits::throttle)]
    pub throttle: Option<DiskThrottle>,
    /// How fast a network interface may be used, or none: inbound=N (to the guest), outbound=N, in bytes.
    #[arg(long, value_name = "KEY=N[,...]|none", value_parser = limits::rates)]
    pub rates: Option<(Option<Rate>, Option<Rate>)>,
    /// Take the medium out of a removable disk.
    #[arg(long)]
    pub eject: bool,
    /// Put this medium into a removable disk, in place of what is there: as for 'reeve change-media'.
    #[arg(long, value_name = "PATH,format=raw|qcow2[,...]", value_parser = medium)]
    pub insert: Option<Medium>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The guest sees the new size at once; its partitions and file systems are its own to change. A \
file becomes longer or, of a raw image, shorter; the size of a block device is changed where it comes from, and \
without SIZE the disk becomes as large as its device or file is by now. Of a domain that is off, use 'qemu-img \
resize'."
)]
pub struct ResizeArgs {
    /// Name, UUID, or number.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The disk, by its target (vda).
    pub disk: DeviceName,
    /// Its new size in bytes, or as in 20G.
    pub size: Option<MemorySize>,
    /// It may become smaller: what is behind its new end is lost.
    #[arg(long)]
    pub shrink: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A disk is removable if its definition says so (removable = true, read-only = true). The guest is \
told, and not asked: have it unmount the disk first, or it may go on with what it has cached."
)]
pub struct ChangeMediaArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The disk, by its target (vdc).
    pub disk: DeviceName,
    #[command(flatten)]
    pub medium: MediumArgs,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct MediumArgs {
    /// Take the medium out.
    #[arg(long)]
    pub eject: bool,
    /// Put this one in, in place of what is there. What a qcow2 image builds upon is said as for
    /// --disk: backing=PATH,backing-format=raw|qcow2, or backing=auto.
    #[arg(long, value_name = "PATH,format=raw|qcow2[,...]", value_parser = medium)]
    pub insert: Option<Medium>,
}
