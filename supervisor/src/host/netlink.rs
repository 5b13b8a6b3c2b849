//! Messages of netlink(7): what every family of them has in common. The kernel is on the other end; what it
//! says is read within its bounds all the same.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct nlattr`.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// `NLA_F_NESTED`.
pub(super) const NESTED: u16 = 0x8000;
/// `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
const KIND_FLAGS: u16 = 0xc000;

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`: an answer that ends a request, well or not.
const ERROR: u16 = 2;

/// A socket of a family; `None` is that of routes and links.
pub(super) fn socket(family: Option<Protocol>) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        family,
    )
}

/// `struct nlattr` with its value, filled up to a multiple of four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Each is a few thousand bytes long at most.
    let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A whole message: the header, then `body`.
pub(super) fn message(kind: u16, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len() + 4);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes()); // from whom, which the kernel fills in
    message.extend(body);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// A message as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    /// What was listed changed meanwhile (`NLM_F_DUMP_INTR`): something may be missing, or said twice.
    pub(super) interrupted: bool,
    /// That of the request which it answers.
    pub(super) number: u32,
    /// The port of the socket whose request it is about; 0 is the kernel's.
    pub(super) port: u32,
    pub(super) body: &'a [u8],
}

impl Received<'_> {
    /// What an answer that ends a request says; `None` of any other message.
    pub(super) fn verdict(&self) -> Option<Result<(), Errno>> {
        if self.kind != ERROR {
            return None;
        }
        let code = self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code));
        Some(match code {
            Some(0) => Ok(()),
            Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
            None => Err(Errno::PROTO),
        })
    }
}

/// The messages of what was received at once; ends at the first that is none.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        /// `NLM_F_DUMP_INTR`.
        const INTERRUPTED: u16 = 0x10;
        let [a, b, c, d, e, f, o, p, g, h, i, j, k, l, m, n] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes([e, f]),
            interrupted: u16::from_ne_bytes([o, p]) & INTERRUPTED != 0,
            number: u32::from_ne_bytes([g, h, i, j]),
            port: u32::from_ne_bytes([k, l, m, n]),
            body,
        })
    })
}

/// The attributes of a message or of another attribute, with their kinds; ends at the first that is none.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !KIND_FLAGS, value))
    })
}

/// The attribute of that kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A text that ends with a zero, or with the attribute.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let text = value.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut bytes = message(7, REQUEST, 3, &attribute(2, b"ab"));
        bytes.extend(message(8, 0, 4, &[]));
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].number), (7, 3));
        assert_eq!(find(read[0].body, 2), Some(&b"ab"[..]));
        assert_eq!(find(read[0].body, 1), None);
        assert_eq!((read[1].kind, read[1].body.len()), (8, 0));
    }

    #[test]
    fn a_length_that_lies_ends_the_list() {
        let mut bytes = message(7, 0, 1, &attribute(2, b"ab"));
        bytes[16] = 200;
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(attributes(read[0].body).count(), 0);
        bytes[0] = 3;
        assert_eq!(messages(&bytes).count(), 0);
        bytes[0] = 255;
        assert_eq!(messages(&bytes).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn an_error_is_told_by_its_number() {
        let refused = message(ERROR, 0, 1, &(-1_i32).to_ne_bytes());
        let verdict = |bytes: &[u8]| messages(bytes).next().unwrap().verdict();
        assert_eq!(verdict(&refused), Some(Err(Errno::PERM)));
        let done = message(ERROR, 0, 1, &0_i32.to_ne_bytes());
        assert_eq!(verdict(&done), Some(Ok(())));
        assert_eq!(verdict(&message(ERROR, 0, 1, &[])), Some(Err(Errno::PROTO)));
        assert_eq!(verdict(&message(9, 0, 1, &[])), None);
    }
}
