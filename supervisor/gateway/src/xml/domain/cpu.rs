//! `<cpu>`, `<clock>` and `<features>`: what a guest finds of its processor and its clocks.
//!
//! The modes `host-passthrough`, `host-model` and `maximum` are one here: the host's processor less what cannot
//! be given to a guest. Of features those that are switches of the model can be asked for; of timers
//! `kvmclock`.

use reeve_ipc::model::KeptElement;
use reeve_ipc::spec::CpuSwitches;

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::write::Writer;

/// A switch of the model by the name of libvirt's feature.
fn switch<'a>(cpu: &'a mut CpuSwitches, name: &str) -> Option<&'a mut bool> {
    match name {
        "tsc-deadline" => Some(&mut cpu.tsc_deadline),
        "invtsc" => Some(&mut cpu.invariant_tsc),
        "hle" | "rtm" => Some(&mut cpu.transactional_memory),
        _ => None,
    }
}

/// Where a topology is kept.
const TOPOLOGY: &str = "cpu/topology";
/// The mode of a definition that says nothing of it.
const MODE: (&str, &str) = ("mode", "host-passthrough");

pub(super) fn parse(
    root: Element<'_>,
    keeper: &mut Keeper,
    cpu: &mut CpuSwitches,
) -> Result<(), XmlError> {
    if let Some(element) = root.child("cpu") {
        element.known(&["mode", "check", "match", "migratable"])?;
        element.only("check", &["none", "partial", "full"])?;
        element.only("match", &["exact", "minimum"])?;
        element.only("migratable", &["on", "off"])?;
        if !element.attributes().eq([MODE]) {
            keeper.offer_attributes(element)?;
        }
        keeper.contents(element, &["topology", "model"], &["feature"])?;
        for child in element.children() {
            match child.name() {
                "topology" => topology(child, root, keeper)?,
                "model" => {
                    child.known(&["fallback"])?;
                    if !child.text().trim().is_empty() {
                        let message =
                            "a named model is not provided; there is mode='host-passthrough'";
                        return Err(child.unsupported(message));
                    }
                    keeper.offer(child)?;
                }
                "feature" => feature(child, keeper, cpu)?,
                _ => {}
            }
        }
    }
    if let Some(clock) = root.child("clock") {
        clock.known(&["offset"])?;
        clock.only("offset", &["utc"])?;
        for timer in clock.children() {
            if timer.name() == "timer" && timer.attribute("name") == Some("kvmclock") {
                timer.known(&["name", "present"])?;
                timer.no_children()?;
                cpu.kvmclock = timer.switch("present")?.unwrap_or(true);
            } else {
                keeper.offer(timer)?;
            }
        }
    }
    if let Some(features) = root.child("features") {
        features.known(&[])?;
        keeper.contents(features, &["acpi", "apic"], &[])?;
        if let Some(apic) = features.child("apic") {
            apic.known(&[])?;
        }
    }
    Ok(())
}

/// A guest finds one package of as many cores as it can have vCPUs.
fn topology(element: Element<'_>, root: Element<'_>, keeper: &mut Keeper) -> Result<(), XmlError> {
    element.known(&["sockets", "dies", "clusters", "cores", "threads"])?;
    let number = |name| {
        element
            .parsed::<u32>(name)
            .map(|number| number.unwrap_or(1))
    };
    let (sockets, cores) = (number("sockets")?, number("cores")?);
    let vcpus = root
        .child("vcpu")
        .map_or(Ok(1), |vcpu| vcpu.value::<u32>())?;
    let all = sockets.checked_mul(cores);
    if number("threads")? == 1 && number("dies")? == 1 && all != Some(vcpus) {
        return Err(element.invalid("its CPUs are another number than <vcpu> says"));
    }
    keeper.offer(element)
}

/// How many vCPUs the topology that is kept of a domain makes, where one is.
#[must_use]
pub fn topology_vcpus(kept: &[KeptElement]) -> Option<u32> {
    let attributes = kept::attributes(kept, TOPOLOGY)?;
    let mut numbers = attributes.iter().map(|(_, number)| number.parse::<u32>());
    numbers.try_fold(1_u32, |all, number| all.checked_mul(number.ok()?))
}

fn feature(
    element: Element<'_>,
    keeper: &mut Keeper,
    cpu: &mut CpuSwitches,
) -> Result<(), XmlError> {
    element.known(&["name", "policy"])?;
    let name = element.required("name")?;
    let unwanted = matches!(element.attribute("policy"), Some("disable" | "forbid"));
    if unwanted && matches!(name, "vmx" | "svm") {
        return keeper.offer(element);
    }
    let Some(switch) = switch(cpu, name) else {
        let message = "there is tsc-deadline, invtsc, hle and rtm, and no vmx nor svm; others are as the host has them";
        return Err(element.unsupported_value("name", name, message));
    };
    match element.attribute("policy") {
        None | Some("require" | "force") => *switch = true,
        Some("disable" | "forbid") => *switch = false,
        Some("optional") => {}
        Some(policy) => {
            return Err(element.unsupported_value(
                "policy",
                policy,
                "there is require and disable",
            ));
        }
    }
    Ok(())
}

pub(super) fn format_features(writer: &mut Writer, kept: &[KeptElement]) {
    writer.tag("features").open();
    writer.tag("acpi").empty();
    writer.tag("apic").empty();
    kept::write(writer, kept, "features");
    writer.close("features");
}

pub(super) fn format_cpu(
    writer: &mut Writer,
    cpu: CpuSwitches,
    kept: &[KeptElement],
    max_vcpus: u32,
) {
    // Where somebody else has changed how many there can be, what was said of them is not so any more.
    let stale = topology_vcpus(kept).is_some_and(|vcpus| vcpus != max_vcpus);
    let left: Vec<KeptElement>;
    let kept = match stale {
        true => {
            let kept = kept.iter().filter(|element| element.path != TOPOLOGY);
            left = kept.cloned().collect();
            left.as_slice()
        }
        false => kept,
    };

    let own = || vec![(MODE.0.to_owned(), MODE.1.to_owned())];
    let attributes = kept::attributes(kept, "cpu").unwrap_or_else(own);
    let mut tag = writer.tag("cpu");
    for (name, value) in &attributes {
        tag = tag.attribute(name, value);
    }
    let usual = CpuSwitches::default();
    let features = [
        ("tsc-deadline", cpu.tsc_deadline, usual.tsc_deadline),
        ("invtsc", cpu.invariant_tsc, usual.invariant_tsc),
        ("hle", cpu.transactional_memory, usual.transactional_memory),
        ("rtm", cpu.transactional_memory, usual.transactional_memory),
    ];
    let said = features.into_iter().filter(|(_, is, usual)| is != usual);
    if said.clone().next().is_none() && !kept::any(kept, "cpu") {
        return tag.empty();
    }
    tag.open();
    kept::write(writer, kept, "cpu");
    for (name, is, _) in said {
        let policy = if is { "require" } else { "disable" };
        let tag = writer.tag("feature").attribute("policy", policy);
        tag.attribute("name", name).empty();
    }
    writer.close("cpu");
}

pub(super) fn format_clock(writer: &mut Writer, cpu: CpuSwitches, kept: &[KeptElement]) {
    let tag = writer.tag("clock").attribute("offset", "utc");
    if cpu.kvmclock && !kept::any(kept, "clock") {
        return tag.empty();
    }
    tag.open();
    kept::write(writer, kept, "clock");
    if !cpu.kvmclock {
        let tag = writer.tag("timer").attribute("name", "kvmclock");
        tag.attribute("present", "no").empty();
    }
    writer.close("clock");
}
