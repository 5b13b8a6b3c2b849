//! Guests upon devices of the host by macvtap, of a real `reeved` by a real `virsh`: what passes, what an administrator
//! sees, and that nothing is left on the host whoever dies when. Each test has a network namespace of its own, in which
//! `near0` and `far0` are the ends of a cable.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::signal;
use reeve_tests::frames;
use reeve_tests::namespace::NetNamespace;
use reeve_tests::world::{World, guest_that};
use reeved::host::tap::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long anything may take that is to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least that anything waits for a frame which is not to come.
const SILENCE: Duration = Duration::from_millis(200);
/// Whoever is at the other end of the cable.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An instance beside two cables.
struct Cables(World);

impl Deref for Cables {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Cables {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Cables {
    fn start(letter: char, config: &str) -> Result<Self> {
        let namespace = NetNamespace::new(letter)?;
        for (near, far) in [("near0", "far0"), ("near1", "far1")] {
            namespace.ip(&["link", "add", near, "type", "veth", "peer", "name", far])?;
            for end in [near, far] {
                namespace.ip(&["link", "set", end, "addrgenmode", "none"])?;
                namespace.ip(&["link", "set", end, "up"])?;
            }
        }
        World::start_in(namespace, config).map(Self)
    }

    /// Waits until something holds.
    fn until(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self)? {
            let links = self.links()?;
            let log = self.host.daemon.log();
            ensure!(Instant::now() < deadline, "{what}: {links}{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn links(&self) -> Result<String> {
        self.namespace.ip(&["-o", "-details", "link"])
    }

    fn link(&self, name: &str) -> Result<String> {
        let links = self.links()?;
        let link = links
            .lines()
            .find(|line| line.contains(&format!(": {name}")));
        Ok(link.unwrap_or_default().to_owned())
    }

    /// Links, addresses, routes and rules, but for how a link that there is gets on, which the kernel finds out by and by.
    fn state(&self) -> Result<String> {
        let all = self.namespace.state()?;
        let lines = all.lines().map(|line| match line.split_once(" qdisc ") {
            Some((link, rest)) => {
                let (_, rest) = rest.split_once(" mode ").unwrap_or(("", rest));
                format!("{link} {rest}\n")
            }
            None => format!("{line}\n"),
        });
        Ok(lines.collect())
    }

    /// Waits until the links and rules are those.
    fn is_as(&self, before: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.state()?;
            if now == before {
                return Ok(());
            }
            let only = |some: &str, other: &str| -> String {
                let mut lines = some
                    .lines()
                    .filter(|line| !other.lines().any(|o| o == *line));
                lines.by_ref().map(|line| format!("{line}\n")).collect()
            };
            let (gone, left) = (only(before, &now), only(&now, before));
            ensure!(Instant::now() < deadline, "gone:\n{gone}left:\n{left}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn define(&self, name: &str, interface: &str) -> Result<()> {
        let document = guest(name, interface);
        let file = self.host.file(&format!("{name}.xml"), &document)?;
        self.host.good(&["define", &file])?;
        Ok(())
    }

    /// Destroys a guest and forgets it.
    fn end(&self, name: &str) -> Result<()> {
        self.host.good(&["destroy", name])?;
        self.host.good(&["undefine", name])?;
        Ok(())
    }

    fn refuses(&self, name: &str, interface: &str, says: &[&str]) -> Result<()> {
        self.define(name, interface)?;
        let before = self.state()?;
        let refused = self.host.refused(&["start", name])?;
        for part in says {
            ensure!(refused.contains(part), "{part}: {refused}");
        }
        self.host.good(&["undefine", name])?;
        self.is_as(&before)
    }

    /// Someone at the far end of the first cable.
    fn peer(&self) -> Result<Peer> {
        self.namespace.ip(&[
            "link",
            "add",
            "far",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
            // It learns no address: the peer sends from others.
            "ageing_time",
            "0",
        ])?;
        self.namespace
            .ip(&["link", "set", "far", "addrgenmode", "none"])?;
        self.namespace.ip(&["link", "set", "far", "up"])?;
        self.namespace
            .ip(&["link", "set", "far0", "master", "far"])?;
        let namespace = File::open(format!("/run/netns/{}", self.namespace.name()))?;
        let make = move || -> Result<File> {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            let tap = Tap::make(Some(&"peer0".parse()?), PEER.try_into()?, 1)?;
            tap.join(&"far".parse()?, None, false)?;
            tap.up()?;
            Ok(tap.into_queues().pop().context("a queue")?.into())
        };
        let made = std::thread::spawn(make).join();
        Ok(Peer(made.ok().context("the peer's thread")??))
    }
}

/// A guest that sends back what comes, with the Ethernet addresses swapped and nothing else.
fn guest(name: &str, interface: &str) -> String {
    guest_that("mode=net-echo depth=8 ms=600000 wait=poll", name, interface)
}

fn address(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, last]
}

/// `<interface type='direct'>`.
fn upon(device: &str, mode: &str, last: u8, more: &str) -> String {
    format!(
        "<interface type='direct'><mac address='52:54:00:00:00:{last:02x}'/>\
         <source dev='{device}' mode='{mode}'/>{more}<model type='virtio'/></interface>"
    )
}

struct Peer(File);

impl Peer {
    /// Whether a frame to that guest comes back.
    fn echoes(&mut self, frame: &[u8], patience: Duration) -> Result<bool> {
        self.0.write_all(&[&[0; 12], frame].concat())?;
        let wanted = [&frame[6..12], &frame[..6], &frame[12..]].concat();
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left)?;
            if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left))? == 0 {
                return Ok(false);
            }
            let length = self.0.read(&mut buffer)?;
            if buffer.get(12..length) == Some(&*wanted) {
                return Ok(true);
            }
        }
    }

    /// Waits until the guest with that address sends back what is sent to it.
    fn hears_from(&mut self, last: u8) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.echoes(&datagram(address(last), 1000, 2000), SILENCE)? {
            ensure!(Instant::now() < deadline, "guest {last} is not reached");
        }
        Ok(())
    }

    fn hears_nothing_from(&mut self, last: u8) -> Result<()> {
        let heard = self.echoes(&datagram(address(last), 1000, 2000), SILENCE)?;
        ensure!(!heard, "guest {last} is reached");
        Ok(())
    }
}

/// A datagram of UDP to a station.
fn datagram(to: [u8; 6], from_port: u16, to_port: u16) -> Vec<u8> {
    frames::datagram((to, PEER), [192, 0, 2, 5], (from_port, to_port), &[7; 18])
}

#[test]
fn a_guest_upon_a_device_is_reached_and_seen_and_leaves_no_trace() -> Result<()> {
    let mut world = Cables::start('D', "")?;
    let mut peer = world.peer()?;
    let before = world.state()?;
    world.define("web", &upon("near0", "bridge", 1, ""))?;
    let kept = world.host.good(&["dumpxml", "--inactive", "web"])?;
    ensure!(
        kept.contains("<source dev='near0' mode='bridge'/>"),
        "{kept}"
    );
    ensure!(!kept.contains("<target dev"), "{kept}");
    world.host.good(&["start", "web"])?;
    let live = world.host.good(&["dumpxml", "web"])?;
    for part in [
        "<source dev='near0' mode='bridge'/>",
        "<target dev='macvtap0'/>",
    ] {
        ensure!(live.contains(part), "{part}: {live}");
    }
    let list = world.host.good(&["domiflist", "web"])?;
    for part in ["macvtap0", "direct", "near0", "52:54:00:00:00:01"] {
        ensure!(list.contains(part), "{part}: {list}");
    }
    peer.hears_from(1)?;
    // It would speak as a server of DHCP, if it was let.
    let server = datagram(address(1), 67, 68);
    ensure!(!peer.echoes(&server, SILENCE)?, "its filter lets it");
    let figure = |world: &Cables, name: &str| -> Result<u64> {
        let figures = world.host.good(&["domifstat", "web", "macvtap0"])?;
        let line = figures
            .lines()
            .find(|line| line.contains(name))
            .context(name.to_owned())?;
        Ok(line
            .split_whitespace()
            .last()
            .context("a figure")?
            .parse()?)
    };
    let received = figure(&world, "rx_packets")?;
    ensure!(received >= 2 && figure(&world, "tx_packets")? >= 1);
    ensure!(
        figure(&world, "tx_drop")? >= 1,
        "what its filter dropped is its loss"
    );

    world
        .host
        .good(&["domif-setlink", "web", "macvtap0", "down"])?;
    peer.hears_nothing_from(1)?;
    world
        .host
        .good(&["domif-setlink", "web", "52:54:00:00:00:01", "up"])?;
    peer.hears_from(1)?;
    world
        .host
        .good(&["domiftune", "web", "macvtap0", "--inbound", "100000"])?;
    peer.hears_from(1)?;

    let mac = "52:54:00:00:00:02";
    let attach = [
        "attach-interface",
        "web",
        "direct",
        "near1",
        "--mac",
        mac,
        "--model",
        "virtio",
    ];
    world.host.good(&[&attach[..], &["--live"]].concat())?;
    ensure!(world.link("macvtap1")?.contains(mac), "{}", world.links()?);
    let again = world.host.refused(&[
        "attach-device",
        "web",
        &world
            .host
            .file("again.xml", &upon("near1", "passthrough", 3, ""))?,
        "--live",
    ])?;
    ensure!(again.contains("near1"), "{again}");
    ensure!(!world.links()?.contains("macvtap2"), "{}", world.links()?);

    // Nobody notices that the supervisor is another.
    let link = world.link("macvtap0")?;
    world.host.daemon.kill()?;
    peer.hears_from(1)?;
    world.host.daemon.spawn()?;
    peer.hears_from(1)?;
    ensure!(!peer.echoes(&server, SILENCE)?, "its filter is gone");
    let number = |link: &str| link.split(':').next().map(str::to_owned);
    ensure!(
        number(&world.link("macvtap0")?) == number(&link),
        "{}",
        world.links()?
    );
    // The guest is not asked: it has no ACPI.
    world
        .host
        .daemon
        .reeve(&["detach", "web", mac, "--force"])?;
    world.until("the interface is left", |world| {
        Ok(!world.links()?.contains("macvtap1"))
    })?;

    world.host.good(&["destroy", "web"])?;
    world.is_as(&before)
}

#[test]
fn guests_upon_one_device_reach_one_another_as_their_mode_says() -> Result<()> {
    let world = Cables::start('M', "")?;
    let mut peer = world.peer()?;
    let before = world.state()?;
    for (mode, beside) in [("bridge", true), ("private", false), ("vepa", false)] {
        world.define("web", &upon("near0", mode, 1, ""))?;
        world.define("mail", &upon("near0", mode, 2, ""))?;
        world.host.good(&["start", "web"])?;
        world.host.good(&["start", "mail"])?;
        peer.hears_from(1)?;
        peer.hears_from(2)?;
        // A frame that one has sent back to the other goes to and fro between them, if it is let.
        let sent = |world: &Cables| -> Result<u64> {
            let figures = world.host.good(&["domifstat", "mail", "macvtap1"])?;
            let line = figures.lines().find(|line| line.contains("tx_packets"));
            let figure = line.and_then(|line| line.split_whitespace().last());
            Ok(figure.context("no figure")?.parse()?)
        };
        let first = sent(&world)?;
        let mut frame = datagram(address(1), 1000, 2000);
        frame[6..12].copy_from_slice(&address(2));
        // What does not go straight to the other goes out.
        let out = peer.echoes(&frame, SILENCE)?;
        ensure!(out != beside, "in mode {mode} it goes out: {out}");
        if beside {
            world.until("they do not reach one another", |world| {
                Ok(sent(world)? > first + 10)
            })?;
        } else {
            ensure!(
                sent(&world)? == first,
                "they reach one another in mode {mode}"
            );
        }
        world.end("web")?;
        world.end("mail")?;
        world.is_as(&before)?;
    }
    Ok(())
}

#[test]
fn whatever_dies_when_a_device_is_as_it_was_with_its_address() -> Result<()> {
    let mut world = Cables::start('K', "")?;
    let before = world.state()?;
    world.define("web", &upon("near0", "passthrough", 1, ""))?;
    let near = |world: &Cables| world.link("near0");
    for point in [
        "start.after-status",
        "start.after-cgroup",
        "start.after-socket",
        "start.after-spawn",
        "start.after-call",
        "destroy.after-release",
    ] {
        world.host.daemon.kill()?;
        world.host.daemon.set("REEVE_CRASH", point);
        world.host.daemon.spawn()?;
        let _ = reeve_tests::virsh::succeed(world.host.virsh(&["start", "web"]));
        let _ = reeve_tests::virsh::succeed(world.host.virsh(&["destroy", "web"]));
        world.host.daemon.wait_for_end().context(point)?;
        world.host.daemon.set("REEVE_CRASH", "");
        world.host.daemon.spawn()?;
        // A worker that has its machine is adopted with its macvtap, and any other is gone with it.
        let running = world.host.good(&["list", "--name"])?.contains("web");
        if running {
            ensure!(
                world.links()?.contains("macvtap0"),
                "{point}: {}",
                world.links()?
            );
            ensure!(near(&world)?.contains("52:54:00:00:00:01"), "{point}");
            world.host.good(&["destroy", "web"])?;
        }
        world.is_as(&before).context(point)?;
    }
    // An interface that comes, or goes, while its guest runs: recorded and not made; made; and just let go of.
    let more = world
        .host
        .file("more.xml", &upon("near1", "passthrough", 2, ""))?;
    let mac = "52:54:00:00:00:02";
    for point in ["define.after-status", "define.before-status:2", ""] {
        world.host.good(&["start", "web"])?;
        world.host.daemon.kill()?;
        world.host.daemon.set("REEVE_CRASH", point);
        world.host.daemon.spawn()?;
        let attach = ["attach-device", "web", &more, "--live"];
        let attached = reeve_tests::virsh::succeed(world.host.virsh(&attach));
        if point.is_empty() {
            attached?;
            world
                .host
                .daemon
                .reeve(&["detach", "web", mac, "--force"])?;
            world.host.daemon.kill()?;
        } else {
            world.host.daemon.wait_for_end().context(point)?;
        }
        world.host.daemon.set("REEVE_CRASH", "");
        world.host.daemon.spawn()?;
        let has = world.host.good(&["domiflist", "web"])?.contains(mac);
        ensure!(!has || !point.is_empty(), "it was let go of");
        world.until("its macvtap is not as its guest", |world| {
            let near = world.link("near1")?.contains(mac);
            Ok(near == has && world.links()?.contains("macvtap1") == has)
        })?;
        world.host.good(&["destroy", "web"])?;
        world.is_as(&before).context(point)?;
    }
    // Both at once: the worker dies while there is no supervisor.
    world.host.good(&["start", "web"])?;
    ensure!(near(&world)?.contains("52:54:00:00:00:01"));
    let workers = world.host.daemon.workers();
    world.host.daemon.kill()?;
    for worker in workers {
        signal(worker, Signal::KILL)?;
    }
    world.host.daemon.spawn()?;
    world.is_as(&before)?;
    // And the worker alone.
    world.host.good(&["start", "web"])?;
    for worker in world.host.daemon.workers() {
        signal(worker, Signal::KILL)?;
    }
    world.is_as(&before)
}

#[test]
fn what_cannot_be_had_is_refused_and_leaves_nothing() -> Result<()> {
    let world = Cables::start('R', "")?;
    world.refuses("missing", &upon("none0", "vepa", 1, ""), &["'none0'"])?;
    world.refuses(
        "taken",
        &upon("near0", "vepa", 1, "<target dev='near1'/>"),
        &["'near1' already"],
    )?;
    world.refuses(
        "loop",
        &upon("lo", "bridge", 1, ""),
        &["'lo'", "no Ethernet device"],
    )?;
    world.define(
        "one",
        &upon("near0", "passthrough", 1, "<target dev='web7'/>"),
    )?;
    world.host.good(&["start", "one"])?;
    ensure!(!world.link("web7")?.is_empty(), "{}", world.links()?);
    let alone = ["'near0'", "one guest alone"];
    world.refuses("two", &upon("near0", "passthrough", 2, ""), &alone)?;
    world.refuses(
        "three",
        &upon("near0", "bridge", 3, ""),
        &["'near0'", "passthrough"],
    )?;
    world.host.good(&["destroy", "one"])?;
    world.define("four", &upon("near0", "private", 4, ""))?;
    world.host.good(&["start", "four"])?;
    world.refuses("two", &upon("near0", "passthrough", 2, ""), &alone)?;
    world.refuses(
        "same",
        &upon("near0", "private", 4, ""),
        &["52:54:00:00:00:04"],
    )?;
    let profile = "<virtualport type='802.1Qbh'><parameters profileid='x'/></virtualport>";
    let document = guest("profile", &upon("near1", "vepa", 9, profile));
    let file = world.host.file("profile.xml", &document)?;
    let refused = world.host.refused(&["define", &file])?;
    ensure!(
        refused.contains("virtualport") && refused.contains("802.1Qbh"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn guests_of_several_tenants_are_upon_a_device_beside_one_another_only_apart() -> Result<()> {
    let world = Cables::start('T', "multi_tenant = true\n")?;
    let says = ["'near0'", "multi_tenant", "private, vepa or passthrough"];
    world.refuses("web", &upon("near0", "bridge", 1, ""), &says)?;
    // A cable to a bridge, beside whose isolated ports a guest would be.
    let namespace = &world.namespace;
    namespace.ip(&["link", "add", "tenants0", "type", "bridge"])?;
    namespace.ip(&["link", "set", "far1", "master", "tenants0"])?;
    let says = ["'near1'", "a cable to a port of 'tenants0'"];
    world.refuses("web", &upon("near1", "private", 1, ""), &says)?;
    namespace.ip(&["link", "del", "tenants0"])?;
    let before = world.state()?;
    let interface = upon("near0", "private", 1, "");
    // One that is trusted has a filter here all the same.
    let trusted = interface.replace("type='direct'", "type='direct' trustGuestRxFilters='yes'");
    world.define("web", &trusted)?;
    world.host.good(&["start", "web"])?;
    // Where the cable leads later is not looked at.
    let mut peer = world.peer()?;
    peer.hears_from(1)?;
    ensure!(!peer.echoes(&datagram(address(1), 67, 68), SILENCE)?);
    world.host.good(&["destroy", "web"])?;
    drop(peer);
    world.namespace.ip(&["link", "del", "far"])?;
    world.is_as(&before)
}

#[test]
fn a_network_gives_each_guest_a_device_of_its_own_or_one_with_the_fewest() -> Result<()> {
    let world = Cables::start('P', "")?;
    let before = world.state()?;
    let network = |mode: &str| {
        format!(
            "<network><name>cards</name><forward mode='{mode}'>\
             <interface dev='near0'/><interface dev='near1'/></forward></network>"
        )
    };
    let on = |last: u8| {
        format!(
            "<interface type='network'><mac address='52:54:00:00:00:{last:02x}'/>\
             <source network='cards'/><model type='virtio'/></interface>"
        )
    };
    let upon = |world: &Cables, name: &str| -> Result<String> {
        let live = world.host.good(&["dumpxml", name])?;
        ensure!(live.contains("<interface type='direct'"), "{live}");
        let source = live.lines().find(|line| line.contains("network='cards'"));
        let source = source.context("no source")?;
        ensure!(source.contains("portid='"), "{source}");
        Ok(source.to_owned())
    };
    for name in ["a", "b", "c"] {
        world.define(name, &on(name.as_bytes()[0]))?;
    }
    for (mode, third) in [("passthrough", false), ("bridge", true)] {
        let file = world.host.file("cards.xml", &network(mode))?;
        world.host.good(&["net-create", &file])?;
        world.host.good(&["start", "a"])?;
        world.host.good(&["start", "b"])?;
        let both = format!("{}{}", upon(&world, "a")?, upon(&world, "b")?);
        for part in ["dev='near0'", "dev='near1'", &format!("mode='{mode}'")] {
            ensure!(both.contains(part), "{part}: {both}");
        }
        let list = world.host.good(&["domiflist", "a"])?;
        ensure!(
            list.contains("macvtap0") && list.contains("cards"),
            "{list}"
        );
        if third {
            world.host.good(&["start", "c"])?;
            upon(&world, "c")?;
            world.host.good(&["destroy", "c"])?;
        } else {
            let refused = world.host.refused(&["start", "c"])?;
            ensure!(refused.contains("none is free"), "{refused}");
            world.host.good(&["destroy", "b"])?;
            world.host.good(&["start", "c"])?;
            world.host.good(&["destroy", "c"])?;
            world.host.good(&["start", "b"])?;
        }
        world.host.good(&["destroy", "a"])?;
        world.host.good(&["destroy", "b"])?;
        world.host.good(&["net-destroy", "cards"])?;
        world.is_as(&before)?;
    }
    Ok(())
}
