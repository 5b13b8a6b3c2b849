//! A switch for guests' network interfaces, as another program would be one: the back end of the vhost-user
//! protocol (QEMU's `docs/interop/vhost-user.rst`) on a UNIX socket, for one session of one pair of queues.
//!
//! It offers no more than the smallest of them do: no indirect descriptors, no event index. It keeps the
//! guest's memory as files that it reads and writes, so that no address of the guest's is followed anywhere
//! else.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};

/// `VIRTIO_F_VERSION_1`, `VHOST_USER_F_PROTOCOL_FEATURES`, `VIRTIO_NET_F_MRG_RXBUF`.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 15;
/// Bytes of `virtio_net_hdr`.
const HEADER: usize = 12;
/// The most bytes of a frame and its header.
const MOST: usize = 4096;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// A descriptor that is for the device to write.
const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// A switch that waits for its one guest, or serves it.
#[derive(Debug)]
pub struct Switch {
    port: Arc<Mutex<Port>>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Ends the session.
    session: Arc<Mutex<Option<UnixStream>>>,
}

impl Switch {
    /// Listens at `path`.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let port = Arc::new(Mutex::new(Port::default()));
        let session = Arc::new(Mutex::new(None));
        let (ports, sessions) = (Arc::clone(&port), Arc::clone(&session));
        let thread = std::thread::spawn(move || {
            let (socket, _) = listener.accept()?;
            *lock(&sessions) = Some(socket.try_clone()?);
            while let Some(message) = Message::take(&socket)? {
                if let Some(answer) = lock(&ports).handle(message)? {
                    rustix::net::send(&socket, &answer, SendFlags::NOSIGNAL)?;
                }
            }
            Ok(())
        });
        Ok(Self {
            port,
            thread: Some(thread),
            session,
        })
    }

    /// Sends a frame to the guest, which must have room for it before long.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        within("the guest takes a frame", || {
            lock(&self.port)
                .give(frame)
                .map(|given| given.then_some(()))
        })
    }

    /// The next frame that the guest sends.
    pub fn receive(&self) -> Result<Vec<u8>> {
        within("the guest sends a frame", || lock(&self.port).take())
    }

    /// Ends, as if it had died: its sockets and the guest's memory are closed.
    pub fn end(mut self) -> Result<()> {
        if let Some(session) = lock(&self.session).take() {
            session.shutdown(std::net::Shutdown::Both)?;
        }
        *lock(&self.port) = Port::default();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => bail!("the switch's thread failed"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn within<T>(what: &str, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(20),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A message of the front end's.
struct Message {
    request: u32,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    fn take(socket: &UnixStream) -> Result<Option<Self>> {
        let mut header = [0; 12];
        let Some(mut descriptors) = receive(socket, &mut header)? else {
            return Ok(None);
        };
        let mut body = vec![0; word(&header, 8)? as usize];
        let Some(more) = receive(socket, &mut body)? else {
            return Ok(None);
        };
        descriptors.extend(more);
        Ok(Some(Self {
            request: word(&header, 0)?,
            body,
            descriptors,
        }))
    }

    fn long(&self, at: usize) -> Result<u64> {
        let bytes = self.body.get(at..at + 8).context("a body too short")?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    fn descriptor(mut self) -> Result<File> {
        Ok(self.descriptors.pop().context("no descriptor came")?.into())
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("too short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

/// Fills `buffer`; `None` at the end of the session.
fn receive(socket: &UnixStream, buffer: &mut [u8]) -> Result<Option<Vec<OwnedFd>>> {
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while filled < buffer.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer[filled..])];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(socket, &mut parts, &mut control, flags);
        let Ok(received) = received else {
            return Ok(None);
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        filled += received.bytes;
    }
    Ok(Some(descriptors))
}

/// A piece of the guest's memory.
#[derive(Debug)]
struct Region {
    address: u64,
    length: u64,
    offset: u64,
    file: File,
}

#[derive(Debug, Default)]
struct Ring {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    /// The next available entry.
    next: u16,
    call: Option<File>,
    kicked: bool,
    enabled: bool,
}

/// A piece of a chain: address, length, flags.
type Piece = (u64, u32, u16);

/// The guest's interface.
#[derive(Debug, Default)]
struct Port {
    memory: Vec<Region>,
    rings: [Ring; 2],
    /// Frames that came and nobody has taken.
    came: VecDeque<Vec<u8>>,
}

impl Port {
    /// Does what a message asks; gives the answer, where it has one.
    fn handle(&mut self, message: Message) -> Result<Option<Vec<u8>>> {
        let request = message.request;
        let answer = |value: u64| {
            let mut bytes: Vec<u8> = [request, 5, 8]
                .iter()
                .flat_map(|part| part.to_le_bytes())
                .collect();
            bytes.extend(value.to_le_bytes());
            Ok(Some(bytes))
        };
        match request {
            1 => return answer(FEATURES),
            15 => return answer(0),
            // Features, the session, features of the protocol.
            2 | 3 | 16 => {}
            5 => self.memory(message)?,
            8 | 10 | 11 | 18 => {
                let value = word(&message.body, 4)?;
                let index = word(&message.body, 0)?;
                let ring = self.rings.get_mut(index as usize).context("no such ring")?;
                match request {
                    8 => ring.size = u16::try_from(value)?,
                    10 => ring.next = u16::try_from(value)?,
                    18 => ring.enabled = value == 1,
                    _ => {
                        ring.kicked = false;
                        return answer(u64::from(index) | u64::from(ring.next) << 32);
                    }
                }
            }
            9 => {
                let ring = word(&message.body, 0)? as usize;
                let ring = self.rings.get_mut(ring).context("no such ring")?;
                ring.descriptors = message.long(8)?;
                ring.used = message.long(16)?;
                ring.available = message.long(24)?;
            }
            12 | 13 => {
                let ring = word(&message.body, 0)? as usize;
                let ring = self.rings.get_mut(ring).context("no such ring")?;
                if request == 12 {
                    // It looks by itself, and so need not be told.
                    drop(message.descriptor()?);
                    ring.kicked = true;
                } else {
                    ring.call = Some(message.descriptor()?);
                }
            }
            other => bail!("request {other}"),
        }
        Ok(None)
    }

    fn memory(&mut self, message: Message) -> Result<()> {
        let count = word(&message.body, 0)? as usize;
        ensure!(
            count == message.descriptors.len(),
            "regions and descriptors"
        );
        let mut regions = Vec::new();
        for region in 0..count {
            let at = 8 + region * 32;
            let (address, user) = (message.long(at)?, message.long(at + 16)?);
            ensure!(address == user, "addresses are the guest's");
            regions.push((address, message.long(at + 8)?, message.long(at + 24)?));
        }
        let files = message.descriptors.into_iter();
        self.memory = regions
            .into_iter()
            .zip(files)
            .map(|((address, length, offset), file)| Region {
                address,
                length,
                offset,
                file: file.into(),
            })
            .collect();
        Ok(())
    }

    /// The file that has `length` bytes of memory at `address`, and where in it they are.
    fn place(&self, address: u64, length: usize) -> Result<(&File, u64)> {
        let found = self.memory.iter().find_map(|region| {
            let within = address.checked_sub(region.address)?;
            let end = within.checked_add(length as u64)?;
            (end <= region.length).then_some((&region.file, region.offset + within))
        });
        found.context("no memory of the guest's")
    }

    fn read<const N: usize>(&self, address: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let (file, at) = self.place(address, N)?;
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let (file, at) = self.place(address, bytes.len())?;
        Ok(file.write_all_at(bytes, at)?)
    }

    fn short(&self, address: u64) -> Result<u16> {
        Ok(u16::from_le_bytes(self.read(address)?))
    }

    /// The next chain of a ring, and its head.
    fn chain(&self, ring: usize) -> Result<Option<(u16, Vec<Piece>)>> {
        let ring = &self.rings[ring];
        if !ring.kicked || !ring.enabled || self.short(ring.available + 2)? == ring.next {
            return Ok(None);
        }
        let place = u64::from(ring.next % ring.size);
        let head = self.short(ring.available + 4 + 2 * place)?;
        let (mut index, mut pieces) = (head, Vec::new());
        loop {
            ensure!(
                index < ring.size && pieces.len() < 64,
                "a chain of the guest's"
            );
            let bytes: [u8; 16] = self.read(ring.descriptors + 16 * u64::from(index))?;
            let address = u64::from_le_bytes(bytes[..8].try_into()?);
            let flags = u16::from_le_bytes(bytes[12..14].try_into()?);
            pieces.push((address, word(&bytes, 8)?, flags));
            if flags & NEXT == 0 {
                return Ok(Some((head, pieces)));
            }
            index = u16::from_le_bytes(bytes[14..].try_into()?);
        }
    }

    /// Gives a chain back, and interrupts.
    fn done(&mut self, ring: usize, head: u16, written: usize) -> Result<()> {
        let Ring { used, size, .. } = self.rings[ring];
        let index = self.short(used + 2)?;
        let entry = used + 4 + 8 * u64::from(index % size);
        let mut bytes = u32::from(head).to_le_bytes().to_vec();
        bytes.extend(u32::try_from(written)?.to_le_bytes());
        self.write(entry, &bytes)?;
        self.write(used + 2, &index.wrapping_add(1).to_le_bytes())?;
        let ring = &mut self.rings[ring];
        ring.next = ring.next.wrapping_add(1);
        if let Some(call) = &ring.call {
            rustix::io::write(call, &1_u64.to_ne_bytes())?;
        }
        Ok(())
    }

    /// Puts a frame into the guest's next buffer, if there is one.
    fn give(&mut self, frame: &[u8]) -> Result<bool> {
        let Some((head, pieces)) = self.chain(RECEIVE)? else {
            return Ok(false);
        };
        let mut bytes = vec![0; HEADER];
        // One buffer.
        bytes[10] = 1;
        bytes.extend(frame);
        let mut rest = &bytes[..];
        for (address, length, flags) in pieces {
            ensure!(flags & WRITE != 0, "a buffer that is not to be written");
            let (now, later) = rest.split_at(rest.len().min(length as usize));
            self.write(address, now)?;
            rest = later;
        }
        ensure!(rest.is_empty(), "a buffer too small");
        self.done(RECEIVE, head, bytes.len())?;
        Ok(true)
    }

    /// The next frame of the guest's.
    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some((head, pieces)) = self.chain(TRANSMIT)? {
            let mut bytes = Vec::new();
            for (address, length, _) in pieces {
                let (length, begin) = (length as usize, bytes.len());
                ensure!(begin + length <= MOST, "a frame too long");
                bytes.resize(begin + length, 0);
                let (file, at) = self.place(address, length)?;
                file.read_exact_at(&mut bytes[begin..], at)?;
            }
            self.done(TRANSMIT, head, 0)?;
            ensure!(bytes.len() >= HEADER, "a frame without its header");
            self.came.push_back(bytes.split_off(HEADER));
        }
        Ok(self.came.pop_front())
    }
}
