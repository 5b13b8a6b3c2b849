//! Workers that lie to the daemon, in each message and at each phase: clients get one line in time,
//! the domain can be destroyed, nothing of it is left, and no other domain is harmed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::DomainStatsGet;
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainState, ShutOffReason};
use reeve_ipc::model::OnPowerOff;
use reeve_tests::daemon::{named, wait_for};
use reeve_tests::domain::workers;

use super::stage::{Asked, CALL, Stage, assert_one_line, assert_printable, call_start};
use super::start;
use super::world::assert_balanced;

/// What is said of descriptors that a worker sends; or of the garbage that it sends where the kernel
/// refuses to take them (Linux 6.16).
const STRAYS: &str = "sends no descriptors|malformed message";

/// Whether the line has one of the texts, between which there is a bar.
fn says(line: &str, said: &str) -> bool {
    said.split('|').any(|text| line.contains(text))
}

#[test]
fn a_lie_before_or_in_the_launch_fails_the_start_in_one_line() -> Result<()> {
    let mut stage = Stage::new()?;
    for (behaviour, said) in [
        ("exits-in-jail", "could not enter its sandbox"),
        ("no-hello", "no hello"),
        ("dies-first", "not of this supervisor's build"),
        ("closes-first", "closed its control socket"),
        ("garbage-first", "malformed message"),
        ("too-large-first", "protocol violation"),
        ("of-another-protocol", "not of this one"),
        ("hello-with-descriptor", STRAYS),
        ("second-hello", "a second hello"),
        ("dies-in-launch", "exited with code 74"),
        ("refuses-launch", "root# "),
        ("answers-launch-as-pause", "was answered as"),
        ("answers-nobody", "which nobody made"),
        ("launched-into-paused", "says that it is paused"),
        ("launched-into-crashed", "says that it is crashed"),
        ("launched-into-nothing", "says that it is awaiting launch"),
    ] {
        let name = stage.define(behaviour)?;
        let begin = Instant::now();
        let error = call_start(&mut stage.connection, &name)
            .err()
            .with_context(|| format!("{behaviour}: it started"))?;
        let took = begin.elapsed();
        ensure!(took < CALL, "{behaviour}: {took:?}");
        let line = assert_one_line(&error, &name).context(behaviour)?;
        ensure!(says(&line, said), "{behaviour}: {line}");
        let details = stage.details(&name)?;
        let state = details.summary.state;
        assert_eq!(
            state,
            DomainState::ShutOff(ShutOffReason::Failed),
            "{behaviour}"
        );
        assert_printable(&details.last_failure.unwrap_or_default())?;
        ensure!(workers(&name).is_empty(), "{behaviour}: its worker is left");
    }
    stage.end()
}

#[test]
fn a_lie_while_it_runs_ends_the_worker_that_told_it() -> Result<()> {
    let mut stage = Stage::new()?;
    for (behaviour, said) in [
        ("launches-twice", "which nobody made"),
        ("dies-silently", "did not say why"),
        // The console's log asks for one as soon as it runs.
        ("console-answered-as-pause", "was answered as"),
        ("console-kills", "did not say why"),
        ("jumps", "from running to awaiting"),
        ("repeats-an-event", "event 1 after 1"),
        ("garbage", "malformed message"),
        ("sends-a-descriptor", STRAYS),
        ("logs-a-descriptor", STRAYS),
        ("floods-events", "protocol violation"),
        ("closes-control", "closed its control socket"),
        ("replies-unasked", "which nobody made"),
        ("unknown-phase", "malformed message"),
        ("trailing-bytes", "left over"),
        ("absurd-length", "malformed message"),
        ("too-large", "protocol violation"),
        ("resets-backwards", "protocol violation"),
        ("has-no-boot-processor", "protocol violation"),
        ("loses-no-port-at-all", "a port that no controller has"),
        ("fails-loudly", "exited with code 74"),
    ] {
        let name = stage.define(behaviour)?;
        // The lie may come before the start is answered, and be its answer.
        let line = match call_start(&mut stage.connection, &name) {
            Ok(()) => stage.wait_until_off(&name)?.last_failure,
            Err(error) => Some(assert_one_line(&error, &name).context(behaviour)?),
        };
        let line = line.unwrap_or_default();
        assert_printable(&line).context(behaviour)?;
        ensure!(says(&line, said), "{behaviour}: {line}");
        ensure!(workers(&name).is_empty(), "{behaviour}: its worker is left");
        let state = stage.details(&name)?.summary.state;
        ensure!(
            matches!(
                state,
                DomainState::ShutOff(ShutOffReason::Crashed | ShutOffReason::Failed)
            ),
            "{behaviour}: {state:?}"
        );
    }
    stage.end()
}

#[test]
fn a_lie_in_an_answer_ends_the_worker_and_a_refusal_is_one_line() -> Result<()> {
    let mut stage = Stage::new()?;
    for asked in Asked::ALL {
        for behaviour in ["wrong-reply", "dies-in-calls", "refuses-calls"] {
            let lies = behaviour != "refuses-calls";
            if lies && matches!(asked, Asked::Console) {
                // The console's log asks first.
                continue;
            }
            let name = stage.define(behaviour)?;
            stage.start_for(asked, &name)?;
            let error = asked
                .ask(&mut stage.connection, &name)
                .err()
                .with_context(|| format!("{behaviour} to {asked:?}: it was done"))?;
            assert_one_line(&error, &name).with_context(|| format!("{behaviour}: {asked:?}"))?;
            if lies {
                let details = stage.wait_until_off(&name)?;
                assert_printable(&details.last_failure.unwrap_or_default())?;
            } else {
                ensure!(stage.details(&name)?.summary.state.is_active());
                stage.destroy(&name)?;
            }
            ensure!(workers(&name).is_empty(), "{behaviour}: its worker is left");
        }
    }
    stage.end()
}

#[test]
fn ends_that_are_made_up_do_not_keep_the_daemon_busy() -> Result<()> {
    let mut stage = Stage::new()?;
    for action in [
        OnPowerOff::Destroy,
        OnPowerOff::Restart,
        OnPowerOff::Preserve,
    ] {
        let name = stage.define_as("ends-again-and-again", |domain| {
            domain.lifecycle.on_power_off = action;
        })?;
        // Its end may come before the answer to its start, and be that.
        let _ = call_start(&mut stage.connection, &name);
        let details = wait_for(&mut stage.connection, &named(&name), |details| {
            details.is_some_and(|details| details.summary.job.is_none())
        })?;
        if details.is_some_and(|details| details.summary.state.is_active()) {
            stage.destroy(&name)?;
        }
        stage.wait_until_off(&name)?;
    }
    stage.end()
}

#[test]
fn a_console_position_that_cannot_be_harms_nobody() -> Result<()> {
    let mut stage = Stage::new()?;
    is_logged(&mut stage, "console-far")?;
    stage.end()
}

/// Runs a domain until all that its console says is in its log.
fn is_logged(stage: &mut Stage, behaviour: &str) -> Result<()> {
    let name = stage.define(behaviour)?;
    start(&mut stage.connection, &name)?;
    let log = stage.daemon.state().join(format!("log/{name}.console.log"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("and further")) {
        ensure!(Instant::now() < deadline, "{}", stage.daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.destroy(&name)
}

#[test]
fn a_console_that_cannot_be_logged_at_first_is_logged_later() -> Result<()> {
    let mut stage = Stage::new()?;
    is_logged(&mut stage, "console-later")?;
    stage.end()
}

#[test]
fn floods_of_a_worker_hold_nobody_up() -> Result<()> {
    let mut stage = Stage::new()?;
    let name = stage.define("floods-log")?;
    start(&mut stage.connection, &name)?;
    std::thread::sleep(Duration::from_millis(300));
    let good = named(stage.good.name.as_str());
    let begin = Instant::now();
    stage.connection.call(DomainStatsGet { domain: good })?;
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(4), "{took:?}");
    stage.destroy(&name)?;
    stage.end()
}

#[test]
fn a_lie_to_the_next_supervisor_is_not_believed() -> Result<()> {
    let mut stage = Stage::new()?;
    let lies = [
        ("adopt-garbage", "malformed message"),
        ("adopt-protocol", "speaks protocol"),
        ("adopt-descriptor", STRAYS),
        ("adopt-no-hello", "no hello"),
        ("adopt-dies", ""),
        ("adopt-closes", ""),
        ("adopt-digest", "another one than recorded"),
        ("adopt-awaiting", "awaiting launch"),
        ("adopt-events-fall", "do not rise"),
        ("adopt-events-beyond", "do not rise"),
    ];
    let mut names = Vec::new();
    for (behaviour, said) in lies {
        let name = stage.define(behaviour)?;
        start(&mut stage.connection, &name)?;
        names.push((name, said));
    }
    let silent = stage.define("adopt-mute")?;
    let huge = stage.define("adopt-huge")?;
    for name in [&silent, &huge] {
        start(&mut stage.connection, name)?;
    }
    stage.daemon.crash()?;
    stage.connection = stage.daemon.connect()?;
    for (name, said) in names {
        let details = stage.wait_until_off(&name)?;
        let line = details.last_failure.unwrap_or_default();
        assert_printable(&line)?;
        ensure!(says(&line, said), "{name}: {line}");
        ensure!(workers(&name).is_empty(), "the worker of {name} is left");
    }
    let details = stage.details(&silent)?;
    ensure!(details.summary.unresponsive && details.summary.state.is_active());
    // Numbers as large as there are: it is found, and does what it is asked for.
    ensure!(matches!(
        stage.details(&huge)?.summary.state,
        DomainState::Running(_)
    ));
    for asked in [Asked::Pause, Asked::Stats, Asked::Console] {
        asked.ask(&mut stage.connection, &huge)?;
    }
    for name in [&silent, &huge] {
        stage.destroy(name)?;
    }
    stage.end()
}

#[test]
fn nothing_is_left_where_the_daemon_was_killed_among_liars() -> Result<()> {
    let mut stage = Stage::new()?;
    for behaviour in ["deaf", "mute", "hangs", "adopt-mute", "floods-log"] {
        let name = stage.define(behaviour)?;
        let socket = stage.daemon.socket();
        std::thread::spawn(move || {
            let mut connection = Connection::open(&socket, "test")?;
            call_start(&mut connection, &name)?;
            anyhow::Ok(())
        });
    }
    std::thread::sleep(Duration::from_millis(300));
    stage.daemon.crash()?;
    stage.connection = stage.daemon.connect()?;
    drop(stage.connection);
    super::world::end_everything(&stage.daemon, &stage.all)?;
    assert_balanced(&stage.daemon, &stage.all)
}

#[test]
fn a_silent_worker_costs_no_more_than_its_own_places() -> Result<()> {
    let mut stage = Stage::new()?;
    let name = stage.define("deaf")?;
    start(&mut stage.connection, &name)?;
    let socket = stage.daemon.socket();
    let begin = Instant::now();
    let asking: Vec<_> = (0..48)
        .map(|_| {
            let (socket, domain) = (socket.clone(), named(&name));
            std::thread::spawn(move || {
                let mut connection = Connection::open(&socket, "test")?;
                let error = connection.call(DomainStatsGet { domain }).err();
                let error = error.context("a deaf worker answered")?;
                let code = error.refused().context("no answer")?.code;
                anyhow::Ok((code, begin.elapsed()))
            })
        })
        .collect();
    // Meanwhile the domain that behaves is served.
    let good = named(stage.good.name.as_str());
    stage.connection.call(DomainStatsGet { domain: good })?;
    let (mut busy, mut late) = (0, 0);
    for asking in asking {
        let (code, took) = asking.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        match code {
            ApiErrorCode::Busy => {
                busy += 1;
                ensure!(took < Duration::from_secs(4), "refused after {took:?}");
            }
            ApiErrorCode::Timeout => late += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(busy >= 16 && late > 0, "{busy} refused, {late} timed out");
    stage.destroy(&name)?;
    stage.end()
}
