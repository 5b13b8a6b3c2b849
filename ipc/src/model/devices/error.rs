//! Why a device is refused.

use std::path::PathBuf;

use super::disk::MAX_SAID_SERIAL_BYTES;
use super::{DeviceName, DiskTarget, InterfaceName, MAX_INTERFACE_NAME_BYTES, MAX_NIC_ADDRESSES};
use crate::spec::{
    MAX_BURST_SECONDS, MAX_CHANNEL_NAME_BYTES, MAX_DEVICES, MAX_DISK_QUEUES, MAX_GUEST_CID,
    MAX_LAYERS, MAX_NIC_QUEUES, MAX_PORTS, MAX_TAG_BYTES, MIN_GUEST_CID, MIN_MTU, MacAddress,
    PciSlot, UnknownWord,
};

/// Why a device is refused. Each line names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// More than the bus has places.
    #[error("{0} devices: a domain has at most {MAX_DEVICES}")]
    TooMany(usize),
    /// More than a serial controller has.
    #[error(
        "{0} channels and consoles: a domain has at most {MAX_PORTS}, and one of so many is a console"
    )]
    TooManyPorts(usize),
    /// Two at one place on the bus.
    #[error("{what} and {other} have the same address, {slot}; give one of them another, or none")]
    Address {
        /// The place.
        slot: PciSlot,
        /// One device.
        what: String,
        /// The other.
        other: String,
    },
    /// No name of a disk.
    #[error("'{0}' is not the name of a disk: write vda, vdb, ...")]
    TargetName(String),
    /// Two disks of one name.
    #[error("there are two disks '{0}'; give one another target")]
    Target(DiskTarget),
    /// Two disks of one file, and a writer among them.
    #[error(
        "disks '{first}' and '{second}' both use {path}, and one of them writes it; make both \
         read-only, or copy it",
        path = .path.display()
    )]
    Image {
        /// The file.
        path: PathBuf,
        /// One disk.
        first: DiskTarget,
        /// The other.
        second: DiskTarget,
    },
    /// An image without a path.
    #[error("disk '{0}' has an empty path")]
    NoPath(DiskTarget),
    /// Something to build upon, and nothing that does.
    #[error("disk '{0}' has backing files and no image")]
    NoImage(DiskTarget),
    /// Something beneath what builds upon nothing.
    #[error("disk '{0}' has a raw file with a backing file; only qcow2 builds upon another")]
    RawBacking(DiskTarget),
    /// A chain that comes back to itself.
    #[error("disk '{0}' builds upon {path} twice", path = .1.display())]
    LayerTwice(DiskTarget, PathBuf),
    /// A chain too long.
    #[error(
        "disk '{0}' has {1} files: it may have {MAX_LAYERS}, its image and what that builds upon"
    )]
    Layers(DiskTarget, usize),
    /// A serial number that does not fit.
    #[error(
        "the serial number of disk '{0}' must be 1 to {MAX_SAID_SERIAL_BYTES} characters of ASCII"
    )]
    Serial(DiskTarget),
    /// No queue, or too many.
    #[error("disk '{0}' has {1} queues: it may have 1 to {MAX_DISK_QUEUES}")]
    DiskQueues(DiskTarget, u16),
    /// Another size of blocks.
    #[error("blocks of {0} bytes: a disk has blocks of 512 or 4096")]
    BlockSize(u32),
    /// A total and its parts.
    #[error(
        "disk '{0}' limits its {1} in total, and those of reads or writes; do one or the other"
    )]
    Throttle(DiskTarget, &'static str),
    /// A rate that makes no sense.
    #[error(
        "{what} has a limit of {unit} that cannot be: a rate is at least 1 a second, a burst at least \
         that, for 1 to {MAX_BURST_SECONDS} seconds"
    )]
    Rate {
        /// The device.
        what: String,
        /// Of what.
        unit: &'static str,
    },
    /// No name of an interface.
    #[error(
        "'{0}' is not the name of a network interface: it has 1 to {MAX_INTERFACE_NAME_BYTES} characters \
         of ASCII, and none of '/', ':', '%' or blanks"
    )]
    InterfaceForm(String),
    /// Two of one address.
    #[error("there are two network interfaces with the address {0}")]
    Mac(MacAddress),
    /// Two of one name on the host.
    #[error("two network interfaces use the tap '{0}'")]
    Interface(InterfaceName),
    /// No queue, or too many.
    #[error("{nic} has {queues} queues: it may have 1 to {MAX_NIC_QUEUES}")]
    NicQueues {
        /// The interface.
        nic: String,
        /// How many.
        queues: u16,
    },
    /// Less than any network carries.
    #[error("{nic} has an MTU of {mtu}: it is at least {MIN_MTU}")]
    Mtu {
        /// The interface.
        nic: String,
        /// The MTU.
        mtu: u16,
    },
    /// What whoever made a tap decides.
    #[error("{nic} uses a tap that exists: its {what} is set there, not in a definition")]
    TapIsThere {
        /// The interface.
        nic: String,
        /// What.
        what: &'static str,
    },
    /// A switch nowhere.
    #[error("{nic} has an empty path of a switch")]
    NoSwitch {
        /// The interface.
        nic: String,
    },
    /// What a switch decides.
    #[error("{nic} is served by a switch, which alone can give it {what}")]
    OfSwitch {
        /// The interface.
        nic: String,
        /// What.
        what: &'static str,
    },
    /// A port group without a name, or with a long one.
    #[error("{nic} names a port group of no or more than 255 bytes")]
    PortGroup {
        /// The interface.
        nic: String,
    },
    /// A port of Open vSwitch that cannot be.
    #[error(
        "{nic} is on a bridge of Open vSwitch by a port that cannot be: a profile has 1 to 39 bytes, tags are 0 to 4095 \
         64 at most and each once, several and native ones of a trunk only, and one at most is native"
    )]
    OpenVswitch {
        /// The interface.
        nic: String,
    },
    /// Isolation is of the kernel's bridges.
    #[error(
        "{nic} is on a bridge of Open vSwitch, which isolates no port by itself: give it a tag of its own, or have the \
         switch's controller do it"
    )]
    IsolatedOnSwitch {
        /// The interface.
        nic: String,
    },
    /// What a process without privilege cannot have.
    #[error("{nic} is served by a process without privilege, which cannot give it {what}")]
    OfUser {
        /// The interface.
        nic: String,
        /// What.
        what: &'static str,
    },
    /// The kernel would write behind the filter.
    #[error(
        "{nic} has the driver vhost and a source filter, which does not see where its guest then has the kernel write \
         checksums: say driver=user, or trust-guest and no addresses, which is no filter"
    )]
    FilteredByKernel {
        /// The interface.
        nic: String,
    },
    /// No addresses of a station.
    #[error(
        "'{0}' is not the address of a guest: write 192.0.2.5 or 2001:db8::5, or a network's first address with \
         the length of its prefix, 2001:db8::/64"
    )]
    IpForm(String),
    /// Too many.
    #[error("{nic} has {count} addresses: it may have {MAX_NIC_ADDRESSES}")]
    NicAddresses {
        /// The interface.
        nic: String,
        /// How many.
        count: usize,
    },
    /// Its network filter.
    #[error("{nic}: {error}")]
    NicFilter {
        /// The interface.
        nic: String,
        /// What is wrong with what it says of the filter.
        error: String,
    },
    /// A context id that no guest has.
    #[error("a vsock cid of {0}: a guest has {MIN_GUEST_CID} to {MAX_GUEST_CID}")]
    Cid(u32),
    /// A channel's name.
    #[error(
        "'{0}' is not the name of a channel: it has 1 to {MAX_CHANNEL_NAME_BYTES} characters of ASCII, \
         without blanks and '/'"
    )]
    ChannelName(String),
    /// Two of one name.
    #[error("there are two channels '{0}'")]
    ChannelTwice(String),
    /// A number that no port of its kind has.
    #[error("port {0} cannot be had: a channel has one of 1 to 30, a console one of 0 to 30")]
    PortNumber(u8),
    /// Two of one number.
    #[error("two channels or consoles have port {0}; give one of them another, or none")]
    PortTwice(u8),
    /// Two of one path.
    #[error("two devices listen on {path}", path = .0.display())]
    Socket(PathBuf),
    /// A share's tag.
    #[error(
        "'{0}' is not the tag of a share: it has 1 to {MAX_TAG_BYTES} characters of ASCII, without blanks \
         and '/'"
    )]
    Tag(String),
    /// Two of one tag.
    #[error("there are two shares '{0}'; give one another tag")]
    TagTwice(String),
    /// A share of nothing.
    #[error("share '{0}' has an empty path")]
    NoSource(String),
    /// No name of a device.
    #[error(
        "'{0}' is not the name of a device: write a disk's target (vda), a network interface's address or \
         name, share:TAG, channel:NAME, console:PORT, rng, balloon, vsock, ports, watchdog, memory, or an \
         address on the bus (5)"
    )]
    Name(String),
    /// None of that name.
    #[error("there is no device '{0}'")]
    NoDevice(DeviceName),
    /// A second one where there may be one.
    #[error("a domain has one {0}, and this one has it already")]
    Second(&'static str),
    /// An action of a watchdog that there is not.
    #[error(transparent)]
    WatchdogAction(#[from] UnknownWord),
    /// An action of a watchdog that is not supported.
    #[error(
        "the watchdog action 'dump' is not supported, as guests cannot be dumped; 'pause' keeps the guest as \
         it is, and 'inject-nmi' lets it dump itself"
    )]
    WatchdogDump,
    /// A change that is another kind's.
    #[error("'{0}' cannot be changed like that: it is a device of another kind")]
    Change(DeviceName),
    /// A removable disk that could be written, or has several queues.
    #[error("disk '{0}' is removable: such a disk is read-only, and has one queue")]
    Removable(DiskTarget),
    /// Another medium for a disk that keeps its own.
    #[error(
        "disk '{0}' is not removable, so that its medium stays; define it with removable = true and \
         read-only = true, or attach another disk"
    )]
    NotRemovable(DiskTarget),
    /// A disk of which both its image and its definition are to say what it builds upon.
    #[error(
        "disk '{0}' says that what its image builds upon is read from it, and what it is; say one"
    )]
    BackingTwice(DiskTarget),
    /// What only a disk with something in it can do.
    #[error("disk '{0}' has no medium")]
    NoMedium(DiskTarget),
    /// Another size for what may not be written.
    #[error("disk '{0}' is read-only, and so its image keeps its size")]
    ReadOnly(DiskTarget),
}
