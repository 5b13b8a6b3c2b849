//! The parts of a network that `virNetworkUpdate` hands in, each a document of its own.

use reeve_ipc::model::{EditCommand, InterfaceName, NetworkPart};

use super::super::XmlError;
use super::super::element::{Element, document};
use super::{address, dns, needed, port};

/// Which part of a network it is (libvirt `virNetworkUpdateSection`): those that can be changed, in libvirt as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `<host>` of `<dhcp>`.
    DhcpHost,
    /// `<range>` of `<dhcp>`.
    DhcpRange,
    /// `<interface>` of `<forward>`.
    ForwardInterface,
    /// `<portgroup>`.
    PortGroup,
    /// `<host>` of `<dns>`.
    DnsHost,
    /// `<txt>` of `<dns>`.
    DnsText,
    /// `<srv>` of `<dns>`.
    DnsService,
}

impl Section {
    const fn element(self) -> &'static str {
        match self {
            Self::DhcpHost | Self::DnsHost => "host",
            Self::DhcpRange => "range",
            Self::ForwardInterface => "interface",
            Self::PortGroup => "portgroup",
            Self::DnsText => "txt",
            Self::DnsService => "srv",
        }
    }
}

/// Reads a part of the network of that name, to do that with it: what only has to be found needs to say no more
/// than what it is found by. `address` is the place of the `<ip>` that is meant.
///
/// # Errors
/// [`XmlError`].
pub fn parse_part(
    text: &str,
    section: Section,
    command: EditCommand,
    address: Option<u32>,
    network: &str,
) -> Result<NetworkPart, XmlError> {
    let document = document(text)?;
    let element = Element::any_root(&document);
    let expected = section.element();
    if element.name() != expected {
        let found: String = element.local_name().chars().take(64).collect();
        return Err(XmlError::invalid(format!(
            "unexpected element <{found}>, expecting <{expected}>, while updating network '{network}'"
        )));
    }
    let partial = command == EditCommand::Delete;
    Ok(match section {
        Section::DhcpHost => NetworkPart::DhcpHost {
            address,
            host: address::host(element)?,
        },
        Section::DhcpRange => NetworkPart::DhcpRange {
            address,
            range: address::range(element)?,
        },
        Section::ForwardInterface => {
            element.known(&["dev", "connections"])?;
            element.no_children()?;
            NetworkPart::ForwardInterface(needed::<InterfaceName>(element, "dev")?)
        }
        Section::PortGroup => NetworkPart::PortGroup(port::parse_group(element)?),
        Section::DnsHost => {
            let (address, names) = dns::host(element, partial)?;
            NetworkPart::DnsHost { address, names }
        }
        Section::DnsText => NetworkPart::DnsText(dns::text(element, partial)?),
        Section::DnsService => NetworkPart::DnsService(dns::service(element)?),
    })
}
