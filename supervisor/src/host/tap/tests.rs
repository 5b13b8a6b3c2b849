//! Taps and bridges, in a network namespace of the test's own thread; without the right to make one, what
//! whoever lacks it is told.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

pub(in crate::host) fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

pub(in crate::host) fn mac() -> MacAddress {
    "52:54:00:0a:0b:0c".parse().unwrap()
}

/// Runs the test where it can break nothing; not at all where there is no right to a namespace or no
/// `/dev/net/tun`.
pub(in crate::host) fn alone(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        let namespaces = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
        #[expect(
            unsafe_code,
            reason = "unshare may leave a process with shared descriptors"
        )]
        // SAFETY: descriptors stay shared; the namespaces are a matter of this thread only.
        let unshared = unsafe { unshare_unsafe(namespaces) };
        if unshared.is_ok() && open_tun().is_ok() {
            // `/sys` shows the interfaces of the namespace in which it was mounted.
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).unwrap();
            test();
        }
    };
    std::thread::spawn(run).join().unwrap();
}

pub(in crate::host) fn ip(arguments: &[&str]) {
    let status = std::process::Command::new("ip").args(arguments).status();
    assert!(status.unwrap().success(), "ip {arguments:?}");
}

pub(in crate::host) fn show(name: &str) -> String {
    let output = std::process::Command::new("ip")
        .args(["-details", "link", "show", name])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until there is no such interface: a process that another test is making has a copy of each of our
/// descriptors for a moment.
pub(in crate::host) fn ends(name: &str) {
    let begin = std::time::Instant::now();
    while !show(name).is_empty() {
        assert!(begin.elapsed().as_secs() < 10, "{}", show(name));
    }
}

#[test]
fn a_tap_gets_the_first_free_name_and_ends_with_its_last_queue() {
    alone(|| {
        let first = Tap::make(None, mac(), 1).unwrap();
        let second = Tap::make(None, mac(), 4).unwrap();
        assert_eq!((first.name(), second.name()), ("vnet0", "vnet1"));
        let queues = second.into_queues();
        assert_eq!(queues.len(), 4);
        let shown = show("vnet1");
        for part in [
            "type tap pi off vnet_hdr on multi_queue",
            "numqueues 4",
            "persist off",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(shown.contains("fe:54:00:0a:0b:0c"), "{shown}");
        assert!(shown.contains("state DOWN"), "{shown}");
        assert!(shown.contains("addrgenmode none"), "{shown}");
        let copy = queues[3].try_clone().unwrap();
        drop(queues);
        assert!(!show("vnet1").is_empty());
        drop(copy);
        ends("vnet1");
        drop(first);
        ends("vnet0");
        assert_eq!(Tap::make(None, mac(), 1).unwrap().name(), "vnet0");
    });
}

#[test]
fn a_name_that_is_taken_is_refused_whatever_it_is() {
    alone(|| {
        ip(&["tuntap", "add", "web0", "mode", "tap"]);
        ip(&["link", "add", "br0", "type", "bridge"]);
        let error = Tap::make(Some(&interface("web0")), mac(), 1).unwrap_err();
        assert!(matches!(error, TapError::Exists(_)), "{error}");
        let error = Tap::make(Some(&interface("br0")), mac(), 1).unwrap_err();
        assert!(matches!(error, TapError::Exists(_)), "{error}");
        let tap = Tap::make(Some(&interface("web1")), mac(), 2).unwrap();
        assert_eq!(tap.name(), "web1");
    });
}

#[test]
fn a_port_has_the_mtu_of_its_bridge_or_its_own() {
    alone(|| {
        ip(&["link", "add", "br0", "mtu", "1400", "type", "bridge"]);
        let tap = Tap::make(None, mac(), 1).unwrap();
        assert_eq!(tap.join(&interface("br0"), None, false).unwrap(), 1400);
        tap.up().unwrap();
        let shown = show("vnet0");
        assert!(
            shown.contains("master br0") && shown.contains("mtu 1400"),
            "{shown}"
        );
        assert!(shown.contains("<BROADCAST,MULTICAST,UP"), "{shown}");
        let other = Tap::make(None, mac(), 1).unwrap();
        assert_eq!(
            other.join(&interface("br0"), Some(1300), false).unwrap(),
            1300
        );
        assert!(show("vnet1").contains("mtu 1300"));
        assert!(show("vnet1").contains("isolated off"));
        let alone = Tap::make(None, mac(), 1).unwrap();
        alone.join(&interface("br0"), None, true).unwrap();
        assert!(show("vnet2").contains("isolated on"));
    });
}

#[test]
fn a_bridge_that_is_not_there_is_named() {
    alone(|| {
        let tap = Tap::make(None, mac(), 1).unwrap();
        let error = tap.join(&interface("nobr0"), None, true).unwrap_err();
        assert!(matches!(error, TapError::NoBridge(_)), "{error}");
        assert!(error.to_string().contains("ip link add nobr0 type bridge"));
        let error = tap.join(&interface("lo"), None, true).unwrap_err();
        assert!(matches!(error, TapError::NoBridge(_)), "{error}");
    });
}

#[test]
fn a_tap_that_exists_is_used_as_it_is_and_none_is_made_in_its_place() {
    alone(|| {
        let error = Tap::existing(&interface("web0"), 1).unwrap_err();
        assert!(matches!(error, TapError::Missing(_)), "{error}");
        assert!(show("web0").is_empty());
        ip(&["tuntap", "add", "web0", "mode", "tap"]);
        let tap = Tap::existing(&interface("web0"), 1).unwrap();
        let error = Tap::existing(&interface("web0"), 1).unwrap_err();
        assert!(
            error.to_string().contains("another machine has it"),
            "{error}"
        );
        let error = Tap::existing(&interface("web0"), 2).unwrap_err();
        assert!(matches!(error, TapError::Existing { .. }), "{error}");
        drop(tap);
        assert!(!show("web0").is_empty());
        let error = Tap::existing(&interface("lo"), 1).unwrap_err();
        assert!(matches!(error, TapError::Existing { .. }), "{error}");
        // One of another machine of ours ends with it: nobody may take it for their own.
        let transient = Tap::make(None, mac(), 2).unwrap();
        let error = Tap::existing(&interface(transient.name()), 2).unwrap_err();
        let line = error.to_string();
        assert!(line.contains("another machine has it"), "{line}");
    });
}

#[test]
fn a_tap_of_several_queues_is_one_machines_at_a_time() {
    alone(|| {
        ip(&["tuntap", "add", "web0", "mode", "tap", "multi_queue"]);
        for queues in [2, 4] {
            let tap = Tap::existing(&interface("web0"), queues).unwrap();
            for others in [2, 3] {
                let error = Tap::existing(&interface("web0"), others).unwrap_err();
                let line = error.to_string();
                assert!(line.contains("another machine has it"), "{line}");
            }
            assert!(show("web0").contains(&format!("numqueues {queues}")));
            drop(tap);
        }
        // One queue of several is none of its own kind.
        let error = Tap::existing(&interface("web0"), 1).unwrap_err();
        assert!(matches!(error, TapError::Existing { .. }), "{error}");
    });
}

#[test]
fn every_queue_of_a_tap_takes_frames_singly_once_it_is_told_to() {
    alone(|| {
        for queues in [1, 3] {
            let tap = Tap::make(None, mac(), queues).unwrap();
            let bounds = || -> Vec<_> {
                let bounds = tap.queues.iter().map(ioctl::send_buffer);
                bounds.collect::<Result<_, _>>().unwrap()
            };
            // What the kernel takes for a queue by which it may go its own way.
            assert!(bounds().iter().all(|bound| *bound == i32::MAX));
            tap.take_singly().unwrap();
            assert!(bounds().iter().all(|bound| *bound == i32::MAX - 1));
        }
    });
}

#[test]
fn whoever_may_not_make_a_tap_is_told_what_he_may() {
    let lines = [
        TapError::Privilege.to_string(),
        TapError::Device(Errno::NOENT).to_string(),
        TapError::Missing(interface("web0")).to_string(),
    ];
    for line in &lines {
        assert!(!line.contains('\n'), "{line}");
    }
    assert!(lines[0].contains("tap=NAME"));
    assert!(lines[1].contains("modprobe tun"));
}
