//! `reeve run` on a terminal with a real worker: every end gives the terminal back as it was, and a
//! terminal that goes away takes everything along.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_tests::domain::{assert_nothing_left, unique_name, wait_for_worker, wait_until_gone};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;
use rustix::process::{Pid, Signal};

const SOON: Duration = Duration::from_secs(20);

/// A guest whose console is a terminal.
struct Session {
    reeve: Reeve,
    worker: u32,
    name: String,
    before: Snapshot,
}

impl Session {
    /// Starts it and waits until the terminal is raw and the guest has printed `wanted`.
    fn start(command_line: &str, wanted: &str) -> Result<Session> {
        let before = Snapshot::take();
        let name = unique_name("terminal");
        let mut reeve = Reeve::run()?
            .name(&name)
            .memory("32M")
            .cmdline(command_line)
            .on_terminal()
            .spawn()?;
        let worker = wait_for_worker(&name, SOON)?;
        if let Err(error) = reeve.expect(wanted, SOON) {
            // What is said of the console may come in the middle of what the guest says.
            let said = without_notice(&reeve.output());
            ensure!(said.contains(wanted), "{error:#}");
        }
        Ok(Session {
            reeve,
            worker,
            name,
            before,
        })
    }

    fn wait_until_raw(&mut self) -> Result<()> {
        for _ in 0..1000 {
            if self.reeve.terminal_is_raw()? {
                return Ok(());
            }
            self.reeve.listen(Duration::from_millis(5))?;
        }
        anyhow::bail!("the terminal is never raw: {}", self.reeve.output())
    }

    /// Waits for the end, which must have this code, say this, restore the terminal and leave nothing.
    fn ends(mut self, code: i32, said: &str) -> Result<()> {
        let status = self.reeve.wait(SOON)?;
        let output = self.reeve.output();
        ensure!(status.code() == Some(code), "{status}: {output}");
        ensure!(output.contains(said), "no '{said}' in {output}");
        ensure!(self.reeve.terminal_is_restored()?, "not restored: {output}");
        assert_nothing_left(&self.name, &self.before);
        Ok(())
    }
}

const ECHO: (&str, &str) = ("mode=echo", "echo: ready");

fn echoing() -> Result<Session> {
    let mut session = Session::start(ECHO.0, ECHO.1)?;
    session.wait_until_raw()?;
    Ok(session)
}

/// What came on the terminal, but for the line that `reeve` says of it.
fn without_notice(output: &str) -> String {
    let Some((before, rest)) = output.split_once("reeve: console of ") else {
        return output.to_owned();
    };
    let behind = rest.split_once('\n').map_or("", |(_, behind)| behind);
    format!("{before}{behind}")
}

#[test]
fn keys_go_to_the_guest_and_the_escape_leaves() -> Result<()> {
    let mut session = echoing()?;
    // Ctrl-C, Ctrl-Z, Ctrl-D and Ctrl-\ are the guest's.
    session.reeve.send(b"a\x03b\x1ac\x04d\x1ce")?;
    session.reeve.expect("a\u{3}b\u{1a}c\u{4}d\u{1c}e", SOON)?;
    session.reeve.send(b"\x1d")?;
    session.ends(0, "destroyed: Ctrl-] was typed")
}

#[test]
fn the_terminal_is_restored_when_the_guest_powers_off() -> Result<()> {
    let mut session = echoing()?;
    session.reeve.send(b"q")?;
    session.ends(0, "the guest powered off")
}

#[test]
fn the_terminal_is_restored_when_the_guest_crashes() -> Result<()> {
    Session::start("mode=triple-fault", "crashed")?.ends(3, "triple fault")
}

#[test]
fn the_terminal_is_restored_when_the_worker_dies() -> Result<()> {
    let session = echoing()?;
    let worker = Pid::from_raw(i32::try_from(session.worker)?).context("pid")?;
    rustix::process::kill_process(worker, Signal::KILL)?;
    session.ends(4, "killed by SIGKILL")
}

#[test]
fn the_terminal_is_restored_when_the_sandbox_ends_the_worker() -> Result<()> {
    Session::start(
        "mode=clock reeve.attack=vcpu:socket",
        "killed by its sandbox",
    )?
    .ends(4, "denied system call socket")
}

#[test]
fn the_terminal_is_restored_after_every_signal_that_ends_a_run() -> Result<()> {
    for (signal, code, said) in [
        (Signal::TERM, 143, "SIGTERM came"),
        (Signal::HUP, 129, "SIGHUP came"),
        (Signal::QUIT, 131, "SIGQUIT came"),
    ] {
        let session = echoing()?;
        session.reeve.signal(signal)?;
        session.ends(code, said)?;
    }
    Ok(())
}

#[test]
fn an_interrupt_asks_a_deaf_guest_and_a_second_one_ends_it() -> Result<()> {
    let mut session = Session::start("mode=spin", "spinning")?;
    session.wait_until_raw()?;
    session.reeve.signal(Signal::INT)?;
    session
        .reeve
        .expect("interrupt again to destroy it", SOON)?;
    session.reeve.signal(Signal::INT)?;
    session.ends(130, "SIGINT came")
}

#[test]
fn a_terminal_that_is_closed_takes_everything_along() -> Result<()> {
    let mut session = echoing()?;
    session.reeve.hang_up();
    wait_until_gone(session.worker, SOON)?;
    let status = session.reeve.wait(SOON)?;
    ensure!(status.code() == Some(129), "{status}");
    assert_nothing_left(&session.name, &session.before);
    Ok(())
}

/// The guest floods it and nobody reads: the escape still works.
#[test]
fn a_flooded_terminal_is_left_at_once() -> Result<()> {
    let mut session = Session::start("mode=flood", "flood flood")?;
    session.wait_until_raw()?;
    std::thread::sleep(Duration::from_millis(300));
    session.reeve.send(b"\x1d")?;
    wait_until_gone(session.worker, Duration::from_secs(4))?;
    session.ends(0, "Ctrl-] was typed")
}
