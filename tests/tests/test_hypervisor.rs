//! The test hypervisor of a real `reeved`: beside real domains and alone, by a real `virsh` and by the native API.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainCreate, DomainDefine, DomainDestroy, DomainFiguresList, DomainGet,
    DomainList, DomainLog, DomainPause, DomainReboot, DomainRef, DomainResume, DomainShutdown,
    DomainStart, DomainUndefine, EventsSubscribe, HostInfoGet, LogKind, StartOptions,
    TestHypervisorUse,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::figures::{FigureGroups, FiguresOf};
use reeve_ipc::api::view::{DomainState, ShutOffReason};
use reeve_tests::daemon::{Daemon, built_in};
use reeve_tests::reeve::product;
use reeve_tests::virsh::{Host, REAL, SOCKET, TEST, fail, succeed, virsh};
use rustix::process::{Pid, Signal};

const PATIENCE: Duration = Duration::from_secs(60);
/// Nobody, and somebody else.
const NOBODY: u32 = 65534;
const STRANGER: u32 = 65533;

/// A connection to the test hypervisor.
fn connect(host: &Host) -> Result<Connection> {
    let mut connection = host.daemon.connect()?;
    connection.call(TestHypervisorUse {})?;
    Ok(connection)
}

/// Nothing of the test hypervisor is on the host.
fn has_no_trace(host: &Host) -> Result<()> {
    ensure!(host.daemon.workers().is_empty(), "a worker runs");
    for directory in ["domains", "log"] {
        let directory = host.daemon.state().join(directory);
        let entries = names(&directory);
        ensure!(entries.is_empty(), "{}: {entries:?}", directory.display());
    }
    let run = names(&host.daemon.run().join("domains"));
    ensure!(run.is_empty(), "{run:?}");
    ensure!(!Path::new("/sys/class/net/testnet0").exists());
    Ok(())
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A domain of the test hypervisor, as little as one can say.
fn document(name: &str) -> String {
    format!(
        "<domain type='test'>\
           <name>{name}</name>\
           <memory unit='MiB'>64</memory>\
           <vcpu current='1'>4</vcpu>\
           <os><type arch='x86_64'>hvm</type><kernel>/nowhere/vmlinuz</kernel></os>\
           <devices><memballoon model='virtio'/></devices>\
         </domain>"
    )
}

#[test]
fn a_name_is_free_when_its_domain_s_end_is_told() -> Result<()> {
    let host = Host::start(TEST)?;
    let mut native = connect(&host)?;
    for _ in 0..200 {
        native.call(DomainCreate {
            definition: Box::new(built_in("again", "")),
            options: StartOptions::default(),
        })?;
        native.call(DomainDestroy {
            domain: named("again"),
        })?;
    }
    Ok(())
}

#[test]
fn the_domain_of_libvirts_test_driver_runs_from_the_start() -> Result<()> {
    let host = Host::start(TEST)?;
    ensure!(
        host.good(&["list", "--all"])?
            .split_whitespace()
            .eq(["1", "test", "running"])
    );
    let info = host.good(&["dominfo", "test"])?;
    for line in [
        "Id:             1",
        "UUID:           6695eb01-f6a4-8304-79aa-97f2502e193f",
        "CPU(s):         2",
        "Max memory:     8388608 KiB",
        "Used memory:    2097152 KiB",
        "Persistent:     yes",
    ] {
        ensure!(info.contains(line), "{line}: {info}");
    }
    let xml = host.good(&["dumpxml", "test"])?;
    ensure!(xml.starts_with("<domain type='test' id='1'>"), "{xml}");
    for part in [
        "/guest/diskimage1",
        "aa:bb:cc:dd:ee:ff",
        "testnet0",
        "memballoon",
    ] {
        ensure!(xml.contains(part), "{part}: {xml}");
    }
    ensure!(
        host.good(&["version"])?
            .contains("Running hypervisor: Test 0.0.2")
    );
    // As libvirt's own says of its host, but that it is no i686.
    let node = host.good(&["nodeinfo"])?;
    let own = Command::new("virsh")
        .args(["-q", "-c", TEST, "nodeinfo"])
        .output()?;
    let own = String::from_utf8(own.stdout)?;
    let own = own.trim().replace("i686", "x86_64");
    ensure!(node == own, "{node}\n{own}");
    // The same at every look.
    let stats = || {
        let stats = host.good(&["domstats", "test"])?;
        let lines = stats.lines().filter(|line| !line.contains("last-update"));
        Ok::<_, anyhow::Error>(lines.collect::<Vec<_>>().join("\n"))
    };
    ensure!(stats()? == stats()?);
    ensure!(host.good(&["vcpuinfo", "test"])?.matches("VCPU:").count() == 2);
    has_no_trace(&host)
}

#[test]
fn a_domain_lives_there_as_any_other_and_at_once() -> Result<()> {
    let host = Host::start(TEST)?;
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    ensure!(host.good(&["domstate", "web"])? == "shut off");
    host.good(&["start", "web", "--paused"])?;
    ensure!(host.good(&["domstate", "--reason", "web"])? == "paused (user)");
    ensure!(host.good(&["domid", "web"])? == "2");
    host.good(&["resume", "web"])?;
    host.good(&["suspend", "web"])?;
    host.good(&["resume", "web"])?;
    ensure!(host.good(&["domstate", "web"])? == "running");
    host.good(&["reboot", "web"])?;
    ensure!(host.good(&["domstate", "web"])? == "running");
    host.good(&["reset", "web"])?;

    host.good(&["setmem", "web", "32M", "--live", "--config"])?;
    let info = host.good(&["dominfo", "web"])?;
    ensure!(info.contains("Used memory:    32768 KiB"), "{info}");
    host.good(&["setvcpus", "web", "3", "--live"])?;
    ensure!(host.good(&["vcpucount", "web", "--live"])?.contains('3'));
    let count = host.good(&["vcpucount", "web", "--live", "--current"])?;
    ensure!(count == "3", "{count}");
    host.good(&["setvcpus", "web", "1", "--live"])?;
    ensure!(host.good(&["vcpucount", "web", "--live", "--current"])? == "1");

    // No image is opened, and no bridge is looked for.
    let disk = [
        "attach-disk",
        "web",
        "/nowhere/disk.img",
        "vdb",
        "--live",
        "--config",
    ];
    host.good(&[&disk[..], &["--driver", "qemu", "--subdriver", "raw"]].concat())?;
    ensure!(
        host.good(&["domblklist", "web"])?
            .contains("/nowhere/disk.img")
    );
    let mac = ["--mac", "52:54:00:00:00:01"];
    let nic = [
        "attach-interface",
        "web",
        "bridge",
        "nowhere0",
        "--model",
        "virtio",
        "--live",
    ];
    host.good(&[&nic[..], &mac].concat())?;
    ensure!(
        host.good(&["domiflist", "web"])?
            .contains("52:54:00:00:00:01")
    );
    host.good(&[&["detach-interface", "web", "bridge", "--live"][..], &mac].concat())?;
    ensure!(host.good(&["domiflist", "web"])?.is_empty());
    host.good(&["detach-disk", "web", "vdb", "--live", "--config"])?;
    ensure!(host.good(&["domblklist", "web"])?.is_empty());

    host.good(&["desc", "web", "--live", "--config", "--title", "a title"])?;
    ensure!(host.good(&["desc", "web", "--title"])? == "a title");
    host.good(&["autostart", "web"])?;
    host.good(&["shutdown", "web"])?;
    ensure!(host.good(&["domstate", "--reason", "web"])? == "shut off (shutdown)");
    host.good(&["domrename", "web", "other"])?;
    host.good(&["start", "other"])?;
    ensure!(host.good(&["domid", "other"])? == "3");
    host.good(&["destroy", "other"])?;
    ensure!(host.good(&["domstate", "--reason", "other"])? == "shut off (destroyed)");
    host.good(&["undefine", "other"])?;
    let file = host.file("short.xml", &document("short"))?;
    host.good(&["create", &file])?;
    host.good(&["destroy", "short"])?;
    ensure!(host.good(&["list", "--all", "--name"])? == "test");
    // Of real domains it is another type.
    let file = host.file(
        "kvm.xml",
        &document("kvm").replace("type='test'", "type='kvm'"),
    )?;
    let said = host.refused(&["define", &file])?;
    ensure!(said.contains("kvm"), "{said}");
    has_no_trace(&host)
}

#[test]
fn what_happens_there_is_told_in_its_order() -> Result<()> {
    let host = Host::start(TEST)?;
    let heard = host.listen(&["event", "--all", "--loop"])?;
    let deadline = Instant::now() + PATIENCE;
    // It has asked for them when the first is heard.
    let heard_first = (0..).find_map(|number| {
        let name = format!("call{number}");
        let file = host.file("call.xml", &document(&name)).ok()?;
        host.good(&["define", &file]).ok()?;
        let first = heard.next(Duration::from_millis(200));
        (first.is_some() || Instant::now() > deadline).then_some(first.is_some())
    });
    ensure!(heard_first == Some(true), "no event is heard");
    let file = host.file("web.xml", &document("web"))?;
    for command in [
        &["define", file.as_str()][..],
        &["start", "web"],
        &["suspend", "web"],
        &["resume", "web"],
        &["setmem", "web", "32M", "--live"],
        &["shutdown", "web"],
        &["undefine", "web"],
    ] {
        host.good(command)?;
    }
    let mut told = Vec::new();
    while told
        .last()
        .is_none_or(|last: &String| !last.contains("Undefined"))
    {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(line) = heard.next(left) else {
            bail!("only {told:?}");
        };
        if let Some((_, happened)) = line.split_once(" for domain 'web'") {
            told.push(happened.trim_start_matches(": ").to_owned());
        }
    }
    let wanted = [
        "Defined Added",
        "Started Booted",
        "Suspended Paused",
        "Resumed Unpaused",
        "32768KiB",
        "Shutdown Finished",
        "Stopped Shutdown",
        "Undefined Removed",
    ];
    ensure!(told.len() == wanted.len(), "{told:?}");
    for (told, wanted) in told.iter().zip(wanted) {
        ensure!(
            told.starts_with(wanted),
            "{told}, where {wanted} was to come"
        );
    }
    Ok(())
}

#[test]
fn all_clients_see_the_same_there_and_nothing_real_and_it_goes_with_the_supervisor() -> Result<()> {
    let mut host = Host::start(TEST)?;
    let file = host.file("web.xml", &document("web"))?;
    host.good(&["define", &file])?;
    let mut real = host.daemon.connect()?;
    real.call(define("real"))?;

    let mut native = connect(&host)?;
    let names = |connection: &mut Connection| -> Result<Vec<String>> {
        let domains = connection.domains(false)?.into_iter();
        Ok(domains
            .map(|domain| domain.name.as_str().to_owned())
            .collect())
    };
    ensure!(names(&mut native)? == ["test", "web"]);
    ensure!(names(&mut connect(&host)?)? == ["test", "web"]);
    ensure!(names(&mut real)? == ["real"]);
    ensure!(succeed(host.virsh_of(REAL, &["list", "--all", "--name"]))? == "real");
    let absent = fail(host.virsh_of(REAL, &["domstate", "test"]))?;
    ensure!(absent.contains("failed to get domain"), "{absent}");
    ensure!(
        host.refused(&["domstate", "real"])?
            .contains("failed to get domain")
    );
    let listed = host.daemon.reeve(&["--test", "list", "--all", "--quiet"])?;
    ensure!(listed.lines().eq(["test", "web"]), "{listed}");
    ensure!(
        host.daemon
            .reeve(&["list", "--all", "--quiet"])?
            .lines()
            .eq(["real"])
    );
    host.daemon.reeve(&["--test", "start", "web"])?;
    ensure!(host.good(&["domid", "web"])? == "2");
    // What one is called here may be called so there.
    real.call(define("web"))?;
    ensure!(
        real.call(DomainGet {
            domain: named("web")
        })?
        .summary
        .id
        .is_none()
    );

    // A connection is of one or the other from its first call on.
    let late = real.call(TestHypervisorUse {});
    ensure!(code(&late) == Some(ApiErrorCode::WrongState), "{late:?}");
    native.call(TestHypervisorUse {})?;

    // Events of one are not the other's.
    let mut watching = host.daemon.connect()?;
    watching.call(EventsSubscribe { after: None })?;
    native.call(EventsSubscribe { after: None })?;
    host.daemon.reeve(&["--test", "destroy", "web"])?;
    real.call(DomainUndefine {
        domain: named("real"),
    })?;
    let (_, event) = watching.next_event(Some(PATIENCE))?.context("no event")?;
    let event = event.of_domain().context("an event of a pool")?;
    ensure!(
        event.name.as_str() == "real" && event.kind == EventKind::Undefined,
        "{event:?}"
    );
    let (_, event) = native.next_event(Some(PATIENCE))?.context("no event")?;
    let event = event.of_domain().context("an event of a pool")?;
    ensure!(event.name.as_str() == "web", "{event:?}");

    // There are no logs, and none is written.
    let (domain, log) = (named("test"), LogKind::Domain);
    let log = native.call(DomainLog { domain, log });
    ensure!(code(&log) == Some(ApiErrorCode::Unsupported), "{log:?}");

    host.daemon.crash()?;
    ensure!(names(&mut connect(&host)?)? == ["test"]);
    ensure!(names(&mut host.daemon.connect()?)? == ["web"]);
    Ok(())
}

#[test]
fn what_is_answered_is_done() -> Result<()> {
    let host = Host::start(TEST)?;
    let mut native = connect(&host)?;
    let state = |native: &mut Connection| -> Result<DomainState> {
        let details = native.call(DomainGet {
            domain: named("web"),
        })?;
        Ok(details.summary.state)
    };
    native.call(define("web"))?;
    for round in 0..50 {
        let started = native.call(start("web"))?;
        ensure!(started.id == Some(round + 2), "{started:?}");
        native.call(DomainPause {
            domain: named("web"),
        })?;
        native.call(DomainResume {
            domain: named("web"),
        })?;
        native.call(DomainReboot {
            domain: named("web"),
        })?;
        let running = state(&mut native)?;
        ensure!(running.is_active(), "{round}: {running:?}");
        native.call(DomainShutdown {
            domain: named("web"),
            destroy_after_ms: None,
            for_host: false,
        })?;
        let off = state(&mut native)?;
        ensure!(
            off == DomainState::ShutOff(ShutOffReason::Shutdown),
            "{round}: {off:?}"
        );
    }
    // And figures are the same at every look.
    native.call(start("web"))?;
    let figures = |native: &mut Connection| -> Result<_> {
        Ok(native.call(DomainFiguresList {
            of: FiguresOf::Named(vec![named("web")]),
            groups: FigureGroups {
                usage: true,
                vcpus: true,
                devices: true,
            },
        })?)
    };
    ensure!(figures(&mut native)? == figures(&mut native)?);
    let host_info = native.call(HostInfoGet {})?;
    ensure!(host_info == native.call(HostInfoGet {})?);
    Ok(())
}

#[test]
fn who_only_looks_changes_nothing_there() -> Result<()> {
    let host = Host::start(TEST)?;
    let only_look = |socket: &str, flag: Option<&str>, arguments: &[&str]| {
        let mut command = virsh(TEST, &host.daemon.run().join(socket));
        command.args(flag).args(arguments);
        command
    };
    for (socket, flag) in [(SOCKET, Some("-r")), ("libvirt-sock-ro", None)] {
        ensure!(succeed(only_look(socket, flag, &["domstate", "test"]))? == "running");
        for arguments in [
            &["destroy", "test"][..],
            &["undefine", "test"],
            &["setmem", "test", "1G"],
        ] {
            let said = fail(only_look(socket, flag, arguments))?;
            ensure!(said.contains("read only"), "{said}");
        }
    }
    ensure!(host.good(&["domstate", "test"])? == "running");
    Ok(())
}

#[test]
fn it_can_be_filled_and_nothing_else_notices() -> Result<()> {
    let host = Host::start(TEST)?;
    let mut native = connect(&host)?;
    let mut count = 1;
    let refused = loop {
        let mut more = define(&format!("more{count}"));
        more.definition.labels.description = Some("x".repeat(4096));
        let defined = native.call(more);
        if defined.is_err() {
            break defined;
        }
        count += 1;
        ensure!(count < 10_000, "there is no bound");
    };
    ensure!(count == 256, "{count}");
    ensure!(code(&refused) == Some(ApiErrorCode::Host), "{refused:?}");
    let file = host.file("web.xml", &document("web"))?;
    let said = host.refused(&["define", &file])?;
    ensure!(said.contains("there are 256 domains"), "{said}");
    ensure!(
        host.refused(&["create", &file])?
            .contains("there are 256 domains")
    );
    let created = native.call(DomainCreate {
        definition: Box::new(built_in("created", "")),
        options: StartOptions::default(),
    });
    ensure!(code(&created) == Some(ApiErrorCode::Host), "{created:?}");
    ensure!(host.good(&["list", "--all", "--name"])?.lines().count() == 256);
    host.daemon.connect()?.call(define("real"))?;

    // Clients of consoles cost a descriptor each.
    let mut consoles = Vec::new();
    for number in 1..6 {
        native.call(start(&format!("more{number}")))?;
    }
    let full = 'full: loop {
        for number in 1..6 {
            let console = DomainConsole {
                domain: named(&format!("more{number}")),
                input: false,
            };
            match native.call_with_fds(console) {
                Ok((_, stream)) => consoles.push(stream),
                Err(error) => break 'full error,
            }
            ensure!(consoles.len() < 1000, "there is no bound");
        }
    };
    ensure!(consoles.len() == 64, "{}", consoles.len());
    ensure!(full.to_string().contains("64 clients"), "{full}");
    drop(consoles);

    for number in 1..6 {
        native.call(DomainDestroy {
            domain: named(&format!("more{number}")),
        })?;
    }
    host.good(&["undefine", "more7"])?;
    host.good(&["define", &file])?;
    ensure!(
        native
            .call(DomainList {
                after: None,
                active_only: true
            })?
            .domains
            .len()
            == 1
    );
    Ok(())
}

#[test]
fn other_uris_of_it_are_refused_and_all_where_it_is_turned_off() -> Result<()> {
    let host = Host::start(TEST)?;
    for (uri, complaint) in [
        ("test:///", "testOpen: supply a path or use test:///default"),
        (
            "test:///etc/passwd",
            "no file is read for a client; use test:///default",
        ),
    ] {
        let said = fail(host.virsh_of(uri, &["list"]))?;
        ensure!(said.contains(complaint), "{uri}: {said}");
        ensure!(!said.contains("root:"), "{said}");
    }
    drop(host);

    let mut daemon = Daemon::prepare()?;
    let files = tempfile::tempdir()?;
    let config = files.path().join("reeve.toml");
    fs::write(&config, "test_hypervisor = false\n")?;
    daemon.argument(&format!("--config={}", config.display()));
    daemon.spawn()?;
    let host = Host::of(daemon, TEST);
    let said = host.refused(&["list"])?;
    ensure!(
        said.contains("no connection driver available for test:///default"),
        "{said}"
    );
    ensure!(succeed(host.virsh_of(REAL, &["list", "--all"]))?.is_empty());
    let mut native = host.daemon.connect()?;
    let refused = native.call(TestHypervisorUse {});
    ensure!(
        code(&refused) == Some(ApiErrorCode::Unsupported),
        "{refused:?}"
    );
    native.call(DomainList {
        after: None,
        active_only: false,
    })?;
    let output = host.daemon.reeve_command(&["--test", "list"])?.output()?;
    ensure!(String::from_utf8(output.stderr)?.contains("test_hypervisor"));
    Ok(())
}

/// A test hypervisor that is an instance of its own: as nobody, where there is no KVM.
struct Alone {
    /// Removed with it.
    directory: tempfile::TempDir,
    child: Child,
}

/// Runs a command as the user of that uid, where there is no KVM.
const AS_USER: &str = "if [ -e /dev/kvm ]; then mount --bind /dev/null /dev/kvm; fi; uid=$1; shift; \
                       exec setpriv --reuid $uid --regid $uid --clear-groups --inh-caps=-all \"$@\"";

impl Alone {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
        fs::create_dir(at("bin"))?;
        // Where a build is may be nobody's to look at.
        for name in ["reeved", "reeve-gateway", "reeve"] {
            fs::copy(product(name)?, at("bin").join(name))?;
        }
        let log = fs::File::create(at("log"))?;
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", AS_USER, "sh"])
            .arg(NOBODY.to_string())
            .arg(at("bin").join("reeved"))
            .args(["--test", "--run-dir"])
            .arg(at("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let alone = Self { directory, child };
        let deadline = Instant::now() + PATIENCE;
        while Connection::open(&alone.socket(), "test").is_err() {
            ensure!(
                Instant::now() < deadline,
                "it does not serve: {}",
                alone.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(alone)
    }

    fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn socket(&self) -> PathBuf {
        self.run().join("reeve-sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.child.id())?).context("no pid")
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command as that user.
fn user(uid: u32, command: &Command) -> Command {
    let mut as_user = Command::new("setpriv");
    let uid = uid.to_string();
    as_user
        .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("LC_ALL", "C")
        // Nobody has no home, which libvirt's library looks for.
        .env("HOME", "/nonexistent")
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .stdin(Stdio::null());
    as_user
}

#[test]
fn nobody_runs_one_of_its_own_without_kvm_and_without_root() -> Result<()> {
    let mut alone = Alone::start()?;
    let virsh = |uri, socket, arguments: &[&str]| {
        let mut command = virsh(uri, &alone.run().join(socket));
        command.args(arguments);
        user(NOBODY, &command)
    };
    // By each of its names, and by those of real hypervisors, which here is none.
    for uri in [TEST, REAL] {
        ensure!(succeed(virsh(uri, SOCKET, &["list", "--all", "--name"]))? == "test");
    }
    let file = alone.directory.path().join("web.xml");
    fs::write(&file, document("web"))?;
    let file = file.display().to_string();
    succeed(virsh(TEST, SOCKET, &["define", &file]))?;
    succeed(virsh(TEST, SOCKET, &["start", "web"]))?;
    ensure!(succeed(virsh(TEST, SOCKET, &["domid", "web"]))? == "2");
    ensure!(succeed(virsh(TEST, "libvirt-sock-ro", &["domstate", "web"]))? == "running");
    let said = fail(virsh(TEST, "libvirt-sock-ro", &["destroy", "web"]))?;
    ensure!(said.contains("read only"), "{said}");

    // By the native API, which needs not ask for it, and by those who do.
    let mut reeve = Command::new(alone.directory.path().join("bin/reeve"));
    reeve.arg("--socket").arg(alone.socket());
    let mut plain = user(NOBODY, &reeve);
    ensure!(
        succeed({
            plain.args(["list", "--quiet"]);
            plain
        })?
        .lines()
        .eq(["test", "web"])
    );
    let mut asking = user(NOBODY, &reeve);
    ensure!(
        succeed({
            asking.args(["--test", "list", "--quiet"]);
            asking
        })?
        .lines()
        .eq(["test", "web"])
    );
    let mut stranger = user(STRANGER, &reeve);
    let said = fail({
        stranger.args(["list"]);
        stranger
    })?;
    ensure!(said.contains("may not use this supervisor"), "{said}");

    // Its gateways are jailed as far as they can be, and it says how far that is.
    let pid = alone.pid()?.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let mut gateways = children;
    for thread in threads {
        // One may end meanwhile.
        gateways += &fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    }
    let gateways: BTreeSet<&str> = gateways.split_whitespace().collect();
    ensure!(!gateways.is_empty(), "no gateway waits");
    for gateway in gateways {
        let status = fs::read_to_string(format!("/proc/{gateway}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.map(|line| {
                line.split_whitespace()
                    .skip(1)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        let all = "65534 65534 65534 65534".to_owned();
        ensure!(field("Uid:") == Some(all), "{status}");
        ensure!(field("Seccomp:").as_deref() == Some("2"), "{status}");
        ensure!(field("NoNewPrivs:").as_deref() == Some("1"), "{status}");
        ensure!(
            field("CapEff:").as_deref() == Some("0000000000000000"),
            "{status}"
        );
        let own = |of: &str| fs::read_link(format!("/proc/{of}/ns/user"));
        ensure!(
            own(gateway)? != own("self")?,
            "it is in no user namespace of its own"
        );
    }
    ensure!(
        alone.log().contains("\"level\":\"user\""),
        "{}",
        alone.log()
    );

    // It keeps nothing, and takes its sockets with it.
    let here = names(&alone.run());
    let wanted = [
        "domains",
        "libvirt-sock",
        "libvirt-sock-ro",
        "lock",
        "reeve-sock",
    ];
    ensure!(here == wanted.map(str::to_owned).into(), "{here:?}");
    ensure!(names(&alone.run().join("domains")).is_empty());
    rustix::process::kill_process(alone.pid()?, Signal::TERM)?;
    let status = alone.child.wait()?;
    ensure!(status.success(), "{status}: {}", alone.log());
    ensure!(names(&alone.run()) == ["domains", "lock"].map(str::to_owned).into());
    Ok(())
}

fn named(name: &str) -> DomainRef {
    DomainRef::Name(
        name.parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

fn define(name: &str) -> DomainDefine {
    DomainDefine {
        definition: Box::new(built_in(name, "")),
        only_new: false,
    }
}

fn start(name: &str) -> DomainStart {
    DomainStart {
        domain: named(name),
        options: StartOptions::default(),
    }
}

fn code<T>(result: &Result<T, CallError>) -> Option<ApiErrorCode> {
    let error = result.as_ref().err()?;
    error.refused().map(|error| error.code)
}
