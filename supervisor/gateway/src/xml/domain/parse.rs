//! A document of a domain as the model has it.

use std::path::PathBuf;

use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainName, DomainUuid, GenerationId, KernelBoot, Labels,
    LifecycleAction, OnCrash, OnPowerOff, OnReboot, Platform, ResourceLimits, Tuning, VcpuPin,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use uuid::Uuid;

use super::super::XmlError;
use super::super::device::{self, Sockets};
use super::super::element::{Element, document};
use super::super::kept::Keeper;
use super::super::own::Own;
use super::{Parse, Parsed, cpu, metadata, tune};

/// What of a domain's elements is read here; others must be on the list of what is taken.
const READ: [&str; 22] = [
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "memory",
    "maxMemory",
    "currentMemory",
    "vcpu",
    "cputune",
    "blkiotune",
    "numatune",
    "memtune",
    "os",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "devices",
];

/// cloud-init finds out by them where it is, so that a guest would take them for lost.
const NO_SMBIOS: &str =
    "there are no SMBIOS tables in which a guest could find its strings; leave it out";

/// Reads a document of a domain.
///
/// # Errors
/// [`XmlError`].
pub fn parse(text: &str, how: &Parse<'_>) -> Result<Parsed, XmlError> {
    let document = document(text)?;
    let root = Element::root(&document, "domain")?;
    root.known(&["type", "id"])?;
    match root.required("type")? {
        kind if kind == how.hypervisor.word() => {}
        kind => {
            let message = format!("domains here are of type '{}'", how.hypervisor.word());
            return Err(root.unsupported_value("type", kind, message));
        }
    }
    if let Some(sysinfo) = root.child("sysinfo") {
        return Err(sysinfo.unsupported(NO_SMBIOS));
    }
    let mut keeper = Keeper::of_domain();
    keeper.contents(root, &READ, &[])?;
    let uuid = match root.child("uuid") {
        Some(uuid) => DomainUuid(uuid.value::<Uuid>()?),
        None => how.uuid,
    };
    let (labels, mut own) = labels(root)?;
    let (vcpus, max_vcpus, all_on) = tune::vcpus(root)?;
    let mut limits = ResourceLimits::default();
    let mut pinning = Vec::new();
    let mut tuning = tune::parse(root, &mut keeper, &mut limits, &mut pinning)?;
    if let Some(cpus) = all_on {
        tuning.emulator_cpus = tuning.emulator_cpus.or_else(|| Some(cpus.clone()));
        for vcpu in 0..max_vcpus.count() {
            if !pinning.iter().any(|pin: &VcpuPin| pin.vcpu == vcpu) {
                let cpus = cpus.clone();
                pinning.push(VcpuPin { vcpu, cpus });
            }
        }
    }
    limits.vcpu_percent = own.vcpu_percent;
    limits.pids = own.pids;
    let (machine, boot) = os(root, &mut keeper, &own)?;
    let mut switches = CpuSwitches::default();
    cpu::parse(root, &mut keeper, &mut switches)?;
    let sockets = Sockets {
        directory: how.sockets,
        domain: uuid,
    };
    let mut devices = Devices::default();
    let mut panic_port = false;
    let mut memory_device = None;
    if let Some(element) = root.child("devices") {
        device::parse_all(element, &mut keeper, sockets, &mut devices)?;
        panic_port = device::parse_panic(element, &mut keeper)?;
        memory_device = device::parse_memory(element, &mut keeper)?;
    }
    let sizes = device::sizes(root, memory_device)?;
    devices.memory = sizes.pluggable;
    apply(&mut own, &mut devices);
    let (kept, accepted) = keeper.finish();
    let domain = Domain {
        name: DomainName::try_from(named(root)?)?,
        uuid,
        machine,
        vcpus,
        cpu: switches,
        memory: sizes.start,
        boot,
        devices,
        lifecycle: lifecycle(root)?,
        limits,
        pinning,
        labels,
        max_vcpus,
        platform: Platform {
            generation_id: generation_id(root)?,
            panic_port,
        },
        kept,
        tuning: Tuning {
            current_memory: sizes.current,
            ..tuning
        },
    };
    Ok(Parsed { domain, accepted })
}

fn named(root: Element<'_>) -> Result<String, XmlError> {
    let name = root.child("name").ok_or_else(XmlError::nameless)?;
    Ok(name.text())
}

/// Gives devices what libvirt has no word for.
fn apply(own: &mut Own, devices: &mut Devices) {
    if let (Some(vsock), Some(path)) = (&mut devices.vsock, own.vsock.take()) {
        vsock.path = path;
    }
    if let Some(rng) = &mut devices.rng {
        rng.rate = rng.rate.or(own.rng);
    }
    own.apply_interfaces(&mut devices.nics);
}

fn labels(root: Element<'_>) -> Result<(Labels, Own), XmlError> {
    let text = |name: &str| -> Result<Option<String>, XmlError> {
        let Some(element) = root.child(name) else {
            return Ok(None);
        };
        element.known(&[])?;
        element.no_children()?;
        Ok(Some(element.text()).filter(|text| !text.is_empty()))
    };
    let (metadata, own) = match root.child("metadata") {
        Some(element) => metadata::parse(element)?,
        None => Default::default(),
    };
    let labels = Labels {
        title: text("title")?,
        description: text("description")?,
        metadata,
    };
    Ok((labels, own))
}

fn generation_id(root: Element<'_>) -> Result<GenerationId, XmlError> {
    let Some(element) = root.child("genid") else {
        return Ok(GenerationId::Absent);
    };
    element.known(&[])?;
    match element.text().trim() {
        "" => Ok(GenerationId::Random),
        _ => Ok(GenerationId::Fixed(element.value()?)),
    }
}

fn os(
    root: Element<'_>,
    keeper: &mut Keeper,
    own: &Own,
) -> Result<(MachineType, BootSource), XmlError> {
    let missing = || root.invalid("there is no <os> in it");
    let os = root.child("os").ok_or_else(missing)?;
    os.known(&[])?;
    if let Some(smbios) = os.child("smbios") {
        if smbios.attribute("mode") != Some("emulate") {
            return Err(smbios.unsupported(NO_SMBIOS));
        }
    }
    keeper.contents(os, &["type", "kernel", "initrd", "cmdline"], &[])?;
    let missing = || os.invalid("there is no <type> in it");
    let kind = os.child("type").ok_or_else(missing)?;
    kind.known(&["arch", "machine"])?;
    kind.only("arch", &["x86_64"])?;
    if kind.text().trim() != "hvm" {
        return Err(kind.unsupported("there is hvm"));
    }
    let machine = match kind.attribute("machine") {
        None | Some(ALIAS) => MachineType::Reeve1_0,
        Some(name) => {
            let mut all = MachineType::ALL.into_iter();
            let found = all.find(|machine| machine.name() == name);
            let known = MachineType::ALL.map(MachineType::name).join(" and ");
            found.ok_or_else(|| {
                kind.unsupported_value("machine", name, format!("there is {known}"))
            })?
        }
    };
    let text = |name: &str| -> Result<Option<String>, XmlError> {
        let Some(element) = os.child(name) else {
            return Ok(None);
        };
        element.known(&[])?;
        element.no_children()?;
        Ok(Some(element.text()).filter(|text| !text.is_empty()))
    };
    let command_line = text("cmdline")?.unwrap_or_default();
    let initrd = text("initrd")?.map(PathBuf::from);
    let boot = match text("kernel")?.map(PathBuf::from) {
        Some(kernel) => BootSource::Kernel(KernelBoot {
            kernel,
            initrd,
            command_line,
        }),
        None if own.built_in && initrd.is_none() => BootSource::BuiltIn { command_line },
        // It is kept, and started when there is firmware: virt-install defines such a domain once the guest is
        // installed, by a kernel that this definition does not have.
        None if initrd.is_none() && command_line.is_empty() => BootSource::Firmware,
        None => {
            return Err(
                os.invalid("an <initrd> and a <cmdline> are a <kernel>'s, and there is none")
            );
        }
    };
    Ok((machine, boot))
}

/// The name of the newest machine type, whichever that is.
pub(in super::super) const ALIAS: &str = "reeve";

fn lifecycle(root: Element<'_>) -> Result<LifecycleAction, XmlError> {
    let mut lifecycle = LifecycleAction::default();
    for name in ["on_poweroff", "on_reboot", "on_crash"] {
        let Some(element) = root.child(name) else {
            continue;
        };
        element.known(&[])?;
        let text = element.text();
        let (off, reboot, crash) = match text.trim() {
            "destroy" => (OnPowerOff::Destroy, OnReboot::Destroy, OnCrash::Destroy),
            "restart" => (OnPowerOff::Restart, OnReboot::Restart, OnCrash::Restart),
            "preserve" => (OnPowerOff::Preserve, OnReboot::Preserve, OnCrash::Preserve),
            other => {
                let other: String = other.chars().take(64).collect();
                let message =
                    format!("'{other}' is not provided; there is destroy, restart and preserve");
                return Err(element.unsupported(message));
            }
        };
        match name {
            "on_poweroff" => lifecycle.on_power_off = off,
            "on_reboot" => lifecycle.on_reboot = reboot,
            _ => lifecycle.on_crash = crash,
        }
    }
    Ok(lifecycle)
}
