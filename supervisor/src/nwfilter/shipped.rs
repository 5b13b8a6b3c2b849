//! The filters that every instance has from its first start: those that libvirt's packages bring, by the same names.

use reeve_ipc::model::{
    DEFAULT_RULE_PRIORITY, FilterChain, FilterEntry, FilterReference, FilterRule, Nwfilter,
    NwfilterUuid, RuleMatch, RuleProtocol,
};
use uuid::Uuid;

/// A UUID of which the last digits are a filter's number.
const FIRST_UUID: u128 = 0x5d0c_64be_36f7_4e0a_9b41_8f2c_5d11_0000;

/// A filter: name, number, chain, the chain's priority where it is not the usual one, and entries: `use FILTER`, or direction,
/// action, priority where it is not the usual one, protocol and fields.
type Shipped = (
    &'static str,
    u16,
    &'static str,
    Option<i16>,
    &'static [&'static str],
);

const SHIPPED: &[Shipped] = &[
    ("allow-arp", 1, "arp", None, &["inout accept"]),
    (
        "allow-dhcp",
        2,
        "ipv4",
        None,
        &[
            "out accept 100 ip srcipaddr=0.0.0.0 dstipaddr=255.255.255.255 protocol=udp srcportstart=68 dstportstart=67",
            "in accept 100 ip protocol=udp srcportstart=67 dstportstart=68",
        ],
    ),
    (
        "allow-dhcp-server",
        3,
        "ipv4",
        None,
        &[
            "out accept 100 ip srcipaddr=0.0.0.0 dstipaddr=255.255.255.255 protocol=udp srcportstart=68 dstportstart=67",
            "in accept 100 ip srcipaddr=$DHCPSERVER protocol=udp srcportstart=67 dstportstart=68",
        ],
    ),
    (
        "allow-dhcpv6",
        4,
        "ipv6",
        None,
        &[
            "out accept 100 ipv6 srcipaddr=fe80:: srcipmask=10 dstipaddr=ff02::1:2 protocol=udp srcportstart=546 \
             dstportstart=547",
            "in accept 100 ipv6 protocol=udp srcportstart=547 dstportstart=546",
        ],
    ),
    (
        "allow-dhcpv6-server",
        5,
        "ipv6",
        None,
        &[
            "out accept 100 ipv6 srcipaddr=fe80:: srcipmask=10 dstipaddr=ff02::1:2 protocol=udp srcportstart=546 \
             dstportstart=547",
            "in accept 100 ipv6 srcipaddr=$DHCPSERVER protocol=udp srcportstart=547 dstportstart=546",
        ],
    ),
    ("allow-incoming-ipv4", 6, "ipv4", None, &["in accept"]),
    ("allow-incoming-ipv6", 7, "ipv6", None, &["in accept"]),
    ("allow-ipv4", 8, "ipv4", None, &["inout accept"]),
    ("allow-ipv6", 9, "ipv6", None, &["inout accept"]),
    (
        "clean-traffic",
        10,
        "root",
        None,
        &[
            "use no-mac-spoofing",
            "use no-ip-spoofing",
            "out accept -650 mac protocolid=ipv4",
            "use allow-incoming-ipv4",
            "use no-arp-spoofing",
            "inout accept -500 mac protocolid=arp",
            "use no-other-l2-traffic",
            "use qemu-announce-self",
        ],
    ),
    (
        "clean-traffic-gateway",
        11,
        "root",
        None,
        &[
            "use no-mac-spoofing",
            "use no-ip-spoofing",
            "use no-arp-spoofing",
            "inout accept -500 mac protocolid=arp",
            "in accept mac srcmacaddr=$GATEWAY_MAC",
            "out accept mac dstmacaddr=$GATEWAY_MAC",
            "use no-other-l2-traffic",
            "use qemu-announce-self",
        ],
    ),
    (
        "no-arp-ip-spoofing",
        12,
        "arp-ip",
        Some(-510),
        &["out return 400 arp arpsrcipaddr=$IP", "out drop 1000"],
    ),
    (
        "no-arp-mac-spoofing",
        13,
        "arp-mac",
        Some(-520),
        &["out return 350 arp arpsrcmacaddr=$MAC", "out drop 1000"],
    ),
    (
        "no-arp-spoofing",
        14,
        "root",
        None,
        &["use no-arp-mac-spoofing", "use no-arp-ip-spoofing"],
    ),
    (
        "no-ip-multicast",
        15,
        "ipv4",
        None,
        &["out drop ip dstipaddr=224.0.0.0 dstipmask=4"],
    ),
    (
        "no-ip-spoofing",
        16,
        "ipv4-ip",
        Some(-710),
        &[
            "out return 100 ip srcipaddr=0.0.0.0 protocol=udp",
            "out return ip srcipaddr=$IP",
            "out drop 1000",
        ],
    ),
    (
        "no-ipv6-multicast",
        17,
        "ipv6",
        None,
        &["out drop ipv6 dstipaddr=ff00:: dstipmask=8"],
    ),
    (
        "no-ipv6-spoofing",
        18,
        "ipv6-ip",
        Some(-610),
        &[
            "out return 100 ipv6 srcipaddr=fe80:: srcipmask=10 protocol=udp",
            "out return ipv6 srcipaddr=$IPV6",
            "out drop 1000",
        ],
    ),
    (
        "no-mac-broadcast",
        19,
        "ipv4",
        None,
        &["out drop mac dstmacaddr=ff:ff:ff:ff:ff:ff"],
    ),
    (
        "no-mac-spoofing",
        20,
        "mac",
        None,
        &["out return mac srcmacaddr=$MAC", "out drop mac"],
    ),
    (
        "no-other-l2-traffic",
        21,
        "root",
        None,
        &["inout drop 1000"],
    ),
    (
        "no-other-rarp-traffic",
        22,
        "rarp",
        None,
        &["inout drop 1000"],
    ),
    (
        "qemu-announce-self",
        23,
        "root",
        None,
        &[
            "out accept mac protocolid=0x835",
            "use qemu-announce-self-rarp",
            "use no-other-rarp-traffic",
        ],
    ),
    (
        "qemu-announce-self-rarp",
        24,
        "rarp",
        None,
        &[
            "out accept rarp srcmacaddr=$MAC dstmacaddr=ff:ff:ff:ff:ff:ff opcode=Request_Reverse arpsrcmacaddr=$MAC \
             arpdstmacaddr=$MAC arpsrcipaddr=0.0.0.0 arpdstipaddr=0.0.0.0",
            "in accept rarp dstmacaddr=ff:ff:ff:ff:ff:ff opcode=Request_Reverse arpsrcmacaddr=$MAC \
             arpdstmacaddr=$MAC arpsrcipaddr=0.0.0.0 arpdstipaddr=0.0.0.0",
        ],
    ),
];

/// All of them. What could not be read would be left out; a test reads each.
pub(super) fn all() -> Vec<Nwfilter> {
    SHIPPED.iter().filter_map(filter).collect()
}

/// How many there are.
#[cfg(test)]
pub(super) const COUNT: usize = SHIPPED.len();

fn filter((name, number, chain, priority, entries): &Shipped) -> Option<Nwfilter> {
    let chain: FilterChain = chain.parse().ok()?;
    Some(Nwfilter {
        name: name.parse().ok()?,
        uuid: NwfilterUuid(Uuid::from_u128(FIRST_UUID | u128::from(*number))),
        priority: priority.unwrap_or(chain.layer().priority()),
        chain,
        entries: entries
            .iter()
            .map(|line| entry(line))
            .collect::<Option<_>>()?,
    })
}

fn entry(line: &str) -> Option<FilterEntry> {
    let mut words = line.split_ascii_whitespace().peekable();
    let first = words.next()?;
    if first == "use" {
        return Some(FilterEntry::Reference(FilterReference {
            filter: words.next()?.parse().ok()?,
            parameters: Vec::new(),
        }));
    }
    let mut rule = FilterRule {
        direction: first.parse().ok()?,
        action: words.next()?.parse().ok()?,
        priority: DEFAULT_RULE_PRIORITY,
        stateless: false,
        protocol: None,
        negated: false,
        fields: Vec::new(),
    };
    if let Some(priority) = words.peek().and_then(|word| word.parse().ok()) {
        rule.priority = priority;
        words.next();
    }
    if let Some(word) = words.next() {
        let protocol: RuleProtocol = word.parse().ok()?;
        rule.protocol = Some(protocol);
        for word in words {
            let (name, value) = word.split_once('=')?;
            let field = protocol.field(name)?;
            let value = field.parse(value).ok()?;
            rule.fields.push(RuleMatch { field, value });
        }
    }
    Some(FilterEntry::Rule(rule))
}
