//! The command line of the modes that drive devices. As `options.rs` of the plain modes: pure, compiled
//! into the host library's tests as well.

use super::super::options::number;
use super::cases::{self, Case};

/// What the guest is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// List the devices.
    Report,
    /// Write, read back, compare.
    BlockVerify,
    /// Keep a disk busy.
    BlockBench,
    /// Say how large a disk is, and what is in it, at each change.
    BlockWatch,
    /// Send or receive frames.
    NetBench,
    /// Send frames back.
    NetEcho,
    /// Read random bytes.
    RngRead,
    /// Misbehave towards a device.
    Attack,
    /// Say that the kernel panicked.
    Panic,
    /// Say that the crash kernel starts.
    CrashKernel,
    /// Let a watchdog expire.
    Watchdog,
    /// Misbehave towards a watchdog.
    WatchdogAttack,
    /// Show the generation id.
    Generation,
    /// Keep a device busy, and say how quick each operation was.
    Measure,
    /// Connect to the host.
    VsockDial,
    /// Plug and unplug memory as asked.
    MemoryWatch,
}

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Each there is, one after the other.
    Any,
    /// The one of that virtio id (virtio 1.3 §5).
    Id(u16),
}

impl Device {
    /// Entropy.
    pub const RNG: Self = Self::Id(4);
    /// Disk.
    pub const BLOCK: Self = Self::Id(2);
    /// Network.
    pub const NET: Self = Self::Id(1);
    /// Sockets.
    pub const VSOCK: Self = Self::Id(19);
    /// Memory.
    pub const MEM: Self = Self::Id(24);

    /// Whether a device of that id is meant.
    pub fn is(self, id: u16) -> bool {
        self == Self::Any || self == Self::Id(id)
    }

    /// The name of the devices of an id.
    pub fn name_of(id: u16) -> &'static str {
        DEVICES
            .iter()
            .find(|(_, known)| *known == id)
            .map_or("unknown", |(name, _)| name)
    }
}

const DEVICES: [(&str, u16); 8] = [
    ("net", 1),
    ("block", 2),
    ("console", 3),
    ("rng", 4),
    ("balloon", 5),
    ("vsock", 19),
    ("mem", 24),
    ("fs", 26),
];

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do, if it is something with devices.
    pub mode: Option<Mode>,
    /// `case=`: which attack; none if it is unknown.
    pub case: Option<Case>,
    /// `device=`; none if it is unknown.
    pub device: Option<Device>,
    /// `seed=`: start of the random sequence.
    pub seed: u64,
    /// `count=`: how many requests, frames, bytes or rounds.
    pub count: Option<u64>,
    /// `ms=`: how long, in milliseconds.
    pub milliseconds: u64,
    /// `depth=`: requests in flight at once.
    pub depth: u64,
    /// `size=`: bytes of a request or frame.
    pub size: Option<u64>,
    /// `write=1`: write to the disk.
    pub write: bool,
    /// `sequential=1`: one place after the other.
    pub sequential: bool,
    /// `wait=interrupt`: sleep instead of looking.
    pub interrupt: bool,
    /// `direction=`: which way frames go.
    pub direction: Direction,
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `tx`, and what is unknown: from the guest.
    Transmit,
    /// `rx`: to the guest.
    Receive,
    /// `rtt`: from the guest and back to it.
    RoundTrip,
}

impl Options {
    /// Parses a command line without its terminating NUL.
    pub fn parse(line: &[u8]) -> Self {
        let mut options = Self {
            mode: None,
            case: None,
            device: Some(Device::Any),
            seed: 1,
            count: None,
            milliseconds: 1000,
            depth: 1,
            size: None,
            write: false,
            sequential: false,
            interrupt: false,
            direction: Direction::Transmit,
        };
        for word in line.split(|&byte| byte <= b' ') {
            let Some(equals) = word.iter().position(|&byte| byte == b'=') else {
                continue;
            };
            let (name, value) = word.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            let amount = number(value);
            match name {
                b"mode" => options.mode = lookup(&MODES, value),
                b"case" => options.case = lookup(&cases::ALL, value),
                b"device" if value == b"any" => options.device = Some(Device::Any),
                b"device" => options.device = lookup(&DEVICES, value).map(Device::Id),
                b"seed" => options.seed = amount,
                b"count" => options.count = Some(amount),
                b"ms" => options.milliseconds = amount,
                b"depth" => options.depth = amount,
                b"size" => options.size = Some(amount),
                b"write" => options.write = amount != 0,
                b"sequential" => options.sequential = amount != 0,
                b"wait" => options.interrupt = value == b"interrupt",
                b"direction" => {
                    options.direction = match value {
                        b"rx" => Direction::Receive,
                        b"rtt" => Direction::RoundTrip,
                        _ => Direction::Transmit,
                    }
                }
                _ => {}
            }
        }
        options
    }
}

const MODES: [(&str, Mode); 16] = [
    ("virtio-report", Mode::Report),
    ("block-verify", Mode::BlockVerify),
    ("block-bench", Mode::BlockBench),
    ("block-watch", Mode::BlockWatch),
    ("net-bench", Mode::NetBench),
    ("net-echo", Mode::NetEcho),
    ("rng-read", Mode::RngRead),
    ("attack", Mode::Attack),
    ("panic", Mode::Panic),
    ("crash-kernel", Mode::CrashKernel),
    ("watchdog", Mode::Watchdog),
    ("watchdog-attack", Mode::WatchdogAttack),
    ("generation", Mode::Generation),
    ("measure", Mode::Measure),
    ("vsock-dial", Mode::VsockDial),
    ("memory-watch", Mode::MemoryWatch),
];

fn lookup<T: Copy>(table: &[(&str, T)], name: &[u8]) -> Option<T> {
    table
        .iter()
        .find(|(known, _)| known.as_bytes() == name)
        .map(|&(_, value)| value)
}
