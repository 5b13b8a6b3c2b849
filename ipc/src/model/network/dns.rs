//! A network's server of names (libvirt `<dns>`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A network's server of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// There is one.
    pub enabled: bool,
    /// Names without a dot are asked for elsewhere as well.
    pub forward_plain_names: bool,
    /// Who is asked; the host's own where there is none.
    pub forwarders: Vec<DnsForwarder>,
    /// Names of addresses.
    pub hosts: Vec<DnsHost>,
    /// Texts.
    pub texts: Vec<DnsText>,
    /// Where services are.
    pub services: Vec<DnsService>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            enabled: true,
            forward_plain_names: true,
            forwarders: Vec::new(),
            hosts: Vec::new(),
            texts: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// Who is asked for names (libvirt `<forwarder>`). One of both is there at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsForwarder {
    /// This one; those whom the host asks where there is none.
    pub address: Option<IpAddr>,
    /// Only for names in this domain.
    pub domain: Option<String>,
}

/// Names of an address (libvirt `<host>` of `<dns>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsHost {
    /// The address; each once.
    pub address: IpAddr,
    /// Its names, 1 at least.
    pub names: Vec<String>,
}

/// A text (libvirt `<txt>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsText {
    /// Its name; each once.
    pub name: String,
    /// The text: printable ASCII without a double quote.
    pub value: String,
}

/// Where a service is (libvirt `<srv>`, RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsService {
    /// As `ldap`, without its underscore.
    pub service: String,
    /// `tcp` or `udp`, without its underscore.
    pub protocol: String,
    /// The domain that has it; the network's where it is not said.
    pub domain: Option<String>,
    /// The host that serves it; none at all where it is not said.
    pub target: Option<String>,
    /// Its port, where there is a target.
    pub port: Option<u16>,
    /// The lower the earlier.
    pub priority: Option<u16>,
    /// Among those of one priority.
    pub weight: Option<u16>,
}
