//! Documents as clients write them.

use std::path::PathBuf;

use reeve_ipc::model::{BootSource, GenerationId, NicSource, OnCrash};
use reeve_ipc::spec::{CacheMode, Discard, DiskFormat, MachineType, NicDriver, WatchdogAction};

use super::schema::validate;
use super::{defined, dumped, parse};

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

const ALL: [&str; 8] = [
    "virt-install-kernel.xml",
    "virt-install-usb2-vnc.xml",
    "virt-manager-wizard.xml",
    "virt-install-installed.xml",
    "nova.xml",
    "nova-pinned.xml",
    "libvirt-live.xml",
    "everything.xml",
];

#[test]
fn what_clients_write_is_taken_and_comes_back_the_same() {
    for name in ALL {
        let domain = defined(&document(name));
        let first = dumped(&domain);
        let again = defined(&first);
        assert_eq!(again, domain, "{name}");
        assert_eq!(dumped(&again), first, "{name}");
    }
}

#[test]
fn what_clients_write_and_what_comes_of_it_is_valid() {
    let written: Vec<String> = ALL.map(document).into();
    validate("domain", &written);
    let dumps: Vec<String> = written.iter().map(|text| dumped(&defined(text))).collect();
    validate("domain", &dumps);
}

#[test]
fn virt_install_gets_what_it_asked_for_and_its_own_elements_back() {
    let text = document("virt-install-kernel.xml");
    let parsed = parse(&text).unwrap();
    let paths: Vec<&str> = parsed.accepted.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "pm",
            "clock/timer",
            "clock/timer",
            "clock/timer",
            "devices/emulator",
            "devices/controller",
            "devices/controller",
            "devices/controller",
            "devices/controller",
        ]
    );
    let domain = defined(&text);
    assert_eq!(domain.machine, MachineType::Reeve1_0);
    assert_eq!(domain.memory.bytes(), 1 << 30);
    assert_eq!((domain.vcpus.count(), domain.max_vcpus.count()), (2, 2));
    assert_eq!(domain.devices.disks.len(), 1);
    let disk = &domain.devices.disks[0];
    assert!(
        disk.from_image,
        "what a qcow2 image builds upon is read from it"
    );
    assert!(domain.devices.balloon.is_some() && domain.devices.rng.is_some());
    let channel = &domain.devices.channels[0];
    assert_eq!(
        channel.path,
        super::sockets().join(format!("{}.org.qemu.guest_agent.0", domain.uuid))
    );
    let dump = dumped(&domain);
    for kept in [
        "<timer name=\"hpet\" present=\"no\"/>",
        "<controller type=\"usb\" model=\"qemu-xhci\" ports=\"15\"/>",
        "<emulator>/usr/libexec/reeve-worker</emulator>",
        "<libosinfo:os id=\"http://debian.org/debian/11\"/>",
    ] {
        assert!(dump.contains(kept), "{kept}\n{dump}");
    }
    assert!(
        !dump.contains("guest_agent.0'\n") && !dump.contains("mode='bind'"),
        "{dump}"
    );
}

#[test]
fn the_program_that_runs_a_domain_is_named_and_kept_only_where_it_is_another() {
    let text = |emulator: &str| {
        format!(
            "<domain type='kvm'><name>a</name><memory>65536</memory><os><type>hvm</type>\
             <kernel>/k</kernel></os><devices>{emulator}</devices></domain>"
        )
    };
    let domain = defined(&text(""));
    let ours = "<emulator>/usr/libexec/reeve/reeve-worker</emulator>";
    let dump = dumped(&domain);
    assert!(dump.contains(ours), "{dump}");
    assert_eq!(defined(&dump), domain);
    let other = "<emulator>/usr/bin/qemu-system-x86_64</emulator>";
    let dump = dumped(&defined(&text(other)));
    assert!(dump.contains(other) && !dump.contains(ours), "{dump}");
}

#[test]
fn older_guests_get_usb_and_a_screen_written_and_a_console_at_work() {
    let domain = defined(&document("virt-install-usb2-vnc.xml"));
    assert_eq!(domain.name.as_str(), "old & new");
    assert_eq!((domain.vcpus.count(), domain.max_vcpus.count()), (1, 4));
    assert!(!domain.cpu.kvmclock);
    assert_eq!(domain.devices.balloon, None);
    let [disk, cd] = &domain.devices.disks[..] else {
        panic!()
    };
    assert_eq!(
        (disk.cache, disk.discard),
        (CacheMode::None, Discard::Unmap)
    );
    assert_eq!(disk.serial.as_deref(), Some("OLD-0001"));
    assert!(cd.removable && cd.read_only);
    assert_eq!(domain.devices.nics[0].source, NicSource::Nothing);
    let dump = dumped(&domain);
    assert!(
        dump.contains("<boot order=\"1\"/>") && dump.contains("type='block'"),
        "{dump}"
    );
    assert!(dump.contains("<master startport=\"4\"/>"), "{dump}");
    assert!(dump.contains("<memballoon model='none'/>"), "{dump}");
}

#[test]
fn nova_gets_its_limits_and_its_metadata() {
    let domain = defined(&document("nova.xml"));
    assert_eq!(domain.limits.cpu_weight, Some(2048));
    let metadata = &domain.labels.metadata;
    assert_eq!(metadata.len(), 1);
    assert_eq!(
        metadata[0].uri,
        "http://openstack.org/xmlns/libvirt/nova/1.1"
    );
    assert!(
        metadata[0]
            .content
            .contains("<nova:name>web &lt;1&gt;</nova:name>")
    );
    let nic = &domain.devices.nics[0];
    assert_eq!(nic.mtu, Some(1450));
    assert_eq!(nic.inbound.unwrap().burst.unwrap().seconds, 2);
    assert_eq!(nic.outbound.unwrap().per_second, 10 << 20);
    let dump = dumped(&domain);
    assert!(
        dump.contains("<stats period=\"10\"/>") && dump.contains("append=\"off\""),
        "{dump}"
    );
    assert!(
        dump.contains("<cpu mode='host-model' match='exact'>"),
        "{dump}"
    );
}

#[test]
fn nova_gets_its_volumes_and_its_own_cpus_of_the_host() {
    let domain = defined(&document("nova-pinned.xml"));
    let pins: Vec<String> = domain
        .pinning
        .iter()
        .map(|pin| pin.cpus.to_string())
        .collect();
    assert_eq!(pins, ["4", "5", "6", "7"]);
    let emulator = domain.tuning.emulator_cpus.as_ref().unwrap();
    assert_eq!(emulator.to_string(), "4-7");
    let disks = &domain.devices.disks;
    let uuid = "5b9c3a52-9f1d-44a8-8a09-6b6f0a2a7c11";
    assert_eq!(disks[0].serial.as_deref(), Some(uuid));
    // As much of it as a virtio disk has room for.
    assert_eq!(disks[0].found_serial(), "5b9c3a52-9f1d-44a8-8");
    assert_eq!(disks[0].discard, Discard::Unmap);
    assert_eq!(disks[1].cache, CacheMode::WriteThrough);
    assert!(disks[3].removable && disks[3].read_only);
    let [bridge, tap] = &domain.devices.nics[..] else {
        panic!()
    };
    assert_eq!((bridge.driver, bridge.queues), (NicDriver::User, 4));
    assert_eq!(bridge.mtu, Some(1442));
    assert_eq!(tap.source, NicSource::Nothing);
    let dump = dumped(&domain);
    for kept in [
        "<nosharepages/>",
        "<pmu state=\"off\"/>",
        "<feature policy=\"disable\" name=\"vmx\"/>",
        "console.log\" append=\"off\"/>",
        "path='/var/lib/libvirt/qemu/org.qemu.guest_agent.0.instance-0000051b.sock'",
    ] {
        assert!(dump.contains(kept), "{kept}\n{dump}");
    }
}

#[test]
fn what_is_installed_is_kept_without_the_kernel_that_installed_it() {
    let domain = defined(&document("virt-install-installed.xml"));
    assert_eq!(domain.boot, BootSource::Firmware);
    let dump = dumped(&domain);
    assert!(
        !dump.contains("<kernel>") && dump.contains("<boot dev=\"hd\"/>"),
        "{dump}"
    );
}

#[test]
fn a_dump_of_a_running_domain_is_a_definition() {
    let domain = defined(&document("libvirt-live.xml"));
    let disk = &domain.devices.disks[0];
    let formats: Vec<DiskFormat> = disk.backing.iter().map(|layer| layer.format).collect();
    assert_eq!(formats, [DiskFormat::Qcow2, DiskFormat::Raw]);
    assert_eq!(disk.address.unwrap().number(), 4);
    let nic = &domain.devices.nics[0];
    assert!(nic.isolated && !nic.link_up && nic.queues == 2);
    let filter = nic.filter.as_ref().unwrap();
    assert_eq!(filter.filter.as_str(), "clean-traffic");
    let values = filter.parameters.iter().map(|it| it.value.as_str());
    assert_eq!(values.collect::<Vec<_>>(), ["192.0.2.4", "2001:db8::4"]);
    assert!(nic.addresses.is_empty());
    assert_eq!(domain.devices.ports_address.unwrap().number(), 5);
    assert_eq!(domain.devices.channels[0].port, Some(1));
    assert_eq!(
        domain.devices.watchdog.unwrap().action,
        WatchdogAction::PowerOff
    );
    assert!(domain.platform.panic_port);
    assert!(matches!(
        domain.platform.generation_id,
        GenerationId::Fixed(_)
    ));
    assert!(!domain.cpu.tsc_deadline && domain.cpu.invariant_tsc);
    assert_eq!(domain.lifecycle.on_crash, OnCrash::Preserve);
    let dump = dumped(&domain);
    assert!(
        !dump.contains("virtio-disk0") && !dump.contains("index='1'"),
        "{dump}"
    );
    assert!(dump.contains("path='/run/agent.sock'"), "{dump}");
}

#[test]
fn all_that_the_model_has_can_be_said() {
    let domain = defined(&document("everything.xml"));
    assert_eq!(domain.platform.generation_id, GenerationId::Random);
    assert_eq!(domain.memory.bytes(), 1 << 30);
    assert_eq!(domain.max_memory().bytes(), 2 << 30);
    assert_eq!(domain.limits.memory.unwrap().bytes(), 4 << 30);
    assert_eq!(domain.limits.memory_soft.unwrap().bytes(), 3 << 30);
    assert_eq!(domain.limits.swap(), Some(1 << 30));
    assert_eq!(domain.limits.cpu_percent, Some(150));
    assert_eq!(
        (domain.limits.vcpu_percent, domain.limits.pids),
        (Some(250), Some(64))
    );
    assert_eq!(domain.pinning.len(), 6);
    assert_eq!(domain.pinning[0].cpus.to_string(), "1");
    assert_eq!(domain.pinning[5].cpus.to_string(), "0-2,4-7");
    let BootSource::Kernel(boot) = &domain.boot else {
        panic!()
    };
    assert_eq!(boot.command_line, "a=\"b  c\" & d");
    let devices = &domain.devices;
    assert!(!devices.disks[1].from_image && devices.disks[2].image.is_none());
    assert_eq!(devices.nics[0].driver, NicDriver::Vhost);
    assert!(devices.nics[1].trust_guest && devices.nics[1].mac.is_some());
    assert_eq!(devices.nics[1].inbound.unwrap().per_second, 1000);
    assert_eq!(devices.nics[1].addresses[0].to_string(), "192.0.2.0/24");
    assert_eq!(
        devices.vsock.as_ref().unwrap().path.to_str(),
        Some("/run/v.sock")
    );
    assert_eq!(devices.rng.unwrap().rate.unwrap().burst.unwrap().seconds, 3);
    assert_eq!(
        (devices.consoles[0].port, devices.channels[0].port),
        (Some(0), Some(9))
    );
    let note = &domain.labels.metadata[0];
    assert!(
        note.content
            .starts_with("<note:note xmlns:note=\"urn:x-test:note\" to='me'>"),
        "{note:?}"
    );
    assert!(note.content.contains("<!-- kept -->") && note.content.contains("<![CDATA[1 < 2]]>"));
    assert_eq!(
        domain.labels.description.as_deref(),
        Some("All that the model has,\n<with> a second line.")
    );
}
