//! Devices of a definition: what is filled in, what is refused and how it is said, how words are written.

use proptest::prelude::*;

use super::api::device_samples::devices;
use super::model::domain;
use crate::codec::{decode, encode};
use crate::model::{
    BlockSize, Channel, DeviceError, Devices, Disk, DiskTarget, Domain, InterfaceName, IpRange,
    Layer, MAX_DEFINITION_BYTES, MAX_NIC_ADDRESSES, ModelError, Nic, NicSource, PortConsole, Rng,
    Share, VirtualPort, Vlan, VlanTag, Vsock,
};
use crate::spec::{
    Burst, CacheMode, Discard, DiskFormat, IoEngine, MAX_DEVICES, MAX_LAYERS, MAX_PORTS,
    MacAddress, NicDriver, PciSlot, Rate,
};

fn slot(number: u8) -> PciSlot {
    PciSlot::try_from(number).unwrap()
}

fn disk(place: usize) -> Disk {
    let image = Layer {
        path: format!("/images/{place}").into(),
        format: DiskFormat::Raw,
    };
    Disk::new(DiskTarget::at(place).unwrap(), Some(image))
}

const fn rate(per_second: u64) -> Rate {
    Rate {
        per_second,
        burst: None,
    }
}

fn nic() -> Nic {
    Nic::new(NicSource::Bridge("br0".parse().unwrap()))
}

fn with(change: impl FnOnce(&mut Devices)) -> Domain {
    let mut domain = domain();
    change(&mut domain.devices);
    domain
}

/// What a definition with that change is refused with, in one line.
fn refused(change: impl FnOnce(&mut Devices)) -> String {
    let error = with(change).validate().unwrap_err();
    assert!(matches!(error, ModelError::Device(_)), "{error:?}");
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

fn completed(domain: Domain) -> Devices {
    let mut domain = domain;
    domain.complete().unwrap();
    domain.validate().unwrap();
    domain.devices
}

fn slots(devices: &Devices) -> Vec<u8> {
    let disks = devices.disks.iter().map(|disk| disk.address);
    let nics = devices.nics.iter().map(|nic| nic.address);
    let addresses = disks.chain(nics).flatten();
    addresses.map(PciSlot::number).collect()
}

#[test]
fn every_device_can_be_had_at_once() {
    let devices = completed(with(|all| *all = devices()));
    assert_eq!(devices.count(), 13);
    // Those that were left out: the second disk, three of the interfaces.
    assert_eq!(slots(&devices), [1, 6, 2, 7, 8, 9]);
}

#[test]
fn addresses_are_the_lowest_that_are_free_and_stay_when_a_device_goes() {
    let mut devices = completed(with(|devices| {
        devices.disks = vec![disk(0), disk(1)];
        devices.nics = vec![nic(), nic()];
        devices.disks[1].address = Some(slot(2));
        devices.rng = Some(Rng::default());
        devices.channels = vec![Channel {
            name: "a".to_owned(),
            path: "/run/a".into(),
            port: None,
        }];
    }));
    assert_eq!(slots(&devices), [1, 2, 3, 4]);
    assert_eq!(devices.rng.unwrap().address, Some(slot(5)));
    assert_eq!(devices.ports_address, Some(slot(6)));
    let before = devices.clone();
    devices.complete(domain().uuid).unwrap();
    assert_eq!(devices, before, "complete as it was");
    devices.disks.remove(0);
    devices.disks.push(disk(2));
    devices.complete(domain().uuid).unwrap();
    assert_eq!(slots(&devices), [2, 1, 3, 4]);
}

#[test]
fn a_controller_without_ports_takes_no_place() {
    let devices = completed(with(|devices| devices.ports_address = Some(slot(1))));
    assert_eq!(devices.count(), 0);
    let devices = completed(with(|devices| {
        devices.ports_address = Some(slot(1));
        devices.disks = vec![disk(0)];
    }));
    assert_eq!(slots(&devices), [1]);
}

#[test]
fn a_drawn_address_is_the_same_each_time_and_no_other_interfaces() {
    let many = || with(|devices| devices.nics = vec![nic(); 20]);
    let first = completed(many());
    assert_eq!(first, completed(many()));
    let macs: Vec<MacAddress> = first.nics.iter().filter_map(|nic| nic.mac).collect();
    assert_eq!(macs.len(), 20);
    assert!(macs.iter().all(|mac| mac.octets()[..3] == [0x52, 0x54, 0]));
    let mut other = many();
    other.uuid.0 = uuid::Uuid::from_u128(2);
    assert_ne!(completed(other).nics[0].mac, first.nics[0].mac);
    // What the first would draw is the second's already.
    let devices = completed(with(|devices| {
        devices.nics = vec![nic(), nic()];
        devices.nics[1].mac = Some(macs[0]);
    }));
    assert_eq!(devices.nics[0].mac, Some(macs[1]));
}

#[test]
fn what_a_switch_knows_an_interface_by_is_the_same_each_time_also_on_a_network() {
    let on = |port: VirtualPort| {
        completed(with(|devices| {
            let mut on = Nic::new(NicSource::Network {
                network: "lan".parse().unwrap(),
                port_group: None,
                port: None,
            });
            on.virtual_port = Some(Box::new(port));
            devices.nics = vec![on];
        }))
    };
    let switched = || VirtualPort {
        open_vswitch: true,
        ..VirtualPort::default()
    };
    let id = |devices: &Devices| devices.nics[0].virtual_port.as_ref().unwrap().interface_id;
    let first = on(switched());
    assert!(id(&first).is_some());
    assert_eq!(first, on(switched()));
    let own = uuid::Uuid::from_u128(7);
    let said = on(VirtualPort {
        interface_id: Some(own),
        ..switched()
    });
    assert_eq!(id(&said), Some(own));
    let tags = on(VirtualPort {
        vlan: Some(Vlan {
            trunk: true,
            tags: vec![VlanTag {
                id: 7,
                native: None,
            }],
        }),
        ..VirtualPort::default()
    });
    assert_eq!(id(&tags), None);
    // One that says nothing is none.
    assert_eq!(on(VirtualPort::default()).nics[0].virtual_port, None);
}

#[test]
fn the_bus_has_places_for_so_many_and_no_more() {
    let mut full = with(|devices| devices.disks = (0..MAX_DEVICES).map(disk).collect());
    assert_eq!(full.validate(), Ok(()));
    full.complete().unwrap();
    full.devices.rng = Some(Rng::default());
    let error = DeviceError::TooMany(MAX_DEVICES + 1);
    assert_eq!(full.validate(), Err(error.clone().into()));
    assert_eq!(full.complete(), Err(error.into()));
}

#[test]
fn two_devices_at_one_place_are_both_named() {
    let line = refused(|devices| {
        devices.disks = vec![disk(0)];
        devices.disks[0].address = Some(slot(4));
        devices.rng = Some(Rng {
            rate: None,
            address: Some(slot(4)),
        });
    });
    assert_eq!(
        line,
        "the entropy device and disk 'vda' have the same address, 4; give one of them another, or none"
    );
}

#[test]
fn what_can_be_used_once_is_not_used_twice() {
    let twice = |change: fn(&mut Devices)| {
        refused(|devices| {
            devices.disks = vec![disk(0), disk(1)];
            devices.nics = vec![nic(), nic()];
            change(devices);
        })
    };
    let line = twice(|devices| devices.disks[1].target = "vda".parse().unwrap());
    assert!(line.contains("two disks 'vda'"), "{line}");
    let line = twice(|devices| devices.disks[1].image = devices.disks[0].image.clone());
    assert!(
        line.contains("'vda' and 'vdb' both use /images/0"),
        "{line}"
    );
    let line = twice(|devices| {
        devices.nics[0].mac = Some("52:54:00:00:00:01".parse().unwrap());
        devices.nics[1].mac = devices.nics[0].mac;
    });
    assert!(line.contains("52:54:00:00:00:01"), "{line}");
    let line = twice(|devices| {
        devices.nics[0].target = Some("web0".parse().unwrap());
        devices.nics[1].source = NicSource::Tap("web0".parse().unwrap());
    });
    assert!(line.contains("'web0'"), "{line}");
    let channel = |name: &str, path: &str| Channel {
        name: name.to_owned(),
        path: path.into(),
        port: None,
    };
    let line = refused(|devices| devices.channels = vec![channel("a", "/1"), channel("a", "/2")]);
    assert!(line.contains("two channels 'a'"), "{line}");
    let line = refused(|devices| {
        devices.channels = vec![channel("a", "/1")];
        devices.vsock = Some(Vsock {
            cid: None,
            path: "/1".into(),
            address: None,
        });
    });
    assert!(line.contains("two devices listen on /1"), "{line}");
}

#[test]
fn a_share_has_a_directory_and_a_tag_that_a_guest_can_mount() {
    let share = |tag: &str, source: &str| Share {
        tag: tag.to_owned(),
        source: source.into(),
        read_only: false,
        address: None,
    };
    let longest = "x".repeat(36);
    let good = vec![
        share("data", "/a"),
        share("a.b:c,d=e", "/a"),
        share(&longest, "/b"),
    ];
    let devices = completed(with(|devices| devices.shares = good));
    let slots = devices.shares.iter().map(|share| share.address.unwrap());
    assert_eq!(slots.map(PciSlot::number).collect::<Vec<_>>(), [1, 2, 3]);
    for tag in ["", "a b", "a/b", "ä", &"x".repeat(37)] {
        let line = refused(|devices| devices.shares = vec![share(tag, "/a")]);
        assert!(line.contains("is not the tag of a share"), "{line}");
    }
    let line = refused(|devices| devices.shares = vec![share("a", "/1"), share("a", "/2")]);
    assert!(line.contains("two shares 'a'"), "{line}");
    let line = refused(|devices| devices.shares = vec![share("a", "")]);
    assert!(line.contains("share 'a' has an empty path"), "{line}");
}

#[test]
fn disks_that_only_read_may_share_a_file_and_one_that_writes_may_not_build_upon_anothers() {
    let shared = with(|devices| {
        devices.disks = vec![disk(0), disk(1)];
        devices.disks[1].image = devices.disks[0].image.clone();
        for disk in &mut devices.disks {
            disk.read_only = true;
        }
    });
    assert_eq!(shared.validate(), Ok(()));
    let base = || disk(0).image.unwrap();
    let clones = |devices: &mut Devices| {
        devices.disks = vec![disk(1), disk(2)];
        for disk in &mut devices.disks {
            disk.image.as_mut().unwrap().format = DiskFormat::Qcow2;
            disk.backing = vec![base()];
        }
    };
    assert_eq!(with(clones).validate(), Ok(()));
    let line = refused(|devices| {
        clones(devices);
        devices.disks.push(disk(0));
    });
    assert!(line.contains("/images/0"), "{line}");
}

#[test]
fn a_disk_out_of_range_is_refused_by_name() {
    let wrong = |change: fn(&mut Disk)| {
        let line = refused(|devices| {
            let mut disk = disk(3);
            change(&mut disk);
            devices.disks = vec![disk];
        });
        assert!(line.contains("disk 'vdd'"), "{line}");
        line
    };
    wrong(|disk| disk.queues = 0);
    wrong(|disk| disk.queues = 17);
    wrong(|disk| disk.serial = Some(String::new()));
    wrong(|disk| disk.serial = Some("x".repeat(65)));
    wrong(|disk| disk.serial = Some("naïve".to_owned()));
    wrong(|disk| disk.image.as_mut().unwrap().path = "".into());
    wrong(|disk| disk.backing = vec![disk.image.clone().unwrap()]);
    let line = wrong(|disk| {
        let path = "/images/base".into();
        let format = DiskFormat::Qcow2;
        disk.backing = vec![Layer { path, format }];
    });
    assert!(line.contains("only qcow2 builds upon another"), "{line}");
    wrong(|disk| disk.backing = vec![disk.image.take().unwrap()]);
    wrong(|disk| {
        disk.image.as_mut().unwrap().format = DiskFormat::Qcow2;
        disk.backing = (0..MAX_LAYERS)
            .map(|number| Layer {
                path: format!("/images/base{number}").into(),
                format: DiskFormat::Qcow2,
            })
            .collect();
    });
    wrong(|disk| disk.throttle.bytes.total = Some(rate(0)));
    wrong(|disk| {
        disk.throttle.requests.total = Some(rate(1));
        disk.throttle.requests.read = Some(rate(1));
    });
    for burst in [(9, 1), (10, 0), (10, 86_401)] {
        let line = refused(|devices| {
            let mut disk = disk(0);
            disk.throttle.bytes.write = Some(Rate {
                per_second: 10,
                burst: Some(Burst {
                    per_second: burst.0,
                    seconds: burst.1,
                }),
            });
            devices.disks = vec![disk];
        });
        assert!(line.contains("bytes"), "{line}");
    }
    assert_eq!(BlockSize::try_from(1024), Err(DeviceError::BlockSize(1024)));
}

#[test]
fn an_interface_out_of_range_is_refused() {
    let wrong = |change: fn(&mut Nic)| {
        let line = refused(|devices| {
            let mut nic = nic();
            change(&mut nic);
            devices.nics = vec![nic];
        });
        assert!(line.contains("network interface 0"), "{line}");
    };
    wrong(|nic| nic.queues = 0);
    wrong(|nic| nic.queues = 9);
    wrong(|nic| nic.mtu = Some(67));
    wrong(|nic| {
        nic.source = NicSource::Tap("tap0".parse().unwrap());
        nic.target = Some("web0".parse().unwrap());
    });
    wrong(|nic| {
        nic.source = NicSource::Tap("tap0".parse().unwrap());
        nic.mtu = Some(1500);
    });
    wrong(|nic| {
        nic.source = NicSource::Tap("tap0".parse().unwrap());
        nic.isolated = true;
    });
    wrong(|nic| nic.inbound = Some(rate(0)));
}

#[test]
fn ports_and_sockets_out_of_range_are_refused() {
    let channel = |name: String| Channel {
        path: format!("/run/{name}").into(),
        name,
        port: None,
    };
    for name in ["", "a b", "a/b", "ä", &"x".repeat(64)] {
        let line = refused(|devices| devices.channels = vec![channel(name.to_owned())]);
        assert!(line.contains("name of a channel"), "{line}");
    }
    let many = |count: usize| {
        (0..count)
            .map(|number| channel(number.to_string()))
            .collect()
    };
    let mut full = with(|devices| devices.channels = many(MAX_PORTS - 1));
    full.devices.consoles = vec![PortConsole {
        path: "/run/console".into(),
        port: None,
    }];
    assert_eq!(full.validate(), Ok(()));
    let full = completed(full);
    let last = full
        .channels
        .iter()
        .filter_map(|channel| channel.port)
        .max();
    assert_eq!((full.consoles[0].port, last), (Some(0), Some(30)));
    // Port 0 is a console's or nobody's.
    let line = refused(|devices| devices.channels = many(MAX_PORTS));
    assert!(line.contains("at most 31"), "{line}");
    let at = |port| {
        refused(|devices| {
            devices.channels = many(2);
            devices.channels[1].port = Some(port);
            devices.channels[0].port = Some(1);
        })
    };
    assert!(at(0).contains("port 0 cannot be had"), "{}", at(0));
    assert!(at(31).contains("port 31 cannot be had"), "{}", at(31));
    assert!(at(1).contains("have port 1"), "{}", at(1));
    for cid in [0, 2, u32::MAX] {
        let line = refused(|devices| {
            devices.vsock = Some(Vsock {
                cid: Some(cid),
                path: "/run/v".into(),
                address: None,
            });
        });
        assert!(line.contains(&cid.to_string()), "{line}");
    }
}

#[test]
fn names_are_those_that_the_kernel_takes_as_they_are() {
    for name in ["vda", "vdz", "vdaa", "vdzzz"] {
        assert_eq!(name.parse::<DiskTarget>().unwrap().as_str(), name);
    }
    for name in ["", "vd", "sda", "vdA", "vd0", "vdaaaa", "vda\n", "../vda"] {
        assert!(name.parse::<DiskTarget>().is_err(), "{name:?}");
    }
    for (place, name) in [
        (0, "vda"),
        (25, "vdz"),
        (26, "vdaa"),
        (701, "vdzz"),
        (702, "vdaaa"),
    ] {
        assert_eq!(DiskTarget::at(place).unwrap().as_str(), name);
    }
    assert_eq!(DiskTarget::at(26 + 676 + 17_576), None);
    for name in ["a", "br0", "web-1.2_x@y", &"x".repeat(15)] {
        assert_eq!(name.parse::<InterfaceName>().unwrap().as_str(), name);
    }
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a:1",
        "vnet%d",
        "bü",
        &"x".repeat(16),
    ] {
        assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
    }
    assert!(serde_json::from_str::<InterfaceName>("\"a/b\"").is_err());
    assert!(serde_json::from_str::<DiskTarget>("\"sda\"").is_err());
}

#[test]
fn addresses_on_the_wire_are_those_of_stations() {
    let mac: MacAddress = "52:54:00:AB:cd:01".parse().unwrap();
    assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
    assert_eq!(
        serde_json::to_string(&mac).unwrap(),
        "\"52:54:00:ab:cd:01\""
    );
    assert_eq!(encode(&mac).unwrap(), mac.octets());
    for text in [
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:01:02",
        "52-54-00-ab-cd-01",
        "5:54:00:ab:cd:01",
        "+5:54:00:ab:cd:01",
        "00:00:00:00:00:00",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
    ] {
        assert!(text.parse::<MacAddress>().is_err(), "{text}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<MacAddress>(&json).is_err());
    }
    assert!(decode::<MacAddress>(&[1, 0, 0, 0, 0, 0]).is_err());
    for number in [0, 32, 255] {
        assert!(PciSlot::try_from(number).is_err());
        assert!(decode::<PciSlot>(&encode(&number).unwrap()).is_err());
    }
}

#[test]
fn words_are_read_as_they_are_written_and_others_refused_with_all_there_are() {
    for mode in CacheMode::ALL {
        assert_eq!(mode.word().parse::<CacheMode>().unwrap(), *mode);
        let json = serde_json::to_string(mode).unwrap();
        assert_eq!(json, format!("\"{mode}\""));
    }
    assert_eq!("native".parse::<IoEngine>().unwrap(), IoEngine::IoUring);
    assert_eq!("unmap".parse::<Discard>().unwrap(), Discard::Unmap);
    let error = "vmdk".parse::<DiskFormat>().unwrap_err().to_string();
    assert_eq!(error, "no disk format 'vmdk'; there are raw, qcow2");
    let long = "x".repeat(10_000).parse::<CacheMode>().unwrap_err();
    assert!(long.to_string().len() < 200);
}

#[test]
fn as_many_devices_as_there_may_be_fit_a_message_or_are_refused() {
    for length in [10, 100, 2000] {
        let mut domain = with(|devices| devices.disks = (0..MAX_DEVICES).map(disk).collect());
        for disk in &mut domain.devices.disks {
            disk.image.as_mut().unwrap().path =
                format!("/{}{}", "x".repeat(length), disk.target).into();
        }
        domain.complete().unwrap();
        match domain.validate() {
            Ok(()) => {
                let bytes = encode(&domain).unwrap();
                assert_eq!(decode::<Domain>(&bytes).unwrap(), domain);
            }
            Err(ModelError::Size(bytes)) => assert!(bytes > MAX_DEFINITION_BYTES && length > 100),
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #[test]
    fn what_is_completed_has_every_address_once(
        disks in 0..20_usize,
        nics in 0..11_usize,
        fixed in proptest::collection::vec((0..40_usize, 1..=31_u8), 0..5),
    ) {
        let mut all = with(|devices| {
            devices.disks = (0..disks).map(disk).collect();
            devices.nics = vec![nic(); nics];
        });
        for (place, number) in fixed {
            let devices = &mut all.devices;
            if slots(devices).contains(&number) {
                continue;
            }
            if let Some(disk) = devices.disks.get_mut(place) {
                disk.address = Some(slot(number));
            } else if let Some(nic) = devices.nics.get_mut(place.saturating_sub(disks)) {
                nic.address = Some(slot(number));
            }
        }
        let before = slots(&all.devices);
        let devices = completed(all);
        let mut now = slots(&devices);
        prop_assert!(before.iter().all(|number| now.contains(number)));
        now.sort_unstable();
        now.dedup();
        prop_assert_eq!(now.len(), disks + nics);
    }
}

#[test]
fn addresses_of_guests_are_those_of_stations_and_networks() {
    for text in [
        "192.0.2.5",
        "10.0.0.0/8",
        "2001:db8::5",
        "2001:db8::/64",
        "fe80::/64",
    ] {
        let range: IpRange = text.parse().unwrap();
        assert_eq!(range.to_string(), text);
    }
    let ends = |text: &str| {
        let range: IpRange = text.parse().unwrap();
        (range.first().to_string(), range.last().to_string())
    };
    let both = |first: &str, last: &str| (first.to_owned(), last.to_owned());
    assert_eq!(ends("10.0.0.0/8"), both("10.0.0.0", "10.255.255.255"));
    assert_eq!(ends("10.0.0.1/32"), both("10.0.0.1", "10.0.0.1"));
    assert_eq!(ends("2001:db8::/127"), both("2001:db8::", "2001:db8::1"));
    for text in [
        "",
        "web",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/0",
        "10.0.0.0/+8",
        "2001:db8::/129",
        "2001:db8::1/64",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.0.0/2",
        "ff02::1",
        "10.0.0.0/8/8",
    ] {
        let refused = text.parse::<IpRange>().unwrap_err();
        assert!(
            matches!(refused, DeviceError::IpForm(_)),
            "{text}: {refused}"
        );
    }
}

#[test]
fn what_moves_the_frames_of_a_switch_is_the_switch_s_to_say() {
    let mut nic = Nic::new(NicSource::Switch("/run/switch".into()));
    nic.driver = NicDriver::Vhost;
    let with = |nic: &Nic| Devices {
        nics: vec![nic.clone()],
        ..Devices::default()
    };
    let refused = with(&nic).validate().unwrap_err().to_string();
    assert!(refused.contains("served by a switch"), "{refused}");
    for source in [NicSource::Tap("tap0".parse().unwrap()), NicSource::Nothing] {
        nic.source = source;
        assert_eq!(with(&nic).validate(), Ok(()));
    }
    assert_eq!("qemu".parse(), Ok(NicDriver::User));
}

#[test]
fn the_kernel_moves_no_frames_that_a_filter_has_to_see() {
    let mut nic = Nic::new(NicSource::Bridge("br0".parse().unwrap()));
    nic.driver = NicDriver::Vhost;
    nic.mac = Some("52:54:00:01:02:03".parse().unwrap());
    let refused = |nic: &Nic| {
        let devices = Devices {
            nics: vec![nic.clone()],
            ..Devices::default()
        };
        // In a record it is no mistake.
        assert_eq!(devices.validate(), Ok(()));
        devices.accept().err().map(|error| error.to_string())
    };
    let address = vec!["192.0.2.5".parse().unwrap()];
    for (trust_guest, addresses) in [
        (false, Vec::new()),
        (false, address.clone()),
        (true, address),
    ] {
        nic.trust_guest = trust_guest;
        nic.addresses = addresses;
        let line = refused(&nic).unwrap();
        for part in [
            "network interface 52:54:00:01:02:03",
            "source filter",
            "driver=user",
            "trust-guest",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\n'), "{line}");
        nic.driver = NicDriver::User;
        assert_eq!(refused(&nic), None);
        nic.driver = NicDriver::Vhost;
    }
    // Without one it may.
    nic.addresses = Vec::new();
    assert_eq!(refused(&nic), None);
}

#[test]
fn an_interface_has_so_many_addresses_and_none_on_anothers_tap() {
    let mut nic = Nic::new(NicSource::Bridge("br0".parse().unwrap()));
    nic.addresses = (0..=MAX_NIC_ADDRESSES)
        .map(|number| format!("10.0.0.{}", number + 1).parse().unwrap())
        .collect();
    let with = |nic: &Nic| Devices {
        nics: vec![nic.clone()],
        ..Devices::default()
    };
    let refused = with(&nic).validate().unwrap_err();
    assert!(
        matches!(refused, DeviceError::NicAddresses { .. }),
        "{refused}"
    );
    nic.addresses.pop();
    with(&nic).validate().unwrap();
    nic.source = NicSource::Tap("tap0".parse().unwrap());
    let refused = with(&nic).validate().unwrap_err();
    assert!(
        refused.to_string().contains("its filter is set there"),
        "{refused}"
    );
}
