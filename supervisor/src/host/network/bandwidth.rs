//! Bandwidth of a network as a whole, at its bridge: what its guests get from elsewhere waits for its turn (htb of
//! tc(8)), and what they send beyond theirs is dropped (a limit of nf_tables, where the bridge takes frames in: the
//! kernel's own police of tc is not on every host). What guests of one bridge send each other passes by both; interfaces
//! have rates of their own.

use reeve_ipc::model::Network;
use reeve_ipc::spec::Rate;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::host::filter::expression::{Rule, terminated};
use crate::host::netlink::{
    self, ACK, APPEND, CREATE, EXCLUSIVE, NESTED, REQUEST, Received, attribute,
};
use crate::host::nf_tables::{
    DELETE_TABLE, GET_RULE, NEW_CHAIN, NEW_RULE, NEW_TABLE, Part, Socket, is_deletion,
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTCLASS: u16 = 40;
/// `NLM_F_REPLACE`.
const REPLACE: u16 = 0x100;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// `1:`, and `1:1` in it.
const QDISC: u32 = 0x1_0000;
const CLASS: u32 = 0x1_0001;
/// The class of what no rule gives another: of everything.
const DEFAULT: u32 = 1;
/// `TC_LINKLAYER_ETHERNET`.
const ETHERNET: u8 = 1;
/// What is sent at once at least, in bytes: a few of the largest packets that are put together.
const LEAST: u64 = 128 << 10;
/// Nanoseconds of what the kernel counts (`PSCHED_SHIFT`), as bits.
const TICK: u32 = 6;
const MTU: u32 = 1500;

/// `NFPROTO_NETDEV`.
const FAMILY: u8 = 5;
/// What the name of a table begins with; not as that of a tap's filter.
const PREFIX: &str = "reeve_network-";
const CHAIN: &str = "from";

/// How much passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// Bytes a second in the long run.
    rate: u64,
    /// Bytes a second after a rest.
    peak: u64,
    /// Bytes beyond the rate after a rest.
    burst: u64,
}

impl Limit {
    fn of(rate: Rate) -> Self {
        let burst = rate.burst;
        let peak = burst.map_or(rate.per_second, |burst| burst.per_second);
        let seconds = burst.map_or(0, |burst| u64::from(burst.seconds));
        let more = peak.saturating_sub(rate.per_second);
        Self {
            rate: rate.per_second.max(1),
            peak: peak.max(rate.per_second).max(1),
            burst: more.saturating_mul(seconds).max(LEAST),
        }
    }

    /// From a network's guests.
    pub(super) fn outbound(network: &Network) -> Option<Self> {
        network.outbound.map(Self::of)
    }

    /// To a network's guests.
    pub(super) fn inbound(network: &Network) -> Option<Self> {
        network.inbound.map(Self::of)
    }
}

/// How long so many bytes take at a rate, as the kernel counts it.
fn ticks(bytes: u64, rate: u64) -> u32 {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u32::try_from(nanoseconds >> TICK).unwrap_or(u32::MAX)
}

/// `struct tc_ratespec`.
fn ratespec(rate: u64) -> Vec<u8> {
    let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    bytes.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    bytes
}

/// Sends a message about what a link sends, and gives the kernel's verdict.
fn tell(kind: u16, flags: u16, index: u32, handles: [u32; 2], options: &[u8]) -> Result<(), Errno> {
    // struct tcmsg.
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    for number in [handles[0], handles[1], 0] {
        body.extend(number.to_ne_bytes());
    }
    body.extend(attribute(TCA_KIND, &terminated("htb")));
    if !options.is_empty() {
        body.extend(attribute(TCA_OPTIONS | NESTED, options));
    }
    let message = netlink::message(kind, REQUEST | ACK | flags, 1, &body);
    let socket = netlink::socket(None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0; 8 << 10];
    let (length, _) = rustix::net::recv(&socket, &mut *answer, RecvFlags::empty())?;
    let received = answer.get(..length).unwrap_or_default();
    let verdict = netlink::messages(received).find_map(|answer| answer.verdict());
    verdict.unwrap_or(Err(Errno::PROTO))
}

/// Has a bridge send no more than that to its guests; all that it can where there is no limit.
pub(super) fn shape(index: u32, limit: Option<Limit>) -> Result<(), Errno> {
    let Some(limit) = limit else {
        return match tell(RTM_DELQDISC, 0, index, [QDISC, ROOT], &[]) {
            // There is none.
            Err(Errno::NOENT | Errno::INVAL | Errno::NODEV) => Ok(()),
            deleted => deleted,
        };
    };
    // struct tc_htb_glob: the version, how a share is found from a rate, the class of most, two figures of the kernel's.
    let whole = [3, 10, DEFAULT, 0, 0].map(u32::to_ne_bytes).concat();
    let made = tell(
        RTM_NEWQDISC,
        CREATE | EXCLUSIVE,
        index,
        [QDISC, ROOT],
        &attribute(2, &whole),
    );
    match made {
        // One of before: its class is as it is to be in a moment.
        Err(Errno::EXIST) => {}
        made => made?,
    }
    // struct tc_htb_opt.
    let mut class = ratespec(limit.rate);
    class.extend(ratespec(limit.peak));
    let quantum = MTU * 10;
    for number in [
        ticks(limit.burst, limit.rate),
        ticks(LEAST, limit.peak),
        quantum,
        0,
        0,
    ] {
        class.extend(number.to_ne_bytes());
    }
    let mut options = attribute(1, &class);
    // What the structure has no room for.
    options.extend(attribute(6, &limit.rate.to_ne_bytes()));
    options.extend(attribute(7, &limit.peak.to_ne_bytes()));
    tell(
        RTM_NEWTCLASS,
        CREATE | REPLACE,
        index,
        [CLASS, QDISC],
        &options,
    )
}

fn table(bridge: &str) -> Vec<u8> {
    attribute(1, &terminated(&format!("{PREFIX}{bridge}")))
}

/// The socket by which limits are made.
#[derive(Debug)]
pub(super) struct Limits(Socket);

impl Limits {
    pub(super) fn open() -> Result<Self, Errno> {
        Socket::open(FAMILY).map(Self)
    }

    pub(super) fn port(&self) -> u32 {
        self.0.port
    }

    /// Whether somebody else than this socket took something from a limit.
    pub(super) fn is_taken_from(port: u32, message: &Received<'_>) -> bool {
        let Some((family, attributes)) = message.body.split_first_chunk::<4>() else {
            return false;
        };
        let name = netlink::find(attributes, 1).and_then(netlink::text);
        let ours = name.is_some_and(|name| name.starts_with(PREFIX));
        is_deletion(message) && message.port != port && family[0] == FAMILY && ours
    }

    /// Has a bridge take in no more than that, in place of what it was.
    pub(super) fn put(&mut self, bridge: &str, limit: Limit) -> Result<(), Errno> {
        let hook = [
            attribute(1, &0_u32.to_be_bytes()), // NF_NETDEV_INGRESS
            attribute(2, &0_i32.to_be_bytes()), // the priority
            attribute(3, &terminated(bridge)),
        ];
        let name = attribute(3, &terminated(CHAIN));
        let mut chain = [table(bridge), name].concat();
        chain.extend(attribute(4 | NESTED, &hook.concat()));
        chain.extend(attribute(5, &1_u32.to_be_bytes())); // NF_ACCEPT where no rule decides
        chain.extend(attribute(7, &terminated("filter")));
        let over = Rule::new().over(limit.rate, limit.burst).counted().drop();
        let mut rule = [table(bridge), attribute(2, &terminated(CHAIN))].concat();
        rule.extend(attribute(4 | NESTED, &over.expressions()));
        self.0.transact(&[
            Part::new(NEW_TABLE, CREATE, table(bridge)),
            Part::new(DELETE_TABLE, 0, table(bridge)),
            Part::new(NEW_TABLE, CREATE | EXCLUSIVE, table(bridge)),
            Part::new(NEW_CHAIN, CREATE, chain),
            Part::new(NEW_RULE, CREATE | APPEND, rule),
        ])
    }

    /// Takes a bridge's limit away.
    pub(super) fn remove(&mut self, bridge: &str) -> Result<(), Errno> {
        let deleted = self
            .0
            .transact(&[Part::new(DELETE_TABLE, 0, table(bridge))]);
        match deleted {
            Err(Errno::NOENT) => Ok(()),
            deleted => deleted,
        }
    }

    /// Whether a bridge's limit is there.
    pub(super) fn hold(&mut self, bridge: &str) -> Result<bool, Errno> {
        let mut rules = 0_u32;
        let chain = [table(bridge), attribute(2, &terminated(CHAIN))].concat();
        let asked = self.0.ask(GET_RULE, netlink::DUMP, &chain, |_| rules += 1);
        match asked {
            Err(Errno::NOENT) => Ok(false),
            asked => asked.map(|()| rules == 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::spec::Burst;

    use super::*;

    #[test]
    fn a_burst_is_what_is_beyond_the_rate() {
        let rate = |per_second, burst: Option<(u64, u32)>| Rate {
            per_second,
            burst: burst.map(|(per_second, seconds)| Burst {
                per_second,
                seconds,
            }),
        };
        let limit = Limit::of(rate(1_000_000, Some((3_000_000, 2))));
        let expected = Limit {
            rate: 1_000_000,
            peak: 3_000_000,
            burst: 4_000_000,
        };
        assert_eq!(limit, expected);
        let plain = Limit::of(rate(1000, None));
        assert_eq!((plain.peak, plain.burst), (1000, LEAST));
        let most = Limit::of(rate(u64::MAX, Some((u64::MAX, u32::MAX))));
        assert_eq!(most.burst, LEAST);
        assert_eq!(ticks(1_000_000, 1_000_000), 15_625_000);
        assert_eq!(ticks(u64::MAX, 1), u32::MAX);
    }
}
