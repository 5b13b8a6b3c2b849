//! One device, for a domain that has others: `reeve attach`.

use clap::Args;
use std::path::PathBuf;

use reeve_ipc::model::{
    Balloon, Channel, Device, Devices, DiskTarget, Nic, PortConsole, Rng, Share, Vsock,
};

use super::{DiskArg, channel, disk, net, share, vsock};

/// A device; just one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneDevice {
    /// A disk, written as for 'reeve define'. Without a target it gets the first name that is free.
    #[arg(long, value_name = "PATH,format=raw|qcow2[,...]", value_parser = disk)]
    pub disk: Option<DiskArg>,

    /// A network interface, written as for 'reeve define'.
    #[arg(
        long,
        value_name = "bridge=NAME|tap=NAME|network=NAME|none[,...]",
        value_parser = net::net
    )]
    pub net: Option<Nic>,

    /// An entropy device.
    #[arg(long)]
    pub rng: bool,

    /// A balloon; the guest gives free pages back by itself.
    #[arg(long)]
    pub balloon: bool,

    /// A socket device whose host end is a UNIX socket at PATH.
    #[arg(long, value_name = "PATH[,cid=N]", value_parser = vsock)]
    pub vsock: Option<Vsock>,

    /// A directory that the guest mounts with 'mount -t virtiofs TAG /mnt'.
    #[arg(long, value_name = "PATH,tag=TAG[,ro][,address=N]", value_parser = share)]
    pub share: Option<Share>,

    /// A channel that the guest finds by its name, with its host end a UNIX socket at PATH. The serial
    /// controller comes with the first.
    #[arg(long, value_name = "NAME=PATH", value_parser = channel)]
    pub channel: Option<Channel>,

    /// A console beside the serial one, hvc0 and on, with its host end a UNIX socket at PATH.
    #[arg(long, value_name = "PATH")]
    pub port_console: Option<PathBuf>,
}

impl OneDevice {
    /// The device, for a domain that has these; `None` where nothing was given, which is no command line.
    pub fn device(&self, there: &[&Devices]) -> Option<Device> {
        if let Some(arg) = &self.disk {
            let taken = |target: &DiskTarget| {
                let disks = there.iter().flat_map(|devices| &devices.disks);
                disks.into_iter().any(|disk| disk.target == *target)
            };
            let mut disk = arg.disk.clone();
            let mut free = (0..)
                .map_while(DiskTarget::at)
                .filter(|target| !taken(target));
            if let (false, Some(target)) = (arg.named, free.next()) {
                disk.target = target;
            }
            return Some(Device::Disk(disk));
        }
        if let Some(nic) = &self.net {
            return Some(Device::Nic(nic.clone()));
        }
        if let Some(vsock) = &self.vsock {
            return Some(Device::Vsock(vsock.clone()));
        }
        if let Some(share) = &self.share {
            return Some(Device::Share(share.clone()));
        }
        if let Some(channel) = &self.channel {
            return Some(Device::Channel(channel.clone()));
        }
        if let Some(path) = &self.port_console {
            let (path, port) = (path.clone(), None);
            return Some(Device::Console(PortConsole { path, port }));
        }
        let rng = self.rng.then(|| Device::Rng(Rng::default()));
        let balloon = self.balloon.then_some(Device::Balloon(Balloon {
            free_page_reporting: true,
            deflate_on_oom: true,
            address: None,
        }));
        rng.or(balloon)
    }
}
