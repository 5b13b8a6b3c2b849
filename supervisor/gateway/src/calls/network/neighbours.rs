//! Which addresses a domain's interfaces have by the host's own table of neighbours (libvirt
//! `VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP`): what the host has learned by talking to them. An interface that it has
//! learned nothing of is not told of.

use reeve_ipc::api::call::DomainNeighboursGet;

use super::super::Context;
use super::super::context::reference;
use super::super::failure::Failure;
use super::leases::family;
use crate::wire::types::guest;
use crate::wire::types::handles::Domain;
use crate::wire::xdr::List;

pub(in super::super) async fn of_domain(
    context: &Context,
    domain: &Domain,
) -> Result<List<guest::GuestInterface, 2_048>, Failure> {
    context.active(domain).await?;
    let get = DomainNeighboursGet {
        domain: reference(domain),
    };
    let known = context.call(get).await?.into_iter();
    let interfaces = known.map(|known| guest::GuestInterface {
        name: known.host,
        hwaddr: Some(known.mac.to_string()),
        addresses: known
            .addresses
            .into_iter()
            .map(|address| guest::IpAddress {
                kind: family(address),
                address: address.to_string(),
                // A neighbour is no network: as in libvirt none is said.
                prefix: 0,
            })
            .collect(),
    });
    Ok(interfaces.collect())
}
