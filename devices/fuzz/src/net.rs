//! The network device, with sockets in place of a tap.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::net::{Bandwidth, Net, NetConfig, NetHandle, Offloads, Port};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

/// Bytes of the header in front of a frame.
const HEADER: usize = 12;
/// The longest frame and its header.
const LONGEST: usize = 65_562;

/// The device's end of a pair of sockets.
struct Socket {
    socket: UnixDatagram,
    cuts_udp: bool,
    refuses: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port for Socket {
    fn cuts_udp(&self) -> bool {
        self.cuts_udp
    }

    fn set_offloads(&self, _offloads: Offloads) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }

    fn set_attached(&self, _attached: bool) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Interface {
    options: u8,
    host: Vec<UnixDatagram>,
    handle: Option<NetHandle>,
    buffer: Vec<u8>,
}

impl Interface {
    /// Takes what the guest has sent: a header that says nothing that is not so of its frame, and a
    /// frame that is one.
    fn drain(&mut self) {
        for socket in &self.host {
            while let Ok(len) = socket.recv(&mut self.buffer) {
                let Some((header, frame)) = self.buffer[..len].split_at_checked(HEADER) else {
                    panic!("a frame without a header");
                };
                assert!(
                    frame.len() >= 14 && len <= LONGEST,
                    "a frame of {len} bytes"
                );
                let field =
                    |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
                if header[0] & 1 != 0 {
                    assert!(field(6) + field(8) + 2 <= frame.len(), "checksum outside");
                }
                if header[1] != 0 {
                    assert!(field(2) <= frame.len() && field(4) > 0, "bad segments");
                }
            }
        }
    }
}

/// A header for a frame of `frame` bytes: none of its fields set, any, or what fits just so or just not.
fn header(input: &mut Input<'_>, frame: usize) -> Vec<u8> {
    let mut header = match input.u8() & 3 {
        0 => Vec::new(),
        1 => input.bytes(HEADER).to_vec(),
        how => {
            let end = u16::try_from(frame).unwrap_or(u16::MAX);
            let near = |input: &mut Input<'_>| {
                let back = u16::from(input.u8() & 0x3f);
                end.saturating_add(8).saturating_sub(back).to_le_bytes()
            };
            let kind = input.u8();
            let gso = [1, 4, 5, 3][usize::from(kind & 3)] | kind & 0x80;
            let mut header = vec![1, if how == 2 { 0 } else { gso }];
            header.extend(near(input));
            header.extend(u16::from(input.u8()).to_le_bytes());
            header.extend(near(input));
            header.extend(u16::from(input.u8() & 0x1f).to_le_bytes());
            header
        }
    };
    header.resize(HEADER, 0);
    header
}

impl Subject for Interface {
    fn new(input: &mut Input<'_>) -> Self {
        Self {
            options: input.u8(),
            host: Vec::new(),
            handle: None,
            buffer: vec![0; LONGEST + 1],
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let options = self.options;
        self.host.clear();
        let mut ports: Vec<Arc<dyn Port>> = Vec::new();
        for _ in 0..=usize::from(options & 1) {
            let (host, socket) = UnixDatagram::pair().expect("sockets");
            for end in [&host, &socket] {
                end.set_nonblocking(true).expect("a socket");
            }
            self.host.push(host);
            ports.push(Arc::new(Socket {
                socket,
                cuts_udp: options & 2 != 0,
                refuses: options & 0xc == 0xc,
            }));
        }
        let config = NetConfig {
            mac: [2, 0, 0, 0, 0, 1],
            mac_may_change: options & 0x10 != 0,
            mtu: (options & 0x20 != 0).then_some(1500),
            speed: (options & 0x40 != 0).then_some(1000),
            queue_size: 64,
            link_up: options & 0x80 == 0,
            udp_segmentation: options & 2 != 0,
        };
        let net = Net::new(config, ports).expect("a device");
        self.handle = Some(net.handle());
        Box::new(net)
    }

    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        let control = if self.options & 1 == 0 { 2 } else { 4 };
        if queue == control {
            let (class, command) = (input.u8() % 7, input.u8() % 6);
            let mut chain = vec![Piece::Out(vec![class, command])];
            // Tables of addresses have a count in front.
            if class == 1 && command == 0 {
                for _ in 0..2 {
                    let count = u32::from(input.u8() & 0x7f);
                    let mut table = count.to_le_bytes().to_vec();
                    table.extend(input.bytes(count as usize * 6));
                    chain.push(Piece::Out(table));
                }
            } else {
                chain.push(Piece::Out(input.short().to_vec()));
            }
            chain.push(Piece::In(1));
            return chain;
        }
        if queue % 2 == 0 {
            // Room to receive: of every size.
            return (0..=input.below(3))
                .map(|_| Piece::In(input.len()))
                .collect();
        }
        let mut frame = input.short().to_vec();
        frame.resize(frame.len().max(usize::from(input.u16() & 0x7ff)), 0x55);
        let header = header(input, frame.len());
        if input.u8() & 7 == 0 {
            return pieces(input);
        }
        vec![Piece::Out(header), Piece::Out(frame)]
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let Some(handle) = self.handle.clone() else {
            return;
        };
        match input.u8() & 15 {
            0..=8 => {
                let port = input.below(self.host.len());
                let mut frame = input.short().to_vec();
                frame.resize(frame.len() + usize::from(input.u16() & 0x1fff), 0xaa);
                let header = header(input, frame.len());
                // Refused when too many wait.
                let _ = self.host[port].send(&[header, frame].concat());
            }
            // No frame at all, and one with half a header.
            9 => drop(self.host[0].send(&[])),
            10 => drop(self.host[0].send(&[0; 6])),
            11 => handle.set_link(input.u8() & 1 != 0),
            12 => drop(handle.announce()),
            13 | 14 => {
                let average = NonZeroU64::new(u64::from(input.u16()) << 8);
                let bandwidth = average.map(|average| Bandwidth {
                    average,
                    peak: NonZeroU64::new(input.u32().into()),
                    burst: input.u32().into(),
                });
                if input.u8() & 1 == 0 {
                    handle.set_inbound(bandwidth);
                } else {
                    handle.set_outbound(bandwidth);
                }
            }
            // The interface is gone.
            _ => {
                self.host[0] = UnixDatagram::unbound().expect("a socket");
                self.host[0].set_nonblocking(true).expect("a socket");
            }
        }
    }

    fn check(&mut self) {
        self.drain();
        if let Some(handle) = &self.handle {
            assert_eq!(handle.mac()[0] & 1, 0, "a group's address");
            let _ = handle.counters();
        }
    }
}
