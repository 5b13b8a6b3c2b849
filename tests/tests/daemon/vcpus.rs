//! vCPUs of stock Linux that come and go under `reeve set-vcpus`, in the lab. With `REEVE_SOAK=1` fifty times.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

use super::linux::{Host, NAME, expect_up};

const SHELL: Duration = Duration::from_secs(60);
/// The domain has one vCPU of three.
const CPUS: &str = "cpus = 1\nmax-cpus = 3\n";

fn rounds() -> u32 {
    if reeve_tests::soaking() { 50 } else { 3 }
}

/// What a command prints; an error if it fails.
fn run(console: &mut Reeve, line: &str) -> Result<String> {
    let printed = console.shell(&format!("{line}; echo \"status $?\""), SHELL)?;
    let (printed, status) = printed
        .trim_end()
        .rsplit_once("status ")
        .with_context(|| format!("{line}: {printed}"))?;
    ensure!(status == "0", "{line}: status {status}: {printed}");
    Ok(printed.trim().to_owned())
}

/// Brings the vCPUs online that have come: the small guest has nothing that does.
fn bring_online(console: &mut Reeve, cpus: &[u32]) -> Result<()> {
    for cpu in cpus {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        run(
            console,
            &format!(
                "n=0; until [ -e {file} ] || [ $n = 300 ]; do sleep 0.1; n=$((n+1)); done; echo 1 >{file}"
            ),
        )?;
    }
    Ok(())
}

/// How long each vCPU has run, in nanoseconds, as `reeve stats` says.
fn run_times(host: &Host) -> Result<Vec<(String, u64)>> {
    let stats: serde_json::Value =
        serde_json::from_str(&host.daemon.reeve(&["--json", "stats", NAME])?)?;
    let stats = stats.as_array().context("a list")?.iter();
    let vcpus = stats.filter(|one| one["kind"] == "vcpu");
    vcpus
        .map(|one| {
            let figures = &one["figures"];
            ensure!(figures["wait_ns"].is_u64(), "{one}");
            let name = one["device"].as_str().context("a name")?.to_owned();
            Ok((name, figures["run_ns"].as_u64().context("a time")?))
        })
        .collect()
}

fn vcpus(host: &Host) -> Result<u32> {
    Ok(host.details()?.summary.vcpus)
}

/// Has every CPU of the guest compute for a while.
fn load(console: &mut Reeve) -> Result<()> {
    run(
        console,
        "(for job in 1 2 3 4; do (n=0; while [ $n -lt 5000 ]; do n=$((n+1)); done) & done; wait)",
    )?;
    Ok(())
}

#[reeve_tests::in_lab(timeout = "900s", root)]
fn two_vcpus_come_work_and_go_again_and_again() -> Result<()> {
    let before = Snapshot::take();
    let host = Host::new(CPUS)?;
    let mut console = host.boot()?;
    ensure!(run(&mut console, "nproc")? == "1", "nproc at the start");
    run(&mut console, "dmesg -c >/dev/null")?;
    for round in 1..=rounds() {
        let what = || format!("round {round}");
        host.daemon
            .reeve(&["set-vcpus", NAME, "3"])
            .with_context(what)?;
        ensure!(vcpus(&host)? == 3, "{round}");
        bring_online(&mut console, &[1, 2]).with_context(what)?;
        let count = run(&mut console, "nproc")?;
        ensure!(count == "3", "nproc is {count} in round {round}");
        let times = run_times(&host)?;
        load(&mut console).with_context(what)?;
        let later = run_times(&host)?;
        ensure!(times.len() == 3 && later.len() == 3, "{times:?} {later:?}");
        for ((name, run), (_, then)) in times.iter().zip(&later) {
            ensure!(
                then.saturating_sub(*run) > 10_000_000,
                "{name} ran from {run} to {then} under load in round {round}"
            );
        }
        host.daemon
            .reeve(&["set-vcpus", NAME, "1"])
            .with_context(what)?;
        ensure!(vcpus(&host)? == 1, "{round}");
        let count = run(&mut console, "nproc")?;
        ensure!(count == "1", "nproc is {count} after round {round}");
        ensure!(run_times(&host)?.len() == 1, "{:?}", run_times(&host)?);
    }
    // Counted there: a whole log takes its time on a serial line.
    let complaints = run(
        &mut console,
        "dmesg | grep -ciE 'lockup|unstable|kernel bug|oops' || true",
    )?;
    ensure!(
        complaints == "0",
        "{complaints} complaints in the guest's log"
    );
    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}

/// Waits until a guest that was asked has so many.
fn becomes(host: &Host, count: u32) -> Result<()> {
    let until = Instant::now() + SHELL;
    while vcpus(host)? != count {
        ensure!(
            Instant::now() < until,
            "it was asked, and has {}",
            vcpus(host)?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn the_count_outlives_a_daemon_and_a_reset_and_a_refusal_is_told() -> Result<()> {
    let before = Snapshot::take();
    let mut host = Host::new(CPUS)?;
    let mut console = host.boot()?;
    host.daemon.reeve(&["set-vcpus", NAME, "2"])?;
    bring_online(&mut console, &[1])?;
    host.daemon.crash()?;
    ensure!(vcpus(&host)? == 2, "adopted with {}", vcpus(&host)?);
    ensure!(run(&mut console, "nproc")? == "2", "nproc");
    host.daemon.reeve(&["reset", NAME])?;
    expect_up(&mut console)?;
    ensure!(run(&mut console, "nproc")? == "2", "nproc after a reset");

    // Linux says no where it is told to.
    let profile = "/sys/firmware/acpi/hotplug/processor/enabled";
    run(&mut console, &format!("echo 0 >{profile}"))?;
    let began = Instant::now();
    let Err(error) = host.daemon.reeve(&["set-vcpus", NAME, "1"]) else {
        bail!("a guest that may not has let go of a vCPU");
    };
    ensure!(
        format!("{error:#}").contains("does not let go"),
        "{error:#}"
    );
    ensure!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    ensure!(vcpus(&host)? == 2, "a vCPU is lost");
    run(&mut console, &format!("echo 1 >{profile}"))?;
    if let Err(error) = host.daemon.reeve(&["set-vcpus", NAME, "1"]) {
        // All is emulated here: it may take the guest longer than the call waits.
        ensure!(format!("{error:#}").contains("may do so yet"), "{error:#}");
    }
    becomes(&host, 1)?;
    ensure!(run(&mut console, "nproc")? == "1", "nproc at the end");

    let Err(error) = host.daemon.reeve(&["set-vcpus", NAME, "4"]) else {
        bail!("more vCPUs than there can be");
    };
    ensure!(format!("{error:#}").contains("can have"), "{error:#}");
    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn a_guest_that_is_asked_before_it_listens_hears_it_when_it_does() -> Result<()> {
    let before = Snapshot::take();
    let host = Host::new(CPUS)?;
    host.define()?;
    host.daemon.reeve(&["set-vcpus", NAME, "3"])?;
    host.daemon.reeve(&["start", "--paused", NAME])?;
    ensure!(vcpus(&host)? == 3, "of the kept definition");
    let Err(error) = host.daemon.reeve(&["set-vcpus", NAME, "2"]) else {
        bail!("a guest that stands has let go of a vCPU");
    };
    ensure!(format!("{error:#}").contains("may do so yet"), "{error:#}");
    host.daemon.reeve(&["resume", NAME])?;
    let mut console = host.console()?;
    expect_up(&mut console)?;
    becomes(&host, 2)?;
    ensure!(run(&mut console, "nproc")? == "2", "nproc");
    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}
