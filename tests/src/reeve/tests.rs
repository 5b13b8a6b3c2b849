//! The harness driving a shell in the place of `reeve`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Builder, Reeve};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Builder {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    Builder::new(command)
}

fn ends(process: u32) -> bool {
    let deadline = Instant::now() + SOON;
    while Path::new(&format!("/proc/{process}")).exists() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

#[test]
fn each_match_starts_after_the_one_before() {
    let mut sh = shell("printf 'one two one\\nthree'").spawn().unwrap();
    assert_eq!(sh.expect("one", SOON).unwrap(), "");
    assert_eq!(sh.expect("one", SOON).unwrap(), " two ");
    assert_eq!(sh.line(SOON).unwrap(), "");
    sh.expect("three", SOON).unwrap();
    assert!(sh.wait(SOON).unwrap().success());
}

#[test]
fn a_match_may_come_in_pieces() {
    let mut sh = shell("printf on; sleep 0.1; printf 'e!'; sleep 60")
        .spawn()
        .unwrap();
    sh.expect("one!", SOON).unwrap();
}

#[test]
fn what_does_not_come_is_an_error_with_the_transcript() {
    let mut sh = shell("echo said; echo wrong >&2; sleep 60")
        .spawn()
        .unwrap();
    let error = sh
        .expect("unsaid", Duration::from_millis(300))
        .unwrap_err()
        .to_string();
    assert!(error.contains("said") && error.contains("wrong"), "{error}");
    let mut sh = shell("echo said").spawn().unwrap();
    let error = sh.expect("unsaid", SOON).unwrap_err().to_string();
    assert!(error.contains("has ended"), "{error}");
}

#[test]
fn output_beside_the_pipe_size_does_not_stop_the_child() {
    let mut sh = shell("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
        .spawn()
        .unwrap();
    assert!(sh.wait(SOON).unwrap().success());
    assert_eq!(
        (sh.output().len(), sh.errors().len()),
        (1_000_000, 1_000_000)
    );
}

#[test]
fn on_a_terminal_input_is_echoed_and_the_size_is_known() {
    let mut sh = shell("stty size; read line; echo got $line")
        .on_terminal()
        .spawn()
        .unwrap();
    sh.expect("24 80", SOON).unwrap();
    sh.send(b"it\n").unwrap();
    sh.expect("got it", SOON).unwrap();
    assert!(sh.wait(SOON).unwrap().success());
}

#[test]
fn a_terminal_that_hangs_up_ends_who_sits_at_it() {
    let mut sh = shell("echo ready; sleep 60").on_terminal().spawn().unwrap();
    sh.expect("ready", SOON).unwrap();
    sh.hang_up();
    assert!(!sh.wait(SOON).unwrap().success());
}

#[test]
fn dropping_kills_the_whole_process_group() {
    let mut sh = shell("sleep 60 & echo $!; wait").spawn().unwrap();
    let grandchild: u32 = sh.line(SOON).unwrap().parse().unwrap();
    drop::<Reeve>(sh);
    assert!(ends(grandchild));
}
