//! The socket device, with clients on the host and somebody who answers for it.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::vsock::{Vsock, VsockControl};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;
use super::sockets::Listening;

/// The guest's address.
const CID: u32 = 42;
/// The host's first port.
const FIRST_PORT: u32 = 1 << 30;
/// The most streams held.
const STREAMS: usize = 6;

/// The device.
#[derive(Debug)]
pub struct Sockets {
    control: Option<VsockControl>,
    listening: Option<Listening>,
    acceptor: Option<OwnedFd>,
    /// Connections that were answered for.
    streams: Vec<UnixStream>,
    /// Questions that were asked and not answered.
    questions: Vec<[u8; 4]>,
}

impl Sockets {
    fn listen(&mut self) {
        let (ours, theirs) = Listening::new();
        self.listening = Some(ours);
        if let Some(control) = &self.control {
            control.set_listener(Some(theirs.into())).expect("a socket");
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).expect("sockets");
        self.acceptor = Some(ours);
        self.questions.clear();
        if let Some(control) = &self.control {
            control.set_acceptor(Some(theirs)).expect("a socket");
        }
    }

    /// Answers, mostly what was asked.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(acceptor) = &self.acceptor else {
            return;
        };
        let mut question = [0; 32];
        while let Ok(len) = rustix::io::read(acceptor, &mut question) {
            if len == 0 {
                break;
            }
            assert_eq!(len, 12, "a question");
            self.questions
                .push([question[0], question[1], question[2], question[3]]);
        }
        let how = input.u8();
        let id = match how & 3 {
            3 => input.u32().to_le_bytes(),
            _ => self.questions.pop().unwrap_or([how; 4]),
        };
        let mut verdict = u32::from(how & 0x1c != 0);
        let mut count = usize::from(how & 0x1c != 0);
        if how & 0xe0 == 0xe0 {
            (verdict, count) = (input.u32(), input.below(4));
        }
        let mut answer = [id, verdict.to_le_bytes()].concat();
        if how & 0xe0 == 0xc0 {
            answer.truncate(input.below(9));
        }
        let mut theirs = Vec::new();
        for _ in 0..count {
            let (stream, other) = UnixStream::pair().expect("sockets");
            stream.set_nonblocking(true).expect("a socket");
            if self.streams.len() == STREAMS {
                self.streams.remove(0);
            }
            self.streams.push(stream);
            theirs.push(other);
        }
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); 128];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        // Refused when too many wait.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = sendmsg(acceptor, &[IoSlice::new(&answer)], &mut control, flags);
    }
}

impl Subject for Sockets {
    fn new(_input: &mut Input<'_>) -> Self {
        Self {
            control: None,
            listening: None,
            acceptor: None,
            streams: Vec::new(),
            questions: Vec::new(),
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let vsock = Vsock::new(CID).expect("a device");
        self.control = Some(vsock.control());
        self.listen();
        self.accept();
        Box::new(vsock)
    }

    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        if queue != 1 {
            return (0..=input.below(3))
                .map(|_| Piece::In(input.len()))
                .collect();
        }
        let how = input.u8();
        let ports = input.u8();
        // The ports of either side's connections: low ones, or the host's own.
        let (source, destination) = (u32::from(ports & 0xf), u32::from(ports >> 4));
        let destination = match how & 3 {
            0 | 1 => destination,
            2 => FIRST_PORT + destination,
            _ => input.u32(),
        };
        let (op, kind) = (u16::from(how >> 2 & 7), 1_u16);
        let data = if op == 5 { input.short() } else { &[] };
        let mut len = u32::try_from(data.len()).unwrap_or(0);
        let mut flags = u32::from(input.u8() & 3);
        let (room, passed) = (u32::from(input.u8()) << 8, u32::from(input.u8()));
        if how & 0xe0 == 0xe0 {
            (len, flags) = (input.u32(), input.u32());
        }
        let mut header = Vec::new();
        header.extend(u64::from(CID).to_le_bytes());
        header.extend(2_u64.to_le_bytes());
        for field in [source, destination, len] {
            header.extend(field.to_le_bytes());
        }
        header.extend(kind.to_le_bytes());
        header.extend(op.to_le_bytes());
        for field in [flags, room, passed] {
            header.extend(field.to_le_bytes());
        }
        if how & 0xe0 == 0xc0 {
            let at = input.below(header.len());
            header[at] = input.u8();
        }
        let mut chain = vec![Piece::Out(header)];
        if !data.is_empty() {
            chain.push(Piece::Out(data.to_vec()));
        }
        if how & 0xe0 == 0xa0 {
            chain.extend(pieces(input));
        }
        chain
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let count = self.streams.len();
        let stream = self.streams.get_mut(usize::from(what >> 4) % count.max(1));
        match (what & 15, stream) {
            (0..=4, _) => {
                if let Some(listening) = &mut self.listening {
                    listening.act(input);
                }
            }
            (5..=7, _) => self.answer(input),
            (8 | 9, Some(stream)) => {
                let _ = stream.write(input.short());
            }
            (10 | 11, Some(stream)) => drop(stream.read(&mut [0; 3000])),
            (12, Some(stream)) => drop(stream.shutdown(std::net::Shutdown::Write)),
            (13, Some(_)) => drop(self.streams.remove(usize::from(what >> 4) % count)),
            (14, _) => match what >> 4 {
                0 => self.listen(),
                1 => self.accept(),
                // Nobody listens, or answers, any more.
                2 => self.listening = None,
                3 => self.acceptor = None,
                4 => {
                    let control = self.control.as_ref().expect("a device");
                    control.set_listener(None).expect("nothing");
                }
                5 => {
                    let control = self.control.as_ref().expect("a device");
                    control.set_acceptor(None).expect("nothing");
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn check(&mut self) {
        let control = self.control.as_ref().expect("a device");
        assert!(control.connections() <= 1024);
    }
}
