//! Macvtaps upon one end of a veth pair, and what of their frames comes where: in a network namespace of the test's own
//! thread. The other end of the pair is heard and spoken at by a macvtap by passthrough.

use std::os::fd::OwnedFd;
use std::time::Duration;

use reeve_ipc::device::NicFigures;
use reeve_ipc::model::{DirectMode, DomainUuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::super::ioctl::Control;
use super::super::tests::{alone, interface, ip, show};
use super::*;
use crate::host::filter::{Guarded, Guest, Hook, Sender, TapFilters};
use crate::host::tap::TapId;

const FIRST: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 1];
const SECOND: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 2];
const FAR: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 3];
const STRANGE: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 4];
const ALL: [u8; 6] = [0xff; 6];
/// The least that anything waits for a frame which is not to come.
const SILENCE: Duration = Duration::from_millis(40);

fn mac(octets: [u8; 6]) -> MacAddress {
    octets.try_into().unwrap()
}

/// A pair whose ends are `near0` and `far0`.
fn pair() {
    ip(&[
        "link", "add", "near0", "type", "veth", "peer", "name", "far0",
    ]);
    for end in ["near0", "far0"] {
        ip(&["link", "set", end, "addrgenmode", "none", "up"]);
    }
}

fn choose(device: &str, mode: DirectMode, address: [u8; 6]) -> Result<Draft, MacvtapError> {
    Draft::choose(None, (&interface(device), mode), mac(address))
}

/// One that is there, with its only queue.
struct End {
    _made: Macvtap,
    id: TapId,
    queue: OwnedFd,
}

impl End {
    fn make(device: &str, mode: DirectMode, address: [u8; 6]) -> Self {
        let draft = choose(device, mode, address).unwrap();
        let (made, tap, _) = draft.make(None, 1).unwrap();
        draft.up(&tap).unwrap();
        let [queue] = tap.into_queues().try_into().unwrap();
        let id = draft.record().id();
        Self {
            _made: made,
            id,
            queue,
        }
    }

    fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; 12];
        bytes.extend(frame);
        rustix::io::write(&self.queue, &bytes).unwrap();
    }

    fn hears(&self, frame: &[u8]) -> bool {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: SILENCE.subsec_nanos().into(),
        };
        let mut buffer = [0; 2048];
        loop {
            let mut polled = [PollFd::new(&self.queue, PollFlags::IN)];
            if poll(&mut polled, Some(&timeout)).unwrap() == 0 {
                return false;
            }
            let length = rustix::io::read(&self.queue, &mut buffer).unwrap();
            if buffer[12..length] == *frame {
                return true;
            }
        }
    }

    fn reaches(&self, other: &Self, frame: &[u8]) -> bool {
        self.send(frame);
        other.hears(frame)
    }
}

/// ARP, which a filter lets pass.
fn frame(to: [u8; 6], from: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from);
    frame.extend(address);
    frame.extend([0; 6]);
    frame.extend([192, 0, 2, 9]);
    frame.resize(60, 0);
    frame
}

fn plain(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    frame(to, from, [192, 0, 2, 5])
}

fn address_of(name: &str) -> MacAddress {
    let index = Control::open().unwrap().index(name).unwrap();
    address(index).unwrap()
}

#[test]
fn each_mode_passes_what_it_is_for() {
    alone(|| {
        pair();
        let far = End::make("far0", DirectMode::Passthrough, FAR);
        let mut names = [const { String::new() }; 2];
        for (mode, beside) in [
            (DirectMode::Bridge, true),
            (DirectMode::Private, false),
            (DirectMode::Vepa, false),
        ] {
            let first = End::make("near0", mode, FIRST);
            let second = End::make("near0", mode, SECOND);
            names = [&first, &second].map(|end| end.id.name.clone());
            assert!(names.iter().all(|name| name.starts_with("macvtap")));
            assert!(show(&names[0]).contains(&format!("mode {mode}")), "{mode}");
            assert!(first.reaches(&far, &plain(FAR, FIRST)), "{mode}");
            assert!(far.reaches(&first, &plain(FIRST, FAR)), "{mode}");
            assert!(!far.reaches(&first, &plain(SECOND, FAR)), "{mode}");
            // Everybody's, and a group's, such as those by which IPv6 finds its neighbours.
            assert!(far.reaches(&first, &plain(ALL, FAR)), "{mode}");
            let group = plain([0x33, 0x33, 0xff, 1, 2, 3], FAR);
            assert!(far.reaches(&first, &group), "{mode}");
            let seen = first.reaches(&second, &plain(SECOND, FIRST));
            assert_eq!(seen, beside, "{mode}");
            assert_eq!(first.reaches(&second, &plain(ALL, FIRST)), beside, "{mode}");
            // A switch that sends back what came from there.
            let back = plain(ALL, FIRST);
            assert_eq!(
                far.reaches(&second, &back),
                mode == DirectMode::Vepa,
                "{mode}"
            );
        }
        drop(far);
        assert!(!show("near0").is_empty());
        assert!(names.iter().all(|name| show(name).is_empty()));
    });
}

#[test]
fn by_passthrough_the_device_is_one_guest_s_with_its_address_until_it_goes() {
    alone(|| {
        pair();
        let before = (address_of("near0"), show("near0"));
        let first = End::make("near0", DirectMode::Passthrough, FIRST);
        assert_eq!(address_of("near0"), mac(FIRST));
        let far = End::make("far0", DirectMode::Passthrough, FAR);
        // It is given whatever comes.
        assert!(far.reaches(&first, &plain(STRANGE, FAR)));
        for mode in DirectMode::ALL.iter().copied() {
            let draft = choose("near0", mode, SECOND).unwrap();
            let error = draft.make(None, 1).unwrap_err();
            let alone = mode == DirectMode::Passthrough;
            assert_eq!(matches!(error, MacvtapError::NotAlone(_)), alone, "{error}");
            assert_eq!(matches!(error, MacvtapError::InUse(..)), !alone, "{error}");
            assert_eq!(address_of("near0"), mac(FIRST));
        }
        assert!(first.reaches(&far, &plain(FAR, FIRST)));
        drop(first);
        assert_eq!((address_of("near0"), show("near0")), before);
        // Others are upon it.
        let _first = End::make("near0", DirectMode::Private, FIRST);
        let draft = choose("near0", DirectMode::Passthrough, SECOND).unwrap();
        let error = draft.make(None, 1).unwrap_err();
        assert!(matches!(error, MacvtapError::NotAlone(_)), "{error}");
        assert_eq!(address_of("near0"), before.0);
    });
}

#[test]
fn an_address_is_put_back_where_the_kernel_has_not_and_nobody_else_has_set_another() {
    alone(|| {
        pair();
        let was = address_of("near0");
        let index = Control::open().unwrap().index("near0").unwrap();
        let record = |given| MacvtapRecord {
            name: "macvtap0".to_owned(),
            index: i32::MAX,
            lent: Some(LentAddress { index, was, given }),
        };
        ip(&["link", "set", "near0", "address", "52:54:00:0a:0b:01"]);
        drop(Macvtap::recorded(record(mac(SECOND))));
        assert_eq!(address_of("near0"), mac(FIRST));
        drop(Macvtap::recorded(record(mac(FIRST))));
        assert_eq!(address_of("near0"), was);
    });
}

#[test]
fn an_address_is_not_taken_from_the_macvtap_that_has_it_now() {
    alone(|| {
        pair();
        let was = address_of("near0");
        let lower = Control::open().unwrap().index("near0").unwrap();
        // Attached again after it was detached, with the address of before.
        let end = End::make("near0", DirectMode::Passthrough, FIRST);
        let remainder = MacvtapRecord {
            name: "macvtap0".to_owned(),
            index: i32::MAX,
            lent: Some(LentAddress {
                index: lower,
                was,
                given: mac(FIRST),
            }),
        };
        drop(Macvtap::recorded(remainder));
        assert_eq!(address_of("near0"), mac(FIRST));
        drop(end);
        assert_eq!(address_of("near0"), was);
    });
}

#[test]
fn who_has_the_record_of_one_takes_it_away_and_nothing_else() {
    alone(|| {
        pair();
        let draft = choose("near0", DirectMode::Bridge, FIRST).unwrap();
        let record = draft.record().clone();
        // Never made.
        drop(Macvtap::recorded(record.clone()));
        let (made, _, _) = draft.make(None, 1).unwrap();
        made.leave();
        ip(&["link", "set", &record.name, "name", "renamed0"]);
        // The number of something else, by the name.
        let index = Control::open().unwrap().index("far0").unwrap();
        let other = MacvtapRecord {
            index,
            ..record.clone()
        };
        drop(Macvtap::recorded(other));
        assert!(!show("far0").is_empty() && !show("renamed0").is_empty());
        let held = WorkerMacvtaps::recorded([&record]);
        assert!(held.any());
        held.clone().leave();
        drop(held);
        assert!(!show("renamed0").is_empty());
        let held = WorkerMacvtaps::recorded([&record]);
        let taken = held.take(&[record]);
        assert!(!held.any() && taken.len() == 1);
        drop(taken);
        assert!(show("renamed0").is_empty());
    });
}

#[test]
fn what_cannot_be_made_is_refused_in_one_line_and_leaves_nothing() {
    alone(|| {
        pair();
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&[
            "link", "add", "port0", "type", "veth", "peer", "name", "port1",
        ]);
        ip(&["link", "set", "port0", "master", "br0"]);
        let before = links();
        let refused = |device: &str, target: Option<&str>| {
            let target = target.map(interface);
            let upon = (&interface(device), DirectMode::Bridge);
            let made = Draft::choose(target.as_ref(), upon, mac(SECOND));
            let made = made.and_then(|draft| {
                let (made, tap, _) = draft.make(None, 1)?;
                draft.up(&tap).map(|()| made)
            });
            let error = made.unwrap_err();
            let line = error.to_string();
            assert!(!line.contains('\n') && line.contains(device), "{line}");
            error
        };
        let error = refused("none0", None);
        assert!(matches!(error, MacvtapError::NoDevice(_)), "{error}");
        for device in ["lo", "port0"] {
            let error = refused(device, None);
            assert!(matches!(error, MacvtapError::InUse(..)), "{error}");
        }
        let error = Draft::choose(
            Some(&interface("br0")),
            (&interface("near0"), DirectMode::Bridge),
            mac(SECOND),
        );
        assert!(matches!(error, Err(MacvtapError::Exists(_))), "{error:?}");
        let first = End::make("near0", DirectMode::Bridge, SECOND);
        let error = refused("near0", None);
        assert!(matches!(error, MacvtapError::Address(..)), "{error}");
        drop(first);
        let draft = choose("near0", DirectMode::Bridge, FIRST).unwrap();
        let error = draft.make(Some(9000), 1).unwrap_err();
        assert!(
            matches!(error, MacvtapError::Mtu { mtu: 1500, .. }),
            "{error}"
        );
        assert_eq!(links(), before);
    });
}

#[test]
fn none_is_upon_what_is_a_guest_s_and_those_upon_what_is_shared_are_known() {
    alone(|| {
        pair();
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&[
            "link", "add", "link", "near0", "name", "mac0", "type", "macvlan",
        ]);
        ip(&["tuntap", "add", "tap0", "mode", "tap"]);
        let end = End::make("near0", DirectMode::Private, FIRST);
        for device in ["tap0", &end.id.name] {
            for mode in DirectMode::ALL.iter().copied() {
                let error = choose(device, mode, SECOND).unwrap_err();
                assert!(matches!(error, MacvtapError::OfGuest(_)), "{error}");
                let line = error.to_string();
                assert!(!line.contains('\n') && line.contains(device), "{line}");
            }
        }
        for (device, kind) in [("br0", "bridge"), ("mac0", "macvlan")] {
            let draft = choose(device, DirectMode::Private, SECOND).unwrap();
            let line = draft.is_apart().unwrap_err().to_string();
            assert!(
                line.contains(&format!("'{device}'")) && line.contains(kind),
                "{line}"
            );
        }
        let draft = choose("near0", DirectMode::Private, SECOND).unwrap();
        draft.is_apart().unwrap();
    });
}

#[test]
fn where_dev_is_not_the_kernel_s_it_is_said_and_nothing_is_left() {
    alone(|| {
        pair();
        let before = links();
        mount("tmpfs", "/dev", "tmpfs", MountFlags::empty(), None).unwrap();
        let draft = choose("near0", DirectMode::Passthrough, FIRST).unwrap();
        let error = draft.make(None, 1).unwrap_err();
        unmount("/dev", UnmountFlags::DETACH).unwrap();
        assert!(matches!(error, MacvtapError::NoNode(_)), "{error}");
        assert_eq!(links(), before);
    });
}

fn links() -> String {
    let output = std::process::Command::new("ip")
        .args(["-o", "link"])
        .output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

#[test]
fn what_the_kernel_counts_is_from_the_guest_s_side() {
    alone(|| {
        pair();
        let far = End::make("far0", DirectMode::Passthrough, FAR);
        let first = End::make("near0", DirectMode::Bridge, FIRST);
        for _ in 0..3 {
            assert!(far.reaches(&first, &plain(FIRST, FAR)));
        }
        assert!(first.reaches(&far, &plain(FAR, FIRST)));
        let mut figures = NicFigures {
            by_kernel: true,
            ..NicFigures::default()
        };
        crate::host::tap::count(&mut figures, &first.id);
        assert_eq!((figures.received.packets, figures.sent.packets), (3, 1));
    });
}

#[test]
fn names_that_are_chosen_are_not_chosen_twice() {
    alone(|| {
        pair();
        let draft = |address| choose("near0", DirectMode::Bridge, address).unwrap();
        // Other tests choose names at the same time, each in its namespace.
        let (first, second) = (draft(FIRST), draft(SECOND));
        assert_ne!(first.record().name, second.record().name);
        assert_ne!(first.record().index, second.record().index);
        let chosen = interface(&first.record().name);
        let again = || {
            let upon = (&interface("near0"), DirectMode::Bridge);
            Draft::choose(Some(&chosen), upon, mac(FAR))
        };
        assert!(matches!(again(), Err(MacvtapError::Exists(_))));
    });
}

#[test]
fn it_has_the_queues_and_the_mtu_that_are_said_and_sets_its_device_up() {
    alone(|| {
        pair();
        ip(&["link", "set", "near0", "down", "mtu", "1400"]);
        let upon = (&interface("near0"), DirectMode::Vepa);
        let draft = Draft::choose(Some(&interface("web0")), upon, mac(FIRST)).unwrap();
        assert_eq!(draft.record().name, "web0");
        let (made, tap, mtu) = draft.make(None, 4).unwrap();
        assert_eq!((mtu, tap.name(), tap.queues.len()), (1400, "web0", 4));
        assert_eq!(tap.id().unwrap(), draft.record().id());
        assert!(show("near0").contains("UP"), "{}", show("near0"));
        let shown = show("web0");
        for part in [
            "mode vepa",
            "addrgenmode none",
            "52:54:00:0a:0b:01",
            "ALLMULTI",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains(",UP"), "{shown}");
        drop(made);
        let draft = Draft::choose(None, upon, mac(FIRST)).unwrap();
        let (_made, _, mtu) = draft.make(Some(1300), 1).unwrap();
        assert_eq!(mtu, 1300);
    });
}

fn guarded(addresses: &[&str]) -> Guarded {
    Guarded {
        sender: Some(Sender {
            mac: mac(FIRST),
            any_mac: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            hook: Hook::Egress,
        }),
        bound: None,
        guest: Some(Guest {
            domain: "web".parse().unwrap(),
            uuid: DomainUuid(uuid::Uuid::from_u128(7)),
        }),
    }
}

#[test]
fn a_guest_sends_what_its_filter_lets_pass_where_the_kernel_would_let_it_send_anything() {
    alone(|| {
        pair();
        let far = End::make("far0", DirectMode::Passthrough, FAR);
        let second = End::make("near0", DirectMode::Bridge, SECOND);
        let first = End::make("near0", DirectMode::Bridge, FIRST);
        let tagged = |tag: &[u8]| {
            let frame = plain(FAR, FIRST);
            [&frame[..12], tag, &[0, 5], &frame[12..]].concat()
        };
        let kinds = [
            ("of another address", plain(FAR, STRANGE)),
            ("of another address to all", plain(ALL, STRANGE)),
            ("of another guest's", plain(FAR, SECOND)),
            ("tagged", tagged(&[0x81, 0])),
            ("tagged by a provider", tagged(&[0x88, 0xa8])),
        ];
        // The kernel itself looks at no source address.
        for (what, frame) in &kinds[..2] {
            assert!(first.reaches(&far, frame), "{what}");
        }
        let filters = TapFilters::default();
        filters.guard(&first.id, guarded(&["192.0.2.5"])).unwrap();
        for (what, frame) in &kinds {
            assert!(!first.reaches(&far, frame), "{what}");
        }
        let beside = plain(SECOND, STRANGE);
        assert!(
            !first.reaches(&second, &beside),
            "another guest of the device"
        );
        let elsewhere = frame(FAR, FIRST, [192, 0, 2, 6]);
        assert!(!first.reaches(&far, &elsewhere), "another's IPv4 address");
        assert!(first.reaches(&far, &plain(FAR, FIRST)));
        assert!(first.reaches(&second, &plain(SECOND, FIRST)));
        // What comes to the guest is nobody's to filter, and others are not concerned.
        assert!(far.reaches(&first, &plain(FIRST, STRANGE)));
        assert!(second.reaches(&first, &plain(FIRST, SECOND)));
        let dropped = kinds.len() as u64 + 2;
        assert_eq!(filters.dropped([&first.id]), dropped);
        // What another supervisor, or nobody, made of it.
        filters.guard_soon(&first.id, guarded(&[]));
        assert!(first.reaches(&far, &elsewhere));
        assert!(!first.reaches(&far, &plain(FAR, STRANGE)));
    });
}
