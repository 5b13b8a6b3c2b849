//! `reeve shutdown --host`: what runs ends, whatever its policies, its state and its worker are like.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::signal;
use rustix::process::Signal;

use super::{Cli, eventually, refusal};

/// A guest that obeys its button, defined with what it does at its ends; started, and heard.
fn start(cli: &Cli, name: &str, policies: &str) -> Result<()> {
    let file = cli.path(name);
    let text = format!("name = \"{name}\"\nmemory = \"32M\"\ncmdline = \"mode=echo\"\n{policies}");
    std::fs::write(&file, text)?;
    cli.ok(&["import", &file.display().to_string()])?;
    cli.ok(&["start", name])?;
    eventually("the guest is ready", || {
        let said = cli.daemon.reeve_command(&["logs", "--console", name])?;
        let said = { said }.output()?.stdout;
        Ok(String::from_utf8_lossy(&said).contains("ready"))
    })
}

fn policies(what: &str) -> String {
    format!("on-poweroff = \"{what}\"\non-reboot = \"{what}\"\non-crash = \"{what}\"\n")
}

fn worker(cli: &Cli, name: &str) -> Result<u32> {
    let pid = cli.json(&["inspect", name])?["worker"]["pid"].as_u64();
    Ok(u32::try_from(pid.context("a pid")?)?)
}

#[test]
fn no_policy_no_pause_and_no_silence_keeps_a_domain_from_the_hosts_end() -> Result<()> {
    let cli = Cli::start()?;
    start(&cli, "plain", "")?;
    start(&cli, "again", &policies("restart"))?;
    start(&cli, "kept", &policies("preserve"))?;
    start(&cli, "paused", "")?;
    cli.ok(&["pause", "paused"])?;
    start(&cli, "stands", &policies("preserve"))?;
    cli.ok(&["shutdown", "stands"])?;
    eventually("its machine is kept", || {
        Ok(cli.state("stands")? == "paused")
    })?;
    let begin = Instant::now();
    let told = cli.json(&["shutdown", "--host", "--timeout", "60"])?;
    ensure!(
        begin.elapsed() < Duration::from_secs(40),
        "they were not told: {:?}",
        begin.elapsed()
    );
    let told = told.as_array().context("a list")?;
    ensure!(told.len() == 5, "{told:?}");
    ensure!(told.iter().all(|one| one["result"] == "ok"), "{told:?}");
    for (name, reason) in [
        ("plain", "the guest powered off"),
        ("again", "the guest powered off"),
        ("kept", "the guest powered off"),
        ("paused", "the guest powered off"),
        ("stands", "destroyed"),
    ] {
        let info = cli.json(&["info", name])?;
        ensure!(info["state"] == "shut off", "{info}");
        ensure!(info["reason"] == reason, "{info}");
    }
    ensure!(cli.daemon.workers().is_empty(), "a worker is left");
    // Nothing is left of it: the next life has its policies again.
    cli.ok(&["start", "again"])?;
    cli.silent(&["destroy", "again"])
}

#[test]
fn a_worker_that_is_silent_is_destroyed_when_the_guests_time_is_up() -> Result<()> {
    let cli = Cli::start()?;
    for name in ["deaf", "silent", "other"] {
        start(&cli, name, &policies("restart"))?;
    }
    let pid = worker(&cli, "silent")?;
    signal(pid, Signal::STOP)?;
    cli.silent(&["pause", "deaf"])?;
    signal(worker(&cli, "deaf")?, Signal::STOP)?;
    let begin = Instant::now();
    let output = cli
        .daemon
        .reeve_command(&["shutdown", "--host", "--timeout", "6"])?
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    ensure!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    ensure!(cli.ok(&["list", "--quiet"])?.is_empty(), "some run");
    ensure!(cli.json(&["info", "other"])?["reason"] == "the guest powered off");
    for name in ["silent", "deaf"] {
        ensure!(cli.json(&["info", name])?["reason"] == "destroyed");
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_back_is_asked_again() -> Result<()> {
    let mut cli = Cli::start()?;
    start(&cli, "web", "")?;
    cli.ok(&[
        "create",
        "deaf",
        "--memory",
        "32M",
        "--cmdline",
        "mode=spin",
    ])?;
    let ending = cli.spawn(&["shutdown", "--host", "--timeout", "5"])?;
    eventually("one is off", || Ok(cli.state("web")? == "shut off"))?;
    cli.daemon.crash()?;
    ending.end()?;
    ensure!(cli.ok(&["list", "--quiet"])?.is_empty(), "some run");
    ensure!(cli.daemon.workers().is_empty(), "a worker is left");
    Ok(())
}

#[test]
fn without_a_daemon_there_is_nobody_to_wait_for() -> Result<()> {
    let mut cli = Cli::start()?;
    cli.daemon.kill()?;
    let begin = Instant::now();
    let output = cli
        .daemon
        .reeve_command(&["shutdown", "--host"])?
        .output()?;
    refusal(&output, &["no supervisor listens"])?;
    ensure!(begin.elapsed() < Duration::from_secs(5));
    Ok(())
}
