//! `<cpu>` as a document of its own: a processor of a host or of a guest that is compared with others.
//!
//! What is no part of a comparison (a topology, sizes of pages, NUMA cells) is passed over, as libvirt does; where a
//! client asks for its schema, an element that is none of libvirt's is refused.

use std::collections::HashSet;

use super::XmlError;
use super::element::{self, Element};
use super::write::Writer;
use crate::cpu::{Choice, Feature, Vendor};

/// What is said of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// It is there whatever the host has.
    Force,
    /// It must be there.
    Require,
    /// It is there where the host has it.
    Optional,
    /// It is not there.
    Disable,
    /// No host may have it.
    Forbid,
}

/// What of the host a guest's processor bears.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Match {
    /// More.
    Minimum,
    /// More, which it does not see.
    #[default]
    Exact,
    /// No more.
    Strict,
}

/// A processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Its architecture, where it is said.
    pub(crate) arch: Option<String>,
    /// Of a guest: how it is matched; of a host's there is none.
    pub(crate) guest: Option<Match>,
    /// The name of its model.
    pub(crate) model: Option<String>,
    /// Whose it is, by name.
    pub(crate) vendor: Option<String>,
    /// What is said of its features, by name.
    pub(crate) features: Vec<(String, Policy)>,
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// A host's, which says its architecture and its model.
    Host,
    /// Whatever it says that it is.
    Either,
}

/// The architectures that libvirt has a name of.
pub(crate) const ARCHITECTURES: [&str; 33] = [
    "alpha",
    "armv6l",
    "armv7l",
    "armv7b",
    "aarch64",
    "cris",
    "i686",
    "ia64",
    "lm32",
    "loongarch64",
    "m68k",
    "microblaze",
    "microblazeel",
    "mips",
    "mipsel",
    "mips64",
    "mips64el",
    "openrisc",
    "parisc",
    "parisc64",
    "ppc",
    "ppc64",
    "ppc64le",
    "ppcemb",
    "riscv32",
    "riscv64",
    "s390",
    "s390x",
    "sh4",
    "sh4eb",
    "sparc",
    "sparc64",
    "x86_64",
];

/// Elements that `<cpu>` can have in libvirt's schemas.
const ELEMENTS: [&str; 13] = [
    "arch",
    "model",
    "vendor",
    "feature",
    "topology",
    "numa",
    "cache",
    "maxphysaddr",
    "microcode",
    "signature",
    "counter",
    "pages",
    "migration_features",
];

fn chars(text: &str) -> String {
    text.trim().chars().take(64).collect()
}

/// Reads one.
///
/// # Errors
/// [`XmlError`], in libvirt's words.
pub(crate) fn parse(text: &str, how: As, by_schema: bool) -> Result<Cpu, XmlError> {
    let document = element::document(text)?;
    let root = Element::root(&document, "cpu")?;
    let stranger = root
        .children()
        .find(|child| !ELEMENTS.contains(&child.name()));
    if let Some(stranger) = stranger.filter(|_| by_schema) {
        return Err(stranger.invalid("the schema has no such element"));
    }
    let guest = guest(root, how)?;
    let arch = root.child("arch").map(|arch| chars(&arch.text()));
    match &arch {
        Some(_) if root.attribute("match").is_some() => {
            let why = "'arch' element cannot be used inside 'cpu' element with 'match' attribute'";
            return Err(XmlError::invalid(why));
        }
        Some(arch) if !ARCHITECTURES.contains(&arch.as_str()) => {
            return Err(XmlError::unsupported(format!(
                "Unknown architecture {arch}"
            )));
        }
        None if how == As::Host => return Err(XmlError::invalid("Missing CPU architecture")),
        _ => {}
    }
    let named = |name: &str| {
        let text = root.child(name).map(|element| chars(&element.text()));
        text.filter(|text| !text.is_empty())
    };
    let (model, vendor) = (named("model"), named("vendor"));
    let features = features(root, guest.is_some())?;
    match model {
        None if how == As::Host => return Err(XmlError::invalid("Missing CPU model name")),
        None if vendor.is_some() => {
            return Err(XmlError::invalid("CPU vendor specified without CPU model"));
        }
        // What a mode of the host's says has its model from there.
        None if !features.is_empty() && root.attribute("mode").is_none() => {
            let why = "Non-empty feature list specified without CPU model";
            return Err(XmlError::invalid(why));
        }
        _ => {}
    }
    Ok(Cpu {
        arch,
        guest,
        model,
        vendor,
        features,
    })
}

/// Whether it is a guest's, and how it is matched then.
fn guest(root: Element<'_>, how: As) -> Result<Option<Match>, XmlError> {
    let invalid = |name: &str, value: &str| {
        XmlError::invalid(format!(
            "Invalid value for attribute '{name}' in element 'cpu': '{}'.",
            chars(value)
        ))
    };
    let mode = root.attribute("mode");
    if how == As::Host {
        return match mode {
            Some(_) => Err(XmlError::unsupported(
                "Attribute mode is only allowed for guest CPU",
            )),
            None => Ok(None),
        };
    }
    if let Some(mode) = mode {
        let modes = ["custom", "host-model", "host-passthrough", "maximum"];
        if !modes.contains(&mode) {
            return Err(invalid("mode", mode));
        }
    }
    let matched = match root.attribute("match") {
        None => None,
        Some("minimum") => Some(Match::Minimum),
        Some("exact") => Some(Match::Exact),
        Some("strict") => Some(Match::Strict),
        Some(other) => return Err(invalid("match", other)),
    };
    // One without an architecture is a guest's, as those of documents of domains.
    let is_guest = matched.is_some() || mode.is_some() || root.child("arch").is_none();
    Ok(matched.or_else(|| is_guest.then(Match::default)))
}

fn features(root: Element<'_>, guest: bool) -> Result<Vec<(String, Policy)>, XmlError> {
    let mut features: Vec<(String, Policy)> = Vec::new();
    let mut names = HashSet::new();
    for element in root.children().filter(|child| child.name() == "feature") {
        let name = element.attribute("name").map(chars).unwrap_or_default();
        if name.is_empty() {
            return Err(XmlError::invalid("Invalid CPU feature name"));
        }
        let policy = match element.attribute("policy").filter(|_| guest) {
            None | Some("require") => Policy::Require,
            Some("force") => Policy::Force,
            Some("optional") => Policy::Optional,
            Some("disable") => Policy::Disable,
            Some("forbid") => Policy::Forbid,
            Some(_) => return Err(XmlError::invalid("Invalid CPU feature policy")),
        };
        if !names.insert(name.clone()) {
            let why = format!("CPU feature '{name}' specified more than once");
            return Err(XmlError::invalid(why));
        }
        features.push((name, policy));
    }
    Ok(features)
}

/// Prints what was chosen as a guest's processor. `others` are what its model has besides, where that is to be said:
/// all are sorted by name then.
pub(crate) fn format(
    choice: &Choice,
    vendor: Option<Vendor>,
    only_this: bool,
    others: Option<Vec<Feature>>,
) -> String {
    let mut writer = Writer::new();
    let tag = writer.tag("cpu").attribute("mode", "custom");
    tag.attribute("match", "exact").open();
    let fallback = if only_this { "forbid" } else { "allow" };
    let tag = writer.tag("model").attribute("fallback", fallback);
    tag.text(choice.model);
    if let Some(vendor) = vendor {
        writer.text("vendor", vendor.name());
    }
    let mut said: Vec<(&str, bool)> = choice
        .said()
        .map(|(feature, is)| (feature.name(), is))
        .collect();
    if let Some(others) = others {
        said.extend(others.into_iter().map(|feature| (feature.name(), true)));
        said.sort_unstable();
    }
    features_with_policy(&mut writer, said.into_iter());
    writer.close("cpu");
    writer.finish()
}

/// Features with whether they are there, as of a guest.
pub(super) fn features_with_policy<'a>(
    writer: &mut Writer,
    said: impl Iterator<Item = (&'a str, bool)>,
) {
    for (name, is) in said {
        let policy = if is { "require" } else { "disable" };
        let tag = writer.tag("feature").attribute("policy", policy);
        tag.attribute("name", name).empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, how: As) -> String {
        parse(text, how, false).unwrap_err().message
    }

    #[test]
    fn a_host_says_what_it_is() {
        let text = "<cpu><arch>x86_64</arch><model>Westmere</model><vendor>Intel</vendor>\
            <topology sockets='1' cores='2' threads='1'/><feature name='avx'/></cpu>";
        let cpu = parse(text, As::Host, true).unwrap();
        assert_eq!((cpu.guest, cpu.arch.as_deref()), (None, Some("x86_64")));
        assert_eq!(
            (cpu.model.as_deref(), cpu.vendor.as_deref()),
            (Some("Westmere"), Some("Intel"))
        );
        assert_eq!(cpu.features, [("avx".to_owned(), Policy::Require)]);
    }

    #[test]
    fn a_guest_says_how_it_is_matched() {
        let text =
            "<cpu match='strict'><model>486</model><feature name='aes' policy='forbid'/></cpu>";
        let cpu = parse(text, As::Either, false).unwrap();
        assert_eq!(cpu.guest, Some(Match::Strict));
        assert_eq!(cpu.features, [("aes".to_owned(), Policy::Forbid)]);
        let cpu = parse("<cpu mode='host-model'/>", As::Either, false).unwrap();
        assert_eq!((cpu.guest, cpu.model), (Some(Match::Exact), None));
    }

    #[test]
    fn as_many_features_as_a_document_holds_are_read_and_one_is_there_once() {
        let many: String = (0..30_000)
            .map(|index| format!("<feature name='f{index}'/>"))
            .collect();
        let document = |more| format!("<cpu><model>486</model>{many}{more}</cpu>");
        let cpu = parse(&document(""), As::Either, false).unwrap();
        assert_eq!(cpu.features.len(), 30_000);
        let twice = refused(&document("<feature name='f7'/>"), As::Either);
        assert_eq!(twice, "CPU feature 'f7' specified more than once");
    }

    #[test]
    fn refusals_are_libvirts() {
        let table = [
            (
                "<cpu><model>486</model></cpu>",
                As::Host,
                "Missing CPU architecture",
            ),
            (
                "<cpu><arch>x86_64</arch></cpu>",
                As::Host,
                "Missing CPU model name",
            ),
            (
                "<cpu mode='host-model'/>",
                As::Host,
                "Attribute mode is only allowed for guest CPU",
            ),
            (
                "<cpu><arch>none</arch></cpu>",
                As::Either,
                "Unknown architecture none",
            ),
            (
                "<cpu match='bogus'><model>486</model></cpu>",
                As::Either,
                "Invalid value for attribute 'match' in element 'cpu': 'bogus'.",
            ),
            (
                "<cpu match='exact'><feature name='aes'/></cpu>",
                As::Either,
                "Non-empty feature list specified without CPU model",
            ),
            (
                "<cpu match='exact'><arch>x86_64</arch><model>486</model></cpu>",
                As::Either,
                "'arch' element cannot be used inside 'cpu' element with 'match' attribute'",
            ),
        ];
        for (text, how, why) in table {
            assert_eq!(refused(text, how), why, "{text}");
        }
        assert!(parse("<cpu><gadget/></cpu>", As::Either, false).is_ok());
        assert!(parse("<cpu><gadget/></cpu>", As::Either, true).is_err());
    }
}
