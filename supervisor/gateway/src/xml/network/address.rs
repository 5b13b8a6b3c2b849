//! `<ip>` with `<dhcp>` and `<tftp>`, and `<route>`.

use std::net::{IpAddr, Ipv4Addr};

use reeve_ipc::model::{Bootp, Dhcp, DhcpHost, DhcpRange, LeaseTime, NetworkAddress, NetworkRoute};

use super::super::XmlError;
use super::super::element::Element;
use super::super::write::Writer;
use super::{all, contents, needed};

pub(super) fn parse(element: Element<'_>) -> Result<NetworkAddress, XmlError> {
    element.known(&["address", "netmask", "prefix", "family", "localPtr"])?;
    contents(element, &["tftp", "dhcp"], &[])?;
    let address = needed(element, "address")?;
    let tftp_root = match element.child("tftp") {
        Some(tftp) => {
            tftp.known(&["root"])?;
            tftp.no_children()?;
            Some(tftp.required("root")?.into())
        }
        None => None,
    };
    Ok(NetworkAddress {
        address,
        prefix: prefix(element, address)?,
        local_ptr: element.switch("localPtr")?.unwrap_or(false),
        dhcp: element.child("dhcp").map(dhcp).transpose()?,
        tftp_root,
    })
}

/// How many bits all addresses have in common, as libvirt reads it: by a netmask, a prefix, or the class that an
/// address was of before there were either.
fn prefix(element: Element<'_>, address: IpAddr) -> Result<u8, XmlError> {
    let family = element.attribute("family").unwrap_or("ipv4");
    let netmask: Option<Ipv4Addr> = element.parsed("netmask")?;
    let prefix: Option<u8> = element.parsed("prefix")?;
    match (address, family) {
        (IpAddr::V4(_), "ipv4" | "") | (IpAddr::V6(_), "ipv6") => {}
        (IpAddr::V6(_), "ipv4") => {
            let why = format!("no family specified for non-IPv4 address '{address}'");
            return Err(element.invalid(why));
        }
        _ => {
            let why = format!("family '{family}' is not that of the address '{address}'");
            return Err(element.invalid(why));
        }
    }
    match (netmask, prefix, address) {
        (Some(_), Some(_), _) => {
            Err(element.invalid("there is a netmask or a prefix, and not both"))
        }
        (Some(_), None, IpAddr::V6(_)) => Err(element.invalid("IPv6 has a prefix and no netmask")),
        (Some(netmask), None, IpAddr::V4(_)) => {
            let bits = netmask.to_bits();
            match u8::try_from(bits.leading_ones()) {
                Ok(ones) if bits.leading_ones() + bits.trailing_zeros() >= 32 => Ok(ones),
                _ => Err(element.invalid(format!("{netmask} is no netmask"))),
            }
        }
        (None, Some(prefix), _) => Ok(prefix),
        (None, None, IpAddr::V6(_)) => Ok(64),
        (None, None, IpAddr::V4(address)) => match address.octets() {
            [0..=127, ..] => Ok(8),
            [128..=191, ..] => Ok(16),
            [192..=223, ..] => Ok(24),
            _ => Err(element.invalid("there is neither a netmask nor a prefix")),
        },
    }
}

fn dhcp(element: Element<'_>) -> Result<Dhcp, XmlError> {
    element.known(&[])?;
    contents(element, &["bootp"], &["range", "host"])?;
    let mut dhcp = Dhcp::default();
    for element in all(element, "range") {
        dhcp.ranges.push(range(element)?);
    }
    for element in all(element, "host") {
        dhcp.hosts.push(host(element)?);
    }
    if let Some(bootp) = element.child("bootp") {
        bootp.known(&["file", "server"])?;
        bootp.no_children()?;
        dhcp.bootp = Some(Bootp {
            file: bootp.required("file")?.to_owned(),
            server: bootp.attribute("server").map(str::to_owned),
        });
    }
    Ok(dhcp)
}

pub(super) fn range(element: Element<'_>) -> Result<DhcpRange, XmlError> {
    element.known(&["start", "end"])?;
    contents(element, &["lease"], &[])?;
    Ok(DhcpRange {
        first: needed(element, "start")?,
        last: needed(element, "end")?,
        lease: element.child("lease").map(lease).transpose()?,
    })
}

pub(super) fn host(element: Element<'_>) -> Result<DhcpHost, XmlError> {
    element.known(&["mac", "id", "name", "ip"])?;
    contents(element, &["lease"], &[])?;
    let text = |name: &str| element.attribute(name).map(str::to_owned);
    Ok(DhcpHost {
        mac: element.parsed("mac")?,
        id: text("id"),
        name: text("name"),
        address: element.parsed("ip")?,
        lease: element.child("lease").map(lease).transpose()?,
    })
}

/// How long an address is lent: 0 is for good, and what has no unit is in minutes, as in libvirt.
fn lease(element: Element<'_>) -> Result<LeaseTime, XmlError> {
    element.known(&["expiry", "unit"])?;
    element.no_children()?;
    let expiry: u32 = needed(element, "expiry")?;
    let unit = element.attribute("unit").unwrap_or("minutes");
    match (expiry, unit) {
        (0, "seconds" | "minutes" | "hours") => Ok(LeaseTime::Infinite),
        (_, "seconds") => Ok(LeaseTime::Seconds(expiry)),
        (_, "minutes") => Ok(LeaseTime::Minutes(expiry)),
        (_, "hours") => Ok(LeaseTime::Hours(expiry)),
        _ => {
            let there = "there is seconds, minutes and hours";
            Err(element.unsupported_value("unit", unit, there))
        }
    }
}

pub(super) fn parse_route(element: Element<'_>) -> Result<NetworkRoute, XmlError> {
    let known = [
        "family", "address", "netmask", "prefix", "gateway", "metric",
    ];
    element.known(&known)?;
    element.no_children()?;
    let destination = needed(element, "address")?;
    Ok(NetworkRoute {
        destination,
        prefix: prefix(element, destination)?,
        gateway: needed(element, "gateway")?,
        metric: element.parsed("metric")?,
    })
}

/// An address by an attribute of that name, its family where it is not IPv4, and its mask: in the order that
/// libvirt has.
macro_rules! masked {
    ($tag:expr, $address:expr, $prefix:expr) => {{
        let (address, prefix): (IpAddr, u8) = ($address, $prefix);
        let family = address.is_ipv6().then_some("ipv6");
        let tag = $tag.optional("family", family);
        let tag = tag.attribute("address", address);
        match address {
            IpAddr::V4(_) => tag.attribute("netmask", netmask(prefix)),
            IpAddr::V6(_) => tag.attribute("prefix", prefix),
        }
    }};
}

fn netmask(prefix: u8) -> Ipv4Addr {
    let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from_bits(!rest)
}

pub(super) fn format(writer: &mut Writer, address: &NetworkAddress) {
    let tag = masked!(writer.tag("ip"), address.address, address.prefix);
    tag.optional("localPtr", address.local_ptr.then_some("yes"))
        .open();
    if let Some(root) = &address.tftp_root {
        let tag = writer.tag("tftp");
        tag.attribute("root", root.display()).empty();
    }
    if let Some(dhcp) = &address.dhcp {
        format_dhcp(writer, dhcp);
    }
    writer.close("ip");
}

fn format_dhcp(writer: &mut Writer, dhcp: &Dhcp) {
    writer.tag("dhcp").open();
    for DhcpRange { first, last, lease } in &dhcp.ranges {
        let tag = writer.tag("range").attribute("start", first);
        let tag = tag.attribute("end", last);
        match lease {
            None => tag.empty(),
            Some(lease) => {
                tag.open();
                format_lease(writer, *lease);
                writer.close("range");
            }
        }
    }
    for host in &dhcp.hosts {
        let tag = writer.tag("host").optional("mac", host.mac);
        let tag = tag.optional("id", host.id.as_ref());
        let tag = tag.optional("name", host.name.as_ref());
        let tag = tag.optional("ip", host.address);
        match host.lease {
            None => tag.empty(),
            Some(lease) => {
                tag.open();
                format_lease(writer, lease);
                writer.close("host");
            }
        }
    }
    if let Some(bootp) = &dhcp.bootp {
        let tag = writer.tag("bootp").attribute("file", &bootp.file);
        tag.optional("server", bootp.server.as_ref()).empty();
    }
    writer.close("dhcp");
}

fn format_lease(writer: &mut Writer, lease: LeaseTime) {
    let (expiry, unit) = match lease {
        LeaseTime::Infinite => (0, None),
        LeaseTime::Seconds(count) => (count, Some("seconds")),
        LeaseTime::Minutes(count) => (count, Some("minutes")),
        LeaseTime::Hours(count) => (count, Some("hours")),
    };
    let tag = writer.tag("lease").attribute("expiry", expiry);
    tag.optional("unit", unit).empty();
}

pub(super) fn format_route(writer: &mut Writer, route: &NetworkRoute) {
    let tag = masked!(writer.tag("route"), route.destination, route.prefix);
    tag.attribute("gateway", route.gateway)
        .optional("metric", route.metric)
        .empty();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_are_of_all_lengths() {
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }
}
