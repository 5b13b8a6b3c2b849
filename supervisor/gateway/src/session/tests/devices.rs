//! Devices that come, go and change, what they have done, and what is told of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reeve_ipc::api::call::{AnswerBody, CallBody, TuningChange};
use reeve_ipc::api::event::{EventKind, Label};
use reeve_ipc::api::view::{DeviceStats, JobKind};
use reeve_ipc::device::{
    DeviceFigures, DirectionFigures, DiskFigures, NicFigures, OperationFigures,
};
use reeve_ipc::model::{DeviceName, Domain};

use super::events::{next, register};
use super::harness::{Act, Client, handle};
use super::one::{One, definition};
use crate::wire::types::event as events;
use crate::wire::types::handles::Domain as Handle;
use crate::wire::types::params::{Param, Value};
use crate::wire::types::{device, inspect};
use crate::xml::device::alias;

const LIVE: u32 = 1;
const CONFIG: u32 = 2;

const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='raw'/>\
    <source file='/d.raw'/><target dev='vda' bus='virtio'/></disk>";
const CDROM: &str = "<disk type='file' device='cdrom'><source file='/c.iso'/>\
    <target dev='vdb' bus='virtio'/><readonly/></disk>";
const NIC: &str = "<interface type='bridge'><mac address='52:54:00:00:00:01'/>\
    <source bridge='br0'/><model type='virtio'/></interface>";
const REST: &str = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
    <memballoon model='virtio'/>\
    <channel type='unix'><target type='virtio' name='org.test.0'/></channel>";

fn full() -> Domain {
    definition("", &format!("{DISK}{CDROM}{NIC}{REST}"))
}

fn attach(domain: &Handle, xml: &str, flags: u32) -> device::DomainAttachDeviceFlags {
    device::DomainAttachDeviceFlags {
        domain: domain.clone(),
        xml: xml.to_owned(),
        flags,
    }
}

fn detach(domain: &Handle, xml: &str, flags: u32) -> device::DomainDetachDeviceFlags {
    device::DomainDetachDeviceFlags {
        domain: domain.clone(),
        xml: xml.to_owned(),
        flags,
    }
}

fn update(domain: &Handle, xml: &str, flags: u32) -> device::DomainUpdateDeviceFlags {
    device::DomainUpdateDeviceFlags {
        domain: domain.clone(),
        xml: xml.to_owned(),
        flags,
    }
}

fn xml(client: &mut Client, domain: &Handle, flags: u32) -> String {
    client.ask(&inspect::DomainGetXmlDesc {
        domain: domain.clone(),
        flags,
    })
}

/// The elements among the devices of a document that begin so, as `virsh` copies them out of it.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(xml).unwrap();
    let all = document.descendants();
    all.filter(|node| node.has_tag_name(name))
        .map(|node| xml[node.range()].to_owned())
        .collect()
}

#[test]
fn a_device_is_attached_where_the_flags_say() {
    let (mut client, domain, one) =
        One::running(definition("", "<memballoon model='none'/>")).client();
    client.ask(&device::DomainAttachDevice {
        domain: domain.clone(),
        xml: DISK.to_owned(),
    });
    client.ask(&attach(&domain, NIC, CONFIG));
    client.ask(&attach(
        &domain,
        REST.split_inclusive("</rng>").next().unwrap(),
        LIVE | CONFIG,
    ));
    client.ask(&attach(&domain, "<memballoon model='virtio'/>", 0));
    let one = one.lock().unwrap();
    let count = |domain: &Option<Domain>| {
        let devices = &domain.as_ref().unwrap().devices;
        let single = [devices.rng.is_some(), devices.balloon.is_some()];
        (devices.disks.len(), devices.nics.len(), single)
    };
    assert_eq!(count(&one.running), (1, 0, [true, true]));
    assert_eq!(count(&one.kept), (0, 1, [true, false]));
}

#[test]
fn a_second_random_number_generator_is_refused_in_words() {
    let rng = REST.split_inclusive("</rng>").next().unwrap();
    let (mut client, domain, one) = One::running(definition("", rng)).client();
    one.lock().unwrap().kept.as_mut().unwrap().devices.rng = None;
    let said = client.refused(&attach(&domain, rng, LIVE));
    assert_eq!(said.code, 67);
    assert!(
        said.message.contains("one random number generator"),
        "{said:?}"
    );
    client.ask(&attach(&domain, rng, CONFIG));
    assert_eq!(client.refused(&attach(&domain, rng, CONFIG)).code, 67);
}

#[test]
fn what_cannot_be_attached_is_refused_by_its_name() {
    let (mut client, domain, _) = One::off(definition("", "")).client();
    let now = device::DomainAttachDevice {
        domain: domain.clone(),
        xml: DISK.to_owned(),
    };
    assert_eq!(client.refused(&now).code, 55);
    for (xml, code, name) in [
        ("<hostdev/>", 67, "hostdev"),
        ("<disk", 35, ""),
        ("<disk/>", 27, "target"),
        ("<watchdog model='i6300esb'/>", 67, "watchdog"),
    ] {
        let said = client.refused(&attach(&domain, xml, 0));
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.message.contains(name), "{said:?}");
    }
    assert_eq!(client.refused(&attach(&domain, DISK, 8)).code, 8);
    let mut transient = One::running(definition("", ""));
    transient.kept = None;
    let (mut client, domain, _) = transient.client();
    assert_eq!(client.refused(&attach(&domain, DISK, CONFIG)).code, 55);
}

#[test]
fn every_device_is_detached_by_what_is_printed_of_it() {
    let (mut client, domain, one) = One::running(full()).client();
    let live = xml(&mut client, &domain, 0);
    for name in ["disk", "interface", "rng", "memballoon", "channel"] {
        let found = elements(&live, name);
        assert!(!found.is_empty(), "{name}: {live}");
        for element in found {
            client.ask(&detach(&domain, &element, LIVE | CONFIG));
        }
    }
    {
        let one = one.lock().unwrap();
        assert!(one.running.as_ref().unwrap().devices.is_empty());
        assert!(one.kept.as_ref().unwrap().devices.is_empty());
    }
    let gone = client.refused(&detach(&domain, &elements(&live, "interface")[0], 0));
    assert_eq!(gone.code, 99, "{gone:?}");
    let now = device::DomainDetachDevice {
        domain: domain.clone(),
        xml: DISK.to_owned(),
    };
    assert_eq!(client.refused(&now).code, 99);
}

#[test]
fn a_guest_that_does_not_let_go_of_a_device_is_waited_for_as_long_as_libvirt_does() {
    let one = Arc::new(Mutex::new(One::running(full())));
    let script = Arc::clone(&one);
    let mut client = Client::open(move |call| {
        let act = script.lock().unwrap().act(call);
        match (call, act) {
            // The supervisor waits longer.
            (CallBody::DomainDeviceDetach(_), _) => Act::Hold,
            (_, Act::Answer(AnswerBody::DomainFiguresList(mut page))) => {
                for domain in &mut page.domains {
                    domain.summary.job = Some(JobKind::Detach);
                }
                Act::Answer(AnswerBody::DomainFiguresList(page))
            }
            (_, act) => act,
        }
    });
    let begun = Instant::now();
    client.ask(&detach(&handle("a", 5), DISK, LIVE | CONFIG));
    assert!(begun.elapsed() >= Duration::from_secs(5));
    assert_eq!(
        one.lock()
            .unwrap()
            .kept
            .as_ref()
            .unwrap()
            .devices
            .disks
            .len(),
        1
    );
}

#[test]
fn every_device_is_detached_by_its_alias() {
    let (mut client, domain, one) = One::running(full()).client();
    let live = xml(&mut client, &domain, 0);
    let call = |alias: &str| device::DomainDetachDeviceAlias {
        domain: domain.clone(),
        alias: alias.to_owned(),
        flags: LIVE,
    };
    let devices = one.lock().unwrap().running.clone().unwrap().devices;
    let aliases = alias::all(&devices);
    assert_eq!(aliases.len(), 7);
    for (alias, name) in aliases {
        assert!(
            live.contains(&format!("<alias name='{alias}'/>")),
            "{alias}: {live}"
        );
        if name != DeviceName::Ports {
            client.ask(&call(&alias));
        }
    }
    assert!(
        one.lock()
            .unwrap()
            .running
            .as_ref()
            .unwrap()
            .devices
            .is_empty()
    );
    let said = client.refused(&call("virtio-disk0"));
    assert_eq!(said.code, 1);
    assert!(said.message.contains("virtio-disk0"), "{said:?}");
}

#[test]
fn a_link_goes_down_by_the_text_of_its_interface_and_up_again() {
    let (mut client, domain, one) = One::running(full()).client();
    let live = xml(&mut client, &domain, 0);
    let element = &elements(&live, "interface")[0];
    let down = element.replace("</interface>", "<link state='down'/></interface>");
    client.ask(&update(&domain, &down, 0));
    let up = |domain: &Option<Domain>| domain.as_ref().unwrap().devices.nics[0].link_up;
    let both = |one: &One| (up(&one.running), up(&one.kept));
    assert_eq!(both(&one.lock().unwrap()), (false, true));
    // Of the running one nothing is to be changed any more.
    client.ask(&update(&domain, &down, LIVE | CONFIG));
    assert_eq!(both(&one.lock().unwrap()), (false, false));
    client.ask(&update(&domain, element, LIVE | CONFIG));
    assert_eq!(both(&one.lock().unwrap()), (true, true));
    let seen = client.supervisor.seen.lock().unwrap();
    let updates = seen.iter().filter_map(|call| match call {
        CallBody::DomainDeviceUpdate(update) => Some((update.live, update.persistent)),
        _ => None,
    });
    let updates: Vec<_> = updates.collect();
    assert_eq!(updates, [(true, false), (false, true), (true, true)]);
}

#[test]
fn rates_media_and_limits_change_and_nothing_else_does() {
    let (mut client, domain, one) = One::running(full()).client();
    let limited = NIC.replace(
        "<model",
        "<bandwidth><inbound average='100'/></bandwidth><model",
    );
    client.ask(&update(&domain, &limited, LIVE));
    let slow = DISK.replace(
        "<target",
        "<iotune><total_iops_sec>100</total_iops_sec></iotune><target",
    );
    client.ask(&update(&domain, &slow, LIVE));
    client.ask(&update(&domain, &CDROM.replace("/c.iso", "/e.iso"), LIVE));
    {
        let one = one.lock().unwrap();
        let devices = &one.running.as_ref().unwrap().devices;
        assert!(devices.nics[0].inbound.is_some());
        assert!(devices.disks[0].throttle.requests.total.is_some());
        let medium = devices.disks[1].image.as_ref().unwrap();
        assert_eq!(medium.path.to_str(), Some("/e.iso"));
    }
    let empty = CDROM.replace("<source file='/c.iso'/>", "");
    client.ask(&update(&domain, &empty, 4 | LIVE | CONFIG));
    {
        let one = one.lock().unwrap();
        for domain in [&one.running, &one.kept] {
            assert!(domain.as_ref().unwrap().devices.disks[1].image.is_none());
        }
    }
    for (xml, code) in [
        (NIC.replace("br0", "br1"), 84),
        (DISK.replace("<target", "<readonly/><target"), 84),
        (DISK.replace("vda", "vdz"), 1),
        (NIC.replace("00:01", "00:02"), 99),
        ("<memballoon model='virtio'/>".to_owned(), 84),
    ] {
        let said = client.refused(&update(&domain, &xml, LIVE));
        assert_eq!(said.code, code, "{xml}: {said:?}");
    }
}

pub(super) fn stats(domain: &Domain) -> Vec<DeviceStats> {
    let figures = |name: &DeviceName| match name {
        DeviceName::Disk(_) => DeviceFigures::Disk(DiskFigures {
            reads: OperationFigures {
                operations: 1,
                bytes: 512,
                nanoseconds: 7,
                errors: 1,
            },
            writes: OperationFigures {
                operations: 2,
                bytes: 1024,
                ..OperationFigures::default()
            },
            ..DiskFigures::default()
        }),
        DeviceName::Nic(_) => DeviceFigures::Nic(NicFigures {
            received: DirectionFigures {
                packets: 3,
                bytes: 180,
                ..DirectionFigures::default()
            },
            ..NicFigures::default()
        }),
        _ => DeviceFigures::None,
    };
    let named = domain.devices.named().into_iter();
    named
        .map(|(slot, device)| DeviceStats {
            figures: figures(&device),
            host: matches!(device, DeviceName::Nic(_)).then(|| "vnet0".to_owned()),
            device,
            slot,
        })
        .collect()
}

fn with_stats() -> (Client, Handle) {
    let mut one = One::running(full());
    one.stats = stats(one.running.as_ref().unwrap());
    let (client, domain, _) = one.client();
    (client, domain)
}

#[test]
fn a_disk_and_an_interface_are_asked_for_what_they_have_done() {
    let (mut client, domain) = with_stats();
    let block = |path: &str| inspect::DomainBlockStats {
        domain: domain.clone(),
        path: path.to_owned(),
    };
    for path in ["vda", "/d.raw", "vdb"] {
        let told = client.ask(&block(path));
        assert_eq!((told.rd_req, told.rd_bytes, told.errs), (1, 512, 1));
    }
    assert_eq!(client.ask(&block("")).wr_req, 4, "of both");
    assert_eq!(client.refused(&block("vdz")).code, 8);
    let flags = |nparams| inspect::DomainBlockStatsFlags {
        domain: domain.clone(),
        path: "vda".to_owned(),
        nparams,
        flags: 4,
    };
    let count = client.ask(&flags(0)).nparams;
    let told = client.ask(&flags(count));
    assert_eq!(told.params.value("wr_bytes"), Some(&Value::Long(1024)));
    let interface = |device: &str| inspect::DomainInterfaceStats {
        domain: domain.clone(),
        device: device.to_owned(),
    };
    for device in ["vnet0", "52:54:00:00:00:01"] {
        let told = client.ask(&interface(device));
        assert_eq!((told.rx_packets, told.rx_bytes), (3, 180));
    }
    assert_eq!(client.refused(&interface("vnet1")).code, 8);
}

#[test]
fn figures_of_many_domains_have_disks_with_their_files_and_interfaces() {
    let (mut client, domain) = with_stats();
    let all = inspect::ConnectGetAllDomainStats {
        domains: vec![domain].into(),
        stats: 0,
        flags: 0,
    };
    let told = client.ask(&all);
    let params = &told.0[0].params;
    let uint = |value: u32| Some(Value::Uint(value));
    let text = |value: &str| Some(Value::Text(value.to_owned()));
    for (name, wanted) in [
        ("state.state", Some(Value::Int(1))),
        ("cpu.time", Some(Value::Ulong(3_000))),
        ("cpu.cache.monitor.count", Some(Value::Uint(0))),
        ("block.0.backingIndex", Some(Value::Uint(1))),
        ("dirtyrate.calc_status", Some(Value::Int(0))),
        ("balloon.current", Some(Value::Ulong(65_536))),
        ("balloon.maximum", Some(Value::Ulong(65_536))),
        ("vcpu.current", uint(2)),
        ("vcpu.maximum", uint(4)),
        ("net.count", uint(1)),
        ("net.0.name", text("vnet0")),
        ("net.0.rx.bytes", Some(Value::Ulong(180))),
        ("block.count", uint(2)),
        ("block.0.name", text("vda")),
        ("block.0.path", text("/d.raw")),
        ("block.0.allocation", Some(Value::Ulong(4096))),
        ("block.0.capacity", Some(Value::Ulong(1 << 20))),
        ("block.0.physical", Some(Value::Ulong(1 << 20))),
        ("block.0.rd.reqs", Some(Value::Ulong(1))),
        ("block.1.name", text("vdb")),
        ("block.1.path", text("/c.iso")),
        ("block.1.wr.bytes", Some(Value::Ulong(1024))),
        ("block.2.name", None),
    ] {
        assert_eq!(params.value(name).cloned(), wanted, "{name}: {params:?}");
    }
    let only = inspect::ConnectGetAllDomainStats {
        stats: 0x20,
        ..all.clone()
    };
    let told = client.ask(&only);
    let strange = |param: &&Param| !param.field.starts_with("block.");
    assert_eq!(told.0[0].params.0.iter().find(strange), None);
    let unknown = inspect::ConnectGetAllDomainStats {
        stats: 0x80,
        flags: 1 << 31,
        ..all
    };
    assert_eq!(client.refused(&unknown).code, 74);
}

#[test]
fn devices_that_come_and_go_are_told_of_by_their_aliases() {
    let (mut client, domain, one) = One::running(full()).client();
    let added = register(&mut client, 19, None);
    let removed = register(&mut client, 15, None);
    let tell = |client: &Client, kind: EventKind| client.supervisor.event("a", kind);
    let disk = "<disk><source file='/e.raw'/><target dev='vdc'/></disk>";
    client.ask(&attach(&domain, disk, LIVE));
    let device = DeviceName::Disk("vdc".parse().unwrap());
    let place = |device: &DeviceName| {
        let one = one.lock().unwrap();
        one.running
            .as_ref()
            .unwrap()
            .devices
            .find(device)
            .unwrap()
            .0
    };
    let slot = place(&device);
    let event = EventKind::DeviceAdded {
        device: device.clone(),
        slot,
    };
    tell(&client, event);
    let told: events::DomainEventCallbackDeviceAdded = next(&mut client);
    assert_eq!(
        (told.callback, told.domain, told.alias.as_str()),
        (added, domain.clone(), "virtio-disk2")
    );
    let nic = DeviceName::Nic("52:54:00:00:00:01".parse().unwrap());
    let net = format!("net{}", place(&nic).number());
    for (device, alias) in [(device, "virtio-disk2"), (nic, net.as_str())] {
        let slot = place(&device);
        let detach = device::DomainDetachDeviceAlias {
            domain: domain.clone(),
            alias: alias.to_owned(),
            flags: LIVE,
        };
        client.ask(&detach);
        tell(&client, EventKind::DeviceRemoved { device, slot });
        let told: events::DomainEventCallbackDeviceRemoved = next(&mut client);
        assert_eq!((told.callback, told.alias.as_str()), (removed, alias));
    }
}

#[test]
fn a_medium_that_is_changed_is_told_of_as_a_tray_that_opens_and_closes() {
    let (mut client, domain, _) = One::running(full()).client();
    let trays = register(&mut client, 10, None);
    let event = EventKind::MediumChanged {
        device: DeviceName::Disk("vdb".parse().unwrap()),
        inserted: true,
    };
    client.supervisor.event("a", event);
    for reason in [0, 1] {
        let told: events::DomainEventCallbackTrayChange = next(&mut client);
        assert_eq!(
            (told.callback, told.domain, told.reason),
            (trays, domain.clone(), reason)
        );
        assert_eq!(told.alias, "virtio-disk1");
    }
}

#[test]
fn what_a_domain_may_use_is_told_of_when_it_is_other() {
    let (mut client, domain, _) = One::running(full()).client();
    let tunings = register(&mut client, 17, None);
    // libvirt has no word for the first.
    let changes = [
        TuningChange::MemoryLimit(None),
        TuningChange::VcpuCpus {
            vcpu: 1,
            cpus: Some("0-1".parse().unwrap()),
        },
        TuningChange::CpuWeight(Some(300)),
        TuningChange::CpuPercent(Some(50)),
    ];
    let tell = |client: &Client, changes: &[TuningChange]| {
        let changes = changes.to_vec();
        client.supervisor.event("a", EventKind::Tuned { changes });
    };
    tell(&client, &changes[..1]);
    tell(&client, &changes);
    let told: events::DomainEventCallbackTunable = next(&mut client);
    assert_eq!((told.callback, told.domain), (tunings, domain));
    let wanted = [
        Param::new("cputune.vcpupin1", "0-1"),
        Param::new("cputune.cpu_shares", 300_u64),
        Param::new("cputune.global_period", 100_000_u64),
        Param::new("cputune.global_quota", 50_000_i64),
    ];
    assert_eq!(told.params.0, wanted);
}

#[test]
fn labels_that_are_set_or_taken_away_are_told_of_as_the_supervisor_names_them() {
    let (mut client, domain, _) = One::off(definition("<title>old</title>", "")).client();
    let labels = register(&mut client, 23, None);
    let element = Label::Metadata {
        uri: "urn:x".to_owned(),
    };
    for (label, kind, uri) in [
        (Label::Description, 0, None),
        (Label::Title, 1, None),
        (element, 2, Some("urn:x")),
    ] {
        client.supervisor.event("a", EventKind::Labels { label });
        let told: events::DomainEventCallbackMetadataChange = next(&mut client);
        assert_eq!((told.callback, &told.domain), (labels, &domain));
        assert_eq!((told.kind, told.uri.as_deref()), (kind, uri));
    }
    client.silence(50);
}
