//! Packets: a length, a header of six words, and a payload; how they are told apart in a stream of bytes,
//! and how one is written.
//!
//! ```text
//!  ┌────────┬─────────┬─────────┬───────────┬──────┬────────┬────────┬ ─ ─ ─ ┬─────────┐ ┌ ─ ┐
//!  │ length │ program │ version │ procedure │ type │ serial │ status │  fds  │ payload │   0   ...
//!  └────────┴─────────┴─────────┴───────────┴──────┴────────┴────────┴ ─ ─ ─ ┴─────────┘ └ ─ ┘
//!   counts itself and all up to the payload's end                 only *_WITH_FDS  one each
//! ```
//!
//! Descriptors do not ride with the bytes of their packet: its sender writes as many bytes behind it as
//! the word says there are descriptors, one descriptor with each (`SCM_RIGHTS`). They are no part of the
//! length, and belong to this packet alone.

#[cfg(test)]
mod tests;
mod write;

pub use write::{
    call, event, failure, keepalive, reply, reply_with_fds, stream_data, stream_end, stream_hole,
};

use super::call::record;
use super::xdr::{Decode, Decoder, Encode, Encoder, XdrError};

/// The length of a packet with no payload.
pub const LENGTH_MIN: usize = 28;

/// The longest packet: 32 MiB and its length word.
pub const LENGTH_MAX: usize = 4 + 33_554_432;

/// The most descriptors a packet may have.
pub const FDS_MAX: u32 = 32;

/// The most data that a packet of a stream carries: what every client sends, and takes for granted.
pub const STREAM_CHUNK: usize = 262_120;

/// How much of its memory an [`Assembler`] keeps when nothing is in it.
const KEPT: usize = 65_536;

/// The programs that libvirt's daemons serve. Each has version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// Everything that is common to hypervisors.
    Remote,
    /// What is QEMU's alone.
    Qemu,
    /// What is LXC's alone.
    Lxc,
    /// The daemon itself, on a socket of its own.
    Admin,
    /// Whether the other side lives.
    Keepalive,
}

/// The version of every program.
pub const VERSION: u32 = 1;

impl Program {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Program::Remote => 0x2000_8086,
            Program::Qemu => 0x2000_8087,
            Program::Lxc => 0x0006_8000,
            Program::Admin => 0x0690_0690,
            Program::Keepalive => 0x6b65_6570,
        }
    }

    /// The one with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Program> {
        use Program::{Admin, Keepalive, Lxc, Qemu, Remote};
        [Remote, Qemu, Lxc, Admin, Keepalive]
            .into_iter()
            .find(|program| program.number() == number)
    }
}

/// What a packet is to the one who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client's call.
    Call,
    /// The answer to one.
    Reply,
    /// An event, or a keepalive message.
    Message,
    /// Data of a stream, or its end.
    Stream,
    /// A call with descriptors.
    CallWithFds,
    /// An answer with descriptors.
    ReplyWithFds,
    /// A stretch of a stream that is all zeros.
    StreamHole,
}

impl Kind {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Kind::Call => 0,
            Kind::Reply => 1,
            Kind::Message => 2,
            Kind::Stream => 3,
            Kind::CallWithFds => 4,
            Kind::ReplyWithFds => 5,
            Kind::StreamHole => 6,
        }
    }

    /// The one with this number.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Kind> {
        Some(match number {
            0 => Kind::Call,
            1 => Kind::Reply,
            2 => Kind::Message,
            3 => Kind::Stream,
            4 => Kind::CallWithFds,
            5 => Kind::ReplyWithFds,
            6 => Kind::StreamHole,
            _ => return None,
        })
    }

    /// Whether a count of descriptors follows the header.
    #[must_use]
    pub const fn has_fds(self) -> bool {
        matches!(self, Kind::CallWithFds | Kind::ReplyWithFds)
    }
}

/// How a call went, or whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Well; a stream ends. Every call has it.
    Ok,
    /// The payload is an error. From a client, for a stream: it gives up, and there is no payload.
    Error,
    /// More of the stream follows; with no payload, nothing more is to be read.
    Continue,
}

impl Status {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Status::Ok => 0,
            Status::Error => 1,
            Status::Continue => 2,
        }
    }

    /// The one with this number.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Status> {
        Some(match number {
            0 => Status::Ok,
            1 => Status::Error,
            2 => Status::Continue,
            _ => return None,
        })
    }
}

/// What stands before every payload. Program, version and procedure are what the sender says: one that
/// we do not know is answered with an error, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// [`Program::number`], if it is one of those.
    pub program: u32,
    /// [`VERSION`], if it is one we know.
    pub version: u32,
    /// Which procedure of the program.
    pub procedure: i32,
    /// What the packet is.
    pub kind: Kind,
    /// The call's number on its connection: an answer and a stream's packets have that of the call
    /// they belong to.
    pub serial: u32,
    /// How it went.
    pub status: Status,
}

impl Header {
    /// That of a call.
    #[must_use]
    pub fn call(program: Program, procedure: i32, serial: u32) -> Header {
        Header {
            program: program.number(),
            version: VERSION,
            procedure,
            kind: Kind::Call,
            serial,
            status: Status::Ok,
        }
    }

    /// The same call's packet of another kind and status.
    #[must_use]
    pub fn answer(self, kind: Kind, status: Status) -> Header {
        Header {
            kind,
            status,
            ..self
        }
    }
}

impl Encode for Header {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        self.program.encode(to)?;
        self.version.encode(to)?;
        self.procedure.encode(to)?;
        self.kind.number().encode(to)?;
        self.serial.encode(to)?;
        self.status.number().encode(to)
    }
}

record! {
    /// A stretch of a stream that is all zeros: what a packet of [`Kind::StreamHole`] carries.
    #[derive(Copy, Eq)]
    Hole {
        /// Bytes; none that are fewer than none make sense.
        length: i64,
        /// There are none.
        flags: u32,
    }
}

/// Bytes that are no packet. Where the next one begins is not known, so the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is none that a packet can have.
    #[error("a packet of {0} bytes")]
    Length(u32),
    /// No such type of packet.
    #[error("a packet of unknown type {0}")]
    Kind(i32),
    /// No such status.
    #[error("a packet of unknown status {0}")]
    Status(i32),
    /// More descriptors than a packet may have, or no room for their count.
    #[error("a packet with {0} descriptors")]
    Fds(u32),
}

/// One packet, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    /// How many descriptors came behind it, of those that have come and are not another packet's; at
    /// most [`FDS_MAX`].
    pub fds: u32,
    /// What is behind the header and the count of descriptors.
    pub payload: &'a [u8],
}

/// Takes a stream of bytes apart into packets. Holds the bytes of the packet that is not whole yet, and no
/// more: what a packet says of its length takes no memory before the bytes are there.
///
/// The caller takes every packet there is before it pushes more.
#[derive(Debug, Default)]
pub struct Assembler {
    buffer: Vec<u8>,
    /// Where in `buffer` the next packet begins.
    start: usize,
}

impl Assembler {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes there are of packets not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next packet, if it is whole.
    ///
    /// # Errors
    /// The bytes are no packet; so it stays for ever.
    pub fn take(&mut self) -> Result<Option<Packet<'_>>, FrameError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, fds, length)) = look(rest)? else {
            return Ok(None);
        };
        let behind = usize::try_from(fds).unwrap_or(usize::MAX);
        if rest.len() < length.saturating_add(behind) {
            return Ok(None);
        }
        let front = if header.kind.has_fds() {
            LENGTH_MIN + 4
        } else {
            LENGTH_MIN
        };
        let payload = rest.get(front..length).unwrap_or_default();
        self.start += length + behind;
        Ok(Some(Packet {
            header,
            fds,
            payload,
        }))
    }
}

/// Header, number of descriptors and length of the packet that `rest` begins with, as soon as so much of it
/// is there.
fn look(rest: &[u8]) -> Result<Option<(Header, u32, usize)>, FrameError> {
    let mut from = Decoder::new(rest);
    let Ok(word) = u32::decode(&mut from) else {
        return Ok(None);
    };
    let length = match usize::try_from(word) {
        Ok(length @ LENGTH_MIN..=LENGTH_MAX) => length,
        _ => return Err(FrameError::Length(word)),
    };
    let Ok((program, version, procedure, kind, serial, status)) = words(&mut from) else {
        return Ok(None);
    };
    let header = Header {
        program,
        version,
        procedure,
        kind: Kind::from_number(kind).ok_or(FrameError::Kind(kind))?,
        serial,
        status: Status::from_number(status).ok_or(FrameError::Status(status))?,
    };
    if !header.kind.has_fds() {
        return Ok(Some((header, 0, length)));
    }
    if length < LENGTH_MIN + 4 {
        return Err(FrameError::Fds(0));
    }
    match u32::decode(&mut from) {
        Ok(fds) if fds > FDS_MAX => Err(FrameError::Fds(fds)),
        Ok(fds) => Ok(Some((header, fds, length))),
        Err(_) => Ok(None),
    }
}

/// The six words of a header, in the types that libvirt gives them.
fn words(from: &mut Decoder<'_>) -> Result<(u32, u32, i32, i32, u32, i32), XdrError> {
    Ok((
        Decode::decode(from)?,
        Decode::decode(from)?,
        Decode::decode(from)?,
        Decode::decode(from)?,
        Decode::decode(from)?,
        Decode::decode(from)?,
    ))
}
