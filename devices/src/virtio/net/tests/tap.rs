//! Tests against the host's own taps, in a network namespace that ends with the test. They need the
//! right to make one: as root, or with `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::fs::{Mode, OFlags, open};

use super::super::features::F_MRG_RXBUF;
use super::super::header::HEADER_BYTES;
use super::super::*;
use super::rig::{BUFFERS, Rig, config};
use crate::virtio::testing::{into, out};

const NAME: &[u8] = b"reeve-test0";
const IFF_TAP: libc::c_short = 0x0002;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

fn request(flags: libc::c_short) -> libc::ifreq {
    // SAFETY: plain data, for which zeroes are good.
    #[expect(unsafe_code, reason = "a C structure")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    request
}

fn control(fd: &OwnedFd, number: u32, mut request: libc::ifreq) -> io::Result<()> {
    // SAFETY: these ioctls read and write a `struct ifreq`.
    #[expect(unsafe_code, reason = "ioctls to set up an interface")]
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number as _, &raw mut request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Descriptors of one tap that is up, and a packet socket through which the host's side of it is seen.
struct Host {
    queues: Vec<OwnedFd>,
    socket: OwnedFd,
}

fn host(queues: usize) -> io::Result<Host> {
    // SAFETY: the thread has no other threads' state in its network namespace.
    #[expect(unsafe_code, reason = "a namespace of the thread's own")]
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    let mut fds = Vec::new();
    for _ in 0..queues {
        let fd = open(
            "/dev/net/tun",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        control(&fd, 0x4004_54ca, request(flags))?;
        fds.push(fd);
    }
    // No IPv6, or the host would send frames of its own.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    let socket = packet_socket()?;
    // SIOCSIFFLAGS, IFF_UP.
    control(&socket, 0x8914, request(1))?;
    Ok(Host {
        queues: fds,
        socket,
    })
}

/// A socket that sees every interface of the namespace.
fn packet_socket() -> io::Result<OwnedFd> {
    let every = 0x0003_u16.to_be();
    // SAFETY: no memory is accessed.
    #[expect(unsafe_code, reason = "packet sockets are not in the library")]
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            every.into(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made just now and is nobody else's.
    #[expect(unsafe_code, reason = "as above")]
    Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
}

impl Host {
    fn address(&self) -> libc::sockaddr_ll {
        // SAFETY: plain data, for which zeroes are good.
        #[expect(unsafe_code, reason = "a C structure")]
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        let mut name = NAME.to_vec();
        name.push(0);
        // SAFETY: the name ends with a zero.
        #[expect(unsafe_code, reason = "a C function")]
        let index = unsafe { libc::if_nametoindex(name.as_ptr().cast()) };
        address.sll_ifindex = index.cast_signed();
        address
    }

    /// Sends a frame out by the interface, to the guest.
    fn send(&self, frame: &[u8]) {
        self.send_by(&self.socket, frame);
    }

    /// The same of a frame with the 10 bytes of a header in front, as the host's own stack would leave
    /// to the interface.
    fn send_uncut(&self, frame: &[u8]) {
        let socket = packet_socket().expect("a packet socket");
        let (on, packet_vnet_hdr) = (1_i32, 15);
        // SAFETY: the option is an int.
        #[expect(unsafe_code, reason = "packet sockets are not in the library")]
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                packet_vnet_hdr,
                (&raw const on).cast(),
                4,
            )
        };
        assert_eq!(result, 0);
        self.send_by(&socket, frame);
    }

    fn send_by(&self, socket: &OwnedFd, frame: &[u8]) {
        let address = self.address();
        // SAFETY: buffer and address are as long as is said, and live for the call.
        #[expect(unsafe_code, reason = "packet sockets are not in the library")]
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                libc::socklen_t::try_from(size_of_val(&address)).expect("short"),
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// Takes frames of the test's own kind that the interface received.
    fn take(&self) -> Vec<Vec<u8>> {
        let (mut frames, mut bytes) = (Vec::new(), vec![0; 0x2_0000]);
        while let Ok(len) = rustix::io::read(&self.socket, bytes.as_mut_slice()) {
            let frame = &bytes[..len];
            if frame[12..14] == ETHERTYPE || frame[12..14] == [8, 0] {
                frames.push(frame.to_vec());
            }
        }
        frames
    }
}

/// One for experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(ETHERTYPE);
    frame.extend((0..241_u8).cycle().take(len - 14).map(|at| at ^ seed));
    frame
}

/// Runs `test` with a tap of `queues` queues, in a namespace of its own.
fn with_taps(queues: usize, test: impl FnOnce(Vec<Arc<dyn Port>>, Host) + Send + 'static) {
    let body = move || match host(queues) {
        Ok(mut host) => {
            let ports = host
                .queues
                .drain(..)
                .map(|fd| Arc::new(Tap::new(fd).expect("a tap")) as Arc<dyn Port>)
                .collect();
            test(ports, host);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!(
                "skipped: a network namespace and a tap need CAP_SYS_ADMIN and CAP_NET_ADMIN"
            );
        }
        Err(error) => panic!("a tap in a namespace: {error}"),
    };
    let thread = thread::spawn(body);
    thread.join().expect("the test passed");
}

#[test]
fn frames_go_through_a_tap_both_ways() {
    with_taps(1, |ports, host| {
        let mut rig = Rig::new(config(), ports, F_MRG_RXBUF);
        for at in 0..16 {
            rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 700)]);
        }
        rig.kick(0);
        let sent = frame(1514, 3);
        host.send(&sent);
        rig.run();
        let used = rig.drivers[0].take_used();
        assert_eq!(used, [(0, 700), (1, 700), (2, 126)]);
        let mut received = rig.read(BUFFERS, 700);
        received.extend(rig.read(BUFFERS + 0x1000, 700));
        received.extend(rig.read(BUFFERS + 0x2000, 126));
        assert_eq!(received[10..12], [3, 0]);
        assert!(received[HEADER_BYTES..] == sent);

        host.take();
        let sent = frame(900, 4);
        rig.ram.write(BUFFERS + 0x2_0000, &[0; 12]).expect("in RAM");
        rig.ram.write(BUFFERS + 0x2_000c, &sent).expect("in RAM");
        rig.drivers[1].add(&[out(BUFFERS + 0x2_0000, 912)]);
        rig.kick(1);
        assert!(host.take().contains(&sent));
    });
}

/// Ethernet, IPv4 and TCP around 60,000 bytes of IP packet, and the header of §5.1.6 that has it cut
/// into segments of 1,448 bytes.
fn uncut() -> ([u8; HEADER_BYTES], Vec<u8>) {
    let mut bytes = frame(60_014, 0);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34].copy_from_slice(&[
        0x45, 0, 0xea, 0x60, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    let sum: u32 = bytes[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..54].copy_from_slice(&[
        0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    ([1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0], bytes)
}

#[test]
fn a_segment_of_60_kib_is_sent_uncut() {
    with_taps(1, |ports, host| {
        let mut rig = Rig::new(config(), ports, !F_MQ);
        let (header, bytes) = uncut();
        rig.ram.write(BUFFERS, &header).expect("in RAM");
        rig.ram.write(BUFFERS + 0x1000, &bytes).expect("in RAM");
        host.take();
        rig.drivers[1].add(&[out(BUFFERS, 12), out(BUFFERS + 0x1000, 60_014)]);
        rig.kick(1);
        assert_eq!(rig.handle.counters().tx.packets, 1);
        assert!(host.take().iter().any(|frame| frame.len() == 60_014));
    });
}

#[test]
fn a_segment_of_60_kib_is_received_uncut_only_by_a_driver_that_agreed_to() {
    for (features, uncut_is_taken) in [
        (F_MRG_RXBUF | F_GUEST_CSUM | F_GUEST_TSO4, true),
        (F_MRG_RXBUF | F_GUEST_CSUM, false),
        (F_MRG_RXBUF, false),
    ] {
        with_taps(1, move |ports, host| {
            let mut rig = Rig::new(config(), ports, features);
            for at in 0..64 {
                rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 1536)]);
            }
            rig.kick(0);
            let (header, bytes) = uncut();
            host.send_uncut(&[&header[..10], &bytes].concat());
            rig.run();
            let counters = rig.handle.counters().rx;
            assert_eq!((counters.drops, counters.errors), (0, 0));
            let header = rig.read(BUFFERS, HEADER_BYTES);
            if uncut_is_taken {
                assert_eq!((counters.packets, counters.bytes), (1, 60_014));
                assert_eq!(header, [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 40, 0]);
            } else {
                // Cut by the host's kernel: 59,960 bytes of payload in segments of 1,448.
                assert_eq!(counters.packets, 42);
                assert_eq!(header[1], 0);
            }
        });
    }
}

#[test]
fn a_header_the_host_sees_through_costs_the_frame_and_no_more() {
    with_taps(1, |ports, host| {
        let mut rig = Rig::new(config(), ports, !F_MQ);
        // Segments of TCP whose header is not all there.
        let header = [1, 1, 53, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
        rig.ram.write(BUFFERS, &header).expect("in RAM");
        let mut bad = frame(53, 0);
        bad[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 39, 0, 0, 0, 0, 64, 6]);
        rig.ram.write(BUFFERS + 12, &bad).expect("in RAM");
        rig.ram.write(BUFFERS + 0x1000, &[0; 12]).expect("in RAM");
        let good = frame(100, 1);
        rig.ram.write(BUFFERS + 0x100c, &good).expect("in RAM");
        rig.drivers[1].add(&[out(BUFFERS, 12 + 53)]);
        rig.drivers[1].add(&[out(BUFFERS + 0x1000, 112)]);
        host.take();
        rig.kick(1);
        assert_eq!(rig.drivers[1].take_used(), [(0, 0), (1, 0)]);
        assert!(host.take().contains(&good));
        let counters = rig.handle.counters().tx;
        assert_eq!((counters.errors, counters.drops), (0, 1));
    });
}

#[test]
fn queues_of_a_tap_are_taken_out_and_put_back() {
    with_taps(3, |ports, host| {
        let mut rig = Rig::new(config(), ports, F_MQ | features::F_CTRL_VQ | F_MRG_RXBUF);
        for round in 0..4_u8 {
            let pairs = 1 + round % 3;
            rig.ram.write(BUFFERS, &[4, 0, pairs, 0]).expect("in RAM");
            rig.drivers[6].add(&[out(BUFFERS, 4), into(BUFFERS + 64, 1)]);
            rig.kick(6);
            assert_eq!(rig.read(BUFFERS + 64, 1), [0]);
            // Whichever queue of those in use the host chooses, the frame arrives.
            for queue in [0, 2, 4] {
                rig.drivers[queue].add(&[into(BUFFERS + 0x1000, 2000)]);
                rig.kick(queue);
            }
            host.send(&frame(200, round));
            rig.run();
            let received: usize = [0, 2, 4]
                .iter()
                .map(|queue| rig.drivers[*queue].take_used().len())
                .sum();
            assert_eq!(received, 1, "with {pairs} pairs");
        }
        assert_eq!(rig.run(), 0);
    });
}

#[test]
fn a_queue_that_another_process_has_taken_out_is_put_back_by_the_next() {
    /// `TUNSETQUEUE`, `IFF_ATTACH_QUEUE` and `IFF_DETACH_QUEUE`.
    const SET_QUEUE: u32 = 0x4004_54d9;
    with_taps(2, |ports, _host| {
        let next = |port: &Arc<dyn Port>| {
            let fd = port.as_fd().try_clone_to_owned().expect("a descriptor");
            (
                Tap::new(fd.try_clone().expect("another")).expect("a tap"),
                fd,
            )
        };
        let is_attached = |fd: &OwnedFd| control(fd, SET_QUEUE, request(0x0200)).is_err();
        ports[1].set_attached(false).expect("there is another");
        // What it is told first may be what is so already.
        let (tap, fd) = next(&ports[1]);
        tap.set_attached(false).expect("it is so");
        tap.set_attached(true).expect("put back");
        assert!(is_attached(&fd));
        tap.set_attached(false).expect("taken out");
        let (tap, fd) = next(&ports[1]);
        tap.set_attached(true).expect("put back");
        assert!(is_attached(&fd));
        let (tap, fd) = next(&ports[1]);
        tap.set_attached(true).expect("it is so");
        assert!(is_attached(&fd));
        tap.set_attached(false).expect("taken out");
        assert!(!is_attached(&fd));
    });
}

#[test]
fn a_tap_that_is_deleted_is_let_go_of() {
    with_taps(1, |ports, host| {
        let mut rig = Rig::new(config(), ports, F_MRG_RXBUF);
        rig.drivers[0].add(&[into(BUFFERS, 2000)]);
        rig.kick(0);
        let index = host.address().sll_ifindex;
        delete(index);
        rig.run();
        assert_eq!(rig.run(), 0);
        rig.drivers[1].add(&[out(BUFFERS, 100)]);
        rig.kick(1);
        assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
        rig.stop();
    });
}

/// Deletes interface `index`, as an administrator would (`RTM_DELLINK`).
fn delete(index: i32) {
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(17_u16.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        None,
    )
    .expect("a netlink socket");
    rustix::io::write(&socket, &message).expect("a message");
}

#[test]
fn a_descriptor_that_is_no_tap_is_refused() {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (reader, _writer) = rustix::pipe::pipe_with(flags).expect("a pipe");
    assert!(Tap::new(reader).is_err());
}
