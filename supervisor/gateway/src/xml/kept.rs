//! The closed list of what is taken and not provided: elements that libvirt's clients write without being
//! asked to, and whose absence a guest does not notice. They are kept as they came, printed again where they
//! stood, and named one by one to whoever parses ([`Accepted`]). All else that is not provided is refused.
//!
//! [`ACCEPTED`] is the list; `docs/libvirt-xml.md` is rendered from it ([`table`]).

use std::fmt::Write as _;

use reeve_ipc::model::{KeptElement, MAX_KEPT_PATH_BYTES};

use super::XmlError;
use super::element::{Element, document};
use super::write::Writer;

/// An element that is taken and not provided.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Where it stands beneath `<domain>`.
    pub path: &'static str,
    /// An attribute and its value, where the rule is for elements with that only.
    pub of: Option<(&'static str, &'static str)>,
    /// Attributes, of it or as `child/@name` of what is in it, with the only values they may have.
    pub only: &'static [(&'static str, &'static [&'static str])],
    /// Attributes and children that it may not have.
    pub without: &'static [&'static str],
    /// Why its absence is no loss.
    pub reason: &'static str,
}

const fn rule(path: &'static str, reason: &'static str) -> Rule {
    Rule {
        path,
        of: None,
        only: &[],
        without: &[],
        reason,
    }
}

/// The list.
pub const ACCEPTED: &[Rule] = &[
    Rule {
        only: &[
            ("suspend-to-mem/@enabled", &["no"]),
            ("suspend-to-disk/@enabled", &["no"]),
        ],
        ..rule("pm", "there are no sleep states, and none is wanted")
    },
    rule("cputune/period", "there is no quota that it would be of"),
    rule(
        "cputune/global_period",
        "there is no quota that it would be of",
    ),
    Rule {
        only: &[("@type", &["none", "dynamic"])],
        without: &["label", "baselabel"],
        ..rule("seclabel", "each domain is confined by Reeve's own sandbox")
    },
    rule("resource", "domains are in cgroups of Reeve's own"),
    Rule {
        only: &[("source/@type", &["memfd"]), ("access/@mode", &["shared"])],
        without: &["hugepages", "locked", "allocation", "discard"],
        ..rule(
            "memoryBacking",
            "memory is shared and in a memfd in any case, and the host's kernel merges no such pages",
        )
    },
    rule(
        "os/boot",
        "a kernel is booted directly; no firmware looks for a device",
    ),
    Rule {
        only: &[("@enable", &["no"])],
        ..rule("os/bootmenu", "there is no firmware that would show it")
    },
    Rule {
        only: &[("@mode", &["emulate"])],
        ..rule(
            "os/smbios",
            "it asks for no strings of one's own; Linux takes a machine without SMBIOS tables for a plain one",
        )
    },
    rule("features/pae", "long mode has it"),
    rule("features/vmport", "VMware's port; no guest needs it"),
    Rule {
        only: &[("@state", &["off"])],
        ..rule("features/smm", "there is no system management mode")
    },
    Rule {
        only: &[("@state", &["off"])],
        ..rule("features/pmu", "there is none")
    },
    rule(
        "features/vmcoreinfo",
        "a note for dump tools of the host; there is no device to leave it in",
    ),
    Rule {
        only: &[("@mode", &["host-passthrough", "host-model", "maximum"])],
        ..rule(
            "cpu",
            "each of these modes is the host's processor less what cannot be given to a guest",
        )
    },
    Rule {
        only: &[
            ("@dies", &["1"]),
            ("@threads", &["1"]),
            ("@clusters", &["1"]),
        ],
        ..rule(
            "cpu/topology",
            "a guest finds its vCPUs as cores of one package; sockets and cores change no more than names",
        )
    },
    Rule {
        only: &[("@fallback", &["allow", "forbid"])],
        ..rule("cpu/model", "empty, with host-model")
    },
    Rule {
        of: Some(("name", "vmx")),
        only: &[("@policy", &["disable", "forbid"])],
        ..rule("cpu/feature", "no guest has it")
    },
    Rule {
        of: Some(("name", "svm")),
        only: &[("@policy", &["disable", "forbid"])],
        ..rule("cpu/feature", "as vmx")
    },
    Rule {
        of: Some(("name", "rtc")),
        ..rule(
            "clock/timer",
            "what is done about lost ticks; Linux keeps time by kvmclock or the TSC",
        )
    },
    Rule {
        of: Some(("name", "pit")),
        ..rule("clock/timer", "as rtc")
    },
    Rule {
        of: Some(("name", "hpet")),
        only: &[("@present", &["no"])],
        ..rule("clock/timer", "there is none")
    },
    rule("devices/emulator", "the worker is Reeve's own"),
    Rule {
        of: Some(("type", "usb")),
        ..rule("devices/controller", "a controller without devices")
    },
    Rule {
        of: Some(("type", "pci")),
        ..rule("devices/controller", "every device is on the root bus")
    },
    Rule {
        of: Some(("type", "sata")),
        ..rule("devices/controller", "a controller without devices")
    },
    Rule {
        of: Some(("type", "ide")),
        ..rule("devices/controller", "a controller without devices")
    },
    Rule {
        of: Some(("type", "scsi")),
        ..rule("devices/controller", "a controller without devices")
    },
    Rule {
        of: Some(("type", "fdc")),
        ..rule("devices/controller", "a controller without devices")
    },
    Rule {
        of: Some(("type", "virtio-serial")),
        ..rule(
            "devices/controller",
            "a controller without ports; with ports there is one, and it is provided",
        )
    },
    Rule {
        only: &[
            ("@type", &["tablet", "mouse", "keyboard"]),
            ("@bus", &["usb", "ps2"]),
        ],
        ..rule("devices/input", "there is no display that would need one")
    },
    Rule {
        only: &[("@type", &["vnc"])],
        without: &["passwd", "passwdValidTo"],
        ..rule(
            "devices/graphics",
            "there is no display, and the document of a running domain has none; a guest's console is its serial port",
        )
    },
    Rule {
        only: &[(
            "model/@type",
            &["vga", "virtio", "qxl", "bochs", "cirrus", "none"],
        )],
        ..rule("devices/video", "as graphics")
    },
    Rule {
        only: &[("@type", &["none"])],
        ..rule("devices/audio", "it says that there is none")
    },
    rule("devices/disk/boot", "as os/boot"),
    rule("devices/interface/boot", "as os/boot"),
    rule(
        "devices/memballoon/stats",
        "the balloon is asked when its figures are, and at no fixed interval",
    ),
    rule(
        "devices/serial/log",
        "the daemon keeps a log of each console itself",
    ),
    rule("devices/console/log", "as devices/serial/log"),
];

/// Whether an element is kept for a display that a running domain does not have.
pub(super) fn is_of_display(path: &str) -> bool {
    matches!(path, "devices/graphics" | "devices/video")
}

impl Rule {
    fn is_for(&self, path: &str, element: Element<'_>) -> bool {
        let value = |(name, value)| element.attribute(name) == Some(value);
        self.path == path && self.of.is_none_or(value)
    }

    fn check(&self, element: Element<'_>) -> Result<(), XmlError> {
        for (place, values) in self.only {
            match place.split_once("/@") {
                Some((child, name)) => element
                    .children()
                    .filter(|it| it.name() == child)
                    .try_for_each(|it| it.only(name, values))?,
                None => element.only(place.trim_start_matches('@'), values)?,
            }
        }
        for name in self.without {
            if element.attribute(name).is_some() {
                return Err(element.unsupported_attribute(name));
            }
            if let Some(child) = element.child(name) {
                return Err(child.not_provided());
            }
        }
        let mut inside = element.node().descendants();
        if inside.any(|node| node.is_element() && node.tag_name().namespace().is_some()) {
            return Err(
                element.unsupported("an element of another namespace in it is not provided")
            );
        }
        Ok(())
    }

    /// The element in the words of the table.
    fn what(&self) -> String {
        let of = self.of.map(|(name, value)| format!("[@{name}='{value}']"));
        format!("{}{}", self.path, of.unwrap_or_default())
    }

    fn conditions(&self) -> String {
        let only = self.only.iter().map(|(place, values)| {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{place}` {}", values.join(" or "))
        });
        let without = self.without.iter().map(|name| format!("no `{name}`"));
        only.chain(without).collect::<Vec<_>>().join("; ")
    }
}

/// The list as a table of Markdown.
#[must_use]
pub fn table() -> String {
    let mut out =
        String::from("| element | only with | why its absence is no loss |\n|---|---|---|\n");
    for rule in ACCEPTED {
        let (what, conditions) = (rule.what(), rule.conditions());
        // A string takes all that is written to it.
        let _ = writeln!(out, "| `{what}` | {conditions} | {} |", rule.reason);
    }
    out
}

/// An element that was taken and is not provided: for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where it stands.
    pub path: String,
    /// Why its absence is no loss.
    pub reason: &'static str,
}

/// Takes what is on the list while a document is read.
#[derive(Debug)]
pub(super) struct Keeper {
    /// What a path begins with, where a document is of a part only.
    prefix: &'static str,
    kept: Vec<KeptElement>,
    pub(super) accepted: Vec<Accepted>,
}

impl Keeper {
    /// For a document of a domain.
    pub(super) const fn of_domain() -> Self {
        Self {
            prefix: "",
            kept: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// For a document of one device.
    pub(super) const fn of_device() -> Self {
        Self {
            prefix: "devices/",
            kept: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// What was taken, by where it stood: as it is when it was printed and is read again.
    pub(super) fn finish(mut self) -> (Vec<KeptElement>, Vec<Accepted>) {
        self.kept
            .sort_by(|a, b| split(&a.path).0.cmp(split(&b.path).0));
        (self.kept, self.accepted)
    }

    /// Takes an element that nobody provides, or refuses it by name.
    pub(super) fn offer(&mut self, element: Element<'_>) -> Result<(), XmlError> {
        let path = self.path_of(element)?;
        self.keep(path, element.source().to_owned());
        Ok(())
    }

    /// Takes an element of the device that `of` tells from others of its kind. Where nothing does, it is
    /// taken and not kept.
    pub(super) fn offer_of(
        &mut self,
        element: Element<'_>,
        of: Option<&str>,
    ) -> Result<(), XmlError> {
        let path = self.path_of(element)?;
        if let (Some(of), Some((device, name))) = (of, path.rsplit_once('/')) {
            self.keep(
                format!("{device}[{of}]/{name}"),
                element.source().to_owned(),
            );
        }
        Ok(())
    }

    /// Checks an element of which only the attributes are kept, and what is in it is read by others.
    pub(super) fn offer_attributes(&mut self, element: Element<'_>) -> Result<(), XmlError> {
        let path = self.path_of(element)?;
        let mut writer = Writer::new();
        let mut tag = writer.tag(element.name());
        for (name, value) in element.attributes() {
            tag = tag.attribute(name, value);
        }
        tag.empty();
        self.keep(path, writer.finish().trim_end().to_owned());
        Ok(())
    }

    fn path_of(&mut self, element: Element<'_>) -> Result<String, XmlError> {
        let path = format!("{}{}", self.prefix, element.path());
        let mut rules = ACCEPTED.iter();
        let rule = rules
            .find(|rule| rule.is_for(&path, element))
            .ok_or_else(|| element.not_provided())?;
        rule.check(element)?;
        let reason = rule.reason;
        self.accepted.push(Accepted {
            path: path.clone(),
            reason,
        });
        Ok(path)
    }

    fn keep(&mut self, path: String, xml: String) {
        self.kept.push(KeptElement { path, xml });
    }

    /// Looks through what is in an element: `single` may be there once, `many` any number of times, and all
    /// else must be on the list.
    pub(super) fn contents(
        &mut self,
        element: Element<'_>,
        single: &[&str],
        many: &[&str],
    ) -> Result<(), XmlError> {
        let mut seen: Vec<&str> = Vec::new();
        for child in element.children() {
            let name = child.name();
            if single.contains(&name) {
                if seen.contains(&name) {
                    return Err(child.invalid("there is a second one"));
                }
                seen.push(name);
            } else if !many.contains(&name) {
                self.offer(child)?;
            }
        }
        Ok(())
    }
}

/// Writes what is kept of a container, as `devices`, or of a domain itself where that is empty. What is not an
/// element on the list is left out: whoever put it there, a document stays one.
pub(super) fn write(writer: &mut Writer, kept: &[KeptElement], container: &str) {
    for element in kept {
        let (inside, name) = split(&element.path);
        if inside == container && is_element(&element.xml, name) && is_listed(&element.path) {
            writer.verbatim(&element.xml);
        }
    }
}

/// The container of a path, and the element in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Whether something is kept of a container.
pub(super) fn any(kept: &[KeptElement], container: &str) -> bool {
    let mut writer = Writer::new();
    write(&mut writer, kept, container);
    !writer.finish().is_empty()
}

/// The attributes of the first that is kept at that path.
pub(super) fn attributes(kept: &[KeptElement], path: &str) -> Option<Vec<(String, String)>> {
    let element = kept.iter().find(|element| element.path == path)?;
    let document = document(&element.xml).ok()?;
    let root = Element::root(&document, split(path).1).ok()?;
    let pairs = root.attributes();
    Some(
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn is_listed(path: &str) -> bool {
    let plain = match (path.find('['), path.find(']')) {
        (Some(open), Some(close)) if open < close => {
            let (before, after) = (path.get(..open), path.get(close + 1..));
            format!(
                "{}{}",
                before.unwrap_or_default(),
                after.unwrap_or_default()
            )
        }
        _ => path.to_owned(),
    };
    path.len() <= MAX_KEPT_PATH_BYTES && ACCEPTED.iter().any(|rule| rule.path == plain)
}

fn is_element(xml: &str, name: &str) -> bool {
    let whole = xml.starts_with('<') && xml.ends_with('>');
    whole
        && document(xml).is_ok_and(|document| {
            let root = Element::any_root(&document);
            root.name() == name && root.source() == xml
        })
}
