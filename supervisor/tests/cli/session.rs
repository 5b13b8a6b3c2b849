//! Runs and their ends: signals, closed and blocked standard streams, deaths, reports.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{Installation, report, signal, start, text, wait, wait_for_line};

#[test]
fn a_guest_that_powers_off_ends_well_and_is_reported() {
    let installation = Installation::new();
    let output = installation.run("powers-off").output().unwrap();
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}");
    assert!(
        line.contains("'powers-off': the guest powered off"),
        "{line}"
    );
    assert!(
        line.contains("Landlock ABI 1, seccomp, no limits set"),
        "{line}"
    );
    installation.assert_nothing_left();
}

#[test]
fn the_json_report_is_the_last_line_and_the_console_goes_elsewhere() {
    let installation = Installation::new();
    let output = installation.run("crashes").arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let report = report(&output.stdout);
    assert_eq!(report["outcome"], "crashed");
    assert_eq!(report["exit_code"], 3);
    assert_eq!(report["crash"]["cause"], "triple fault");
    assert_eq!(report["confinement"]["limits"], "none set");
    assert_eq!(report["confinement"]["landlock_abi"], 1);
    let root = rustix::process::geteuid().is_root();
    let level = if root { "system" } else { "user" };
    assert_eq!(report["confinement"]["level"], level);
    assert!(report["total_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_signal_destroys_the_guest_and_shows_in_the_exit_code() {
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let installation = Installation::new();
        let (mut child, _stderr) = start(installation.run("good").arg("--json"));
        signal(&child, number);
        assert_eq!(wait(&mut child).code(), Some(code));
        let mut stdout = Vec::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut stdout)
            .unwrap();
        assert_eq!(report(&stdout)["outcome"], "destroyed");
        assert_eq!(report(&stdout)["exit_code"], code);
        installation.assert_nothing_left();
    }
}

#[test]
fn the_first_interrupt_asks_and_the_second_destroys() {
    let installation = Installation::new();
    let (mut child, mut stderr) = start(&mut installation.run("good"));
    signal(&child, Signal::INT);
    let asked = "reeve: asked the guest to shut down; interrupt again to destroy it";
    wait_for_line(&mut stderr, asked);
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(130));
    installation.assert_nothing_left();
}

#[test]
fn a_start_that_hangs_is_ended_by_a_signal() {
    let installation = Installation::new();
    let mut command = installation.run("hangs");
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    installation.wait_for_worker();
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
    installation.assert_nothing_left();
}

#[test]
fn input_that_ends_does_not_end_the_guest_and_output_is_unaltered() {
    let installation = Installation::new();
    let mut command = installation.run("good");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let typed: Vec<u8> = (0..=255).collect();
    child.stdin.take().unwrap().write_all(&typed).unwrap();
    let mut echoed = [0; 3 + 256];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed[..3], b"up\n");
    assert_eq!(echoed[3..], typed);
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, Signal::TERM);
    wait(&mut child);
}

#[test]
fn output_that_nobody_reads_holds_up_no_destroy_and_fills_no_memory() {
    let installation = Installation::new();
    let mut command = installation.run("floods-console");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    installation.wait_for_worker();
    std::thread::sleep(Duration::from_millis(700));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = resident
        .unwrap()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .unwrap();
    assert!(kib < 48 << 10, "{kib} KiB");
    let begin = Instant::now();
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
    assert!(begin.elapsed() < Duration::from_secs(4));
    installation.assert_nothing_left();
}

#[test]
fn output_whose_reader_has_gone_ends_the_guest() {
    let installation = Installation::new();
    let mut command = installation.run("floods-console");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(141));
    installation.assert_nothing_left();
}

#[test]
fn a_dead_worker_is_told_from_a_crashed_guest() {
    let installation = Installation::new();
    let output = installation.run("dies-silently").output().unwrap();
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let output = installation.run("garbage").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("killed for a protocol violation"));
    let output = installation.run("dies-in-launch").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot start 'dies-in-launch'"));
}

#[test]
fn a_killed_supervisor_takes_its_worker_along() {
    let installation = Installation::new();
    let (mut child, _stderr) = start(&mut installation.run("good"));
    child.kill().unwrap();
    child.wait().unwrap();
    installation.assert_nothing_left();
}
