//! The socket of nf_tables, and what is asked and told by it: a transaction is a list of messages of which all are
//! done or none (`linux/netfilter/nf_tables.h`).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self as netlink_socket, SocketAddrNetlink};
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::netlink::{self, ACK, DUMP, REQUEST, Received};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DELETE_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const DELETE_RULE: u16 = 8;
pub(super) const NEW_SET: u16 = 9;
pub(super) const GET_SET: u16 = 10;
pub(super) const DELETE_SET: u16 = 11;
pub(super) const NEW_ELEMENTS: u16 = 12;
pub(super) const GET_ELEMENTS: u16 = 13;
pub(super) const DELETE_ELEMENTS: u16 = 14;
/// Deletions: of a table, a chain, a rule, a set, an element.
const DELETIONS: [u16; 5] = [
    DELETE_TABLE,
    DELETE_CHAIN,
    DELETE_RULE,
    DELETE_SET,
    DELETE_ELEMENTS,
];

/// The most that the kernel says at once.
const ANSWER_BYTES: usize = 32 << 10;

/// The socket, for tables of one family.
#[derive(Debug)]
pub(super) struct Socket {
    socket: OwnedFd,
    /// The port of the socket, which is in what others are told of its requests.
    pub(super) port: u32,
    /// The last number that was used.
    number: u32,
    family: u8,
    /// What was listed last did not change meanwhile.
    whole: bool,
}

impl Socket {
    /// For tables of a family (`NFPROTO_*`).
    pub(super) fn open(family: u8) -> Result<Self, Errno> {
        let socket = netlink::socket(Some(netlink_socket::NETFILTER))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        let own = SocketAddrNetlink::try_from(rustix::net::getsockname(&socket)?)?;
        Ok(Self {
            socket,
            port: own.pid(),
            number: 0,
            family,
            whole: true,
        })
    }

    fn number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// All of it, or nothing.
    pub(super) fn transact(&mut self, parts: &[Part]) -> Result<(), Errno> {
        let first = self.number();
        let mut bytes = frame(self.family, BATCH_BEGIN, 0, first, &[]);
        let mut last = first;
        for (index, part) in parts.iter().enumerate() {
            last = self.number();
            // The last is answered when all is done, what cannot be done before that.
            let answer = if index + 1 == parts.len() { ACK } else { 0 };
            bytes.extend(frame(
                self.family,
                part.kind,
                part.flags | answer,
                last,
                &part.body,
            ));
        }
        let number = self.number();
        bytes.extend(frame(self.family, BATCH_END, 0, number, &[]));
        self.make_room(bytes.len());
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut refused = None;
        let done = self.receive(|answer| match answer.verdict() {
            Some(Err(errno)) if is_within(answer.number, first, last) => {
                refused.get_or_insert(errno);
                answer.number == first || answer.number == last
            }
            Some(Ok(())) => answer.number == last,
            _ => false,
        });
        match refused {
            Some(errno) => Err(errno),
            None => done,
        }
    }

    /// A socket sends no more at once than it has room for, with what the kernel counts beside that. Where it gets no
    /// more room the kernel says so of what is sent.
    fn make_room(&self, bytes: usize) {
        const USUAL: usize = 96 << 10;
        if bytes > USUAL {
            let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, 2 * bytes);
        }
    }

    /// Has every answer to a request taken. Whether it is all of one state: `false` where what was listed changed meanwhile.
    pub(super) fn list(
        &mut self,
        kind: u16,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Errno> {
        self.ask(kind, DUMP, body, &mut take)?;
        Ok(self.whole)
    }

    /// Has every answer to a request taken.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Errno> {
        /// `NLMSG_DONE`.
        const DONE: u16 = 3;
        let number = self.number();
        let message = frame(self.family, message_kind(kind), flags, number, body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut refused = None;
        let mut whole = true;
        let ended = self.receive(|answer| {
            if answer.number != number {
                return false;
            }
            whole &= !answer.interrupted || flags & DUMP == 0;
            match answer.verdict() {
                Some(Err(errno)) => refused = Some(errno),
                Some(Ok(())) => {}
                None if answer.kind == DONE => {}
                None => {
                    take(answer.body);
                    return flags & DUMP == 0;
                }
            }
            true
        });
        self.whole = whole;
        match refused {
            Some(errno) => Err(errno),
            None => ended,
        }
    }

    /// Takes answers until `take` has the one that is the last. The kernel has answered, or begun to, when a
    /// request has been sent: nothing is waited for.
    fn receive(&self, mut take: impl FnMut(Received<'_>) -> bool) -> Result<(), Errno> {
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let received = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT);
            let (length, _) = match received {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(Errno::PROTO),
                received => received?,
            };
            let received = buffer.get(..length).unwrap_or_default();
            if netlink::messages(received).any(&mut take) {
                return Ok(());
            }
        }
    }
}

/// Whether something was taken away: a table, or something of one.
pub(super) fn is_deletion(message: &Received<'_>) -> bool {
    let mut kinds = DELETIONS.iter();
    kinds.any(|kind| message_kind(*kind) == message.kind)
}

/// One message of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Part {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Part {
    pub(super) fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self {
            kind: message_kind(kind),
            flags,
            body,
        }
    }
}

/// The kind of a message of netlink that is one of nf_tables.
pub(super) const fn message_kind(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

fn is_within(number: u32, first: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

/// A message with its `struct nfgenmsg`.
fn frame(family: u8, kind: u16, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let batch = kind == BATCH_BEGIN || kind == BATCH_END;
    let (family, resource) = if batch { (0, SUBSYSTEM) } else { (family, 0) };
    let mut whole = vec![family, 0];
    whole.extend(resource.to_be_bytes());
    whole.extend(body);
    netlink::message(kind, REQUEST | flags, number, &whole)
}
