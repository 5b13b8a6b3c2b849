//! Network filters of a real `reeved` by a real `virsh`: those that libvirt's packages bring, an administrator's own,
//! and what becomes of the interface of a guest that has one. What of frames passes is tested with the rules
//! themselves (`supervisor/src/host/filter`).

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use reeve_tests::namespace::{NetNamespace, program};
use reeve_tests::tool::output;
use reeve_tests::virsh::{Host, REAL, TEST, succeed};
use reeve_tests::world::{World, guest};

/// Where `libvirt-daemon-config-nwfilter` has them.
const SHIPPED: &str = "/usr/share/libvirt/nwfilter";

/// An interface on the bridge `nwbr0`.
fn interface(filter: &str) -> String {
    format!(
        "<interface type='bridge'>\
           <mac address='52:54:00:00:00:05'/>\
           <source bridge='nwbr0'/>\
           <model type='virtio'/>\
           {filter}\
         </interface>"
    )
}

fn said(filter: &str, ip: &str) -> String {
    format!("<filterref filter='{filter}'><parameter name='IP' value='{ip}'/></filterref>")
}

/// A document without its UUID.
fn without_uuid(document: &str) -> String {
    let lines = document.lines().filter(|line| !line.contains("<uuid>"));
    lines.collect::<Vec<_>>().join("\n")
}

fn refused(host: &Host, arguments: &[&str], part: &str) -> Result<()> {
    let said = host.refused(arguments)?;
    ensure!(said.contains(part), "{arguments:?}: {said}");
    Ok(())
}

#[test]
fn the_filters_of_libvirts_packages_are_there_and_say_the_same() -> Result<()> {
    let host = Host::start(REAL)?;
    let listed = host.good(&["nwfilter-list"])?;
    let mut names = Vec::new();
    let (mut define, mut dump) = (Vec::new(), Vec::new());
    for file in fs::read_dir(SHIPPED).context("install libvirt-daemon-config-nwfilter")? {
        let text = fs::read_to_string(file?.path())?;
        let name = text.split("<filter name='").nth(1).context("a name")?;
        let name = name.split('\'').next().context("a name")?.to_owned();
        ensure!(
            listed.contains(&format!(" {name}\n")) || listed.ends_with(&name),
            "{name}: {listed}"
        );
        let own = text.replace(
            &format!("<filter name='{name}'"),
            &format!("<filter name='own-{name}'"),
        );
        let file = host.file(&format!("{name}.xml"), &own)?;
        define.push(format!("nwfilter-define {file}"));
        dump.push(format!(
            "nwfilter-dumpxml {name}; nwfilter-dumpxml own-{name}"
        ));
        names.push(name);
    }
    ensure!(names.len() == 24, "{names:?}");
    host.good(&[&define.join("; ")])?;
    let documents = host.good(&[&dump.join("; ")])?;
    let documents: Vec<&str> = documents.split_inclusive("</filter>").collect();
    ensure!(documents.len() == 48, "{}", documents.len());
    for pair in documents.chunks(2) {
        let (ours, theirs) = (without_uuid(pair[0]), without_uuid(pair[1]));
        let theirs = theirs.replace("<filter name='own-", "<filter name='");
        ensure!(ours.trim() == theirs.trim(), "{ours}\n{theirs}");
    }
    // libvirt's test driver has none.
    let none = host.virsh_of(TEST, &["nwfilter-list"]).output()?;
    let complaint = String::from_utf8_lossy(&none.stderr);
    ensure!(
        complaint.contains("not supported by the connection driver"),
        "{complaint}"
    );
    Ok(())
}

#[test]
fn a_filter_is_defined_changed_and_undefined_as_an_administrator_types() -> Result<()> {
    let mut host = Host::start(REAL)?;
    let text = "<filter name='own' chain='ipv4-own'><filterref filter='no-ip-multicast'/>\
        <rule action='drop' direction='out' priority='7'><ip protocol='tcp' dstportstart='54711'/></rule></filter>";
    let file = host.file("own.xml", text)?;
    host.good(&["nwfilter-define", &file])?;
    let shown = host.good(&["nwfilter-dumpxml", "own"])?;
    refused(
        &host,
        &["nwfilter-define", &file],
        "already exists with uuid",
    )?;
    let again = host.file("again.xml", &shown)?;
    host.good(&["nwfilter-define", &again])?;
    ensure!(host.good(&["nwfilter-dumpxml", "own"])? == shown, "{shown}");
    let mut edit = host.virsh(&["nwfilter-edit", "own"]);
    edit.env("VISUAL", "sed -i s/54711/54712/");
    succeed(edit)?;
    ensure!(
        host.good(&["nwfilter-dumpxml", "own"])?
            .contains("dstportstart='54712'")
    );
    let round = host.file("loop.xml", &shown.replace("no-ip-multicast", "own"))?;
    refused(
        &host,
        &["nwfilter-define", &round],
        "filter would introduce a loop",
    )?;
    for (text, part) in [
        ("<filter name='bad' chain='ip'/>", "Invalid chain name 'ip'"),
        (
            "<filter name='bad'><rule action='drop' direction='in'><ip srcipaddr='x'/></rule></filter>",
            "illegal value",
        ),
    ] {
        let bad = host.file("bad.xml", text)?;
        refused(&host, &["nwfilter-define", &bad], part)?;
    }
    host.good(&["nwfilter-undefine", "clean-traffic-gateway"])?;
    refused(
        &host,
        &["nwfilter-dumpxml", "clean-traffic-gateway"],
        "no nwfilter with matching name",
    )?;
    refused(&host, &["nwfilter-binding-create", &file], "not supported")?;

    // What was decided stays so.
    let before = host.good(&["nwfilter-list"])?;
    host.daemon.kill()?;
    host.daemon.spawn()?;
    ensure!(host.good(&["nwfilter-list"])? == before, "{before}");
    host.good(&["nwfilter-undefine", "own"])?;
    ensure!(!host.good(&["nwfilter-list"])?.contains("own"));
    Ok(())
}

/// With a bridge.
fn start(letter: char) -> Result<World> {
    let namespace = NetNamespace::new(letter)?;
    namespace.ip(&["link", "add", "nwbr0", "type", "bridge"])?;
    namespace.ip(&["link", "set", "nwbr0", "up"])?;
    World::start_in(namespace, "")
}

/// The rules that the kernel has.
fn ruleset(world: &World) -> Result<String> {
    let mut list = world.namespace.command(&program("nft"));
    // Without what was counted meanwhile.
    output(list.args(["--stateless", "list", "ruleset"]))
}

/// Takes all of them away, as an administrator does.
fn flush(world: &World) -> Result<()> {
    let mut flush = world.namespace.command(&program("nft"));
    ensure!(flush.args(["flush", "ruleset"]).status()?.success());
    Ok(())
}

/// Defines the guest with that in its interface.
fn defined(world: &World, filter: &str) -> Result<()> {
    let document = guest("web", &interface(filter));
    let file = world.host.file("web.xml", &document)?;
    let _ = world.host.virsh(&["undefine", "web"]).output()?;
    world.host.good(&["define", &file])?;
    Ok(())
}

#[test]
fn an_interface_has_its_filter_from_its_start_to_its_end() -> Result<()> {
    let mut world = start('f')?;
    let connections = "<filter name='own'><uuid>5b1e6a7c-0000-4000-8000-000000000001</uuid>\
        <rule action='accept' direction='in'><tcp dstportstart='22'/></rule></filter>";
    let file = world.host.file("own.xml", connections)?;
    world.host.good(&["nwfilter-define", &file])?;
    for (filter, part) in [
        (
            "<filterref filter='nova-base'/>".to_owned(),
            "referenced filter 'nova-base' is missing",
        ),
        (
            "<filterref filter='clean-traffic'/>".to_owned(),
            "<parameter name='IP'",
        ),
        (said("own", "192.0.2.5"), "follows connections"),
    ] {
        defined(&world, &filter)?;
        refused(&world.host, &["start", "web"], part)?;
        ensure!(!ruleset(&world)?.contains("vnet"), "{}", ruleset(&world)?);
    }

    defined(&world, &said("clean-traffic", "192.0.2.5"))?;
    world.host.good(&["start", "web"])?;
    for view in [&["dumpxml", "web"][..], &["dumpxml", "--inactive", "web"]] {
        let shown = world.host.good(view)?;
        ensure!(
            shown.contains("<filterref filter='clean-traffic'>"),
            "{shown}"
        );
        ensure!(
            shown.contains("<parameter name='IP' value='192.0.2.5'/>"),
            "{shown}"
        );
    }
    let listed = world.host.good(&["nwfilter-binding-list"])?;
    // No name is drawn twice, and the starts that were refused had some.
    let [tap, "clean-traffic"] = listed.split_whitespace().collect::<Vec<_>>()[..] else {
        bail!("{listed}");
    };
    let shown = world.host.good(&["nwfilter-binding-dumpxml", tap])?;
    let named = format!("<portdev name='{tap}'/>");
    for part in [
        "<name>web</name>",
        &named,
        "<mac address='52:54:00:00:00:05'/>",
        "192.0.2.5",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    let rules = ruleset(&world)?;
    for part in [
        "chain from-guest-ipv4-ip/",
        "chain to-guest/",
        "hook egress",
        // 192.0.2.5.
        "0xc0000205",
        "chain frames/",
    ] {
        ensure!(rules.contains(part), "{part}: {rules}");
    }
    refused(
        &world.host,
        &["nwfilter-undefine", "no-mac-spoofing"],
        "nwfilter is in use",
    )?;

    // A change is the interface's at once, or nobody's.
    let uuid = world.host.good(&["nwfilter-dumpxml", "no-ip-spoofing"])?;
    let changed = uuid.replace("protocol='udp'", "protocol='sctp'");
    ensure!(changed != uuid, "{uuid}");
    let file = world.host.file("changed.xml", &changed)?;
    world.host.good(&["nwfilter-define", &file])?;
    let after = ruleset(&world)?;
    // SCTP is 132.
    ensure!(after.contains("@nh,72,8 0x84") && after != rules, "{after}");
    let needs = changed.replace("srcipaddr='0.0.0.0'", "srcipaddr='$NOBODY'");
    let file = world.host.file("needs.xml", &needs)?;
    refused(&world.host, &["nwfilter-define", &file], "$NOBODY")?;
    ensure!(ruleset(&world)? == after, "{}", ruleset(&world)?);
    ensure!(world.host.good(&["nwfilter-dumpxml", "no-ip-spoofing"])? == changed);

    // It is a later supervisor's, and put back where somebody takes it away.
    world.host.daemon.kill()?;
    world.host.daemon.spawn()?;
    let later = world.host.good(&["nwfilter-binding-list"])?;
    ensure!(later == listed, "{later}");
    flush(&world)?;
    world.until("the rules are back", |world| {
        Ok(ruleset(world)?.contains("chain from-guest-ipv4-ip/"))
    })?;

    // One that cannot read the filter leaves them, and blocks the guest when they are gone, until it is there again.
    world.host.daemon.kill()?;
    let uuid = changed.split_once("<uuid>").context("no UUID")?.1;
    let uuid = uuid.split_once('<').context("no UUID")?.0;
    let kept = world.host.daemon.state().join("nwfilters");
    std::fs::write(kept.join(format!("{uuid}.json")), "{")?;
    world.host.daemon.spawn()?;
    refused(
        &world.host,
        &["nwfilter-dumpxml", "no-ip-spoofing"],
        "no-ip-spoofing",
    )?;
    let file = world.host.file("changed.xml", &changed)?;
    refused(
        &world.host,
        &["nwfilter-define", &file],
        "mend it or move it away",
    )?;
    ensure!(ruleset(&world)?.contains("chain from-guest-ipv4-ip/"));
    flush(&world)?;
    world.until("the guest is blocked", |world| {
        let rules = ruleset(world)?;
        Ok(rules.contains("chain from-guest/") && !rules.contains("from-guest-ipv4-ip"))
    })?;
    let other = changed.replace(uuid, "5b1e6a7c-0000-4000-8000-000000000002");
    let file = world.host.file("other.xml", &other)?;
    world.host.good(&["nwfilter-define", &file])?;
    ensure!(ruleset(&world)?.contains("chain from-guest-ipv4-ip/"));

    world.host.good(&["destroy", "web"])?;
    world.until("nothing is left", |world| Ok(ruleset(world)?.is_empty()))?;
    ensure!(world.host.good(&["nwfilter-binding-list"])?.is_empty());
    world.host.good(&["nwfilter-undefine", "no-mac-spoofing"])?;
    refused(
        &world.host,
        &["start", "web"],
        "referenced filter 'no-mac-spoofing' is missing",
    )?;
    Ok(())
}

#[test]
fn a_guest_that_runs_is_given_another_filter_and_none() -> Result<()> {
    let mut world = start('e')?;
    defined(&world, &said("clean-traffic", "192.0.2.5"))?;
    world.host.good(&["start", "web"])?;
    let update = |world: &World, filter: &str, reach: &[&str]| {
        let file = world.host.file("other.xml", &interface(filter))?;
        let begin = ["update-device", "web", &file];
        Ok::<_, anyhow::Error>([&begin[..], reach].concat().join(" "))
    };
    let shows = |world: &World, view: &[&str], part: &str| {
        let shown = world.host.good(view)?;
        ensure!(shown.contains(part), "{part}: {shown}");
        Ok(())
    };
    let (live, kept) = (["dumpxml", "web"], ["dumpxml", "web", "--inactive"]);
    let bindings = ["nwfilter-binding-list"];
    // 192.0.2.5 and 6.
    let (first, second) = ("0xc0000205", "0xc0000206");
    ensure!(ruleset(&world)?.contains(first), "{}", ruleset(&world)?);

    let other = update(&world, &said("clean-traffic", "192.0.2.6"), &["--live"])?;
    world.host.good(&[&other])?;
    let rules = ruleset(&world)?;
    ensure!(rules.contains(second) && !rules.contains(first), "{rules}");
    shows(&world, &live, "192.0.2.6")?;
    shows(&world, &kept, "192.0.2.5")?;
    // What cannot be had leaves what was there.
    let missing = update(
        &world,
        "<filterref filter='nova-base'/>",
        &["--live", "--config"],
    )?;
    refused(
        &world.host,
        &[&missing],
        "referenced filter 'nova-base' is missing",
    )?;
    ensure!(ruleset(&world)? == rules, "{}", ruleset(&world)?);
    shows(&world, &live, "192.0.2.6")?;
    shows(&world, &kept, "192.0.2.5")?;

    let both = ["--live", "--config"];
    let other = update(&world, "<filterref filter='no-mac-broadcast'/>", &both)?;
    world.host.good(&[&other])?;
    for view in [&live[..], &kept, &bindings] {
        shows(&world, view, "no-mac-broadcast")?;
    }
    ensure!(!ruleset(&world)?.contains(second), "{}", ruleset(&world)?);
    refused(
        &world.host,
        &["nwfilter-undefine", "no-mac-broadcast"],
        "nwfilter is in use",
    )?;

    // The source filter stays.
    let none = update(&world, "", &both)?;
    world.host.good(&[&none])?;
    ensure!(world.host.good(&bindings)?.is_empty());
    let rules = ruleset(&world)?;
    ensure!(
        rules.contains("chain frames/") && !rules.contains("hook egress"),
        "{rules}"
    );
    world
        .host
        .good(&["nwfilter-undefine", "no-mac-broadcast"])?;
    world.host.daemon.kill()?;
    world.host.daemon.spawn()?;
    ensure!(world.host.good(&bindings)?.is_empty());
    world.host.good(&["destroy", "web"])?;
    world.until("nothing is left", |world| Ok(ruleset(world)?.is_empty()))
}

#[test]
fn an_interface_of_a_network_changes_while_its_guest_runs() -> Result<()> {
    let world = start('x')?;
    let network =
        "<network><name>lan</name><forward mode='bridge'/><bridge name='nwbr0'/></network>";
    let file = world.host.file("lan.xml", network)?;
    world.host.good(&["net-create", &file])?;
    let on = |rest: &str| {
        let bridge = interface(rest);
        let network = bridge.replace("type='bridge'", "type='network'");
        network.replace("bridge='nwbr0'", "network='lan'")
    };
    let file = world.host.file("web.xml", &guest("web", &on("")))?;
    world.host.good(&["define", &file])?;
    world.host.good(&["start", "web"])?;
    let filter = said("clean-traffic", "192.0.2.6");
    let rates = "<bandwidth><inbound average='1000'/></bandwidth>";
    let all = format!("{filter}{rates}<link state='down'/>");
    for (rest, parts) in [
        (filter.as_str(), &["clean-traffic"][..]),
        (&all, &["clean-traffic", "average='1000'", "state='down'"]),
        ("", &[]),
    ] {
        let file = world.host.file("other.xml", &on(rest))?;
        world
            .host
            .good(&["update-device", "web", &file, "--live", "--config"])?;
        for view in [&["dumpxml", "web"][..], &["dumpxml", "web", "--inactive"]] {
            let shown = world.host.good(view)?;
            for part in ["clean-traffic", "average='1000'", "state='down'"] {
                let there = shown.contains(part);
                ensure!(there == parts.contains(&part), "{part}: {shown}");
            }
        }
        // 192.0.2.6.
        let rules = ruleset(&world)?;
        ensure!(
            rules.contains("0xc0000206") != rest.is_empty(),
            "{rest}: {rules}"
        );
    }
    let file = world.host.file("other.xml", &on("<mtu size='1400'/>"))?;
    let other = ["update-device", "web", &file, "--live"];
    refused(&world.host, &other, "the tags of its port")?;
    world.host.good(&["destroy", "web"])?;
    world.until("nothing is left", |world| Ok(ruleset(world)?.is_empty()))
}

#[test]
fn a_guest_that_may_send_anything_has_no_rules_once_its_filter_is_taken_away() -> Result<()> {
    let mut world = start('y')?;
    let trusted = |filter: &str| {
        interface(filter).replace("<interface ", "<interface trustGuestRxFilters='yes' ")
    };
    let with = trusted(&said("clean-traffic", "192.0.2.5"));
    let file = world.host.file("web.xml", &guest("web", &with))?;
    world.host.good(&["define", &file])?;
    world.host.good(&["start", "web"])?;
    let listed = world.host.good(&["nwfilter-binding-list"])?;
    let tap = listed.split_whitespace().next().context("no tap")?;
    let tap = tap.to_owned();
    let before = ruleset(&world)?;
    let (before, _) = before
        .split_once(&format!("chain frames/{tap}"))
        .context("no filter")?;
    let (_, table) = before.rsplit_once("table netdev ").context("no table")?;
    let table = table.split_whitespace().next().context("no name")?;
    let table = table.to_owned();
    let none = world.host.file("none.xml", &trusted(""))?;
    world
        .host
        .good(&["update-device", "web", &none, "--live", "--config"])?;
    ensure!(ruleset(&world)?.is_empty(), "{}", ruleset(&world)?);

    // What is left by one that died between its note and the rules.
    world.host.daemon.kill()?;
    let shown = world.namespace.ip(&["-o", "link", "show", "dev", &tap])?;
    let index = shown.split(':').next().context("no number")?.trim();
    let mut add = world.namespace.command(&program("nft"));
    let left = format!(
        "add table netdev {table} ; \
         add chain netdev {table} frames/{tap} {{ comment \"interface {index}\" ; }}"
    );
    ensure!(add.arg(left).status()?.success());
    ensure!(!ruleset(&world)?.is_empty());
    world.host.daemon.spawn()?;
    world.until("the rules are gone", |world| Ok(ruleset(world)?.is_empty()))?;
    world.host.good(&["destroy", "web"])?;
    ensure!(ruleset(&world)?.is_empty(), "{}", ruleset(&world)?);
    Ok(())
}

#[test]
fn a_supervisor_that_dies_has_the_filter_of_before_or_the_one_after() -> Result<()> {
    let own = "<filter name='own'><rule action='drop' direction='in'/></filter>";
    for point in reeved::crash::names().filter(|name| name.starts_with("nwfilter-")) {
        let mut host = Host::start(REAL)?;
        let file = host.file("own.xml", own)?;
        let removes = ["before-remove", "after-unlink", "after-remove"];
        let removes = removes.iter().any(|moment| point.ends_with(moment));
        let (command, of) = match point.starts_with("nwfilter-define") {
            true => (vec!["nwfilter-define", &file], "own"),
            // Of one that somebody defined the record goes; of one that is always there it is written that it is gone.
            false if removes => (vec!["nwfilter-undefine", "own"], "own"),
            false => (vec!["nwfilter-undefine", "allow-arp"], "allow-arp"),
        };
        if removes {
            host.good(&["nwfilter-define", &file])?;
        }
        host.daemon.kill()?;
        host.daemon.set("REEVE_CRASH", &point);
        host.daemon.spawn()?;
        let _ = host.virsh(&command).output()?;
        host.daemon.wait_for_end()?;
        host.daemon.set("REEVE_CRASH", "");
        host.daemon.spawn()?;
        let is_there = host
            .virsh(&["nwfilter-dumpxml", of])
            .output()?
            .status
            .success();
        let early = ["before-write", "after-temporary", "before-remove"];
        let early = early.iter().any(|moment| point.ends_with(moment));
        // Before its name, or its end, nothing has changed; after that it has.
        let expected = early != point.starts_with("nwfilter-define");
        ensure!(is_there == expected, "{point}: {is_there}");
        // What was not done can be.
        if is_there != point.starts_with("nwfilter-define") {
            host.good(&command)?;
        }
    }
    Ok(())
}
