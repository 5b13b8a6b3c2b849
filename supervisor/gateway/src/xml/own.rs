//! What the model says and libvirt's documents have no word for: in one element of `<metadata>`, of a
//! namespace of Reeve's own, so that a definition comes back as it was.

use std::path::PathBuf;

use reeve_ipc::model::{IpRange, MetadataElement, Nic};
use reeve_ipc::spec::{Burst, Rate};

use super::XmlError;
use super::element::Element;
use super::write::Writer;

/// The namespace.
pub const NAMESPACE: &str = "urn:x-reeve:domain:1";

/// All of that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// It boots Reeve's own guest.
    pub(super) built_in: bool,
    /// The limit of all vCPUs together, where it is none of each.
    pub(super) vcpu_percent: Option<u32>,
    pub(super) pids: Option<u32>,
    pub(super) vsock: Option<PathBuf>,
    pub(super) rng: Option<Rate>,
    pub(super) interfaces: Vec<OwnInterface>,
    /// Metadata that is no element of its namespace.
    pub(super) metadata: Vec<MetadataElement>,
}

/// What of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnInterface {
    /// Its place among the interfaces.
    pub(super) index: usize,
    pub(super) inbound: Option<Rate>,
    pub(super) outbound: Option<Rate>,
    pub(super) addresses: Vec<IpRange>,
}

impl OwnInterface {
    pub(super) fn is_empty(&self) -> bool {
        self.inbound.is_none() && self.outbound.is_none() && self.addresses.is_empty()
    }

    fn apply(self, nic: &mut Nic) {
        nic.inbound = nic.inbound.or(self.inbound);
        nic.outbound = nic.outbound.or(self.outbound);
        if nic.addresses.is_empty() {
            nic.addresses = self.addresses;
        }
    }
}

impl Own {
    /// Reads the element.
    pub(super) fn parse(element: Element<'_>) -> Result<Self, XmlError> {
        let mut own = Self::default();
        element.known(&[])?;
        for child in element.children() {
            if child.namespace() != Some(NAMESPACE) {
                return Err(child.not_provided());
            }
            match child.local_name() {
                "boot" => {
                    child.only("source", &["built-in"])?;
                    child.known(&["source"])?;
                    own.built_in = true;
                }
                "limits" => {
                    child.known(&["vcpus", "pids"])?;
                    own.vcpu_percent = child.parsed("vcpus")?;
                    own.pids = child.parsed("pids")?;
                }
                "vsock" => {
                    child.known(&["path"])?;
                    own.vsock = Some(child.required("path")?.into());
                }
                "rng" => own.rng = Some(rate(child)?),
                "interface" => own.interfaces.push(interface(child)?),
                "metadata" => {
                    child.known(&["uri"])?;
                    own.metadata.push(MetadataElement {
                        uri: child.required("uri")?.to_owned(),
                        content: child.text(),
                    });
                }
                _ => return Err(child.not_provided()),
            }
        }
        Ok(own)
    }

    /// Gives the interfaces what is theirs.
    pub(super) fn apply_interfaces(&mut self, nics: &mut [Nic]) {
        for interface in self.interfaces.drain(..) {
            if let Some(nic) = nics.get_mut(interface.index) {
                interface.apply(nic);
            }
        }
    }

    /// Writes the element, where it says anything.
    pub(super) fn write(&self, writer: &mut Writer) {
        if *self == Self::default() {
            return;
        }
        let tag = writer.tag("reeve:domain");
        tag.attribute("xmlns:reeve", NAMESPACE).open();
        if self.built_in {
            let tag = writer.tag("reeve:boot");
            tag.attribute("source", "built-in").empty();
        }
        if self.vcpu_percent.is_some() || self.pids.is_some() {
            let tag = writer.tag("reeve:limits");
            let tag = tag.optional("vcpus", self.vcpu_percent);
            tag.optional("pids", self.pids).empty();
        }
        if let Some(path) = &self.vsock {
            let tag = writer.tag("reeve:vsock");
            tag.attribute("path", path.display()).empty();
        }
        if let Some(rate) = self.rng {
            write_rate(writer, "reeve:rng", rate);
        }
        for interface in &self.interfaces {
            let tag = writer.tag("reeve:interface");
            tag.attribute("index", interface.index).open();
            if let Some(rate) = interface.inbound {
                write_rate(writer, "reeve:inbound", rate);
            }
            if let Some(rate) = interface.outbound {
                write_rate(writer, "reeve:outbound", rate);
            }
            for range in &interface.addresses {
                writer
                    .tag("reeve:address")
                    .attribute("range", range)
                    .empty();
            }
            writer.close("reeve:interface");
        }
        for MetadataElement { uri, content } in &self.metadata {
            writer
                .tag("reeve:metadata")
                .attribute("uri", uri)
                .text(content);
        }
        writer.close("reeve:domain");
    }
}

fn interface(element: Element<'_>) -> Result<OwnInterface, XmlError> {
    element.known(&["index"])?;
    element.required("index")?;
    let mut own = OwnInterface {
        index: element.parsed("index")?.unwrap_or_default(),
        ..OwnInterface::default()
    };
    for child in element.children() {
        match child.local_name() {
            "inbound" => own.inbound = Some(rate(child)?),
            "outbound" => own.outbound = Some(rate(child)?),
            "address" => {
                child.required("range")?;
                own.addresses.extend(child.parsed::<IpRange>("range")?);
            }
            _ => return Err(child.not_provided()),
        }
    }
    Ok(own)
}

pub(super) fn rate(element: Element<'_>) -> Result<Rate, XmlError> {
    element.known(&["rate", "burst", "seconds"])?;
    element.required("rate")?;
    let burst = match element.parsed("burst")? {
        Some(per_second) => Some(Burst {
            per_second,
            seconds: element.parsed("seconds")?.unwrap_or(1),
        }),
        None => None,
    };
    Ok(Rate {
        per_second: element.parsed("rate")?.unwrap_or_default(),
        burst,
    })
}

pub(super) fn write_rate(writer: &mut Writer, name: &str, rate: Rate) {
    let tag = writer.tag(name).attribute("rate", rate.per_second);
    let burst = rate.burst;
    let tag = tag.optional("burst", burst.map(|burst| burst.per_second));
    tag.optional("seconds", burst.map(|burst| burst.seconds))
        .empty();
}
