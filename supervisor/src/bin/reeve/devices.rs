//! Devices on the command line: `--disk PATH,format=qcow2,...` and the like.
//!
//! A value is a list with commas: first what the device is about, where there is such a thing, then
//! `key=value`. A comma within a value is written twice.

pub mod limits;
mod list;
mod net;
mod one;

use std::path::PathBuf;

use clap::Args;
use reeve_ipc::model::{
    Balloon, BlockSize, Channel, Devices, Disk, DiskTarget, Layer, Medium, Nic, Rng, Share, Vsock,
    Watchdog,
};
use reeve_ipc::spec::DiskFormat;

use self::list::List;
pub use self::one::OneDevice;

/// The devices of a machine.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// A disk, from an image or a block device; may be given again. Its format is always said, never
    /// guessed. More: ro, removable (then none in place of PATH has no medium), target=vda, cache=writeback|none|writethrough|directsync|unsafe,
    /// io=io_uring|threads, discard=ignore|unmap, serial=TEXT, queues=N, block-size=512|4096, address=N.
    /// What a qcow2 image builds upon is said for each file, in order: backing=PATH,backing-format=raw|qcow2. With
    /// backing=auto it is read from the images, whose authors then choose the files. A comma in a path is
    /// written twice.
    #[arg(
        long,
        value_name = "PATH,format=raw|qcow2[,...]",
        value_parser = disk,
        help_heading = "Devices"
    )]
    pub disk: Vec<DiskArg>,

    /// A network interface, on a bridge of the host, on a tap that exists, on a switch that serves it by
    /// vhost-user on a UNIX socket, on a virtual network of the daemon, upon a device of the host (by macvtap; of a domain of the
    /// daemon's), or on a tap of its own that is connected to nothing (none); may be given
    /// again. More: mac=52:54:00:..., target=NAME, queues=N,
    /// mtu=N, link=up|down, group=NAME of a network's ports, mode=bridge|vepa|private|passthrough of a device,
    /// driver=user|vhost, isolated, trust-guest, address=N, and for each address from which the guest may
    /// send, where not from any, ip=192.0.2.5 or ip=2001:db8::/64.
    #[arg(
        long,
        value_name = "bridge=NAME|tap=NAME|switch=PATH|network=NAME|direct=DEVICE|user|none[,...]",
        value_parser = net::net,
        help_heading = "Devices"
    )]
    pub net: Vec<Nic>,

    /// An entropy device.
    #[arg(long, help_heading = "Devices")]
    pub rng: bool,

    /// A balloon; the guest gives free pages back by itself.
    #[arg(long, help_heading = "Devices")]
    pub balloon: bool,

    /// A socket device whose host end is a UNIX socket at PATH; connections of the guest's to port P of the
    /// host go to a program that listens at PATH_P.
    #[arg(
        long,
        value_name = "PATH[,cid=N]",
        value_parser = vsock,
        help_heading = "Devices"
    )]
    pub vsock: Option<Vsock>,

    /// A channel that the guest finds by its name, with its host end a UNIX socket at PATH; may be given
    /// again.
    #[arg(
        long,
        value_name = "NAME=PATH",
        value_parser = channel,
        help_heading = "Devices"
    )]
    pub channel: Vec<Channel>,

    /// A directory that the guest mounts with 'mount -t virtiofs TAG /mnt'; may be given again. The guest's
    /// root is the directory's owner there, or, without privilege, who runs this. More: ro, address=N.
    #[arg(
        long,
        value_name = "PATH,tag=TAG[,ro][,...]",
        value_parser = share,
        help_heading = "Devices"
    )]
    pub share: Vec<Share>,

    /// A watchdog, an i6300esb, and what is done when the guest does not reload it in time.
    #[arg(
        long,
        value_name = "reset|shutdown|poweroff|pause|none|inject-nmi[,address=N]",
        value_parser = watchdog,
        help_heading = "Devices"
    )]
    pub watchdog: Option<Watchdog>,
}

/// A disk whose name may have been left to us.
#[derive(Debug, Clone)]
pub struct DiskArg {
    disk: Disk,
    named: bool,
}

impl DeviceArgs {
    /// The devices; a disk without a name gets the first that no other has.
    pub fn devices(&self) -> Devices {
        let mut taken: Vec<DiskTarget> = self
            .disk
            .iter()
            .filter(|arg| arg.named)
            .map(|arg| arg.disk.target.clone())
            .collect();
        let disks = self.disk.iter().map(|arg| {
            let mut disk = arg.disk.clone();
            let mut names = (0..).map_while(DiskTarget::at);
            if let (false, Some(free)) = (arg.named, names.find(|name| !taken.contains(name))) {
                disk.target = free.clone();
                taken.push(free);
            }
            disk
        });
        Devices {
            disks: disks.collect(),
            nics: self.net.clone(),
            rng: self.rng.then(Rng::default),
            balloon: self.balloon.then_some(Balloon {
                free_page_reporting: true,
                deflate_on_oom: true,
                address: None,
            }),
            vsock: self.vsock.clone(),
            channels: self.channel.clone(),
            consoles: Vec::new(),
            ports_address: None,
            shares: self.share.clone(),
            watchdog: self.watchdog,
            memory: None,
        }
    }
}

fn disk(text: &str) -> Result<DiskArg, String> {
    let mut list = List::read(text);
    let empty = list.flag("none");
    let medium = match empty {
        true => None,
        false => Some(read_medium(&mut list)?),
    };
    let target = list.take("target")?;
    let first = || DiskTarget::at(0).ok_or("no name is left for a disk");
    let named = target.is_some();
    let target = target.map_or_else(first, Ok)?;
    let mut disk = Disk::new(target, None);
    disk.exchange(medium);
    disk.removable = list.flag("removable");
    disk.read_only = list.flag("ro");
    list.set("cache", &mut disk.cache)?;
    list.set("io", &mut disk.io)?;
    list.set("discard", &mut disk.discard)?;
    list.set("queues", &mut disk.queues)?;
    disk.serial = list.take("serial")?;
    if let Some(bytes) = list.take::<u32>("block-size")? {
        disk.block_size = BlockSize::try_from(bytes).map_err(|error| error.to_string())?;
    }
    disk.address = list.address()?;
    list.end()?;
    Ok(DiskArg { disk, named })
}

/// An image and what it builds upon.
fn read_medium(list: &mut List) -> Result<Medium, String> {
    let path = PathBuf::from(list.subject("path")?);
    let format: Option<DiskFormat> = list.take("format")?;
    let Some(format) = format else {
        return Err(format!(
            "state what is in it, with ',format=raw' or ',format=qcow2': {} is never read to guess that",
            path.display()
        ));
    };
    let from_image = list.flag("backing=auto");
    let backing = list.pairs("backing", "backing-format")?.into_iter();
    Ok(Medium {
        image: Layer { path, format },
        backing: backing
            .map(|(path, format)| Layer {
                path: path.into(),
                format,
            })
            .collect(),
        from_image,
    })
}

/// What is put into a disk that is there: `PATH,format=...`, with what it builds upon.
pub fn medium(text: &str) -> Result<Medium, String> {
    let mut list = List::read(text);
    let medium = read_medium(&mut list)?;
    list.end()?;
    Ok(medium)
}

fn vsock(text: &str) -> Result<Vsock, String> {
    let mut list = List::read(text);
    let vsock = Vsock {
        path: list.subject("path")?.into(),
        cid: list.take("cid")?,
        address: list.address()?,
    };
    list.end()?;
    Ok(vsock)
}

fn share(text: &str) -> Result<Share, String> {
    let mut list = List::read(text);
    let source = list.subject("path")?.into();
    let tag: Option<String> = list.take("tag")?;
    let share = Share {
        tag: tag.ok_or("say what the guest mounts it by, with ',tag=TAG'")?,
        source,
        read_only: list.flag("ro"),
        address: list.address()?,
    };
    list.end()?;
    Ok(share)
}

fn watchdog(text: &str) -> Result<Watchdog, String> {
    let mut list = List::read(text);
    let action = list.subject("action")?;
    let watchdog = Watchdog {
        action: Watchdog::action(&action).map_err(|error| error.to_string())?,
        address: list.address()?,
    };
    list.end()?;
    Ok(watchdog)
}

fn channel(text: &str) -> Result<Channel, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Channel {
            name: name.to_owned(),
            path: path.into(),
            port: None,
        }),
        _ => Err("write NAME=PATH, as in org.qemu.guest_agent.0=agent.sock".to_owned()),
    }
}

#[cfg(test)]
mod tests;
