//! A domain of the model as a document.

use reeve_ipc::model::{
    BootSource, Domain, GenerationId, KeptElement, Nic, OnCrash, OnPowerOff, OnReboot,
};

use super::super::device;
use super::super::kept;
use super::super::own::Own;
use super::super::write::Writer;
use super::{EMULATOR, Hypervisor, View, cpu, metadata, tune};

/// Prints a domain.
#[must_use]
pub fn format(domain: &Domain, view: &View<'_>) -> String {
    let view = View {
        live: view.live.filter(|_| !view.migratable),
        ..*view
    };
    let live = view.live.as_ref();
    // What a network gave an interface is of the machine that runs, and no part of a definition: that of a transient domain
    // has it all the same.
    let mut defined;
    let domain = if view.live.is_none() {
        defined = domain.clone();
        let nics = &mut defined.devices.nics;
        nics.iter_mut().for_each(Nic::forget_port);
        &defined
    } else {
        domain
    };
    let mut writer = Writer::new();
    let tag = writer
        .tag("domain")
        .attribute("type", view.hypervisor.word());
    tag.optional("id", live.map(|live| live.id)).open();
    writer.text("name", &domain.name);
    writer.text("uuid", domain.uuid);
    match domain.platform.generation_id {
        GenerationId::Absent => {}
        GenerationId::Random => writer.tag("genid").empty(),
        GenerationId::Fixed(id) => writer.text("genid", id),
    }
    if let Some(title) = &domain.labels.title {
        writer.text("title", title);
    }
    if let Some(description) = &domain.labels.description {
        writer.text("description", description);
    }
    metadata::format(&mut writer, &domain.labels, own(domain, &view));
    device::format_sizes(&mut writer, domain, live);
    tune::format(&mut writer, domain);
    os(&mut writer, domain);
    cpu::format_features(&mut writer, &domain.kept);
    let max_vcpus = domain.max_vcpus.count();
    cpu::format_cpu(&mut writer, domain.cpu, &domain.kept, max_vcpus);
    cpu::format_clock(&mut writer, domain.cpu, &domain.kept);
    writer.text(
        "on_poweroff",
        match domain.lifecycle.on_power_off {
            OnPowerOff::Destroy => "destroy",
            OnPowerOff::Restart => "restart",
            OnPowerOff::Preserve => "preserve",
        },
    );
    writer.text(
        "on_reboot",
        match domain.lifecycle.on_reboot {
            OnReboot::Destroy => "destroy",
            OnReboot::Restart => "restart",
            OnReboot::Preserve => "preserve",
        },
    );
    writer.text(
        "on_crash",
        match domain.lifecycle.on_crash {
            OnCrash::Destroy => "destroy",
            OnCrash::Restart => "restart",
            OnCrash::Preserve => "preserve",
        },
    );
    let of_domain: Vec<_> = domain
        .kept
        .iter()
        .filter(|element| element.path != "cpu")
        .cloned()
        .collect();
    kept::write(&mut writer, &of_domain, "");
    writer.tag("devices").open();
    // Of ports there is one controller, and that is not kept besides.
    let is_of_ports = |element: &KeptElement| {
        element.path == "devices/controller" && element.xml.contains("virtio-serial")
    };
    let ports = domain.devices.has_ports();
    let kept = domain.kept.iter();
    let kept: Vec<_> = kept
        .filter(|element| !(ports && is_of_ports(element)))
        // What shows a running domain would look for the display, and leave its console alone.
        .filter(|element| live.is_none() || !kept::is_of_display(&element.path))
        .cloned()
        .collect();
    let is_kept = domain.kept.iter().any(|it| it.path == "devices/emulator");
    if view.hypervisor == Hypervisor::Kvm && !is_kept {
        writer.text("emulator", EMULATOR);
    }
    kept::write(&mut writer, &kept, "devices");
    device::write_fixed(&mut writer, domain, live);
    device::write_devices(&mut writer, domain, &domain.devices, &view);
    if domain.platform.panic_port {
        device::format_panic(&mut writer);
    }
    writer.close("devices");
    writer.close("domain");
    writer.finish()
}

fn os(writer: &mut Writer, domain: &Domain) {
    writer.tag("os").open();
    let tag = writer.tag("type").attribute("arch", "x86_64");
    tag.attribute("machine", domain.machine.name()).text("hvm");
    let command_line = match &domain.boot {
        BootSource::BuiltIn { command_line } => command_line.as_str(),
        BootSource::Kernel(boot) => {
            writer.text("kernel", boot.kernel.display());
            if let Some(initrd) = &boot.initrd {
                writer.text("initrd", initrd.display());
            }
            &boot.command_line
        }
        BootSource::Firmware => "",
    };
    if !command_line.is_empty() {
        writer.text("cmdline", command_line);
    }
    kept::write(writer, &domain.kept, "os");
    writer.close("os");
}

/// What libvirt has no word for.
fn own(domain: &Domain, view: &View<'_>) -> Own {
    let devices = &domain.devices;
    let mut own = Own {
        built_in: matches!(domain.boot, BootSource::BuiltIn { .. }),
        ..Own::default()
    };
    tune::own(domain, &mut own);
    let sockets = device::Sockets {
        directory: view.sockets,
        domain: domain.uuid,
    };
    let vsock = devices.vsock.as_ref().map(|vsock| &vsock.path);
    own.vsock = vsock.filter(|path| **path != sockets.vsock()).cloned();
    let rate = devices.rng.and_then(|rng| rng.rate);
    own.rng = rate.filter(|rate| !device::rng_rate_is_sayable(*rate));
    let nics = devices.nics.iter().enumerate();
    let nics = nics.map(|(index, nic)| device::own_of_nic(index, nic));
    own.interfaces = nics.filter(|interface| !interface.is_empty()).collect();
    own
}
