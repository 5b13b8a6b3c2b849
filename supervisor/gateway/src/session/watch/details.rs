//! What is kept of a definition so that a later event can be told in libvirt's words: what its devices were
//! called, and which of its labels is another. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use reeve_ipc::model::{DeviceName, Domain, Labels};

use crate::xml::device::alias;

/// A label, as libvirt's events name it: its kind (`virDomainMetadataType`) and its namespace.
pub(super) type Label = (i32, Option<String>);

const DESCRIPTION: i32 = 0;
const TITLE: i32 = 1;
const ELEMENT: i32 = 2;

/// What is kept of one definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Details {
    aliases: Vec<(String, DeviceName)>,
    /// Each label with a mark of what it says.
    labels: BTreeMap<Label, u64>,
    /// The same of the definition that is kept, where the domain runs with another.
    kept: BTreeMap<Label, u64>,
}

impl Details {
    pub(super) fn of(definition: &Domain, kept: Option<&Domain>) -> Self {
        Self {
            aliases: alias::all(&definition.devices),
            labels: marks(&definition.labels),
            kept: kept.map_or_else(BTreeMap::new, |kept| marks(&kept.labels)),
        }
    }

    /// The alias of a device; what the supervisor calls it, where it is not known.
    pub(super) fn alias(&self, device: &DeviceName) -> String {
        let mut aliases = self.aliases.iter();
        let found = aliases.find(|(_, name)| name == device);
        found.map_or_else(|| device.to_string(), |(alias, _)| alias.clone())
    }

    /// Which labels are others in `after`.
    pub(super) fn changed(&self, after: &Self) -> Vec<Label> {
        let pairs = [(&self.labels, &after.labels), (&self.kept, &after.kept)];
        let changed = pairs.into_iter().flat_map(|(before, after)| {
            let labels = before.keys().chain(after.keys());
            labels.filter(|label| before.get(*label) != after.get(*label))
        });
        let mut changed: Vec<Label> = changed.cloned().collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

fn marks(labels: &Labels) -> BTreeMap<Label, u64> {
    let title = labels.title.iter().map(|text| ((TITLE, None), mark(text)));
    let description = labels.description.iter();
    let description = description.map(|text| ((DESCRIPTION, None), mark(text)));
    let elements = labels.metadata.iter();
    let elements = elements.map(|element| {
        let label = (ELEMENT, Some(element.uri.clone()));
        (label, mark(&element.content))
    });
    title.chain(description).chain(elements).collect()
}

fn mark(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use reeve_ipc::model::MetadataElement;

    use super::*;

    fn labelled(title: Option<&str>, elements: &[(&str, &str)]) -> Details {
        let labels = Labels {
            title: title.map(str::to_owned),
            description: None,
            metadata: elements
                .iter()
                .map(|(uri, content)| MetadataElement {
                    uri: (*uri).to_owned(),
                    content: (*content).to_owned(),
                })
                .collect(),
        };
        Details {
            aliases: Vec::new(),
            labels: marks(&labels),
            kept: BTreeMap::new(),
        }
    }

    #[test]
    fn labels_that_came_went_or_changed_are_named_and_no_others() {
        let before = labelled(Some("a"), &[("urn:1", "<x/>"), ("urn:2", "<x/>")]);
        let after = labelled(None, &[("urn:1", "<x/>"), ("urn:2", "<y/>"), ("urn:3", "")]);
        let element = |uri: &str| (ELEMENT, Some(uri.to_owned()));
        assert_eq!(
            before.changed(&after),
            [(TITLE, None), element("urn:2"), element("urn:3")]
        );
        assert_eq!(before.changed(&before), []);
    }

    #[test]
    fn a_device_without_an_alias_is_called_what_the_supervisor_calls_it() {
        let details = labelled(None, &[]);
        let device: DeviceName = "52:54:00:01:02:03".parse().unwrap();
        assert_eq!(details.alias(&device), "52:54:00:01:02:03");
    }
}
