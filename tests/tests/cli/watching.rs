//! Events and logs, as they come.

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Background, Cli, PATIENCE, eventually};

/// The cursor of the last event so far. Whoever follows from there misses nothing, whenever the
/// subscription comes.
fn now(cli: &Cli) -> Result<String> {
    let mut probe = cli.spawn(&["events", "-n", "1", "--json"])?;
    // Something happens until that one has seen something.
    eventually("an event is told", || {
        cli.define("probe")?;
        std::thread::sleep(Duration::from_millis(50));
        Ok(probe.0.try_wait()?.is_some())
    })?;
    let told: Value = serde_json::from_str(&probe.end()?)?;
    cli.silent(&["undefine", "probe"])?;
    let beginning = first(told["cursor"].as_str().context("no cursor")?);
    let all = cli.ok(&["events", "--since", &beginning, "--json", "--timeout", "1"])?;
    let last: Value = serde_json::from_str(all.lines().last().context("no event")?)?;
    Ok(last["cursor"].as_str().context("no cursor")?.to_owned())
}

/// Lines of a process in the background, each waited for no longer than is reasonable.
struct Lines {
    lines: Receiver<String>,
    _process: Background,
}

impl Lines {
    fn of(mut process: Background) -> Result<Self> {
        let output = BufReader::new(process.0.stdout.take().context("no output")?);
        let (sender, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            lines,
            _process: process,
        })
    }

    fn next(&self) -> Result<String> {
        self.lines
            .recv_timeout(PATIENCE)
            .context("no further line came")
    }

    fn until(&self, part: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.next()?.contains(part) {
            ensure!(Instant::now() < deadline, "{part:?} did not come");
        }
        Ok(())
    }
}

#[test]
fn events_are_followed_resumed_and_chosen() -> Result<()> {
    let cli = Cli::start()?;
    let now = now(&cli)?;
    let all = cli.spawn(&["events", "-n", "5", "--json", "--since", &now])?;
    let text = cli.spawn(&["events", "-n", "5", "--since", &now])?;
    cli.define("web")?;
    cli.define("db")?;
    cli.silent(&["start", "web"])?;
    cli.silent(&["pause", "web"])?;
    let events: Vec<Value> = all
        .end()?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let said: Vec<&str> = events
        .iter()
        .filter_map(|event| event["text"].as_str())
        .collect();
    let expected = [
        "defined",
        "defined",
        "paused (starting)",
        "running (booted)",
        "paused (paused by a client)",
    ];
    assert_eq!(said, expected);
    let lines = text.end()?;
    for (line, (name, said)) in lines
        .lines()
        .zip(["web", "db", "web", "web", "web"].iter().zip(expected))
    {
        ensure!(line.ends_with(&format!("  {name}  {said}")), "{line}");
    }
    // From behind the second on.
    let cursor = events[1]["cursor"].as_str().context("no cursor")?;
    let rest = cli.ok(&["events", "--since", cursor, "--json", "--timeout", "1"])?;
    let rest: Vec<Value> = rest
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(rest, events[2..]);
    let of_db = cli.ok(&["events", "db", "--since", &first(cursor), "--timeout", "1"])?;
    assert_eq!(of_db.lines().count(), 1, "{of_db}");
    // Of another epoch: that is said, and nothing made up.
    let mut command = cli
        .daemon
        .reeve_command(&["events", "--since", "1:1", "--timeout", "0"])?;
    let output = command.output()?;
    ensure!(output.status.success() && output.stdout.is_empty());
    let errors = String::from_utf8(output.stderr)?;
    ensure!(errors.contains("are lost"), "{errors}");
    Ok(())
}

/// The cursor of the beginning of the same epoch.
fn first(cursor: &str) -> String {
    let (epoch, _) = cursor.split_once(':').unwrap_or_default();
    format!("{epoch}:0")
}

#[test]
fn logs_are_shown_and_followed() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    cli.refused(
        &["logs", "--console", "web"],
        &["domain 'web'", "nothing has been logged"],
    )?;
    cli.silent(&["start", "web"])?;
    eventually("the guest has said something", || {
        let said = cli
            .daemon
            .reeve_command(&["logs", "--console", "web"])?
            .output()?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("ready"))
    })?;
    let followed = Lines::of(cli.spawn(&["logs", "--follow", "web"])?)?;
    cli.silent(&["pause", "web"])?;
    followed.until("Paused(User)")
}

#[test]
fn a_log_is_followed_over_its_rotation_without_a_gap() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    // Of a domain that does not run, so that nobody else writes it; rotated as the daemon does it.
    let path = cli.daemon.state().join("log/web.console.log");
    let rotated = cli.daemon.state().join("log/web.console.log.1");
    let append = |line: &str| -> Result<()> {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&path)?;
        Ok(writeln!(file, "{line}")?)
    };
    append("begin")?;
    let followed = Lines::of(cli.spawn(&["logs", "--console", "--follow", "web"])?)?;
    let objects = ["logs", "--console", "--follow", "--json", "web"];
    let objects = Lines::of(cli.spawn(&objects)?)?;
    let expect = |line: &str| -> Result<()> {
        assert_eq!(followed.next()?, line);
        let object: Value = serde_json::from_str(&objects.next()?)?;
        assert_eq!(object["line"], line);
        Ok(())
    };
    expect("begin")?;
    for round in 0..5 {
        // The last line of the old file, while both are between two looks or in the middle of one.
        let (last, first) = (format!("last {round}"), format!("first {round}"));
        append(&last)?;
        std::fs::rename(&path, &rotated)?;
        append(&first)?;
        expect(&last)?;
        expect(&first)?;
    }
    // Moved away, and for a while there is none.
    std::fs::rename(&path, &rotated)?;
    std::thread::sleep(Duration::from_millis(600));
    append("after a gap")?;
    expect("after a gap")?;
    // With none kept, the same file is emptied.
    append("a line that is longer than what follows")?;
    expect("a line that is longer than what follows")?;
    std::fs::File::options()
        .write(true)
        .open(&path)?
        .set_len(0)?;
    append("short")?;
    expect("short")
}
