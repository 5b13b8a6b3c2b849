//! Tables of nf_tables, one for each guarded tap, and the socket by which they are made. All of a table is made
//! in one transaction, which also replaces one that is there: no frame sees half of it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self as netlink_socket, SocketAddrNetlink};
use rustix::net::{RecvFlags, SendFlags};

use super::expression::{DATA_VALUE, Rule, terminated};
use super::rules::{DROPPED, FRAMES, IPV4, IPV6, Sender, Successor};
use crate::host::netlink::{
    self, ACK, APPEND, CREATE, DUMP, EXCLUSIVE, NESTED, REQUEST, Received, attribute,
};
use crate::host::tap::TapId;

/// What the name of a table of ours begins with; the tap's follows.
const PREFIX: &str = "reeve-";
/// `NFPROTO_NETDEV`: frames as a device takes them in, before any bridge.
pub(super) const FAMILY: u8 = 5;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
/// Deletions: of a table, a chain, a rule, a set, an element.
const DELETIONS: [u16; 5] = [DELETE_TABLE, 5, 8, 11, 14];

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_NOTE: u16 = 6;
/// What the note of a table begins with; the number of its tap follows.
const NOTE: &str = "interface ";
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const COUNTER_PACKETS: u16 = 2;
/// `NFT_SET_INTERVAL`: elements are ranges.
const RANGES: u32 = 4;
/// `NFT_SET_ELEM_INTERVAL_END`: the first that is in no range any more.
const RANGE_END: u32 = 1;
/// What `nft` calls the kinds of a key, so that it shows them.
const KEY_IPV4: u32 = 7;
const KEY_IPV6: u32 = 8;
/// The most that the kernel says at once.
const ANSWER_BYTES: usize = 32 << 10;

/// `NFT_TABLE_F_OWNER`.
#[cfg(test)]
const OWNED: u32 = 2;

/// A table of ours that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The tap: its name as it was when it was guarded. Of one by another hand it may have no number.
    pub(super) tap: TapId,
    /// What no other table ever has.
    handle: u64,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Tables {
    socket: OwnedFd,
    /// The port of the socket, which is in what others are told of its requests.
    pub(super) port: u32,
    /// The last number that was used.
    number: u32,
}

impl Tables {
    pub(super) fn open() -> Result<Self, Errno> {
        let socket = netlink::socket(Some(netlink_socket::NETFILTER))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        let own = SocketAddrNetlink::try_from(rustix::net::getsockname(&socket)?)?;
        Ok(Self {
            socket,
            port: own.pid(),
            number: 0,
        })
    }

    /// Makes the table of a tap, in place of the one that is there: also one that an earlier tap of that name
    /// has left, which the kernel would hook into this one (6.16 and later).
    pub(super) fn put(&mut self, tap: &TapId, sender: &Sender) -> Result<(), Errno> {
        self.put_with(tap, sender, 0)
    }

    /// As [`put`](Self::put), with flags of the table (`NFT_TABLE_F_*`).
    fn put_with(&mut self, tap: &TapId, sender: &Sender, flags: u32) -> Result<(), Errno> {
        let table = name(&tap.name);
        let mut noted = attribute(TABLE_NAME, &table);
        noted.extend(attribute(TABLE_FLAGS, &flags.to_be_bytes()));
        if let Some(index) = tap.index {
            noted.extend(attribute(TABLE_NOTE, &note(index)));
        }
        let mut messages = vec![
            Part::new(NEW_TABLE, CREATE, attribute(TABLE_NAME, &table)),
            Part::new(DELETE_TABLE, 0, attribute(TABLE_NAME, &table)),
            Part::new(NEW_TABLE, CREATE | EXCLUSIVE, noted),
            chain(&table, DROPPED, None),
            rule(&table, DROPPED, &Rule::new().counted().drop()),
        ];
        if let Some(addresses) = sender.ipv4() {
            messages.extend(set(&table, IPV4, KEY_IPV4, &addresses, |ip| {
                ip.to_be_bytes().to_vec()
            }));
        }
        if let Some(addresses) = sender.ipv6() {
            messages.extend(set(&table, IPV6, KEY_IPV6, &addresses, |ip| {
                ip.to_be_bytes().to_vec()
            }));
        }
        messages.push(chain(&table, FRAMES, Some(&tap.name)));
        let rules = sender.rules();
        messages.extend(rules.iter().map(|each| rule(&table, FRAMES, each)));
        self.transact(&messages)
    }

    /// Deletes that very table and no other of its name.
    pub(super) fn delete(&mut self, table: &Table) -> Result<(), Errno> {
        let handle = attribute(TABLE_HANDLE, &table.handle.to_be_bytes());
        self.transact(&[Part::new(DELETE_TABLE, 0, handle)])
    }

    /// Has a table that nobody else may touch in place of the one of that name, for as long as the socket lives.
    #[cfg(test)]
    pub(super) fn seize(&mut self, tap: &str) -> Result<(), Errno> {
        let named = attribute(TABLE_NAME, &name(tap));
        let flags = attribute(TABLE_FLAGS, &OWNED.to_be_bytes());
        let owned = [named.clone(), flags].concat();
        self.transact(&[
            Part::new(DELETE_TABLE, 0, named),
            Part::new(NEW_TABLE, CREATE | EXCLUSIVE, owned),
        ])
    }

    /// As [`put`](Self::put), and nobody else may touch it for as long as the socket lives.
    #[cfg(test)]
    pub(super) fn put_owned(&mut self, tap: &TapId, sender: &Sender) -> Result<(), Errno> {
        self.put_with(tap, sender, OWNED)
    }

    /// The table of taps of that name, if there is one.
    pub(super) fn find(&mut self, tap: &str) -> Result<Option<Table>, Errno> {
        let mut found = None;
        let body = attribute(TABLE_NAME, &name(tap));
        let asked = self.ask(GET_TABLE, 0, &body, |answer| {
            found = found.take().or(table(answer))
        });
        match asked {
            Err(Errno::NOENT) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// All of ours, of whichever supervisor.
    pub(super) fn all(&mut self) -> Result<Vec<Table>, Errno> {
        let mut tables = Vec::new();
        self.ask(GET_TABLE, DUMP, &[], |answer| tables.extend(table(answer)))?;
        Ok(tables)
    }

    /// How many frames of a tap were dropped; `None` where the table of that name is another tap's, or there
    /// is none.
    pub(super) fn dropped(&mut self, tap: &TapId) -> Result<Option<u64>, Errno> {
        let tap = tap.now()?;
        if self.find(&tap.name)?.is_none_or(|table| table.tap != tap) {
            return Ok(None);
        }
        let body = [
            attribute(TABLE_NAME, &name(&tap.name)),
            attribute(RULE_CHAIN, &terminated(DROPPED)),
        ];
        let mut dropped = 0_u64;
        self.ask(GET_RULE, DUMP, &body.concat(), |answer| {
            dropped = dropped.saturating_add(counted(answer).unwrap_or(0));
        })?;
        Ok(Some(dropped))
    }

    /// Whether frames of a tap pass rules that are there, however old.
    pub(super) fn hold(&mut self, tap: &TapId) -> Result<bool, Errno> {
        let tap = tap.now()?;
        if self.find(&tap.name)?.is_none_or(|table| table.tap != tap) {
            return Ok(false);
        }
        let body = [
            attribute(TABLE_NAME, &name(&tap.name)),
            attribute(RULE_CHAIN, &terminated(FRAMES)),
        ];
        let mut rules = 0_u64;
        self.ask(GET_RULE, DUMP, &body.concat(), |_| rules += 1)?;
        Ok(rules > 0)
    }

    fn number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// All of it, or nothing.
    fn transact(&mut self, parts: &[Part]) -> Result<(), Errno> {
        let first = self.number();
        let mut bytes = frame(BATCH_BEGIN, 0, first, &[]);
        let mut last = first;
        for (index, part) in parts.iter().enumerate() {
            last = self.number();
            // The last is answered when all is done, what cannot be done before that.
            let answer = if index + 1 == parts.len() { ACK } else { 0 };
            bytes.extend(frame(part.kind, part.flags | answer, last, &part.body));
        }
        let number = self.number();
        bytes.extend(frame(BATCH_END, 0, number, &[]));
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

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Errno> {
        /// `NLMSG_DONE`.
        const DONE: u16 = 3;
        let number = self.number();
        let message = frame(message_kind(kind), flags, number, body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut refused = None;
        let ended = self.receive(|answer| {
            if answer.number != number {
                return false;
            }
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

/// The tap whose table somebody else than the socket with that `port` took something from.
pub(super) fn taken_from(message: &Received<'_>, port: u32) -> Option<String> {
    let deletion = DELETIONS
        .iter()
        .any(|kind| message_kind(*kind) == message.kind);
    let (family, attributes) = message.body.split_first_chunk::<4>()?;
    if !deletion || message.port == port || family[0] != FAMILY {
        return None;
    }
    // Whatever it is about, its first attribute is the table's name.
    let name = netlink::text(netlink::find(attributes, TABLE_NAME)?)?;
    name.strip_prefix(PREFIX).map(str::to_owned)
}

/// One message of a transaction.
struct Part {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Part {
    fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self {
            kind: message_kind(kind),
            flags,
            body,
        }
    }
}

const fn message_kind(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

fn is_within(number: u32, first: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

/// A message with its `struct nfgenmsg`.
fn frame(kind: u16, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let batch = kind == BATCH_BEGIN || kind == BATCH_END;
    let (family, resource) = if batch { (0, SUBSYSTEM) } else { (FAMILY, 0) };
    let mut whole = vec![family, 0];
    whole.extend(resource.to_be_bytes());
    whole.extend(body);
    netlink::message(kind, REQUEST | flags, number, &whole)
}

fn name(tap: &str) -> Vec<u8> {
    terminated(&format!("{PREFIX}{tap}"))
}

/// What `nft` shows as the comment of a table: whose it is.
fn note(index: i32) -> Vec<u8> {
    /// `NFTNL_UDATA_TABLE_COMMENT`.
    const COMMENT: u8 = 0;
    let text = terminated(&format!("{NOTE}{index}"));
    let mut note = vec![COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    note.extend(text);
    note
}

/// A chain; with `tap`, the one that its frames enter as they come.
fn chain(table: &[u8], name: &str, tap: Option<&str>) -> Part {
    let mut body = [attribute(1, table), attribute(3, &terminated(name))].concat();
    if let Some(tap) = tap {
        let hook = [
            attribute(1, &0_u32.to_be_bytes()), // NF_NETDEV_INGRESS
            attribute(2, &0_i32.to_be_bytes()), // the priority
            attribute(3, &terminated(tap)),
        ];
        body.extend(attribute(4 | NESTED, &hook.concat()));
        body.extend(attribute(5, &0_u32.to_be_bytes())); // NF_DROP where no rule decides
        body.extend(attribute(7, &terminated("filter")));
    }
    Part::new(NEW_CHAIN, CREATE, body)
}

fn rule(table: &[u8], chain: &str, rule: &Rule) -> Part {
    let body = [
        attribute(1, table),
        attribute(RULE_CHAIN, &terminated(chain)),
        attribute(RULE_EXPRESSIONS | NESTED, rule.expressions()),
    ];
    Part::new(NEW_RULE, CREATE | APPEND, body.concat())
}

/// A set of ranges, with what is in it.
fn set<T: Copy + Successor>(
    table: &[u8],
    name: &str,
    kind: u32,
    ranges: &[(T, T)],
    bytes: impl Fn(T) -> Vec<u8>,
) -> Vec<Part> {
    let length = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    let body = [
        attribute(1, table),
        attribute(2, &terminated(name)),
        attribute(3, &RANGES.to_be_bytes()),
        attribute(4, &kind.to_be_bytes()),
        attribute(5, &length.to_be_bytes()),
        // Its number in the transaction: there are two at most, of one kind each.
        attribute(10, &kind.to_be_bytes()),
    ];
    let element = |key: T, flags: u32| {
        let mut element = attribute(1 | NESTED, &attribute(DATA_VALUE, &bytes(key)));
        if flags != 0 {
            element.extend(attribute(3, &flags.to_be_bytes()));
        }
        attribute(1 | NESTED, &element)
    };
    let elements = ranges.iter().flat_map(|(first, last)| {
        // The last address of all has none behind it.
        let end = last.next().map(|end| element(end, RANGE_END));
        [Some(element(*first, 0)), end].into_iter().flatten()
    });
    let elements: Vec<u8> = elements.flatten().collect();
    let mut parts = vec![Part::new(NEW_SET, CREATE, body.concat())];
    if !elements.is_empty() {
        let body = [
            attribute(1, table),
            attribute(2, &terminated(name)),
            attribute(3 | NESTED, &elements),
        ];
        parts.push(Part::new(NEW_ELEMENTS, CREATE, body.concat()));
    }
    parts
}

/// The table of ours that a message describes.
fn table(body: &[u8]) -> Option<Table> {
    let (family, attributes) = body.split_first_chunk::<4>()?;
    let name = netlink::text(netlink::find(attributes, TABLE_NAME)?)?;
    let tap = name.strip_prefix(PREFIX).filter(|_| family[0] == FAMILY)?;
    let handle = netlink::find(attributes, TABLE_HANDLE)?.first_chunk()?;
    let noted = netlink::find(attributes, TABLE_NOTE).and_then(|note| {
        // The kind and the length of the text, then the text.
        let text = netlink::text(note.get(2..)?)?;
        text.strip_prefix(NOTE)?.parse().ok()
    });
    Some(Table {
        tap: TapId {
            name: tap.to_owned(),
            index: noted,
        },
        handle: u64::from_be_bytes(*handle),
    })
}

/// The frames that the rule of a message has counted.
fn counted(body: &[u8]) -> Option<u64> {
    let attributes = body.get(4..)?;
    let expressions = netlink::find(attributes, RULE_EXPRESSIONS)?;
    netlink::attributes(expressions).find_map(|(_, expression)| {
        let name = netlink::text(netlink::find(expression, 1)?)?;
        let data = netlink::find(expression, 2).filter(|_| name == "counter")?;
        let packets = netlink::find(data, COUNTER_PACKETS)?.first_chunk()?;
        Some(u64::from_be_bytes(*packets))
    })
}
