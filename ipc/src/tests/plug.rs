//! Devices of a definition one by one: found by what users call them, added, removed, changed.

use super::api::device_samples::devices;
use super::device_samples::{rate, slot};
use crate::device::{DeviceChange, PortsFigures};
use crate::model::{
    Channel, Device, DeviceError, DeviceName, Devices, Disk, DomainUuid, FilterReference,
    InterfaceName, Layer, Medium, Nic, NicSource, PortConsole, Rng,
};
use crate::spec::{DiskFormat, DiskThrottle, NicDriver, Rates};
use crate::vcpus::{VcpuMask, VcpuStanding};

fn name(text: &str) -> DeviceName {
    text.parse().unwrap()
}

fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

/// One of each, every address filled in.
fn complete() -> Devices {
    let mut devices = devices();
    devices.complete(DomainUuid(uuid::Uuid::nil())).unwrap();
    devices
}

#[test]
fn a_device_is_found_by_everything_it_is_called() {
    let devices = complete();
    for (text, for_good) in [
        ("vda", "vda"),
        ("vdb", "vdb"),
        ("52:54:00:0A:0b:0c", "52:54:00:0a:0b:0c"),
        ("web0", "52:54:00:0a:0b:0c"),
        ("rng", "rng"),
        ("balloon", "balloon"),
        ("vsock", "vsock"),
        ("ports", "ports"),
        ("share:t", "share:t"),
        ("watchdog", "watchdog"),
        ("28", "watchdog"),
        ("memory", "memory"),
        ("27", "memory"),
        ("29", "share:t"),
        ("1", "vda"),
        ("31", "ports"),
        ("channel:a.0", "channel:a.0"),
        ("console:0", "console:0"),
    ] {
        let (found, called) = devices.find(&name(text)).expect(text);
        assert_eq!(called.to_string(), for_good, "{text}");
        let (place, located) = devices.locate(&name(text)).expect(text);
        assert_eq!((place.slot, &located), (found, &called));
        assert_eq!(devices.name_at(place), Some(called.clone()));
        // A port has its controller's address, which is the controller's.
        let at = devices.find(&DeviceName::Slot(found)).unwrap().1;
        match place.port {
            Some(_) => assert_eq!(at, DeviceName::Ports),
            None => assert_eq!(at, called),
        }
    }
    for missing in [
        "vdc",
        "52:54:00:00:00:01",
        "eth9",
        "30",
        "share:u",
        "channel:a",
        "console:5",
    ] {
        assert_eq!(devices.find(&name(missing)), None, "{missing}");
    }
    assert_eq!(Devices::default().find(&name("ports")), None);
    let slots: Vec<_> = devices.named().into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(slots.len(), devices.count());
}

#[test]
fn what_is_no_name_of_a_device_is_refused_with_what_would_be() {
    for text in [
        "",
        "0",
        "32",
        "256",
        "a/b",
        "52:54:00:0a:0b",
        "01:00:00:00:00:01",
        "a b",
        "share:",
        "share:a b",
        "channel:",
        "channel:a/b",
        "console:",
        "console:31",
        "console:+1",
        "console:x",
    ] {
        let error = text.parse::<DeviceName>().unwrap_err();
        assert!(matches!(error, DeviceError::Name(_)), "{text}: {error:?}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn a_device_is_added_beside_the_others_and_one_of_a_kind_only_once() {
    let mut devices = Devices::default();
    devices.add(Device::Rng(Rng::default())).unwrap();
    let error = devices.add(Device::Rng(Rng::default())).unwrap_err();
    assert_eq!(error, DeviceError::Second("entropy device"));
    let disk = Disk::new("vda".parse().unwrap(), None);
    devices.add(Device::Disk(disk.clone())).unwrap();
    assert!(devices.validate().is_ok());
    devices.add(Device::Disk(disk)).unwrap();
    assert!(devices.validate().is_err(), "two of one target");
    let nic = Nic::new(NicSource::Nothing);
    let mut devices = complete();
    let before = devices.clone();
    devices.add(Device::Nic(nic)).unwrap();
    devices.complete(DomainUuid(uuid::Uuid::nil())).unwrap();
    let added = devices.nics.last().unwrap();
    assert!(before.is_free(added.address.unwrap()));
    assert!(!devices.is_free(added.address.unwrap()));
    assert!(added.mac.is_some());
}

#[test]
fn what_is_removed_is_gone_and_nothing_else_is() {
    let whole = complete();
    for (slot, called) in whole.named() {
        let mut devices = whole.clone();
        let alone = devices.only(slot);
        assert_eq!(alone.named(), [(slot, called.clone())]);
        assert!(devices.remove(&called));
        assert!(!devices.remove(&called));
        assert_eq!(devices.count(), whole.count() - 1);
        assert!(devices.is_free(slot));
        assert!(devices.only(slot).is_empty());
    }
}

#[test]
fn a_port_keeps_its_number_whatever_comes_and_goes_beside_it() {
    let channel = |name: &str| {
        Device::Channel(Channel {
            name: name.to_owned(),
            path: format!("/run/{name}").into(),
            port: None,
        })
    };
    let console = |path: &str| {
        Device::Console(PortConsole {
            path: path.into(),
            port: None,
        })
    };
    let mut devices = Devices::default();
    let add = |devices: &mut Devices, device| {
        devices.add(device).unwrap();
        devices.complete(DomainUuid(uuid::Uuid::nil())).unwrap();
        devices.validate().unwrap();
    };
    for name in ["a", "b", "c"] {
        add(&mut devices, channel(name));
    }
    let port = |devices: &Devices, text: &str| {
        let (place, _) = devices.locate(&name(text)).unwrap();
        place.port.unwrap()
    };
    let numbers =
        |devices: &Devices| ["channel:a", "channel:b", "channel:c"].map(|name| port(devices, name));
    assert_eq!(numbers(&devices), [1, 2, 3]);
    assert!(devices.remove(&name("channel:b")));
    assert!(!devices.remove(&name("channel:b")));
    add(&mut devices, console("/run/hvc0"));
    add(&mut devices, console("/run/hvc1"));
    assert_eq!(port(&devices, "channel:c"), 3);
    assert_eq!(port(&devices, "console:0"), 0);
    assert_eq!(port(&devices, "console:2"), 2, "the place that was free");
    add(&mut devices, channel("b"));
    assert_eq!(port(&devices, "channel:b"), 4);
    let alone = devices.only_at(devices.locate(&name("channel:c")).unwrap().0);
    assert_eq!((alone.port_count(), alone.channels[0].port), (1, Some(3)));
    // The controller is there as long as one of them is.
    for left in ["channel:a", "channel:c", "console:0", "console:2"] {
        assert!(devices.remove(&name(left)), "{left}");
        assert_eq!(devices.count(), 1);
    }
    assert!(devices.remove(&name("channel:b")));
    assert!(devices.is_empty());
}

#[test]
fn the_ports_of_a_controller_are_those_whose_bits_are_set() {
    let figures = PortsFigures {
        present: 1 << 31 | 0b101,
        guest_open: 0b100,
        connected: u32::MAX,
    };
    assert_eq!(figures.numbers().collect::<Vec<_>>(), [0, 2, 31]);
    let port = figures.port(2).unwrap();
    assert!(port.guest_open && port.connected);
    assert!(!figures.port(0).unwrap().guest_open);
    assert_eq!(figures.port(1), None);
    assert_eq!(figures.port(32), None);
    assert_eq!(figures.port(255), None);
}

#[test]
fn a_change_is_of_the_devices_own_kind_and_can_be_taken_back() {
    let whole = complete();
    let throttle = DiskThrottle {
        bytes: Rates {
            total: Some(rate(9)),
            ..Rates::default()
        },
        ..DiskThrottle::default()
    };
    let link = DeviceChange::Link { up: false };
    let rates = DeviceChange::NicRates {
        inbound: None,
        outbound: Some(rate(4)),
    };
    for (device, change) in [
        ("web0", link),
        ("web0", rates),
        ("vda", DeviceChange::DiskThrottle(throttle)),
    ] {
        let mut devices = whole.clone();
        let back = devices.change(&name(device), change).unwrap();
        assert_ne!(devices, whole);
        assert_eq!(devices.change(&name(device), back), Ok(change));
        assert_eq!(devices, whole);
    }
    for (device, change) in [
        ("vda", link),
        ("rng", link),
        ("web0", DeviceChange::BalloonPoll),
    ] {
        let error = whole.clone().change(&name(device), change).unwrap_err();
        assert_eq!(error, DeviceError::Change(name(device)));
    }
    let none = DeviceChange::NicRates {
        inbound: Some(rate(0)),
        outbound: None,
    };
    assert!(matches!(
        whole.clone().change(&name("web0"), none),
        Err(DeviceError::Rate { .. })
    ));
    let missing = whole.clone().change(&name("vdz"), link).unwrap_err();
    assert_eq!(missing, DeviceError::NoDevice(name("vdz")));
    assert_eq!(whole.find(&name("5")).map(|found| found.0), Some(slot(5)));
}

#[test]
fn vcpus_that_a_machine_cannot_have_are_told_from_those_it_can() {
    let mask = |vcpus: &[u32]| vcpus.iter().copied().collect();
    let standing = |present: &[u32], leaving: &[u32], new: &[u32]| VcpuStanding {
        present: mask(present),
        leaving: mask(leaving),
        new: mask(new),
        wanted: 4,
    };
    for (standing, possible) in [
        (standing(&[0], &[], &[]), true),
        (standing(&[0, 1, 3], &[1, 3], &[3]), true),
        (standing(&[0, 3], &[3], &[3]), true),
        (standing(&[], &[], &[]), false),
        (standing(&[1], &[], &[]), false),
        (standing(&[0, 4], &[], &[]), false),
        (standing(&[0, 1023], &[], &[]), false),
        (standing(&[0, 1], &[0], &[]), false),
        (standing(&[0, 1], &[2], &[]), false),
        (standing(&[0, 1], &[], &[3]), false),
    ] {
        assert_eq!(standing.is_possible(4), possible, "{standing:?}");
        let none = VcpuStanding {
            wanted: 0,
            ..standing
        };
        assert!(!none.is_possible(4));
    }
}

#[test]
fn a_set_of_vcpus_has_those_put_in_and_none_that_cannot_be() {
    let mask: VcpuMask = [300, 0, 1023, 63, 64, 64, 1024, u32::MAX]
        .into_iter()
        .collect();
    assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 63, 64, 300, 1023]);
    assert_eq!(mask.count(), 5);
    assert!(!mask.contains(1024) && !mask.contains(u32::MAX) && !mask.contains(1));
    let mut mask = mask;
    assert!(mask.remove(300) && !mask.remove(300) && !mask.remove(u32::MAX));
    assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 63, 64, 1023]);
}

#[test]
fn a_medium_is_put_into_a_removable_disk_and_comes_out_as_it_went_in() {
    let mut devices = Devices::default();
    let mut cd = Disk::new("vdc".parse().unwrap(), None);
    (cd.removable, cd.read_only) = (true, true);
    let fixed = Disk::new("vda".parse().unwrap(), None);
    devices.disks = vec![fixed, cd];
    let name: DeviceName = "vdc".parse().unwrap();
    let layer = |path: &str, format| Layer {
        path: path.into(),
        format,
    };
    let medium = Medium {
        image: layer("/a", DiskFormat::Qcow2),
        backing: vec![layer("/b", DiskFormat::Raw)],
        from_image: false,
    };
    assert_eq!(devices.change_medium(&name, Some(medium.clone())), Ok(None));
    assert_eq!(devices.disks[1].layers().count(), 2);
    assert_eq!(devices.change_medium(&name, None), Ok(Some(medium.clone())));
    assert_eq!(devices.disks[1].layers().count(), 0);

    let vda: DeviceName = "vda".parse().unwrap();
    let kept = devices.change_medium(&vda, Some(medium));
    let line = kept.unwrap_err().to_string();
    assert!(line.contains("removable = true"), "{line}");
    let missing: DeviceName = "vdx".parse().unwrap();
    assert!(matches!(
        devices.change_medium(&missing, None),
        Err(DeviceError::NoDevice(_))
    ));
    let raw_on_raw = Medium {
        image: layer("/a", DiskFormat::Raw),
        backing: vec![layer("/b", DiskFormat::Raw)],
        from_image: false,
    };
    assert!(devices.change_medium(&name, Some(raw_on_raw)).is_err());
}

#[test]
fn a_removable_disk_is_read_only_and_has_one_queue() {
    let mut disk = Disk::new("vdc".parse().unwrap(), None);
    disk.removable = true;
    let devices = |disk: &Disk| Devices {
        disks: vec![disk.clone()],
        ..Devices::default()
    };
    assert!(matches!(
        devices(&disk).validate(),
        Err(DeviceError::Removable(_))
    ));
    disk.read_only = true;
    assert_eq!(devices(&disk).validate(), Ok(()));
    disk.queues = 2;
    assert!(devices(&disk).validate().is_err());
}

#[test]
fn the_size_of_a_disk_is_asked_of_one_that_can_have_another() {
    let image = Layer {
        path: "/a".into(),
        format: DiskFormat::Raw,
    };
    let mut devices = Devices {
        disks: vec![Disk::new("vda".parse().unwrap(), Some(image))],
        ..Devices::default()
    };
    let name: DeviceName = "vda".parse().unwrap();
    let (bytes, shrink) = (Some(1 << 30), false);
    let size = DeviceChange::DiskSize { bytes, shrink };
    assert_eq!(devices.change(&name, size), Ok(size));
    devices.disks[0].read_only = true;
    assert!(matches!(
        devices.change(&name, size),
        Err(DeviceError::ReadOnly(_))
    ));
    let look = DeviceChange::DiskSize {
        bytes: None,
        shrink,
    };
    assert_eq!(devices.change(&name, look), Ok(look));
    devices.disks[0].image = None;
    assert!(matches!(
        devices.change(&name, look),
        Err(DeviceError::NoMedium(_))
    ));
}

#[test]
fn an_interface_that_can_have_no_filter_is_given_none_and_loses_none() {
    let filter = || {
        let filter = "clean-traffic".parse().unwrap();
        Some(Box::new(FilterReference {
            filter,
            parameters: Vec::new(),
        }))
    };
    let of = |source: NicSource| {
        let mut devices = Devices::default();
        devices.add(Device::Nic(Nic::new(source))).unwrap();
        devices.complete(DomainUuid(uuid::Uuid::nil())).unwrap();
        let name = DeviceName::Nic(devices.nics[0].mac.unwrap());
        (devices, name)
    };
    for source in [
        NicSource::Tap(interface("mytap")),
        NicSource::Switch("/run/switch".into()),
        NicSource::User,
    ] {
        let (mut devices, name) = of(source);
        let before = devices.clone();
        for wanted in [filter(), None] {
            let refused = devices.change_filter(&name, wanted);
            assert_eq!(refused, Err(DeviceError::Change(name.clone())));
        }
        assert_eq!(devices, before);
    }
    let (mut devices, name) = of(NicSource::Bridge(interface("br0")));
    devices.change_filter(&name, filter()).unwrap();
    assert_eq!(devices.nic(&name).unwrap().filter, filter());
    // One of before that both were taken of.
    devices.nics[0].driver = NicDriver::Vhost;
    let refused = devices.clone().change_filter(&name, filter());
    assert!(matches!(refused, Err(DeviceError::FilteredByKernel { .. })));
    devices.change_filter(&name, None).unwrap();
    assert_eq!(devices.nic(&name).unwrap().filter, None);
}
