//! `<domainCapabilities>`: of what a domain may consist. It decides what clients generate.
//!
//! Two lines of it are for clients' sake. Where graphics are said not to be supported, virt-install takes the
//! answer for one of an old server and writes SPICE, QXL and USB redirection; where VNC is said to be, it writes
//! VNC and a VGA, which are on the list of what is taken without being provided.

use reeve_ipc::spec::{MAX_VCPUS, MachineType};

use super::XmlError;
use super::capabilities::{Host, Processor};
use super::cpu::features_with_policy;
use super::domain::{Hypervisor, NEWEST_MACHINE};
use super::write::Writer;

/// What is asked for; what is not said is what there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// The path of the emulator.
    pub emulator: Option<&'a str>,
    /// The architecture.
    pub arch: Option<&'a str>,
    /// The machine type.
    pub machine: Option<&'a str>,
    /// The type of domain.
    pub kind: Option<&'a str>,
}

/// Prints them.
///
/// # Errors
/// [`XmlError`]: there are no such domains.
pub fn format(query: &Query<'_>, host: &Host, hypervisor: Hypervisor) -> Result<String, XmlError> {
    let short = |value: &str| value.chars().take(64).collect::<String>();
    if let Some(emulator) = query.emulator.filter(|it| *it != host.emulator) {
        // What libvirt would ask is no program that it knows.
        return Err(XmlError::unsupported(format!(
            "there are no domains of the emulator '{}' here",
            short(emulator)
        )));
    }
    // In libvirt's words.
    if let Some(arch) = query.arch.filter(|arch| *arch != "x86_64") {
        let why = format!("unknown architecture: {}", short(arch));
        return Err(XmlError::invalid(why));
    }
    if let Some(kind) = query.kind.filter(|kind| *kind != hypervisor.word()) {
        let why = format!("unknown virttype: {}", short(kind));
        return Err(XmlError::invalid(why));
    }
    let newest = MachineType::Reeve1_0;
    let machine = match query.machine {
        None | Some(NEWEST_MACHINE) => newest,
        Some(name) => match MachineType::ALL
            .into_iter()
            .find(|machine| machine.name() == name)
        {
            Some(machine) => machine,
            None => {
                return Err(XmlError::invalid(format!(
                    "the machine '{}' is not supported by emulator '{}'",
                    short(name),
                    host.emulator
                )));
            }
        },
    };
    let mut writer = Writer::new();
    writer.tag("domainCapabilities").open();
    writer.text("path", &host.emulator);
    writer.text("domain", hypervisor.word());
    writer.text("machine", machine.name());
    writer.text("arch", "x86_64");
    writer.tag("vcpu").attribute("max", MAX_VCPUS).empty();
    supported(&mut writer, "iothreads", false, &[]);
    writer.tag("os").attribute("supported", "yes").open();
    writer.tag("enum").attribute("name", "firmware").empty();
    supported(&mut writer, "loader", false, &[]);
    writer.close("os");
    cpu(&mut writer, host);
    supported(
        &mut writer,
        "memoryBacking",
        true,
        &[("sourceType", &["memfd"])],
    );
    devices(&mut writer);
    writer.tag("features").open();
    for (name, is) in [
        ("gic", false),
        ("vmcoreinfo", false),
        ("genid", true),
        ("backingStoreInput", true),
        ("backup", false),
        ("sev", false),
    ] {
        supported(&mut writer, name, is, &[]);
    }
    writer.close("features");
    writer.close("domainCapabilities");
    Ok(writer.finish())
}

fn cpu(writer: &mut Writer, host: &Host) {
    writer.tag("cpu").open();
    for (mode, values) in [
        (
            "host-passthrough",
            Some(("hostPassthroughMigratable", &["on", "off"])),
        ),
        ("maximum", Some(("maximumMigratable", &["on", "off"]))),
        ("host-model", None),
        ("custom", None),
    ] {
        let is = yes(mode != "custom");
        let tag = writer
            .tag("mode")
            .attribute("name", mode)
            .attribute("supported", is);
        let Some((name, values)) = values else {
            match host
                .guest_processor
                .as_ref()
                .filter(|_| mode == "host-model")
            {
                None => tag.empty(),
                Some(processor) => {
                    tag.open();
                    host_model(writer, processor);
                    writer.close("mode");
                }
            }
            continue;
        };
        tag.open();
        enumeration(writer, name, values);
        writer.close("mode");
    }
    writer.close("cpu");
}

/// What a guest finds, by the name of a model.
fn host_model(writer: &mut Writer, processor: &Processor) {
    let tag = writer.tag("model").attribute("fallback", "forbid");
    tag.text(&processor.model);
    if let Some(vendor) = &processor.vendor {
        writer.text("vendor", vendor);
    }
    let said = processor.features.iter();
    features_with_policy(writer, said.map(|(name, is)| (name.as_str(), *is)));
}

/// The values of something, by name.
type Values = (&'static str, &'static [&'static str]);

/// A kind of device, whether there is any, and its values.
type Kind = (&'static str, bool, &'static [Values]);

const VIRTIO: &[&str] = &["virtio", "virtio-non-transitional"];

const DEVICES: [Kind; 9] = [
    (
        "disk",
        true,
        &[
            ("diskDevice", &["disk", "cdrom"]),
            ("bus", &["virtio"]),
            ("model", VIRTIO),
        ],
    ),
    ("graphics", true, &[("type", &["vnc"])]),
    ("video", true, &[("modelType", &["vga"])]),
    ("hostdev", false, &[]),
    (
        "rng",
        true,
        &[("model", VIRTIO), ("backendModel", &["random", "builtin"])],
    ),
    ("filesystem", true, &[("driverType", &["virtiofs"])]),
    ("tpm", false, &[]),
    ("redirdev", false, &[]),
    ("channel", true, &[("type", &["unix"])]),
];

fn devices(writer: &mut Writer) {
    writer.tag("devices").open();
    for (name, is, values) in DEVICES {
        supported(writer, name, is, values);
    }
    writer.close("devices");
}

const fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn supported(writer: &mut Writer, name: &str, is: bool, values: &[Values]) {
    let tag = writer.tag(name).attribute("supported", yes(is));
    if values.is_empty() {
        return tag.empty();
    }
    tag.open();
    for (of, values) in values {
        enumeration(writer, of, values);
    }
    writer.close(name);
}

fn enumeration(writer: &mut Writer, name: &str, values: &[&str]) {
    writer.tag("enum").attribute("name", name).open();
    for value in values {
        writer.text("value", value);
    }
    writer.close("enum");
}
