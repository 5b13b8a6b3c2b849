//! What a network's server is told: the texts of its files, as libvirt writes them for the same network, with what our
//! own jail asks for at the end.
//!
//! Every name, address and text in them is of an alphabet that the model has checked (`ipc/src/model/network/text.rs`):
//! none ends a line, and what could separate or comment is within quotes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use reeve_ipc::model::{Dhcp, DhcpHost, DhcpRange, DnsService, Forward, LeaseTime, Network};

/// The most leases of IPv6 that a network's server gives to whoever asks: one for each port that a bridge of Linux can
/// have. When all are taken it compares every address with every lease for each that is asked for.
const MAX_IPV6_LEASES: u128 = 1024;

/// Where its files are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) dhcp_hosts: &'a Path,
    pub(super) dns_hosts: &'a Path,
    pub(super) leases: &'a Path,
    /// Where it does not get to those of the host.
    pub(super) copies: Option<Copies<'a>>,
}

/// Copies of what the host knows of names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copies<'a> {
    /// Of `/etc/hosts`.
    pub(super) hosts: &'a Path,
    /// Of `/etc/resolv.conf`.
    pub(super) resolvers: &'a Path,
}

/// A line; writing to a text does not fail.
macro_rules! line {
    ($text:ident, $($what:tt)*) => {{
        let _ = writeln!($text, $($what)*);
    }};
}

/// The configuration of dnsmasq(8) for a network whose bridge has that name.
pub(super) fn configuration(network: &Network, bridge: &str, files: Files<'_>) -> String {
    let mut text = String::from(
        "# Written by reeved, and anew whenever the network changes: 'virsh net-edit' changes it.\n",
    );
    line!(text, "strict-order");
    names(&mut text, network);
    line!(text, "except-interface=lo");
    line!(text, "bind-dynamic");
    line!(text, "interface={bridge}");
    services(&mut text, network);
    if network.forward == Forward::Isolated {
        // There is no router, and nobody to ask for names.
        line!(text, "dhcp-option=3");
        line!(text, "no-resolv");
        line!(text, "ra-param=*,0,0");
    }
    addresses(&mut text, network);
    line!(text, "dhcp-hostsfile=\"{}\"", files.dhcp_hosts.display());
    line!(text, "addn-hosts=\"{}\"", files.dns_hosts.display());
    if let Some(copies) = files.copies {
        line!(text, "no-hosts");
        line!(text, "addn-hosts=\"{}\"", copies.hosts.display());
        line!(text, "resolv-file=\"{}\"", copies.resolvers.display());
    }
    line!(text, "dhcp-leasefile=\"{}\"", files.leases.display());
    // It is started as who it is to be, stays where it is started, and says on its standard error how it went.
    line!(text, "user=");
    line!(text, "pid-file=");
    line!(text, "keep-in-foreground");
    line!(text, "log-facility=-");
    // A guest has it write as many lines as it likes.
    line!(text, "quiet-dhcp");
    line!(text, "quiet-dhcp6");
    line!(text, "quiet-ra");
    text
}

fn names(text: &mut String, network: &Network) {
    let dns = &network.dns;
    if !dns.enabled {
        line!(text, "port=0");
    }
    for forwarder in &dns.forwarders {
        let domain = forwarder.domain.as_ref();
        let domain = domain.map_or(String::new(), |domain| format!("/{domain}/"));
        match forwarder.address {
            Some(address) => line!(text, "server={domain}{address}"),
            None => line!(text, "server={domain}#"),
        }
    }
    if dns
        .forwarders
        .iter()
        .any(|forwarder| forwarder.domain.is_none())
    {
        line!(text, "no-resolv");
    }
    let domain = network.domain.as_ref();
    if let Some(domain) = domain {
        if domain.local_only {
            line!(text, "local=/{}/", domain.name);
        }
        line!(text, "domain={}", domain.name);
        line!(text, "expand-hosts");
    }
    if dns.enabled && !dns.forward_plain_names {
        line!(text, "domain-needed");
        if domain.is_none_or(|domain| !domain.local_only) {
            line!(text, "local=//");
        }
    }
}

fn services(text: &mut String, network: &Network) {
    for address in network.addresses.iter().filter(|address| address.local_ptr) {
        if let Some(domain) = reverse(address.first(), address.prefix) {
            line!(text, "local=/{domain}/");
        }
    }
    for record in &network.dns.texts {
        line!(text, "txt-record={},\"{}\"", record.name, record.value);
    }
    for service in &network.dns.services {
        line!(text, "{}", srv(service));
    }
}

/// The domain of names of a network's addresses, where its length is that of whole parts.
fn reverse(first: IpAddr, prefix: u8) -> Option<String> {
    let (parts, suffix): (Vec<String>, _) = match first {
        IpAddr::V4(first) if prefix % 8 == 0 => {
            let octets = first.octets();
            let octets = octets.iter().take(usize::from(prefix / 8));
            (octets.map(u8::to_string).collect(), "in-addr.arpa")
        }
        IpAddr::V6(first) if prefix % 4 == 0 => {
            let digits = format!("{:032x}", first.to_bits());
            let digits = digits.chars().take(usize::from(prefix / 4));
            (digits.map(String::from).collect(), "ip6.arpa")
        }
        _ => return None,
    };
    let mut parts: Vec<&str> = parts.iter().rev().map(String::as_str).collect();
    parts.push(suffix);
    Some(parts.join("."))
}

fn srv(service: &DnsService) -> String {
    let mut line = format!("srv-host=_{}._{}", service.service, service.protocol);
    if let Some(domain) = &service.domain {
        let _ = write!(line, ".{domain}");
    }
    // A target of nothing but a dot says that there is no such service.
    let Some(target) = service.target.as_ref().filter(|target| *target != ".") else {
        return line;
    };
    let _ = write!(line, ",{target}");
    // They are told apart by their place: what comes before one that is said is said too.
    let (port, priority, weight) = (service.port, service.priority, service.weight);
    if port.or(priority).or(weight).is_some() {
        let _ = write!(line, ",{}", port.unwrap_or(1));
    }
    if priority.or(weight).is_some() {
        let _ = write!(line, ",{}", priority.unwrap_or(0));
    }
    if let Some(weight) = weight {
        let _ = write!(line, ",{weight}");
    }
    line
}

fn addresses(text: &mut String, network: &Network) {
    let most_of_ipv6 = most_of_ipv6(network);
    let mut leases = 0_u128;
    let mut any = false;
    for address in &network.addresses {
        if let Some(root) = &address.tftp_root {
            line!(text, "enable-tftp");
            line!(text, "tftp-root=\"{}\"", root.display());
        }
        let Some(dhcp) = &address.dhcp else {
            continue;
        };
        any = true;
        let length = match address.address {
            IpAddr::V4(_) => netmask(address.prefix).to_string(),
            IpAddr::V6(_) => address.prefix.to_string(),
        };
        for range in &dhcp.ranges {
            let range = narrowed(*range, most_of_ipv6);
            let lease = range
                .lease
                .map_or(String::new(), |time| format!(",{}", word(time)));
            line!(
                text,
                "dhcp-range={},{},{length}{lease}",
                range.first,
                range.last
            );
            leases = leases.saturating_add(addresses_of(&range));
        }
        if dhcp.ranges.is_empty() && !dhcp.hosts.is_empty() {
            line!(text, "dhcp-range={},static,{length}", address.first());
        }
        leases = leases.saturating_add(dhcp.hosts.len().try_into().unwrap_or(u128::MAX));
        if let Some(bootp) = &dhcp.bootp {
            match &bootp.server {
                Some(server) => line!(text, "dhcp-boot={},,{server}", bootp.file),
                None => line!(text, "dhcp-boot={}", bootp.file),
            }
        }
    }
    if any {
        line!(text, "dhcp-no-override");
        line!(text, "dhcp-authoritative");
        // A lease for each Ethernet address: a guest says as many other names of itself as it likes, and its filter
        // (`crate::host::filter`) has it say its own address only.
        line!(text, "dhcp-ignore-clid");
    }
    if leases > 0 {
        line!(text, "dhcp-lease-max={leases}");
    }
    routers(text, network);
}

/// How many addresses a range of IPv6 gives out at most: a client of DHCPv6 is what it calls itself (RFC 8415, 11), so
/// that a guest takes as many leases as there are; and all leases, also those of IPv4, are in one book, which is written
/// anew for each. What small ranges do not need of their part the larger have.
fn most_of_ipv6(network: &Network) -> u128 {
    let ranges = ranges(network).filter(|range| range.first.is_ipv6());
    let mut sizes: Vec<u128> = ranges.map(addresses_of).collect();
    sizes.sort_unstable();
    let mut left = MAX_IPV6_LEASES;
    for (size, others) in sizes.iter().zip((1..=sizes.len()).rev()) {
        let part = left / u128::try_from(others).unwrap_or(u128::MAX);
        if *size > part {
            return part.max(1);
        }
        left -= size;
    }
    MAX_IPV6_LEASES
}

fn ranges(network: &Network) -> impl Iterator<Item = &DhcpRange> {
    let given = network.addresses.iter().filter_map(|on| on.dhcp.as_ref());
    given.flat_map(|dhcp| &dhcp.ranges)
}

/// The addresses that a network's server gives out: those of its ranges, and those of known hosts.
#[derive(Debug)]
pub(super) struct Given {
    ranges: Vec<DhcpRange>,
    hosts: BTreeSet<IpAddr>,
}

impl Given {
    pub(super) fn of(network: &Network) -> Self {
        let most = most_of_ipv6(network);
        let given = network.addresses.iter().filter_map(|on| on.dhcp.as_ref());
        let hosts = given.flat_map(|dhcp| &dhcp.hosts);
        Self {
            ranges: ranges(network)
                .map(|range| narrowed(*range, most))
                .collect(),
            hosts: hosts.filter_map(|host| host.address).collect(),
        }
    }

    /// Whether that is one of them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        self.hosts.contains(&address)
            || ranges.any(|range| (range.first..=range.last).contains(&address))
    }
}

/// A range with no more than its first so many addresses, where it is one of IPv6.
fn narrowed(range: DhcpRange, most: u128) -> DhcpRange {
    let (IpAddr::V6(first), IpAddr::V6(last)) = (range.first, range.last) else {
        return range;
    };
    let end = first.to_bits().saturating_add(most.saturating_sub(1));
    let last = Ipv6Addr::from_bits(end.min(last.to_bits())).into();
    DhcpRange { last, ..range }
}

/// Advertisements of the host as a router of IPv6.
fn routers(text: &mut String, network: &Network) {
    let mut ipv6 = network
        .addresses
        .iter()
        .filter(|address| address.address.is_ipv6());
    let gives = ipv6
        .clone()
        .any(|address| address.dhcp.as_ref().is_some_and(is_used));
    if gives {
        line!(text, "enable-ra");
    } else {
        ipv6.by_ref()
            .for_each(|address| line!(text, "dhcp-range={},ra-only", address.address));
    }
}

fn is_used(dhcp: &Dhcp) -> bool {
    !dhcp.ranges.is_empty() || !dhcp.hosts.is_empty()
}

fn addresses_of(range: &DhcpRange) -> u128 {
    let length = match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            u128::from(last.to_bits().saturating_sub(first.to_bits()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
        _ => 0,
    };
    length.saturating_add(1)
}

fn netmask(prefix: u8) -> Ipv4Addr {
    let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from_bits(!rest)
}

fn word(lease: LeaseTime) -> String {
    match lease {
        LeaseTime::Infinite => "infinite".to_owned(),
        LeaseTime::Seconds(seconds) => format!("{seconds}s"),
        LeaseTime::Minutes(minutes) => format!("{minutes}m"),
        LeaseTime::Hours(hours) => format!("{hours}h"),
    }
}

/// The known hosts of DHCP, one a line.
pub(super) fn dhcp_hosts(network: &Network) -> String {
    let given = network
        .addresses
        .iter()
        .filter_map(|address| address.dhcp.as_ref());
    let hosts = given.flat_map(|dhcp| &dhcp.hosts);
    hosts.map(|host| dhcp_host(host) + "\n").collect()
}

fn dhcp_host(host: &DhcpHost) -> String {
    let mut parts = Vec::new();
    parts.extend(host.id.as_ref().map(|id| format!("id:{id}")));
    parts.extend(host.mac.map(|mac| mac.to_string()));
    parts.extend(host.name.clone());
    parts.extend(host.address.map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }));
    parts.extend(host.lease.map(word));
    parts.join(",")
}

/// The names of addresses, one address a line, as of hosts(5).
pub(super) fn dns_hosts(network: &Network) -> String {
    let hosts = network.dns.hosts.iter();
    hosts
        .map(|host| format!("{}\t{}\n", host.address, host.names.join(" ")))
        .collect()
}

#[cfg(test)]
mod tests;
