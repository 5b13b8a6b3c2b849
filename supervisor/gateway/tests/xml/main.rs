//! Documents of libvirt's: what clients write is taken, what is printed is stable and valid, and nothing that is
//! refused or hostile does harm.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod arbitrary;
mod corpus;
mod hostile;
mod interface;
mod list;
mod network;
mod nwfilter;
mod open_vswitch;
mod refused;
mod schema;
mod storage;
mod tuning;
mod views;

use std::path::Path;

use reeve_gateway::xml::XmlError;
use reeve_gateway::xml::domain::{self, Hypervisor, Parse, Parsed, View};
use reeve_ipc::model::{Domain, DomainUuid};

/// Where sockets are that nobody names.
pub fn sockets() -> &'static Path {
    Path::new("/var/lib/reeve/sockets")
}

/// What a document says.
pub fn parse(text: &str) -> Result<Parsed, XmlError> {
    let how = Parse {
        uuid: DomainUuid(uuid::Uuid::from_u128(1)),
        sockets: sockets(),
        hypervisor: Hypervisor::Kvm,
    };
    domain::parse(text, &how)
}

/// Parsed, completed and accepted, as a supervisor keeps it.
pub fn defined(text: &str) -> Domain {
    let mut domain = parse(text)
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .domain;
    domain.complete().unwrap();
    domain
        .accept()
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    domain
}

/// The view of a definition.
pub fn definition() -> View<'static> {
    View {
        live: None,
        secure: false,
        migratable: false,
        sockets: sockets(),
        hypervisor: Hypervisor::Kvm,
    }
}

/// The definition as text.
pub fn dumped(domain: &Domain) -> String {
    domain::format(domain, &definition())
}
