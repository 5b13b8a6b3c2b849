//! What networks have lent: as they are asked, and as a domain's interfaces are.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use reeve_ipc::api::call::{NetworkDefinitionGet, NetworkGet, NetworkLeasesGet, NetworkRef};
use reeve_ipc::leases::{self, Lease};
use reeve_ipc::model::{DeviceName, Network, NicSource};
use reeve_ipc::spec::MacAddress;

use super::super::Context;
use super::super::bandwidth::present;
use super::super::failure::{Code, Failure, Origin};
use super::{absent, as_network, call, check_flags, details, reference};
use crate::wire::types::guest;
use crate::wire::types::handles::Domain;
use crate::wire::types::network as wire;
use crate::wire::xdr::List;

/// Of which family an address is (libvirt `virIPAddrType`).
pub(super) const fn family(address: IpAddr) -> i32 {
    match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 1,
    }
}

/// What an active network has lent, in the order in which it did.
async fn lent(context: &Context, network: NetworkRef) -> Result<Vec<Lease>, Failure> {
    let get = NetworkLeasesGet { network };
    let (lends, mut fds) = context.call_with_fds(get).await.map_err(as_network)?;
    let failed = |why: String| Failure::of(Origin::Network, Code::InternalError, why);
    if !lends {
        return Ok(Vec::new());
    }
    let none = || failed("the supervisor sent no book of what is lent".to_owned());
    let book = fds.pop().ok_or_else(none)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    leases::read(book.as_fd(), now).map_err(|error| failed(error.to_string()))
}

/// Whether a lease is that of an interface, whatever guests say of themselves: an id of IPv6 is what its guest chose,
/// so that there an address counts only if it is made of the interface's own (RFC 4291, appendix A).
fn is_of(lease: &Lease, mac: MacAddress) -> bool {
    match lease.address {
        IpAddr::V4(_) => lease.mac == Some(mac),
        IpAddr::V6(address) => interface_id(address) == modified_eui_64(mac),
    }
}

fn interface_id(address: Ipv6Addr) -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = address.octets();
    [a, b, c, d, e, f, g, h]
}

fn modified_eui_64(mac: MacAddress) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.octets();
    [a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// How many bits of an address its network's have in common.
fn prefix(network: &Network, address: IpAddr) -> u32 {
    let mut on = network.addresses.iter();
    let own = on.find(|on| on.contains(address)).map(|on| on.prefix);
    let whole = if address.is_ipv4() { 32 } else { 128 };
    own.map_or(whole, u32::from)
}

pub(in super::super) async fn all(
    context: Arc<Context>,
    of: wire::NetworkGetDhcpLeases,
) -> Result<wire::DhcpLeases, Failure> {
    check_flags(of.flags, 0, "virNetworkGetDHCPLeases")?;
    let invalid = |error| {
        Failure::of(
            Origin::Network,
            Code::InvalidArgument,
            format!("mac: {error}"),
        )
    };
    let mac: Option<MacAddress> = of.mac.map(|mac| mac.parse().map_err(invalid)).transpose()?;
    let summary = details(&context, &of.network).await?.summary;
    // As in libvirt, one that is not active has lent nothing.
    if !summary.active {
        return Ok(wire::DhcpLeases {
            leases: List::default(),
            ret: 0,
        });
    }
    let get = NetworkDefinitionGet {
        network: reference(&of.network),
        persistent: false,
    };
    let gone = |failure: Failure| match failure.code {
        Code::NoNetwork => absent(&of.network),
        _ => failure,
    };
    let network = call(&context, get).await.map_err(gone)?;
    let mut lent = lent(&context, reference(&of.network)).await.map_err(gone)?;
    lent.retain(|lease| mac.is_none() || lease.mac == mac);
    let ret = u32::try_from(lent.len()).unwrap_or(u32::MAX);
    let bridge = summary.bridge.as_ref();
    let interface = bridge.map_or_else(String::new, |bridge| bridge.as_str().to_owned());
    let leases = lent.into_iter().map(|lease| wire::DhcpLease {
        interface: interface.clone(),
        // Who has it for good is told so as libvirt does.
        expiry: lease
            .expiry_unix_s
            .map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX)),
        kind: family(lease.address),
        mac: lease.mac.map(|mac| mac.to_string()),
        iaid: lease.iaid,
        prefix: prefix(&network, lease.address),
        address: lease.address.to_string(),
        hostname: lease.hostname,
        client_id: lease.client_id,
    });
    let leases = match of.need_results {
        true => leases.collect(),
        false => List::default(),
    };
    Ok(wire::DhcpLeases { leases, ret })
}

/// What the networks of a domain that runs have lent to its interfaces (libvirt
/// `VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE`); an interface to which nothing is lent is not told of.
pub(in super::super) async fn of_domain(
    context: &Context,
    domain: &Domain,
) -> Result<List<guest::GuestInterface, 2_048>, Failure> {
    context.active(domain).await?;
    let definition = context.definition(domain, false).await?;
    let nics = definition.devices.nics.iter();
    let of_networks = nics.filter_map(|nic| match &nic.source {
        NicSource::Network { network, .. } => Some((nic.mac?, network.clone())),
        _ => None,
    });
    let of_networks: Vec<_> = of_networks.collect();
    if of_networks.is_empty() {
        return Ok(List::default());
    }
    let present = present(context, domain).await;
    let mut interfaces = Vec::new();
    for (mac, name) in of_networks {
        let reference = NetworkRef::Name(name);
        let get = NetworkGet {
            network: reference.clone(),
        };
        if !call(context, get).await?.summary.active {
            continue;
        }
        let get = NetworkDefinitionGet {
            network: reference.clone(),
            persistent: false,
        };
        let network = call(context, get).await?;
        let mut lent = lent(context, reference).await?;
        lent.retain(|lease| is_of(lease, mac));
        if lent.is_empty() {
            continue;
        }
        let device = DeviceName::Nic(mac);
        let mut devices = present.iter();
        let host = devices.find(|present| present.device == device);
        let host = host.and_then(|present| present.host.clone());
        let addresses = lent.iter().map(|lease| guest::IpAddress {
            kind: family(lease.address),
            address: lease.address.to_string(),
            prefix: prefix(&network, lease.address),
        });
        interfaces.push(guest::GuestInterface {
            name: host.unwrap_or_default(),
            hwaddr: Some(mac.to_string()),
            addresses: addresses.collect(),
        });
    }
    Ok(interfaces.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of networks' leases, those of an interface.
    #[test]
    fn networks_leases_are_not_a_guests_because_it_says_so() {
        let mac: MacAddress = "52:54:00:12:34:56".parse().unwrap();
        let other: MacAddress = "52:54:00:12:34:57".parse().unwrap();
        let text = "0 52:54:00:12:34:56 192.168.122.77 a *\n\
                    0 52:54:00:12:34:57 192.168.122.78 a *\n\
                    duid 00:01:00:01:30:f1:52:54:00:be:d7:03:aa:bb\n\
                    0 1 fd00::77 a 00:03:00:01:52:54:00:12:34:56\n\
                    0 2 fd00::5054:ff:fe12:3456 a 00:04:aa\n";
        let lent = leases::parse(text.as_bytes(), 1);
        assert_eq!(lent.len(), 4);
        let of = |mac| {
            let of = lent.iter().filter(|lease| is_of(lease, mac));
            of.map(|lease| lease.address.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(mac), ["192.168.122.77", "fd00::5054:ff:fe12:3456"]);
        assert_eq!(of(other), ["192.168.122.78"]);
    }
}
