//! Back ends for tests: a thread that keeps the protocol, or does what it is told instead.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::message::Request;
use super::{BackEndError, SharedMemory, VhostUser};
use crate::event::Event;
use crate::memory::GuestRam;
use crate::shared::{Shared, lock, share};

/// Features of a good back end: those that are needed, and bit 3 as one of a device's own.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 3;
/// How long tests let a back end be silent.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);

/// What was sent.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) request: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Told {
    pub(super) fn is(&self, request: Request) -> bool {
        self.request == request as u32
    }
}

/// What a back end does at a message.
pub(crate) enum Act {
    /// What the protocol asks.
    Keep,
    /// Sends these bytes instead.
    Send(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes its socket.
    Leave,
}

/// A back end on a thread of its own, which ends with its socket.
pub(crate) struct BackEnd {
    pub(crate) told: Shared<Vec<Told>>,
    thread: Option<JoinHandle<()>>,
}

impl BackEnd {
    /// One that does what `script` says; and the front end's socket.
    pub(crate) fn start(mut script: impl FnMut(&Told) -> Act + Send + 'static) -> (Self, OwnedFd) {
        let (ours, theirs) = pair();
        let told = share(Vec::new());
        let record = Arc::clone(&told);
        let thread = std::thread::spawn(move || {
            while let Some(message) = take(&theirs) {
                let act = script(&message);
                let answer = match act {
                    Act::Keep => answer(&message),
                    Act::Send(bytes) => Some(bytes),
                    Act::Silence => None,
                    Act::Leave => return,
                };
                lock(&record).push(message);
                if let Some(bytes) = answer {
                    if send(&theirs, &bytes, SendFlags::NOSIGNAL).is_err() {
                        return;
                    }
                }
            }
        });
        let thread = Some(thread);
        (Self { told, thread }, ours)
    }

    /// One that keeps the protocol.
    pub(crate) fn good() -> (Self, OwnedFd) {
        Self::start(|_| Act::Keep)
    }

    /// The front end of a session with it.
    pub(crate) fn connected() -> (Self, VhostUser) {
        let (back_end, socket) = Self::good();
        (back_end, connect(socket).expect("a good back end"))
    }

    /// Waits until it has been told so often.
    pub(super) fn wait_for(&self, request: Request, times: usize) {
        for _ in 0..1000 {
            let told = lock(&self.told);
            if told.iter().filter(|told| told.is(request)).count() >= times {
                return;
            }
            drop(told);
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{request:?} does not come");
    }

    /// The event that came last with `request` for queue `index`.
    pub(super) fn event(&self, request: Request, index: u8) -> Event {
        let told = lock(&self.told);
        let told = told.iter().rev();
        let mut told = told.filter(|told| told.is(request) && told.body[0] == index);
        let descriptor = &told.next().expect("told").descriptors[0];
        Event::of(descriptor.try_clone().expect("a descriptor"))
    }

    /// Waits for its end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the back end's thread");
        }
    }
}

pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    socketpair(family, kind, SocketFlags::CLOEXEC, None).expect("sockets")
}

pub(crate) fn connect(socket: OwnedFd) -> Result<VhostUser, BackEndError> {
    let (_, map) = shared_ram();
    let memory = SharedMemory::new(&map).expect("shared memory");
    VhostUser::connect(socket, memory, 2, None, PATIENCE)
}

/// Memory of two pieces that another process could map.
pub(crate) fn shared_ram() -> (GuestRam, GuestMemoryMmap<()>) {
    let file = rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).expect("a memfd");
    let file = Arc::new(File::from(file));
    file.set_len(0x3_0000).expect("room");
    let regions = [(0, 0x2_0000, 0), (0x1_0000_0000, 0x1_0000, 0x2_0000)];
    let regions = regions.map(|(address, len, offset)| {
        let mapping = MmapRegionBuilder::new(len)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
            .build()
            .expect("a mapping");
        GuestRegionMmap::new(mapping, GuestAddress(address)).expect("a region")
    });
    let map = GuestMemoryMmap::from_regions(regions.into()).expect("memory");
    (GuestRam::new(map.clone()), map)
}

/// The next message; `None` at the end of the session.
fn take(socket: &OwnedFd) -> Option<Told> {
    let mut header = [0; 12];
    let mut descriptors = receive(socket, &mut header)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    assert_eq!(word(4) & 3, 1, "the version");
    let mut body = vec![0; word(8) as usize];
    descriptors.extend(receive(socket, &mut body)?);
    Some(Told {
        request: word(0),
        body,
        descriptors,
    })
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while filled < buffer.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer[filled..])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket, &mut parts, &mut control, flags).ok()?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if got == 0 {
            return None;
        }
        filled += got;
    }
    Some(descriptors)
}

/// An answer of one word.
pub(crate) fn word(request: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [request, 5, 8] {
        bytes.extend(part.to_le_bytes());
    }
    bytes.extend(value.to_le_bytes());
    bytes
}

fn answer(told: &Told) -> Option<Vec<u8>> {
    let request = told.request;
    if told.is(Request::GetFeatures) {
        Some(word(request, FEATURES))
    } else if told.is(Request::GetProtocolFeatures) {
        Some(word(request, 0))
    } else if told.is(Request::GetVringBase) {
        // Where the queue was set to, and one on.
        let index = u64::from(told.body[0]);
        Some(word(request, index | 7 << 32))
    } else {
        None
    }
}
