//! The Debian package on a machine with systemd: installed, upgraded under running domains, removed,
//! purged; and the guests' orderly end when that machine shuts down.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER, PROMPT, UP_MARKER};
use reeve_tests::lab::session::End;
use reeve_tests::lab::{self, Test, assets};
use reeve_tests::package::{BUILDS, packages};
use reeve_tests::reeve::{Builder, Reeve};
use serde_json::Value;

/// Everything is emulated here, systemd and dpkg too.
const SOON: Duration = Duration::from_secs(30);
const BOOT: Duration = Duration::from_secs(100);
/// Takes three minutes or so; the rest is for a machine under heavy load.
const LIMIT: Duration = Duration::from_secs(900);
/// The shortest that the guest with Linux makes use of; the other one does not shut down at all.
const SHUTDOWN_SECONDS: u32 = 20;

const UNITS: [&str; 3] = ["reeve-domains", "reeved", "reeve-guests"];
const SLICE: &str = "/sys/fs/cgroup/reeve.slice";

/// Runs `body` in an outer guest with Debian; gives how that ended, and what was printed.
fn in_debian(path: &'static str, body: fn() -> Result<()>) -> Result<Option<(Test, End, String)>> {
    if lab::inside() {
        lab::enter();
        body()?;
        return Ok(None);
    }
    let test = Test {
        path,
        limit: LIMIT,
        needs_root: true,
    };
    let mut printed = String::new();
    let end = lab::run_in_debian(&test, &packages()?, &mut |output| {
        let output = String::from_utf8_lossy(output);
        lab::say(&output);
        printed.push_str(&output);
    })?;
    Ok(Some((test, end, printed)))
}

#[test]
fn the_package_is_installed_upgraded_under_running_domains_and_removed() -> Result<()> {
    let path = "package::the_package_is_installed_upgraded_under_running_domains_and_removed";
    match in_debian(path, life_of_a_package)? {
        Some((test, end, _)) => lab::verdict(&test, end),
        None => Ok(()),
    }
}

fn life_of_a_package() -> Result<()> {
    let [first, second] = BUILDS;
    install(first.file)?;
    for unit in UNITS {
        run("systemctl", &["--quiet", "is-active", unit])?;
    }
    for group in ["reeve", "reeve-ro"] {
        run("getent", &["group", group])?;
    }
    assert_build(first.revision)?;
    configure()?;

    define_linux("web")?;
    define_deaf("deaf", &[])?;
    reeve(&["start", "web", "deaf"])?;
    let mut console = console("web")?;
    console.expect(UP_MARKER, BOOT)?;
    console.expect(PROMPT, SOON)?;
    console.shell("told=before", SOON)?;
    drop(console);
    let before = Workers::of(&["web", "deaf"])?;
    let daemon = main_pid("reeved")?;
    let others = ["reeve-domains", "reeve-guests"].map(invocation);

    install(second.file)?;
    assert_build(second.revision)?;
    ensure!(
        main_pid("reeved")? != daemon,
        "the daemon was not restarted"
    );
    for (unit, before) in ["reeve-domains", "reeve-guests"].iter().zip(others) {
        ensure!(invocation(unit)? == before?, "{unit} was restarted");
    }
    ensure!(Workers::of(&["web", "deaf"])? == before, "other workers");
    assert_answers("web")?;
    // The daemon was started again while its domains' cgroups have controllers; new ones still get
    // them, and a failure of the daemon ends as an upgrade does.
    let cgroup = before.cgroup("web")?;
    ensure!(fs::read_to_string(format!("{cgroup}/pids.max"))?.trim() == "64");
    let enabled = format!("{SLICE}/reeve-domains.service/cgroup.subtree_control");
    ensure!(fs::read_to_string(enabled)?.contains("pids"));
    define_deaf("late", &["--limit-pids", "32"])?;
    reeve(&["start", "late"])?;
    let late = Workers::of(&["late"])?;
    let pids = fs::read_to_string(format!("{}/pids.max", late.cgroup("late")?))?;
    ensure!(pids.trim() == "32", "{pids}");
    reeve(&["destroy", "late"])?;
    reeve(&["undefine", "late"])?;
    run("systemctl", &["kill", "--signal=KILL", "reeved"])?;
    until(SOON, "the daemon is back", || Ok(reeve(&["list"]).is_ok()))?;
    ensure!(
        Workers::of(&["web", "deaf"])? == before,
        "other workers after a crash"
    );
    assert_answers("web")?;

    dpkg(&["--remove", "reeve"])?;
    let log = fs::read_to_string("/var/log/reeve/web.console.log")?;
    ensure!(
        log.contains(POWER_BUTTON_MARKER),
        "not asked to shut down: {log}"
    );
    assert_gone()?;
    ensure!(
        !Path::new("/run/reeve").exists(),
        "the run directory is left"
    );
    ensure!(
        fs::read_dir("/var/lib/reeve/domains")?.count() == 2,
        "definitions are gone"
    );
    ensure!(
        Path::new("/etc/reeve/reeve.toml").exists(),
        "the configuration is gone"
    );

    // Installed again, it serves again, with the definitions that stayed.
    install(second.file)?;
    for unit in UNITS {
        run("systemctl", &["--quiet", "is-active", unit])?;
    }
    ensure!(reeve(&["list", "--all", "--quiet"])?.lines().count() == 2);
    // A daemon that is stopped is no reason to kill guests: it is started to ask them.
    reeve(&["start", "deaf"])?;
    run("systemctl", &["stop", "reeved"])?;
    let begin = Instant::now();
    dpkg(&["--remove", "reeve"])?;
    ensure!(
        begin.elapsed() >= Duration::from_secs(SHUTDOWN_SECONDS.into()),
        "the guest was not given its time: {:?}",
        begin.elapsed()
    );
    assert_gone()?;

    fs::create_dir_all("/var/lib/reeve/images")?;
    fs::write("/var/lib/reeve/images/disk", "precious")?;
    dpkg(&["--purge", "reeve"])?;
    for path in [
        "/var/lib/reeve/domains",
        "/var/log/reeve",
        "/etc/reeve",
        "/run/reeve",
    ] {
        ensure!(!Path::new(path).exists(), "{path} is left");
    }
    ensure!(
        Path::new("/var/lib/reeve/images/disk").exists(),
        "an image was removed"
    );
    let units = run("systemctl", &["list-unit-files", "--no-legend", "reeve*"]);
    ensure!(
        units.map_or(true, |units| units.trim().is_empty()),
        "units are left"
    );
    Ok(())
}

/// Run when the host shuts down, after the guests' unit and before the daemon's: says what is there.
const WITNESS: &str = "[Unit]
After=reeved.service
Before=reeve-guests.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c '{ echo witness: $$(reeve list --quiet | wc -l) run; \
    grep -c POWER-BUTTON /var/log/reeve/web.console.log | sed s/^/witness:\\ told\\ /; \
    reeve list --all --quiet | sed s/^/witness:\\ kept\\ /; } >/dev/console 2>&1'
";

#[test]
fn guests_shut_down_before_the_daemon_when_the_host_does() -> Result<()> {
    let path = "package::guests_shut_down_before_the_daemon_when_the_host_does";
    let Some((_, end, printed)) = in_debian(path, shut_the_host_down)? else {
        return Ok(());
    };
    ensure!(end == End::Gone, "{end:?}");
    for line in ["witness: 0 run", "witness: told 1", "witness: kept web"] {
        ensure!(printed.contains(line), "no {line:?}");
    }
    Ok(())
}

fn shut_the_host_down() -> Result<()> {
    fs::write("/etc/systemd/system/witness.service", WITNESS)?;
    let [first, _] = BUILDS;
    install(first.file)?;
    configure()?;
    run("systemctl", &["start", "witness"])?;
    define_linux("web")?;
    // No policy starts it again while the host goes down.
    let definition = reeve(&["export", "web"])?;
    let restarts = definition.replace("on-poweroff = \"destroy\"", "on-poweroff = \"restart\"");
    ensure!(restarts != definition, "{definition}");
    fs::write("/root/web.toml", restarts)?;
    reeve(&["import", "/root/web.toml"])?;
    define_deaf("deaf", &[])?;
    reeve(&["start", "web", "deaf"])?;
    console("web")?.expect(UP_MARKER, BOOT)?;
    run("systemctl", &["poweroff"])?;
    // This process is ended on the way, and the machine after it.
    std::thread::sleep(LIMIT);
    bail!("the machine still runs")
}

/// What the tests need of the daemon, taken up by a reload.
fn configure() -> Result<()> {
    let path = "/etc/reeve/reeve.toml";
    let mut configuration = fs::read_to_string(path)?;
    configuration.push_str("allowed_directories = [\"/assets\"]\n");
    configuration.push_str(&format!(
        "host_shutdown_timeout_seconds = {SHUTDOWN_SECONDS}\n"
    ));
    fs::write(path, configuration)?;
    run("systemctl", &["reload", "reeved"])?;
    Ok(())
}

/// A guest that shuts down when it is asked to, with limits.
fn define_linux(name: &str) -> Result<()> {
    let (kernel, initrd) = (&assets().vmlinux, &assets().initramfs);
    let [kernel, initrd] = [kernel, initrd].map(|path| path.to_string_lossy().into_owned());
    reeve(&[
        "define",
        name,
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        COMMAND_LINE,
        "--memory",
        "192M",
        "--limit-memory",
        "256M",
        "--limit-pids",
        "64",
        "--limit-cpu",
        "100",
    ])?;
    Ok(())
}

/// A guest that takes no notice of anything.
fn define_deaf(name: &str, limits: &[&str]) -> Result<()> {
    let mut arguments = vec!["define", name, "--cmdline", "mode=hold", "--memory", "64M"];
    arguments.extend_from_slice(limits);
    reeve(&arguments)?;
    Ok(())
}

fn console(name: &str) -> Result<Reeve> {
    let mut command = Command::new("/usr/bin/reeve");
    command.args(["console", name]);
    Builder::new(command).spawn()
}

/// The guest's shell knows what it was told before.
fn assert_answers(name: &str) -> Result<()> {
    let mut console = console(name)?;
    console.send(b"\necho was:$told:\n")?;
    console.expect("was:before:", SOON)?;
    Ok(())
}

fn assert_build(revision: &str) -> Result<()> {
    let version = run("/usr/bin/reeve", &["--version"])?;
    ensure!(version.contains(revision), "{version}");
    let status = reeve(&["--json", "status"])?;
    let status: Value = serde_json::from_str(&status)?;
    let build = status.get("build").and_then(Value::as_str);
    ensure!(
        build.is_some_and(|build| build.ends_with(revision)),
        "{status}"
    );
    Ok(())
}

/// Workers by domain: pid, start time and cgroup.
#[derive(Debug, PartialEq)]
struct Workers(Vec<(String, u64, String, String)>);

impl Workers {
    fn of(names: &[&str]) -> Result<Workers> {
        let mut workers = Vec::new();
        for name in names {
            let info: Value = serde_json::from_str(&reeve(&["--json", "inspect", name])?)?;
            let worker = info.get("worker").context("a worker")?;
            let pid = worker.get("pid").and_then(Value::as_u64).context("a pid")?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, fields) = stat.rsplit_once(')').context("a stat")?;
            let started = fields.split_whitespace().nth(19).context("a start time")?;
            let cgroup = worker
                .get("cgroup")
                .and_then(Value::as_str)
                .context("a cgroup")?;
            ensure!(cgroup.starts_with(SLICE), "{cgroup}");
            workers.push((
                (*name).to_owned(),
                pid,
                started.to_owned(),
                cgroup.to_owned(),
            ));
        }
        Ok(Workers(workers))
    }

    fn cgroup(&self, name: &str) -> Result<&str> {
        let found = self.0.iter().find(|(of, ..)| of == name);
        Ok(&found.context("a worker")?.3)
    }
}

/// No process, no active unit, no cgroup.
fn assert_gone() -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let name = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        ensure!(!name.starts_with("reeve"), "{name} runs");
    }
    for unit in UNITS {
        let state = run("systemctl", &["show", "-P", "ActiveState", unit])?;
        ensure!(state.trim() == "inactive", "{unit}: {state}");
    }
    let children = fs::read_dir(SLICE).into_iter().flatten().flatten();
    let left: Vec<_> = children
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.path())
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn main_pid(unit: &str) -> Result<u32> {
    Ok(run("systemctl", &["show", "-P", "MainPID", unit])?
        .trim()
        .parse()?)
}

/// What changes whenever a unit is started.
fn invocation(unit: &str) -> Result<String> {
    run("systemctl", &["show", "-P", "InvocationID", unit])
}

fn install(file: &str) -> Result<()> {
    dpkg(&["--install", &format!("/payload/{file}")])
}

fn dpkg(arguments: &[&str]) -> Result<()> {
    let printed = run("dpkg", arguments)?;
    lab::say(&printed);
    Ok(())
}

fn reeve(arguments: &[&str]) -> Result<String> {
    run("/usr/bin/reeve", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let begin = Instant::now();
    let mut command = Command::new(program);
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let line = arguments.join(" ");
    lab::say(&format!(
        "{program} {line}: {} ms\n",
        begin.elapsed().as_millis()
    ));
    ensure!(status.success(), "{program} {line}: {status}\n{out}{err}");
    Ok(out)
}

fn until(limit: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done()? {
        ensure!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
