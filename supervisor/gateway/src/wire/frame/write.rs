//! Packets as they are sent. Each function writes one whole packet behind what its buffer has, or
//! leaves the buffer as it was.

use super::{FDS_MAX, Header, Hole, Kind, LENGTH_MAX, Program, Status};
use crate::wire::call::Event;
use crate::wire::xdr::{Encode, Encoder, XdrError};

/// The answer to the call with `header`. Its type is that of [`Call::Reply`](crate::wire::call::Call::Reply).
///
/// # Errors
/// The reply holds more than its bounds or a packet allow: an error is to be sent in its place.
pub fn reply<R: Encode>(out: &mut Vec<u8>, call: Header, reply: &R) -> Result<(), XdrError> {
    packet(out, call.answer(Kind::Reply, Status::Ok), None, |to| {
        reply.encode(to)
    })
}

/// The answer to the call with `header`, with `fds` descriptors: behind it goes one byte with each.
///
/// # Errors
/// As [`reply`], or there are more than [`FDS_MAX`].
pub fn reply_with_fds<R: Encode>(
    out: &mut Vec<u8>,
    call: Header,
    fds: u32,
    reply: &R,
) -> Result<(), XdrError> {
    packet(
        out,
        call.answer(Kind::ReplyWithFds, Status::Ok),
        Some(fds),
        |to| reply.encode(to),
    )
}

/// The error that the call with `header` ends in, or its stream, if what failed is a packet of one.
///
/// # Errors
/// The error holds more than its bounds allow.
pub fn failure<E: Encode>(out: &mut Vec<u8>, call: Header, error: &E) -> Result<(), XdrError> {
    let kind = match call.kind {
        Kind::Stream | Kind::StreamHole => Kind::Stream,
        _ => Kind::Reply,
    };
    packet(out, call.answer(kind, Status::Error), None, |to| {
        error.encode(to)
    })
}

/// An event.
///
/// # Errors
/// It holds more than its bounds or a packet allow.
pub fn event<E: Event>(out: &mut Vec<u8>, event: &E) -> Result<(), XdrError> {
    let header = Header::call(E::PROGRAM, E::NUMBER, 0).answer(Kind::Message, Status::Ok);
    packet(out, header, None, |to| event.encode(to))
}

/// A keepalive message: 1 asks, 2 answers.
///
/// # Errors
/// None, in truth.
pub fn keepalive(out: &mut Vec<u8>, procedure: i32) -> Result<(), XdrError> {
    let header = Header::call(Program::Keepalive, procedure, 0);
    packet(out, header.answer(Kind::Message, Status::Ok), None, |_| {
        Ok(())
    })
}

/// Data of the stream that the call with `header` opened, as it is; at most
/// [`STREAM_CHUNK`](super::STREAM_CHUNK) bytes. No bytes: there is nothing more to read.
///
/// # Errors
/// There is more than a packet can hold.
pub fn stream_data(out: &mut Vec<u8>, call: Header, data: &[u8]) -> Result<(), XdrError> {
    packet(
        out,
        call.answer(Kind::Stream, Status::Continue),
        None,
        |to| {
            to.raw(data);
            Ok(())
        },
    )
}

/// The end of a stream without an error, and the answer to a client that ends or gives up one.
///
/// # Errors
/// None, in truth.
pub fn stream_end(out: &mut Vec<u8>, call: Header) -> Result<(), XdrError> {
    packet(out, call.answer(Kind::Stream, Status::Ok), None, |_| Ok(()))
}

/// A stretch of `length` zeros in a stream, for a client that asked for such.
///
/// # Errors
/// None, in truth.
pub fn stream_hole(out: &mut Vec<u8>, call: Header, length: i64) -> Result<(), XdrError> {
    packet(
        out,
        call.answer(Kind::StreamHole, Status::Continue),
        None,
        |to| Hole { length, flags: 0 }.encode(to),
    )
}

/// A call, for a client.
///
/// # Errors
/// The arguments hold more than their bounds or a packet allow.
pub fn call<C: crate::wire::call::Call>(
    out: &mut Vec<u8>,
    serial: u32,
    arguments: &C,
) -> Result<(), XdrError> {
    packet(
        out,
        Header::call(C::PROGRAM, C::NUMBER, serial),
        None,
        |to| arguments.encode(to),
    )
}

fn packet(
    out: &mut Vec<u8>,
    header: Header,
    fds: Option<u32>,
    payload: impl FnOnce(&mut Encoder<'_>) -> Result<(), XdrError>,
) -> Result<(), XdrError> {
    let start = out.len();
    let written = whole(out, header, fds, payload);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn whole(
    out: &mut Vec<u8>,
    header: Header,
    fds: Option<u32>,
    payload: impl FnOnce(&mut Encoder<'_>) -> Result<(), XdrError>,
) -> Result<(), XdrError> {
    let start = out.len();
    let mut to = Encoder::new(out);
    0_u32.encode(&mut to)?;
    header.encode(&mut to)?;
    if let Some(fds) = fds {
        if fds > FDS_MAX {
            let count = usize::try_from(fds).unwrap_or(usize::MAX);
            return Err(XdrError::TooLong {
                count,
                most: FDS_MAX as usize,
            });
        }
        fds.encode(&mut to)?;
    }
    payload(&mut to)?;
    let length = out.len() - start;
    let word = match u32::try_from(length) {
        Ok(word) if length <= LENGTH_MAX => word,
        _ => {
            return Err(XdrError::TooLong {
                count: length,
                most: LENGTH_MAX,
            });
        }
    };
    if let Some(place) = out
        .get_mut(start..)
        .and_then(|packet| packet.first_chunk_mut())
    {
        *place = word.to_be_bytes();
    }
    Ok(())
}
