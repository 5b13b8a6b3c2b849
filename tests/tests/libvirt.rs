//! A real `virsh` that manages domains with guests of a real `reeved`, by way of real gateways in their jails:
//! command by command, as an administrator types them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_tests::virsh::{Host, REAL};

/// How long a guest, or an event, may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for_state(host: &Host, domain: &str, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = host.good(&["domstate", "--reason", domain])?;
        if state == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{state}, and not {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a guest has said so often that it is ready.
fn until_booted(host: &Host, domain: &str, times: usize) -> Result<()> {
    let log = format!("log/{domain}.console.log");
    let log = host.daemon.state().join(log);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if said.matches("ready").count() >= times {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it has not booted: {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A domain with the guest that says what it is told, and ends when its power button is pressed.
fn document(name: &str) -> String {
    format!(
        "<domain type='kvm'>\
           <name>{name}</name>\
           <metadata>\
             <reeve:domain xmlns:reeve='urn:x-reeve:domain:1'><reeve:boot source='built-in'/></reeve:domain>\
           </metadata>\
           <memory unit='MiB'>64</memory>\
           <vcpu current='1'>2</vcpu>\
           <os><type arch='x86_64' machine='reeve'>hvm</type><cmdline>mode=echo</cmdline></os>\
           <features><acpi/><apic/></features>\
           <devices><memballoon model='virtio'/></devices>\
         </domain>"
    )
}

/// How readily the kernel kills a process where memory is short.
fn victim(pid: u32) -> Result<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    Ok(text.trim().parse()?)
}

/// Whether each of a daemon's gateways is killed before any other process, and its workers like the daemon itself.
fn gateways_go_first(daemon: u32, own: i32) -> Result<()> {
    let mut children = String::new();
    // Those that the spawning threads made are listed with them; one may end meanwhile.
    for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
        children += &fs::read_to_string(task?.path().join("children")).unwrap_or_default();
    }
    let mut gateways = 0;
    for pid in children.split_ascii_whitespace() {
        let pid: u32 = pid.parse()?;
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else {
            continue;
        };
        let is_gateway = program.ends_with("reeve-gateway");
        let expected = if is_gateway { 1000 } else { own };
        let told = victim(pid)?;
        ensure!(told == expected, "{}: {told}", program.display());
        gateways += u32::from(is_gateway);
    }
    ensure!(gateways > 0, "no gateway waits: {children}");
    Ok(())
}

#[test]
fn where_memory_is_short_a_gateway_goes_and_not_the_daemon_nor_a_domain() -> Result<()> {
    let own = victim(std::process::id())?;
    let host = Host::start(REAL)?;
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    host.good(&["start", "web"])?;
    let daemon = host.daemon.pid().context("no daemon")?;
    // A gateway that was made just now, in place of one that served, is told a moment later.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = gateways_go_first(daemon, own) {
        ensure!(Instant::now() < deadline, "{error:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(victim(daemon)? == own);
    host.good(&["destroy", "web"])?;
    Ok(())
}

#[test]
fn a_domain_lives_as_its_administrator_types() -> Result<()> {
    let host = Host::start(REAL)?;
    ensure!(host.good(&["list", "--all"])?.is_empty());
    ensure!(host.good(&["version"])?.contains("Running hypervisor"));
    ensure!(host.good(&["nodeinfo"])?.contains("CPU(s)"));

    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    ensure!(host.good(&["domstate", "web"])? == "shut off");
    let defined = host.good(&["dumpxml", "--inactive", "web"])?;
    host.good(&["undefine", "web"])?;
    let file = host.file("again.xml", &defined)?;
    host.good(&["define", &file])?;
    let again = host.good(&["dumpxml", "--inactive", "web"])?;
    ensure!(
        again == defined,
        "what was dumped is another when it is defined: {again}"
    );

    host.good(&["start", "web", "--paused"])?;
    wait_for_state(&host, "web", "paused (user)")?;
    host.good(&["resume", "web"])?;
    wait_for_state(&host, "web", "running (unpaused)")?;
    ensure!(host.good(&["domid", "web"])? == "1");
    ensure!(host.good(&["domname", "1"])? == "web");
    let info = host.good(&["dominfo", "web"])?;
    for line in [
        "State:          running",
        "CPU(s):         1",
        "Max memory:     65536 KiB",
        "Persistent:     yes",
    ] {
        ensure!(info.contains(line), "{line}: {info}");
    }
    ensure!(host.good(&["dumpxml", "--inactive", "web"])? == defined);
    ensure!(
        host.good(&["dumpxml", "web"])?
            .starts_with("<domain type='kvm' id='1'>")
    );
    let figures = host.good(&["domstats", "web"])?;
    for figure in [
        "state.state=1",
        "cpu.time=",
        "balloon.maximum=65536",
        "vcpu.current=1",
    ] {
        ensure!(figures.contains(figure), "{figure}: {figures}");
    }
    ensure!(host.good(&["vcpucount", "web", "--maximum", "--live"])? == "2");

    host.good(&["suspend", "web"])?;
    wait_for_state(&host, "web", "paused (user)")?;
    host.good(&["resume", "web"])?;
    // A guest that is still booting does not hear its button: each boot says when it does.
    until_booted(&host, "web", 1)?;
    host.good(&["reset", "web"])?;
    let running = host.refused(&["start", "web"])?;
    ensure!(running.contains("already active"), "{running}");

    host.good(&["desc", "web", "--live", "--config", "--title", "a title"])?;
    ensure!(host.good(&["desc", "web", "--title"])? == "a title");
    let set = [
        "metadata",
        "web",
        "urn:x:y",
        "--key",
        "k",
        "--set",
        "<a x='1'/>",
    ];
    host.good(&set)?;
    ensure!(host.good(&["metadata", "web", "urn:x:y"])?.contains("x="));
    let absent = host.refused(&["metadata", "web", "urn:x:z"])?;
    ensure!(absent.contains("not present"), "{absent}");
    host.good(&["autostart", "web"])?;
    ensure!(
        host.good(&["dominfo", "web"])?
            .contains("Autostart:      enable")
    );

    until_booted(&host, "web", 2)?;
    host.good(&["shutdown", "web"])?;
    wait_for_state(&host, "web", "shut off (shutdown)")?;
    host.good(&["domrename", "web", "other"])?;
    host.good(&["start", "other"])?;
    host.good(&["destroy", "other"])?;
    wait_for_state(&host, "other", "shut off (destroyed)")?;
    host.good(&["undefine", "other"])?;
    let gone = host.refused(&["domstate", "other"])?;
    ensure!(gone.contains("failed to get domain 'other'"), "{gone}");

    // One that is not kept is gone when it ends.
    let file = host.file("short.xml", &document("short"))?;
    host.good(&["create", &file])?;
    host.good(&["destroy", "short"])?;
    ensure!(host.good(&["list", "--all"])?.is_empty());
    Ok(())
}

#[test]
fn what_happens_is_told_in_its_order() -> Result<()> {
    let host = Host::start(REAL)?;
    let heard = host.listen(&["event", "--all", "--loop"])?;
    // It has asked for them when the first is heard.
    let mut first = None;
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        let name = format!("call{number}");
        let file = host.file("call.xml", &document(&name))?;
        host.good(&["define", &file])?;
        first = heard.next(Duration::from_millis(200));
        if first.is_some() || Instant::now() > deadline {
            break;
        }
    }
    ensure!(first.is_some(), "no event is heard");
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    host.good(&["start", "web"])?;
    host.good(&["suspend", "web"])?;
    host.good(&["resume", "web"])?;
    host.good(&["destroy", "web"])?;
    host.good(&["undefine", "web"])?;
    let about = "event 'lifecycle' for domain 'web': ";
    for wanted in [
        "Defined Added",
        "Started Booted",
        "Suspended Paused",
        "Resumed Unpaused",
        "Stopped Destroyed",
        "Undefined Removed",
    ] {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = heard.next(left) else {
                bail!("'{wanted}' is not told");
            };
            if line == format!("{about}{wanted}") {
                break;
            }
            // A destroy is told of as libvirt does, by two.
            ensure!(
                !line.starts_with(about) || line.contains("Shutdown"),
                "{line}, where {wanted} was to come"
            );
        }
    }
    Ok(())
}

#[test]
fn who_only_looks_changes_nothing() -> Result<()> {
    let host = Host::start(REAL)?;
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    let read_only = |arguments: &[&str]| -> Result<(bool, String)> {
        let output = host.virsh(&["-r"]).args(arguments).output()?;
        Ok((output.status.success(), String::from_utf8(output.stderr)?))
    };
    for arguments in [&["dominfo", "web"][..], &["domstats"], &["dumpxml", "web"]] {
        let (good, complaint) = read_only(arguments)?;
        ensure!(good, "{arguments:?}: {complaint}");
    }
    for arguments in [
        &["start", "web"][..],
        &["undefine", "web"],
        &["autostart", "web"],
        &["setvcpus", "web", "2", "--config"],
    ] {
        let (good, complaint) = read_only(arguments)?;
        ensure!(
            !good && complaint.contains("read only access prevents"),
            "{arguments:?}: {complaint}"
        );
    }
    ensure!(host.good(&["domstate", "web"])? == "shut off");
    Ok(())
}

#[test]
fn a_client_survives_a_bad_document_and_others_a_client_that_dies() -> Result<()> {
    let host = Host::start(REAL)?;
    for (text, complaint) in [
        ("<domain", "error"),
        ("<domain type='kvm'><name>x</name></domain>", "no <os>"),
        (
            "<!DOCTYPE d [<!ENTITY a 'b'>]><domain type='kvm'><name>&a;</name></domain>",
            "error",
        ),
    ] {
        let file = host.file("bad.xml", text)?;
        let said = host.refused(&["define", &file])?;
        ensure!(said.contains(complaint), "{text}: {said}");
        ensure!(!said.contains("End of file"), "{text}: {said}");
    }
    let mut dying = host.virsh(&["event", "--all", "--loop"]).spawn()?;
    std::thread::sleep(Duration::from_millis(100));
    dying.kill()?;
    dying.wait()?;
    ensure!(host.good(&["list", "--all"])?.is_empty());
    Ok(())
}

#[test]
fn what_is_inside_of_a_domain_is_asked_for_as_an_administrator_types() -> Result<()> {
    let host = Host::start(REAL)?;
    // As virt-install has it: nobody says where the channel's socket is.
    let channel =
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    let text = document("web").replace("<devices>", &format!("<devices>{channel}"));
    let file = host.file("web.xml", &text)?;
    host.good(&["define", &file])?;
    host.good(&["start", "web"])?;
    wait_for_state(&host, "web", "running (booted)")?;
    let live = host.good(&["dumpxml", "web"])?;
    ensure!(live.contains("<alias name='channel0'/>"), "{live}");
    let job = host.good(&["domjobinfo", "web"])?;
    ensure!(job.contains("None"), "{job}");
    let none = host.refused(&["domjobabort", "web"])?;
    ensure!(none.contains("no job is active"), "{none}");
    // The guest has no driver for its port, so that no agent listens.
    let absent = host.refused(&["qemu-agent-command", "web", "{\"execute\":\"guest-ping\"}"])?;
    ensure!(absent.contains("guest agent is not connected"), "{absent}");
    let absent = host.refused(&["domtime", "web"])?;
    ensure!(absent.contains("guest agent is not connected"), "{absent}");
    ensure!(host.good(&["domifaddr", "web"])?.is_empty());
    for empty in [&["nodedev-list"][..], &["secret-list"]] {
        ensure!(host.good(empty)?.is_empty(), "{empty:?}");
    }
    let running = host.refused(&["resume", "web"])?;
    ensure!(running.contains("domain is already running"), "{running}");
    host.good(&["inject-nmi", "web"])?;
    host.good(&["destroy", "web"])?;
    wait_for_state(&host, "web", "shut off (destroyed)")?;
    let off = host.refused(&["suspend", "web"])?;
    ensure!(off.contains("domain is not running"), "{off}");

    // It is created with another document, and is off again with its own.
    let uuid = host.good(&["domuuid", "web"])?;
    let other = text.replace(
        "<name>web</name>",
        &format!("<name>web</name><uuid>{uuid}</uuid><title>now</title>"),
    );
    let file = host.file("other.xml", &other)?;
    host.good(&["create", &file])?;
    ensure!(host.good(&["desc", "web", "--title"])? == "now");
    let title = host.refused(&["create", &file])?;
    ensure!(title.contains("already active"), "{title}");
    host.good(&["destroy", "web"])?;
    wait_for_state(&host, "web", "shut off (destroyed)")?;
    let kept = host.good(&["dumpxml", "web"])?;
    ensure!(!kept.contains("<title>"), "{kept}");
    host.good(&["undefine", "web"])?;
    Ok(())
}

#[test]
fn the_processor_of_the_host_is_compared_with_others() -> Result<()> {
    let host = Host::start(REAL)?;
    // The host is what it says that it is, and so is a guest's processor.
    let capabilities = host.good(&["capabilities"])?;
    ensure!(
        capabilities.contains("<signature family="),
        "{capabilities}"
    );
    let own = host.file("capabilities.xml", &capabilities)?;
    let compared = host.good(&["cpu-compare", &own])?;
    // More, where it has one of the two features that have no place in libvirt's schema (`sse4.1`, `sse4.2`) and no
    // model has.
    ensure!(
        compared.contains("identical") || compared.contains("superset"),
        "{compared}"
    );
    let of_guests = host.file("domcapabilities.xml", &host.good(&["domcapabilities"])?)?;
    let compared = host.good(&["hypervisor-cpu-compare", &of_guests])?;
    ensure!(compared.contains("identical"), "{compared}");
    let baseline = host.good(&["cpu-baseline", &own])?;
    let model = capabilities
        .split("<model>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    let model = model.context("the host has a model")?;
    ensure!(
        baseline.contains(&format!("'>{model}</model>")),
        "{baseline}"
    );
    ensure!(
        host.good(&["cpu-models", "x86_64"])?
            .lines()
            .any(|line| line == model)
    );
    // A guest has no nested guests, and no processor is of every maker.
    let svm = "<cpu match='exact'><model>kvm64</model><feature name='svm' policy='require'/></cpu>";
    let svm = host.file("svm.xml", svm)?;
    let why = host.refused(&["hypervisor-cpu-compare", "--error", &svm])?;
    ensure!(
        why.contains("required features: ") && why.contains("svm"),
        "{why}"
    );
    let two = "<cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor></cpu>\
        <cpu><arch>x86_64</arch><model>Opteron_G3</model><vendor>AMD</vendor></cpu>";
    let two = host.file("two.xml", two)?;
    ensure!(
        host.refused(&["cpu-baseline", &two])?
            .contains("vendors do not match")
    );
    Ok(())
}

#[test]
fn what_no_domain_has_is_answered_as_of_a_machine_without_it() -> Result<()> {
    let host = Host::start(REAL)?;
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    host.good(&["setvcpu", "web", "1", "--enable", "--config"])?;
    ensure!(host.good(&["vcpucount", "web", "--current", "--config"])? == "2");
    host.good(&["setvcpu", "web", "1", "--disable", "--config"])?;
    host.good(&["start", "web"])?;
    host.good(&["setvcpu", "web", "1", "--enable", "--live"])?;
    ensure!(host.good(&["vcpucount", "web", "--current", "--live"])? == "2");
    let refused = |line: &str, why: &str| -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let said = host.refused(&words)?;
        ensure!(said.contains(why), "{line}: {said}");
        Ok(())
    };
    refused("setvcpu web 0 --disable --live", "can't be unplugged")?;
    refused(
        "setvcpu web 9 --enable --live",
        "not present in live config",
    )?;
    ensure!(host.good(&["iothreadinfo", "web"])?.is_empty());
    refused("iothreadadd web 1 --live", "no others")?;
    refused("iothreaddel web 1 --live", "cannot find IOThread '1'")?;
    host.good(&["perf", "web"])?;
    refused("perf web --enable cmt --live", "perf event for cmt")?;
    refused("domdirtyrate-calc web --seconds 1", "not counted")?;
    refused("dompmsuspend web mem", "guest agent is not configured")?;
    refused("get-user-sshkeys web root", "guest agent is not configured")?;
    refused("dompmwakeup web", "not in suspended state")?;
    refused(
        "lxc-enter-namespace web /bin/true",
        "virDomainLxcOpenNamespace",
    )?;
    refused("domxml-to-native qemu-argv --domain web", "not supported")?;
    let information = host.good(&["dominfo", "web"])?;
    ensure!(
        information.contains("Security model: none"),
        "{information}"
    );
    let figures = host.good(&["domstats", "web"])?;
    for field in ["cpu.cache.monitor.count=0", "dirtyrate.calc_status=0"] {
        ensure!(figures.contains(field), "{figures}");
    }
    host.good(&["destroy", "web"])?;
    Ok(())
}
