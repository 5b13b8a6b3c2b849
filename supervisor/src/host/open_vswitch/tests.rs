//! A switch of the test's own: Debian's Open vSwitch with its datapath in user space, in a network namespace of the
//! test's thread, and what of frames comes out of it.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use reeve_ipc::model::VlanTag;
use rustix::event::Timespec;
use rustix::process::Signal;

use super::*;
use crate::host::tap::Tap;
use crate::host::tap::tests::{alone, ends, interface, ip};

/// How long its processes may take.
const START: Duration = Duration::from_secs(20);
/// The least that anything waits for a frame which is not to come.
const SILENCE: Duration = Duration::from_millis(60);

fn vlan(trunk: bool, tags: &[(u16, Option<bool>)]) -> Vlan {
    let tags = tags.iter().map(|&(id, native)| VlanTag { id, native });
    Vlan {
        trunk,
        tags: tags.collect(),
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < START, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The two processes of a switch with the bridge `ovsbr`.
struct Running {
    directory: tempfile::TempDir,
    database: Child,
    switch: Child,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().display().to_string();
        let command = |program: &str| {
            let mut command = Command::new(program);
            for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(name, &place);
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let spawn = |mut command: Command| {
            command.spawn().unwrap_or_else(|error| {
                panic!("Open vSwitch is not here ({error}): tests/lab/install has it")
            })
        };
        let mut create = command("ovsdb-tool");
        create.args(["create", &format!("{place}/conf.db")]);
        create.arg("/usr/share/openvswitch/vswitch.ovsschema");
        assert!(spawn(create).wait().unwrap().success());
        let mut database = command("/usr/sbin/ovsdb-server");
        database
            .arg(format!("{place}/conf.db"))
            .arg(format!("--remote=punix:{place}/db.sock"))
            .arg(format!("--unixctl={place}/database.ctl"));
        let database = spawn(database);
        until("its database listens", || {
            directory.path().join("db.sock").exists()
        });
        let mut switch = command("/usr/sbin/ovs-vswitchd");
        switch
            .arg(format!("unix:{place}/db.sock"))
            .arg(format!("--unixctl={place}/switch.ctl"));
        let running = Self {
            directory,
            database,
            switch: spawn(switch),
        };
        running.control(&["--", "--may-exist", "add-br", "ovsbr"]);
        running.control(&["set", "bridge", "ovsbr", "datapath_type=netdev"]);
        running
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }

    /// What `ovs-vsctl` prints.
    fn control(&self, arguments: &[&str]) -> String {
        let output = Command::new("ovs-vsctl")
            .arg(format!("--db=unix:{}", self.database().display()))
            .arg("--timeout=20")
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn ports(&self) -> String {
        self.control(&["list-ports", "ovsbr"])
    }

    fn ours(&self) -> OpenVswitch {
        OpenVswitch::new(self.database(), Path::new("/run/test"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.switch, &mut self.database] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mac(last: u8) -> MacAddress {
    [0x52, 0x54, 0, 0x0a, 0x0b, last].try_into().unwrap()
}

fn port(vlan: Option<Vlan>) -> OpenVswitchPort {
    OpenVswitchPort {
        interface_id: Some(uuid::Uuid::from_u128(7)),
        profile: Some("gold".to_owned()),
        vlan,
        ..OpenVswitchPort::of(interface("ovsbr"))
    }
}

fn made(name: &str, last: u8) -> (Tap, TapId) {
    let tap = Tap::make(Some(&interface(name)), mac(last), 1).unwrap();
    tap.up().unwrap();
    let id = tap.id().unwrap();
    (tap, id)
}

fn wearer(tap: &TapId, last: u8) -> Wearer<'_> {
    Wearer {
        tap,
        mac: mac(last),
        domain: Some(DomainUuid(uuid::Uuid::from_u128(9))),
    }
}

/// A tap on the switch, by its only queue.
fn on(ours: &OpenVswitch, name: &str, last: u8, vlan: Option<Vlan>) -> OwnedFd {
    let (tap, id) = made(name, last);
    ours.add(wearer(&id, last), &port(vlan)).unwrap();
    tap.into_queues().pop().unwrap()
}

/// To everybody, from the guest with that address; of an EtherType of nobody.
fn frame(last: u8, number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(last).octets());
    frame.extend([0x88, 0xb5, number]);
    frame.resize(60, 0);
    frame
}

/// What comes out of one tap of a frame that goes into another: none, or the frame.
fn passes(from: &OwnedFd, to: &OwnedFd, frame: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 12];
    bytes.extend(frame);
    rustix::io::write(from, &bytes).unwrap();
    let timeout = Timespec::try_from(SILENCE).unwrap();
    let mut buffer = [0; 2048];
    loop {
        let mut polled = [PollFd::new(to, PollFlags::IN)];
        if poll(&mut polled, Some(&timeout)).unwrap() == 0 {
            return None;
        }
        let length = rustix::io::read(to, &mut buffer).unwrap();
        let seen = buffer[12..length].to_vec();
        // Others have something to say, too.
        if seen.get(6..12) == frame.get(6..12) && seen.windows(3).any(|w| w == &frame[12..15]) {
            return Some(seen);
        }
    }
}

/// The same, tried until it passes.
fn passes_soon(from: &OwnedFd, to: &OwnedFd, frame: &[u8]) -> Vec<u8> {
    let begin = Instant::now();
    loop {
        if let Some(seen) = passes(from, to, frame) {
            return seen;
        }
        assert!(begin.elapsed() < START, "no frame passes");
    }
}

#[test]
fn guests_with_one_tag_reach_each_other_and_no_others() {
    alone(|| {
        ip(&["link", "set", "lo", "up"]);
        let running = Running::start();
        let ours = running.ours();
        let five = || Some(vlan(false, &[(5, None)]));
        let one = on(&ours, "one", 1, five());
        let two = on(&ours, "two", 2, five());
        let other = on(&ours, "other", 3, Some(vlan(false, &[(6, None)])));
        let trunk = on(
            &ours,
            "trunk",
            4,
            Some(vlan(true, &[(5, None), (7, Some(false))])),
        );
        let frame_one = frame(1, 1);
        assert_eq!(passes_soon(&one, &two, &frame_one), frame_one);
        assert_eq!(passes(&one, &other, &frame(1, 2)), None);
        assert_eq!(passes(&other, &two, &frame(3, 3)), None);
        // A trunk gets it with its tag.
        let seen = passes_soon(&one, &trunk, &frame(1, 4));
        assert_eq!(seen[12..16], [0x81, 0x00, 0, 5]);
        // What it sends without a tag is of the native one.
        assert_eq!(passes(&trunk, &two, &frame(4, 5)), None);
        assert_eq!(
            passes(&trunk, &other, &frame(4, 6)),
            None,
            "nobody is of tag 7"
        );
        let seven = on(&ours, "seven", 5, Some(vlan(false, &[(7, None)])));
        assert_eq!(
            passes_soon(&trunk, &seven, &frame(4, 7))[12..15],
            [0x88, 0xb5, 7]
        );
    });
}

#[test]
fn a_port_says_whose_it_is_and_goes_with_its_tap() {
    alone(|| {
        ip(&["link", "set", "lo", "up"]);
        let running = Running::start();
        let ours = running.ours();
        let tags = vlan(true, &[(5, Some(true)), (6, None)]);
        let queue = on(&ours, "one", 1, Some(tags));
        let ids = running.control(&["get", "Interface", "one", "external_ids"]);
        for part in [
            "attached-mac=\"52:54:00:0a:0b:01\"",
            "iface-id=\"00000000-0000-0000-0000-000000000007\"",
            "vm-id=\"00000000-0000-0000-0000-000000000009\"",
            "iface-status=active",
            "port-profile=gold",
            "reeve-owner=\"/run/test\"",
            boot_id(),
        ] {
            assert!(ids.contains(part), "{part}: {ids}");
        }
        let set = running.control(&["get", "Port", "one", "tag", "trunks", "vlan_mode"]);
        let set: Vec<&str> = set.lines().collect();
        assert_eq!(set, ["5", "[5, 6]", "native-tagged"]);
        drop(queue);
        ends("one");
        until("its port is gone", || running.ports().is_empty());

        // One that an earlier supervisor left, and one of another.
        let (left, id) = made("left", 2);
        let owner = |run: &str| OpenVswitch::new(running.database(), Path::new(run));
        let switch = owner("/run/test").0.unwrap();
        switch.add(wearer(&id, 2), &port(None)).unwrap();
        let (others, id) = made("others", 3);
        let of_another = owner("/run/other").0.unwrap();
        of_another.add(wearer(&id, 3), &port(None)).unwrap();
        let (living, id) = made("living", 4);
        switch.add(wearer(&id, 4), &port(None)).unwrap();
        drop((left, others));
        ends("left");
        ends("others");
        owner("/run/test").0.unwrap().look();
        assert_eq!(running.ports(), "living\nothers");
        // A new tap by the name of one whose port is left, and one whose name somebody else has.
        let (again, id) = made("others", 5);
        let taken = switch.add(wearer(&id, 5), &port(None));
        assert_eq!(taken, Err(OpenVswitchError::Taken("others".to_owned())));
        of_another.add(wearer(&id, 5), &port(None)).unwrap();
        let ids = running.control(&["get", "Interface", "others", "external_ids"]);
        assert!(ids.contains("52:54:00:0a:0b:05"), "{ids}");
        // After a boot another tap has the name, and as it happens the number.
        let [set, boot] = ["set", "external_ids:reeve-boot=other"];
        running.control(&[set, "Interface", "living", boot]);
        switch.look();
        assert_eq!(running.ports(), "others");
        drop((living, again));
    });
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for() {
    alone(|| {
        ip(&["link", "set", "lo", "up"]);
        let directory = tempfile::tempdir().unwrap();
        let late = directory.path().join("db.sock");
        let ours = OpenVswitch::new(late.clone(), Path::new("/run/test"));
        ours.sweep();
        let running = Running::start();
        let (left, id) = made("left", 1);
        let of_before = running.ours().0.unwrap();
        of_before.add(wearer(&id, 1), &port(None)).unwrap();
        std::os::unix::fs::symlink(running.database(), &late).unwrap();
        drop(left);
        ends("left");
        until("its port is gone", || running.ports().is_empty());
    });
}

#[test]
fn what_the_switch_does_not_have_is_refused_and_one_that_hangs_is_not_waited_for() {
    alone(|| {
        ip(&["link", "set", "lo", "up"]);
        let running = Running::start();
        let ours = running.ours();
        let (_tap, id) = made("one", 1);
        let nowhere = OpenVswitchPort::of(interface("nowhere"));
        let refused = ours.add(wearer(&id, 1), &nowhere).unwrap_err();
        assert_eq!(refused, OpenVswitchError::NoBridge(interface("nowhere")));
        let pid = |child: &Child| rustix::process::Pid::from_child(child);
        // The switch hangs, and its database does not.
        rustix::process::kill_process(pid(&running.switch), Signal::STOP).unwrap();
        let begin = Instant::now();
        let refused = ours.add(wearer(&id, 1), &port(None)).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("ovs-vswitchd has not answered"), "{said}");
        assert!(running.ports().is_empty());
        // The database, too.
        rustix::process::kill_process(pid(&running.database), Signal::STOP).unwrap();
        let refused = ours.add(wearer(&id, 1), &port(None)).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("has not answered"), "{said}");
        assert!(begin.elapsed() < 4 * PATIENCE);
        rustix::process::kill_process(pid(&running.database), Signal::CONT).unwrap();
        let (_other, id) = made("two", 2);
        let gone = OpenVswitch::new("/nonexistent/db.sock".into(), Path::new("/run/test"));
        let refused = gone.add(wearer(&id, 2), &port(None)).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("is openvswitch-switch running?"), "{said}");
    });
}

#[test]
fn tags_are_said_as_the_switch_has_them() {
    let none = json!(["set", []]);
    let row = |vlan: Option<Vlan>| Value::Object(tags(vlan.as_ref()));
    assert_eq!(
        row(None),
        json!({ "tag": none, "trunks": none, "vlan_mode": none })
    );
    assert_eq!(
        row(Some(vlan(false, &[(42, None)]))),
        json!({ "tag": 42, "trunks": none, "vlan_mode": none })
    );
    assert_eq!(
        row(Some(vlan(true, &[(42, Some(false)), (47, None)]))),
        json!({ "tag": 42, "trunks": ["set", [42, 47]], "vlan_mode": "native-untagged" })
    );
    assert_eq!(
        row(Some(vlan(true, &[(42, Some(true))]))),
        json!({ "tag": 42, "trunks": ["set", [42]], "vlan_mode": "native-tagged" })
    );
}

#[test]
fn nobody_makes_ports_without_a_daemon() {
    let tap = TapId::named("reeve-gone0");
    let port = OpenVswitchPort::of(interface("ovsbr"));
    let refused = OpenVswitch::default().add(wearer(&tap, 1), &port);
    assert_eq!(refused, Err(OpenVswitchError::NoDatabase));
}
