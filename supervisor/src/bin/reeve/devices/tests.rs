//! What is said on the command line is what the definition gets, or is refused in words.

use clap::Parser;
use reeve_ipc::model::{DirectMode, NicSource};
use reeve_ipc::spec::{CacheMode, Discard, IoEngine};

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    devices: DeviceArgs,
}

fn devices(arguments: &[&str]) -> Devices {
    let arguments = ["reeve"].iter().chain(arguments);
    Program::try_parse_from(arguments)
        .unwrap()
        .devices
        .devices()
}

fn refused(option: &str, value: &str) -> String {
    let error = Program::try_parse_from(["reeve", option, value]);
    error.unwrap_err().to_string()
}

#[test]
fn a_disk_is_its_path_and_its_format() {
    let devices = devices(&["--disk", "a.img,format=raw"]);
    let image = Layer {
        path: "a.img".into(),
        format: DiskFormat::Raw,
    };
    assert_eq!(
        devices.disks,
        [Disk::new("vda".parse().unwrap(), Some(image))]
    );
}

#[test]
fn a_format_is_never_guessed() {
    for value in ["a.qcow2", "a.qcow2,ro", "a.raw,format="] {
        let line = refused("--disk", value);
        assert!(line.contains("format"), "{line}");
    }
    assert!(refused("--disk", "a.qcow2").contains("',format=raw' or ',format=qcow2'"));
    assert!(refused("--disk", "a,format=vmdk").contains("raw, qcow2"));
}

#[test]
fn everything_of_a_disk_can_be_said() {
    let devices = devices(&[
        "--disk",
        "with,,comma,format=qcow2,backing=base,backing-format=raw,ro,target=vdc,cache=none,io=native,\
         discard=unmap,serial=S 1,queues=4,block-size=4096,address=9",
        "--disk",
        "path=b=c,format=raw",
    ]);
    let [first, second] = &devices.disks[..] else {
        panic!("{devices:?}")
    };
    assert_eq!(
        first.image.as_ref().unwrap().path,
        PathBuf::from("with,comma")
    );
    assert_eq!(first.backing[0].path, PathBuf::from("base"));
    assert_eq!(first.backing[0].format, DiskFormat::Raw);
    assert!(first.read_only);
    assert_eq!(first.target.as_str(), "vdc");
    assert_eq!(first.cache, CacheMode::None);
    assert_eq!(first.io, IoEngine::IoUring);
    assert_eq!(first.discard, Discard::Unmap);
    assert_eq!(first.serial.as_deref(), Some("S 1"));
    assert_eq!(first.queues, 4);
    assert_eq!(first.block_size, BlockSize::B4096);
    assert_eq!(first.address.unwrap().number(), 9);
    assert_eq!(second.image.as_ref().unwrap().path, PathBuf::from("b=c"));
    assert_eq!(second.target.as_str(), "vda");
}

#[test]
fn disks_without_a_name_get_those_that_are_left() {
    let devices = devices(&[
        "--disk",
        "1,format=raw",
        "--disk",
        "2,format=raw,target=vda",
        "--disk",
        "3,format=raw",
    ]);
    let names: Vec<&str> = devices
        .disks
        .iter()
        .map(|disk| disk.target.as_str())
        .collect();
    assert_eq!(names, ["vdb", "vda", "vdc"]);
}

#[test]
fn an_interface_has_one_source() {
    let devices = devices(&[
        "--net",
        "bridge=br0,mac=52:54:00:00:00:01,target=web0,queues=2,mtu=1400,link=down,isolated,\
         ip=192.0.2.5,ip=2001:db8::/64",
        "--net",
        "tap=tap0,trust-guest,driver=vhost",
        "--net",
        "none,driver=user",
        "--net",
        "network=lan,group=gold",
    ]);
    let [first, second, third, fourth] = &devices.nics[..] else {
        panic!("{devices:?}")
    };
    assert_eq!(first.source, NicSource::Bridge("br0".parse().unwrap()));
    assert_eq!(first.mac.unwrap().to_string(), "52:54:00:00:00:01");
    assert_eq!(first.target.as_ref().unwrap().as_str(), "web0");
    assert_eq!((first.queues, first.mtu), (2, Some(1400)));
    assert!(!first.link_up && first.isolated && !first.trust_guest);
    let addresses: Vec<String> = first.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.5", "2001:db8::/64"]);
    assert_eq!(second.source, NicSource::Tap("tap0".parse().unwrap()));
    assert!(second.link_up && second.trust_guest);
    assert_eq!(third.source, NicSource::Nothing);
    let on_network = NicSource::Network {
        network: "lan".parse().unwrap(),
        port_group: Some("gold".to_owned()),
        port: None,
    };
    assert_eq!(fourth.source, on_network);
    let drivers = [first, second, third].map(|nic| nic.driver.word());
    assert_eq!(drivers, ["user", "vhost", "user"]);
    for value in [
        "",
        "mac=52:54:00:00:00:01",
        "bridge=a,tap=b",
        "none,bridge=a",
        "network=a,bridge=b",
    ] {
        assert!(
            refused("--net", value).contains("one of bridge=NAME"),
            "{value}"
        );
    }
    assert!(refused("--net", "bridge=br0,group=gold").contains("of network="));
    assert!(refused("--net", "bridge=br0,mode=vepa").contains("of direct="));
    assert!(refused("--net", "bridge=br0,mac=x").contains("52:54:00:12:34:56"));
    assert!(refused("--net", "bridge=br0,driver=vfio").contains("there are user, vhost"));
    assert!(refused("--net", "bridge=a/b").contains("network interface"));
    assert!(refused("--net", "bridge=br0,link=sideways").contains("'sideways'"));
}

#[test]
fn an_interface_upon_a_device_is_in_mode_bridge_where_nothing_is_said() {
    let devices = devices(&[
        "--net",
        "direct=eth0",
        "--net",
        "direct=eth0,mode=passthrough",
    ]);
    let source = |mode| NicSource::Direct {
        device: "eth0".parse().unwrap(),
        mode,
    };
    let sources: Vec<_> = devices.nics.iter().map(|nic| nic.source.clone()).collect();
    let modes = [DirectMode::Bridge, DirectMode::Passthrough];
    assert_eq!(sources, modes.map(source));
    assert!(refused("--net", "direct=eth0,mode=hostdev").contains("hostdev"));
}

#[test]
fn the_small_ones_are_there_when_they_are_asked_for() {
    assert!(devices(&[]).is_empty());
    let devices = devices(&[
        "--rng",
        "--balloon",
        "--vsock",
        "v.sock,cid=7",
        "--channel",
        "a.0=x=y",
        "--channel",
        "b=z",
    ]);
    assert_eq!(devices.rng, Some(Rng::default()));
    assert!(devices.balloon.unwrap().free_page_reporting);
    let vsock = devices.vsock.unwrap();
    assert_eq!((vsock.path, vsock.cid), (PathBuf::from("v.sock"), Some(7)));
    assert_eq!(devices.channels[0].name, "a.0");
    assert_eq!(devices.channels[0].path, PathBuf::from("x=y"));
    for (option, value) in [("--channel", "a"), ("--channel", "=p"), ("--vsock", "")] {
        refused(option, value);
    }
}

#[test]
fn a_watchdog_is_its_action_and_perhaps_its_place() {
    let watchdog = devices(&["--watchdog", "inject-nmi,address=9"])
        .watchdog
        .unwrap();
    assert_eq!(watchdog.action.word(), "inject-nmi");
    assert_eq!(watchdog.address.unwrap().number(), 9);
    assert!(refused("--watchdog", "dump").contains("'dump' is not supported"));
    assert!(refused("--watchdog", "bark").contains("poweroff"));
    assert!(refused("--watchdog", "").contains("action"));
    assert!(refused("--watchdog", "reset,slot=9").contains("'slot=9'"));
}

#[test]
fn a_share_is_its_directory_and_what_the_guest_mounts() {
    let devices = devices(&[
        "--share",
        "with,,comma,tag=data",
        "--share",
        "path=a=b,tag=fixed,ro,address=9",
    ]);
    let [first, second] = &devices.shares[..] else {
        panic!("{devices:?}")
    };
    assert_eq!(first.source, PathBuf::from("with,comma"));
    assert_eq!((first.tag.as_str(), first.read_only), ("data", false));
    assert_eq!(second.source, PathBuf::from("a=b"));
    assert!(second.read_only);
    assert_eq!(second.address.unwrap().number(), 9);
    assert!(refused("--share", "/srv").contains("',tag=TAG'"));
    assert!(refused("--share", "/srv,tag=a,rw").contains("'rw'"));
    assert!(refused("--share", ",tag=a").contains("begins with a path"));
}

#[test]
fn what_is_said_twice_or_means_nothing_is_refused() {
    assert!(refused("--disk", "a,format=raw,format=raw").contains("format is given twice"));
    assert!(refused("--disk", "a,format=raw,fromat=raw").contains("'fromat=raw'"));
    assert!(refused("--disk", "a,format=raw,queues=x").contains("queues:"));
    assert!(refused("--disk", "a,format=raw,block-size=1024").contains("512 or 4096"));
    assert!(refused("--disk", "a,format=qcow2,backing=b").contains("backing-format"));
    assert!(refused("--disk", "a,format=raw,address=32").contains("1 to 31"));
    assert!(refused("--disk", ",format=raw").contains("begins with a path"));
}

#[test]
fn a_removable_disk_may_be_empty_and_an_image_may_be_asked() {
    let devices = devices(&[
        "--disk",
        "none,removable,ro",
        "--disk",
        "a.qcow2,format=qcow2,backing=auto",
    ]);
    let [first, second] = &devices.disks[..] else {
        panic!("{devices:?}")
    };
    assert!(first.removable && first.read_only && first.image.is_none());
    assert!(second.from_image && second.backing.is_empty() && !second.removable);
}

#[test]
fn a_medium_is_a_disk_without_what_is_the_drive_s() {
    let read = medium("a,,b,format=qcow2,backing=base,backing-format=raw").unwrap();
    assert_eq!(read.image.path, PathBuf::from("a,b"));
    assert_eq!(read.backing.len(), 1);
    assert!(medium("a,format=qcow2,backing=auto").unwrap().from_image);
    for text in ["a", "a,format=raw,target=vda", "a,format=raw,ro", ""] {
        assert!(medium(text).is_err(), "{text}");
    }
}
