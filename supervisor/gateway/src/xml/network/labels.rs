//! Title, description and `<metadata>` of a network; and what the model says and `<network>` has no word for, which
//! stands there in an element of a namespace of Reeve's own, as with domains.
//!
//! Title and description are read where libvirt has them from 9.7 on, and written among our own: by the schema of those
//! before, Debian 12's 9.0 among them, a network has neither.

use reeve_ipc::model::{Labels, MetadataElement, Network};
use reeve_ipc::spec::Rate;

use super::super::XmlError;
use super::super::device::rates;
use super::super::domain::{is_metadata_of, metadata};
use super::super::element::Element;
use super::super::own::{rate, write_rate};
use super::super::write::Writer;
use super::all;

/// The namespace.
const NAMESPACE: &str = "urn:x-reeve:network:1";

/// What libvirt's words do not say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    title: Option<String>,
    description: Option<String>,
    inbound: Option<Rate>,
    outbound: Option<Rate>,
    groups: Vec<OwnGroup>,
    /// Metadata that is no element of its namespace.
    metadata: Vec<MetadataElement>,
}

/// Of a kind of ports.
#[derive(Debug, PartialEq, Eq)]
struct OwnGroup {
    name: String,
    inbound: Option<Rate>,
    outbound: Option<Rate>,
    isolated: Option<bool>,
}

impl Own {
    fn of(network: &Network) -> Self {
        let unsaid = |rate: Option<Rate>| rate.filter(|rate| !rates::is_bandwidth(*rate));
        let groups = network.port_groups.iter().map(|group| OwnGroup {
            name: group.name.clone(),
            inbound: unsaid(group.inbound),
            outbound: unsaid(group.outbound),
            isolated: group.isolated,
        });
        Self {
            title: network.labels.title.clone(),
            description: network.labels.description.clone(),
            inbound: unsaid(network.inbound),
            outbound: unsaid(network.outbound),
            groups: groups.filter(|group| !group.is_empty()).collect(),
            metadata: Vec::new(),
        }
    }

    fn parse(element: Element<'_>) -> Result<Self, XmlError> {
        element.known(&[])?;
        let mut own = Self::default();
        for child in element.children() {
            if child.namespace() != Some(NAMESPACE) {
                return Err(child.not_provided());
            }
            match child.local_name() {
                "title" => own.title = label(child)?,
                "description" => own.description = label(child)?,
                "inbound" => own.inbound = Some(rate(child)?),
                "outbound" => own.outbound = Some(rate(child)?),
                "portgroup" => own.groups.push(OwnGroup::parse(child)?),
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

    /// Gives a network what libvirt's words did not.
    ///
    /// # Errors
    /// A port group that there is not.
    pub(super) fn apply(self, network: &mut Network) -> Result<(), XmlError> {
        network.inbound = network.inbound.or(self.inbound);
        network.outbound = network.outbound.or(self.outbound);
        for own in self.groups {
            let mut groups = network.port_groups.iter_mut();
            let Some(group) = groups.find(|group| group.name == own.name) else {
                let name: String = own.name.chars().take(64).collect();
                let why = format!("<reeve:portgroup>: there is no port group {name:?}");
                return Err(XmlError::invalid(why));
            };
            group.inbound = group.inbound.or(own.inbound);
            group.outbound = group.outbound.or(own.outbound);
            group.isolated = own.isolated;
        }
        Ok(())
    }

    fn write(&self, writer: &mut Writer) {
        if *self == Self::default() {
            return;
        }
        let tag = writer.tag("reeve:network");
        tag.attribute("xmlns:reeve", NAMESPACE).open();
        if let Some(title) = &self.title {
            writer.text("reeve:title", title);
        }
        if let Some(description) = &self.description {
            writer.text("reeve:description", description);
        }
        write_rates(writer, self.inbound, self.outbound);
        for group in &self.groups {
            let isolated = group.isolated.map(|yes| if yes { "yes" } else { "no" });
            let tag = writer.tag("reeve:portgroup");
            tag.attribute("name", &group.name)
                .optional("isolated", isolated)
                .open();
            write_rates(writer, group.inbound, group.outbound);
            writer.close("reeve:portgroup");
        }
        for MetadataElement { uri, content } in &self.metadata {
            let tag = writer.tag("reeve:metadata");
            tag.attribute("uri", uri).text(content);
        }
        writer.close("reeve:network");
    }
}

impl OwnGroup {
    fn is_empty(&self) -> bool {
        self.inbound.is_none() && self.outbound.is_none() && self.isolated.is_none()
    }

    fn parse(element: Element<'_>) -> Result<Self, XmlError> {
        element.known(&["name", "isolated"])?;
        let mut own = Self {
            name: element.required("name")?.to_owned(),
            inbound: None,
            outbound: None,
            isolated: element.switch("isolated")?,
        };
        for child in element.children() {
            match child.local_name() {
                "inbound" => own.inbound = Some(rate(child)?),
                "outbound" => own.outbound = Some(rate(child)?),
                _ => return Err(child.not_provided()),
            }
        }
        Ok(own)
    }
}

fn write_rates(writer: &mut Writer, inbound: Option<Rate>, outbound: Option<Rate>) {
    if let Some(rate) = inbound {
        write_rate(writer, "reeve:inbound", rate);
    }
    if let Some(rate) = outbound {
        write_rate(writer, "reeve:outbound", rate);
    }
}

/// The text of a title or a description; none where it is empty.
fn label(element: Element<'_>) -> Result<Option<String>, XmlError> {
    element.known(&[])?;
    element.no_children()?;
    Ok(Some(element.text()).filter(|text| !text.is_empty()))
}

/// Reads what is noted about a network; what is of Reeve's own namespace apart.
pub(super) fn parse(root: Element<'_>) -> Result<(Labels, Own), XmlError> {
    let text = |name: &str| -> Result<Option<String>, XmlError> {
        root.child(name).map_or(Ok(None), label)
    };
    let mut labels = Labels {
        title: text("title")?,
        description: text("description")?,
        metadata: Vec::new(),
    };
    let mut own = None;
    for metadata in all(root, "metadata") {
        metadata.known(&[])?;
        for child in metadata.children() {
            let Some(uri) = child.namespace() else {
                return Err(child.invalid("an element of metadata is of a namespace"));
            };
            if uri == NAMESPACE {
                if own.replace(Own::parse(child)?).is_some() {
                    return Err(child.invalid("there is a second one"));
                }
                continue;
            }
            if labels.metadata.iter().any(|other| other.uri == uri) {
                return Err(child.invalid("there is a second element of this namespace"));
            }
            labels.metadata.push(MetadataElement {
                uri: uri.to_owned(),
                content: metadata::standalone(child),
            });
        }
    }
    let mut own = own.unwrap_or_default();
    labels.title = labels.title.or(own.title.take());
    labels.description = labels.description.or(own.description.take());
    labels.metadata.append(&mut own.metadata);
    Ok((labels, own))
}

/// Writes them, with Reeve's own last.
pub(super) fn format(writer: &mut Writer, network: &Network) {
    let labels = &network.labels;
    let (plain, other): (Vec<_>, Vec<_>) = labels.metadata.iter().partition(|element| {
        element.uri != NAMESPACE && is_metadata_of(&element.content, &element.uri)
    });
    let mut own = Own::of(network);
    own.metadata = other.into_iter().cloned().collect();
    if plain.is_empty() && own == Own::default() {
        return;
    }
    writer.tag("metadata").open();
    for element in plain {
        writer.verbatim(&element.content);
    }
    own.write(writer);
    writer.close("metadata");
}
