//! How fast a link is, as its driver says (`linux/ethtool.h`): the one thing that rtnetlink does not tell.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `SIOCETHTOOL`.
const ETHTOOL: u32 = 0x8946;
/// `ETHTOOL_GSET`.
const GET_SETTINGS: u32 = 1;

/// `struct ethtool_cmd`.
#[repr(C)]
#[derive(Default)]
struct Settings {
    command: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy: u8,
    transceiver: u8,
    negotiation: u8,
    mdio: u8,
    max_tx: u32,
    max_rx: u32,
    speed_high: u16,
    crossover: u8,
    crossover_control: u8,
    partner: u32,
    reserved: [u32; 2],
}

const _: () = assert!(size_of::<Settings>() == 44);

/// `struct ifreq` whose value is a pointer.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    settings: *mut Settings,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Asks for speeds. Where it cannot ask, no link says how fast it is.
#[derive(Debug)]
pub(super) struct Speeds(Option<OwnedFd>);

impl Speeds {
    pub(super) fn open() -> Self {
        let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
        Self(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).ok())
    }

    /// Megabits a second.
    #[expect(unsafe_code, reason = "rustix has no calls about interfaces")]
    pub(super) fn of(&self, name: &str) -> Option<u32> {
        let socket = self.0.as_ref()?;
        let mut settings = Settings {
            command: GET_SETTINGS,
            ..Settings::default()
        };
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            settings: &raw mut settings,
            rest: [0; 2],
        };
        if name.len() >= libc::IFNAMSIZ {
            return None;
        }
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the call reads one `struct ifreq`, of which `Request` has the size and alignment, and reads and
        // writes one `struct ethtool_cmd` through the pointer in it during the call; `settings` has its size, all of
        // it is initialised, and it lives until after the call.
        let asked = unsafe {
            let call = ETHTOOL as libc::Ioctl;
            libc::ioctl(socket.as_raw_fd(), call, &raw mut request)
        };
        let speed = u32::from(settings.speed_high) << 16 | u32::from(settings.speed);
        // All ones is an unknown one (SPEED_UNKNOWN).
        let known = asked == 0 && speed != 0 && speed != u32::MAX && speed != u32::from(u16::MAX);
        known.then_some(speed)
    }
}
