//! Live views, single devices, aliases, and what else is printed.

use reeve_gateway::xml::capabilities::{self, Cell, Host, HostCpu, Processor, Signature};
use reeve_gateway::xml::device;
use reeve_gateway::xml::domain::{
    self, Hypervisor, Live, Plugged, View, metadata_element, metadata_without,
};
use reeve_gateway::xml::domain_capabilities::{self, Query};
use reeve_ipc::model::{
    Device, DeviceName, DirectMode, MemorySize, NetworkPort, NicSource, PortLink, PortUuid,
};

use super::schema::validate;
use super::{defined, definition, dumped, sockets};

fn everything() -> reeve_ipc::model::Domain {
    defined(include_str!("../data/everything.xml"))
}

#[test]
fn a_running_domain_has_its_number_aliases_terminal_and_taps() {
    let domain = everything();
    let bridged = domain.devices.nics[1].address.unwrap();
    let wizard = defined(include_str!("../data/virt-manager-wizard.xml"));
    let tap = wizard.devices.nics[0].address.unwrap();
    let taps = [(bridged, "mine".to_owned()), (tap, "vnet7".to_owned())];
    let channels = [(domain.devices.channels[0].name.clone(), true)];
    let live = Live {
        id: 12,
        pty: Some("/dev/pts/9"),
        current_memory: Some(MemorySize::mebibytes(1536)),
        plugged: Some(Plugged {
            requested: MemorySize::mebibytes(512),
            current: MemorySize::mebibytes(512),
        }),
        taps: &taps,
        channels: &channels,
    };
    let view = View {
        live: Some(live),
        ..definition()
    };
    let text = domain::format(&domain, &view);
    for part in [
        "<domain type='kvm' id='12'>",
        "<currentMemory unit='KiB'>1572864</currentMemory>",
        "<current unit='KiB'>524288</current>",
        "<console type='pty' tty='/dev/pts/9'>",
        "<source path='/dev/pts/9'/>",
        "<alias name='virtio-disk26'/>",
        "<alias name='console1'/>",
        "<alias name='virtiomem0'/>",
        "<source dev='/dev/sdz' index='1'/>",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let alias = format!("<alias name='net{}'/>", bridged.number());
    assert!(text.contains(&alias), "{text}");
    let port = domain.devices.channels[0].port.unwrap();
    let alias = format!("<alias name='channel{}'/>", port - 1);
    assert!(text.contains(&alias), "{text}");
    let state = format!("name='{}' state='connected'/>", channels[0].0);
    assert_eq!(text.matches("state='").count(), 1, "{text}");
    assert!(text.contains(&state), "{text}");
    assert_eq!(defined(&text).devices.channels, domain.devices.channels);
    let wizard_text = domain::format(&wizard, &view);
    for part in [
        "<target dev='vnet7'/>",
        "<alias name='balloon0'/>",
        "<alias name='rng0'/>",
        "<alias name='virtio-disk0'/>",
        "slot='0x01' function='0x0'/>",
    ] {
        assert!(wizard_text.contains(part), "{part}\n{wizard_text}");
    }
    // A display that it does not have is in its definition alone.
    assert!(dumped(&wizard).contains("<graphics"));
    for part in ["<graphics", "<video"] {
        assert!(!wizard_text.contains(part), "{wizard_text}");
    }
    let channel = format!("path='{}'", wizard.devices.channels[0].path.display());
    assert!(wizard_text.contains(&channel), "{wizard_text}");
    let migratable = View {
        migratable: true,
        ..view
    };
    assert_eq!(domain::format(&wizard, &migratable), dumped(&wizard));
    validate("domain", &[text, wizard_text]);
}

#[test]
fn a_running_domain_that_is_defined_by_its_document_keeps_no_drawn_name() {
    let bridge = |dev: &str| {
        defined(&format!(
            "<domain type='kvm'><name>n</name><memory>65536</memory><os><type>hvm</type><kernel>/k</kernel></os>\
             <devices><interface type='bridge'><source bridge='b'/><target dev='{dev}'/></interface></devices></domain>"
        ))
    };
    let named = |dev: &str| bridge(dev).devices.nics[0].target.clone();
    assert_eq!(named("vnet3"), None);
    assert_eq!(named("mine").unwrap().as_str(), "mine");
    let domain = bridge("vnet0");
    let taps = [(domain.devices.nics[0].address.unwrap(), "vnet9".to_owned())];
    let live = Live {
        id: 1,
        pty: None,
        current_memory: None,
        plugged: None,
        taps: &taps,
        channels: &[],
    };
    let view = View {
        live: Some(live),
        ..definition()
    };
    let text = domain::format(&domain, &view);
    assert!(text.contains("<target dev='vnet9'/>"), "{text}");
    assert_eq!(defined(&text), domain);
    // One that somebody made is theirs to name.
    let made = "<interface type='ethernet'><target dev='vnet5' managed='no'/></interface>";
    let made = device::parse(made, domain.uuid, sockets()).unwrap().device;
    let Device::Nic(nic) = made else { panic!() };
    assert_eq!(nic.host_name().unwrap().as_str(), "vnet5");
}

#[test]
fn every_device_is_found_by_its_alias_and_by_its_own_text() {
    let domain = everything();
    let devices = &domain.devices;
    let aliases = device::alias::all(devices);
    assert_eq!(aliases.len(), 15);
    for (alias, name) in aliases {
        assert_eq!(device::alias::resolve(&alias, devices), Some(name.clone()));
        if name == DeviceName::Ports {
            continue;
        }
        let text = device::format(&domain, &name, &definition()).unwrap();
        assert_eq!(device::identify(&text, devices).unwrap(), name, "{text}");
    }
    let slot = devices.nics[2].address.unwrap();
    let by_alias = format!(
        "<interface type='bridge'><alias name='net{}'/></interface>",
        slot.number()
    );
    let name = device::identify(&by_alias, devices).unwrap();
    assert_eq!(Some(name), devices.nics[2].mac.map(DeviceName::Nic));
    let by_place = format!(
        "<interface><address type='pci' slot='{}'/></interface>",
        slot.number()
    );
    assert_eq!(
        device::identify(&by_place, devices).unwrap(),
        DeviceName::Slot(slot)
    );
    assert!(device::identify("<interface/>", devices).is_err());
}

#[test]
fn a_device_printed_alone_is_taken_again() {
    let domain = everything();
    let devices = &domain.devices;
    let parse = |name: &DeviceName| {
        let text = device::format(&domain, name, &definition()).unwrap();
        device::parse(&text, domain.uuid, sockets()).unwrap().device
    };
    let named = |target: &str| DeviceName::Disk(target.parse().unwrap());
    assert_eq!(
        parse(&named("vdaa")),
        Device::Disk(devices.disks[0].clone())
    );
    let nic = DeviceName::Nic(devices.nics[2].mac.unwrap());
    assert_eq!(parse(&nic), Device::Nic(devices.nics[2].clone()));
    let channel = DeviceName::Channel("one".to_owned());
    assert_eq!(
        parse(&channel),
        Device::Channel(devices.channels[0].clone())
    );
    let console = DeviceName::Console(0);
    assert_eq!(
        parse(&console),
        Device::Console(devices.consoles[0].clone())
    );
    let share = DeviceName::Share("tag".to_owned());
    assert_eq!(parse(&share), Device::Share(devices.shares[0].clone()));
    for name in [DeviceName::Watchdog, DeviceName::Memory] {
        let text = device::format(&domain, &name, &definition()).unwrap();
        let error = device::parse(&text, domain.uuid, sockets()).unwrap_err();
        assert!(error.message.contains("start"), "{error}");
    }
    let text = "<disk device='disk'><target dev='vdx'/><boot order='1'/></disk>";
    let parsed = device::parse(text, domain.uuid, sockets()).unwrap();
    assert_eq!(parsed.accepted[0].path, "devices/disk/boot");
    let error = device::parse("<hostdev/>", domain.uuid, sockets()).unwrap_err();
    assert_eq!(error.code(), 67);
}

#[test]
fn a_definition_of_the_test_hypervisor_is_of_its_type() {
    let text =
        include_str!("../data/virt-manager-wizard.xml").replace("type=\"kvm\"", "type='test'");
    assert_eq!(super::parse(&text).unwrap_err().code(), 67);
    let view = View {
        hypervisor: Hypervisor::Test,
        ..definition()
    };
    let printed = domain::format(&everything(), &view);
    assert!(printed.starts_with("<domain type='test'>"));
    validate("domain", &[printed]);
}

fn host() -> Host {
    let cpu = |id| HostCpu {
        id,
        socket: 0,
        core: id,
        siblings: id.to_string(),
    };
    Host {
        uuid: uuid::Uuid::from_u128(7),
        emulator: "/usr/libexec/reeve-worker".to_owned(),
        processor: Some(Processor {
            model: "EPYC".to_owned(),
            vendor: Some("AMD".to_owned()),
            features: vec![("erms".to_owned(), true)],
        }),
        signature: Signature {
            family: 23,
            model: 1,
            stepping: 2,
            microcode: Some(0x0800_126c),
            physical_bits: Some(48),
        },
        guest_processor: Some(Processor {
            model: "EPYC-Rome".to_owned(),
            vendor: Some("AMD".to_owned()),
            features: vec![("erms".to_owned(), true), ("svm".to_owned(), false)],
        }),
        sockets: 1,
        cores: 2,
        threads: 1,
        cells: vec![Cell {
            id: 0,
            memory_kib: 8 << 20,
            cpus: vec![cpu(0), cpu(1)],
        }],
    }
}

#[test]
fn capabilities_are_valid_and_say_what_clients_look_for() {
    let bare = Host {
        processor: None,
        cells: Vec::new(),
        ..host()
    };
    let all = [
        capabilities::format(&host(), Hypervisor::Kvm),
        capabilities::format(&host(), Hypervisor::Test),
        capabilities::format(&bare, Hypervisor::Kvm),
    ];
    for part in [
        "<domain type='kvm'/>",
        "<acpi ",
        "<apic ",
        "<machine canonical='reeve-1.0'",
    ] {
        assert!(all[0].contains(part), "{part}\n{}", all[0]);
    }
    assert!(all[0].contains(
        "<model>EPYC</model>\n      <vendor>AMD</vendor>\n      <microcode version='134222444'/>\n      \
         <signature family='23' model='1' stepping='2'/>\n"
    ));
    assert!(all[0].contains("<feature name='erms'/>"));
    validate("capability", &all);
}

#[test]
fn domain_capabilities_are_had_for_all_and_for_the_one_that_there_is() {
    let format = |query: &Query<'_>| domain_capabilities::format(query, &host(), Hypervisor::Kvm);
    let one = Query {
        emulator: Some("/usr/libexec/reeve-worker"),
        arch: Some("x86_64"),
        machine: Some("reeve-1.0"),
        kind: Some("kvm"),
    };
    let all = format(&Query::default()).unwrap();
    assert_eq!(format(&one).unwrap(), all);
    assert!(
        all.contains(
            "<model fallback='forbid'>EPYC-Rome</model>\n      <vendor>AMD</vendor>\n      \
             <feature policy='require' name='erms'/>\n      <feature policy='disable' name='svm'/>\n"
        ),
        "{all}"
    );
    assert!(
        all.contains("<enum name='hostPassthroughMigratable'>"),
        "{all}"
    );
    let legacy = Query {
        machine: Some("reeve-legacy-1.0"),
        ..one
    };
    let legacy = format(&legacy).unwrap();
    let emulator = Query {
        emulator: Some("/x"),
        ..one
    };
    assert_eq!(format(&emulator).unwrap_err().code(), 67);
    for query in [
        Query {
            arch: Some("aarch64"),
            ..one
        },
        Query {
            machine: Some("q35"),
            ..one
        },
        Query {
            kind: Some("qemu"),
            ..one
        },
    ] {
        assert_eq!(format(&query).unwrap_err().code(), 27);
    }
    validate("domaincaps", &[all, legacy]);
}

#[test]
fn metadata_that_a_client_sets_is_of_its_namespace() {
    let uri = "urn:a&b";
    let escaped = "urn:a&amp;b";
    let made = |content: &str| metadata_element(content, "p", uri);
    let is = |content: &str, wanted: String| assert_eq!(made(content).unwrap(), wanted);
    is("<x a='1'/>", format!("<p:x xmlns:p='{escaped}' a='1'/>"));
    // With all that is in it.
    is(
        "<x>\n<y a='>'>t</y ><x/></x>",
        format!("<p:x xmlns:p='{escaped}'>\n<p:y a='>'>t</p:y ><p:x/></p:x>"),
    );
    let whole = format!("<q:x xmlns:q='{escaped}'/>");
    is(&whole, whole.clone());
    // What is of another namespace stays so.
    is(
        "<x><o:y xmlns:o='urn:o'><z/></o:y></x>",
        format!("<p:x xmlns:p='{escaped}'><o:y xmlns:o='urn:o'><p:z/></o:y></p:x>"),
    );
    is(
        &format!("<q:x xmlns:q='{escaped}'><y/></q:x>"),
        format!("<q:x xmlns:p='{escaped}' xmlns:q='{escaped}'><p:y/></q:x>"),
    );
    assert_eq!(made("<x/>text").unwrap_err().code(), 35);
    assert_eq!(made("").unwrap_err().code(), 35);
    assert_eq!(made("<x xmlns='urn:other'/>").unwrap_err().code(), 27);
    assert_eq!(
        made("<x><p:y xmlns:p='urn:o'><z/></p:y></x>")
            .unwrap_err()
            .code(),
        27
    );
    for prefix in ["a b", "xmlns", "", "1"] {
        let error = metadata_element("<x/>", prefix, uri).unwrap_err();
        assert_eq!(error.code(), 27);
        assert!(error.message.contains("prefix"), "{error}");
    }
}

#[test]
fn metadata_that_a_client_gets_is_of_no_namespace() {
    let uri = "urn:a&b";
    for content in [
        "<x a='1'/>",
        "<x><y a='a:x'>p:x</y><x/></x>",
        "<x><o:y xmlns:o='urn:o'><z/></o:y></x>",
    ] {
        let made = metadata_element(content, "p", uri).unwrap();
        assert_eq!(metadata_without(&made, uri), content, "{made}");
    }
    let default = "<x b='2' xmlns=\"urn:a&amp;b\"  ><y/></x>";
    assert_eq!(metadata_without(default, uri), "<x b='2'  ><y/></x>");
    // A prefix that an attribute needs is no prefix that can go.
    let needed = "<p:x xmlns:p='urn:a&amp;b' p:a='1'/>";
    assert_eq!(metadata_without(needed, uri), needed);
    assert_eq!(metadata_without("no document", uri), "no document");
}

#[test]
fn an_interface_of_a_network_says_while_it_runs_what_it_is_connected_to() {
    let mut domain = defined(
        "<domain type='kvm'><name>n</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type><kernel>/k</kernel></os><devices>\
         <interface type='network'><mac address='52:54:00:00:00:01'/>\
         <source network='default' portgroup='slow'/></interface></devices></domain>",
    );
    let kept = dumped(&domain);
    assert!(
        kept.contains("<source network='default' portgroup='slow'/>"),
        "{kept}"
    );
    let kept_source = domain.devices.nics[0].source.clone();
    let with = |link| {
        let port = NetworkPort {
            uuid: PortUuid(uuid::Uuid::from_u128(5)),
            link,
            mtu: None,
            inbound: None,
            outbound: None,
            trust_guest: false,
            isolated: false,
        };
        NicSource::Network {
            network: "default".parse().unwrap(),
            port_group: Some("slow".to_owned()),
            port: Some(Box::new(port)),
        }
    };
    let portid = "00000000-0000-0000-0000-000000000005";
    let direct = PortLink::Direct {
        device: "eth0".parse().unwrap(),
        mode: DirectMode::Private,
    };
    for (link, kind, rest) in [
        (
            PortLink::Bridge("virbr0".parse().unwrap()),
            "network",
            "bridge='virbr0'",
        ),
        (direct, "direct", "dev='eth0' mode='private'"),
    ] {
        domain.devices.nics[0].source = with(link);
        let view = View {
            live: Some(Live {
                id: 1,
                pty: None,
                current_memory: None,
                plugged: None,
                taps: &[],
                channels: &[],
            }),
            ..definition()
        };
        let text = domain::format(&domain, &view);
        let source =
            format!("<source network='default' portgroup='slow' portid='{portid}' {rest}/>");
        assert!(text.contains(&source), "{text}");
        assert!(
            text.contains(&format!("<interface type='{kind}'>")),
            "{text}"
        );
        // It is of its network whatever it is connected to, and of the definition nothing else is: neither of what is
        // printed of that, which a transient domain has only so, nor of what it becomes.
        assert_eq!(dumped(&domain), kept);
        let again = defined(&text);
        assert_eq!(again.devices.nics[0].source, kept_source);
        validate("domain", &[text]);
    }
}
