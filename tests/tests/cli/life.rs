//! Every command in the life of a domain, printed for people and for programs.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Cli, eventually};

/// The commands that need no daemon, and clap's own.
const WITHOUT_A_DAEMON: [&str; 6] = [
    "run",
    "doctor",
    "completion",
    "help",
    "manual",
    "remote-user",
];

/// What a command prints when all goes well.
enum Prints {
    Nothing,
    /// Nothing for people; one JSON value.
    Told,
    /// Bytes for people; refused with `--json`.
    Console,
    /// A table or lines; one JSON value.
    Value,
    /// JSON for people, too.
    Json,
    /// As it is: a log; an object a line.
    Bytes,
    /// A line each; one JSON value a line.
    Lines,
}

/// Every command that speaks to the daemon, in an order in which each succeeds.
fn script<'a>(
    file: &'a str,
    disk: &'a str,
    pool: &'a str,
    network: &'a str,
) -> Vec<(Vec<&'a str>, Prints)> {
    use Prints::{Bytes, Console, Json, Lines, Nothing, Told, Value};
    let echo = ["--memory", "32M", "--cmdline", "mode=echo"];
    let with = |command: &[&'static str]| [command, &echo[..]].concat();
    vec![
        (with(&["define", "web"]), Value),
        (vec!["list", "--all"], Value),
        (vec!["start", "web"], Value),
        (vec!["list"], Value),
        (vec!["list", "--long"], Value),
        (vec!["host"], Value),
        (vec!["info", "web"], Value),
        (vec!["inspect", "web"], Json),
        (vec!["status"], Value),
        (vec!["pause", "web"], Told),
        (vec!["resume", "web"], Told),
        (vec!["nmi", "web"], Told),
        (vec!["reset", "web"], Told),
        (vec!["label", "web", "--title", "T"], Told),
        (vec!["attach", "web", "--balloon"], Told),
        (vec!["stats", "web"], Value),
        (vec!["set-memory", "web", "16M"], Told),
        (vec!["set-vcpus", "web", "1"], Told),
        (vec!["set-vcpus", "web", "1", "--config"], Told),
        (vec!["set-memory", "web", "32M", "--max"], Told),
        (vec!["tune", "web", "--cpu-weight", "200", "--config"], Told),
        (
            vec!["tune", "web", "--vcpu", "0=0", "--emulator", "0"],
            Told,
        ),
        (
            vec!["tune", "web", "--vcpu", "0=any", "--emulator", "any"],
            Told,
        ),
        (vec!["detach", "web", "balloon", "--force"], Told),
        (
            vec!["attach", "web", "--net", "none,mac=52:54:00:00:00:01"],
            Told,
        ),
        (
            vec!["update", "web", "52:54:00:00:00:01", "--link", "down"],
            Told,
        ),
        (vec!["attach", "web", "--rng", "--persistent"], Told),
        (
            vec!["detach", "web", "rng", "--force", "--persistent"],
            Told,
        ),
        (vec!["attach", "web", "--disk", disk], Told),
        (vec!["resize", "web", "vda", "2M"], Told),
        (
            vec!["attach", "web", "--disk", "none,removable,ro,target=vdb"],
            Told,
        ),
        (vec!["detach", "web", "vda", "--force"], Told),
        (vec!["change-media", "web", "vdb", "--insert", disk], Told),
        (vec!["update", "web", "vdb", "--eject"], Told),
        (vec!["detach", "web", "vdb", "--force"], Told),
        (vec!["autostart", "web", "--order", "3"], Told),
        (vec!["events", "--since", "0:0", "--timeout", "0"], Nothing),
        (vec!["logs", "web"], Bytes),
        (vec!["export", "web"], Value),
        (vec!["export", "web", file], Nothing),
        (vec!["edit", "web"], Value),
        (vec!["reload"], Value),
        (vec!["log-level", "debug"], Told),
        (vec!["upgrade", "web"], Told),
        (vec!["reboot", "web"], Told),
        (vec!["shutdown", "--wait", "--timeout", "5", "web"], Told),
        (vec!["rename", "web", "db"], Told),
        (vec!["rename", "db", "web"], Told),
        (vec!["undefine", "web"], Told),
        (vec!["import", file], Value),
        (with(&["create", "once"]), Value),
        (vec!["destroy", "once"], Told),
        (vec!["create", "tells"], Value),
        (vec!["create", "shows", "--console"], Console),
        (vec!["console", "waits"], Console),
        (vec!["pool", "define", "images", pool], Value),
        (vec!["pool", "build", "images"], Value),
        (vec!["pool", "start", "images"], Value),
        (vec!["pool", "autostart", "images"], Value),
        (vec!["pool", "list"], Value),
        (vec!["pool", "info", "images"], Value),
        (vec!["volume", "create", "images", "a", "1M"], Value),
        (vec!["pool", "refresh", "images"], Value),
        (vec!["volume", "list", "images"], Value),
        (vec!["volume", "info", "images", "a"], Value),
        (vec!["volume", "clone", "images", "a", "b"], Value),
        (vec!["volume", "resize", "images", "a", "2M"], Value),
        (vec!["volume", "wipe", "images", "a"], Value),
        (vec!["volume", "delete", "images", "a"], Value),
        (vec!["volume", "delete", "images", "b"], Value),
        (vec!["pool", "stop", "images"], Value),
        (vec!["pool", "delete", "images"], Value),
        (vec!["pool", "undefine", "images"], Value),
        // Not started: its bridge would be the machine's.
        (vec!["network", "define", network], Value),
        (vec!["network", "list", "--all"], Value),
        (vec!["network", "show", "lan"], Value),
        (vec!["network", "export", "lan"], Value),
        (vec!["network", "autostart", "lan"], Value),
        (vec!["network", "ports", "lan"], Value),
        (vec!["network", "undefine", "lan"], Value),
        (vec!["events", "-n", "1", "--since", "0:0"], Lines),
    ]
}

fn run(json: bool) -> Result<()> {
    let images = tempfile::tempdir()?;
    let image = images.path().join("disk");
    std::fs::File::create(&image)?.set_len(1 << 20)?;
    let disk = format!("{},format=raw", image.display());
    let (cli, _) = Cli::configured(&format!("allowed_directories = [{:?}]\n", images.path()))?;
    let cli = &cli;
    let file = cli.path("web.toml").display().to_string();
    let pool = images.path().join("pool").display().to_string();
    let network = cli.path("lan.toml").display().to_string();
    std::fs::write(&network, "name = \"lan\"\nforward = \"isolated\"\n")?;
    for (mut arguments, prints) in script(&file, &disk, &pool, &network) {
        match arguments.as_slice() {
            // Something to attach to that ends by itself, but not before somebody has attached.
            ["console", name] => {
                let ends = "mode=cpu-loop ms=5000";
                cli.ok(&["create", name, "--memory", "32M", "--cmdline", ends])?;
            }
            // Each boot of the guest must be there for what is done to it.
            ["reset", ..] => until_booted(cli, 1)?,
            ["reboot", ..] => until_booted(cli, 2)?,
            ["shutdown", ..] => until_booted(cli, 3)?,
            // From a moment before the last event: another epoch tells nothing of what was.
            ["events", "-n", ..] => {
                let since = last_but_one(cli)?;
                arguments.truncate(3);
                let text = cli.daemon.reeve(&with_json(
                    &[&arguments[..], &["--since", &since]].concat(),
                    json,
                ))?;
                check(&text, &prints, json)?;
                continue;
            }
            _ => {}
        }
        let mut command = cli.daemon.reeve_command(&with_json(&arguments, json))?;
        let output = command.env("VISUAL", "true").output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if json && matches!(prints, Prints::Console) {
            ensure!(output.status.code() == Some(2), "{arguments:?}: {errors}");
            ensure!(errors.contains("leave out --json"), "{errors}");
            continue;
        }
        ensure!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout)?;
        check(&text, &prints, json).map_err(|error| error.context(format!("{arguments:?}")))?;
        if arguments[0] == "reboot" {
            eventually("it has rebooted", || {
                Ok(cli.json(&["info", "web"])?["resets"] == 2)
            })?;
        }
    }
    Ok(())
}

fn with_json<'a>(arguments: &[&'a str], json: bool) -> Vec<&'a str> {
    let last: &[&str] = if json { &["--json"] } else { &[] };
    [arguments, last].concat()
}

fn check(text: &str, prints: &Prints, json: bool) -> Result<()> {
    match (prints, json) {
        (Prints::Nothing, _) | (Prints::Told, false) => {
            ensure!(text.is_empty(), "printed: {text}");
        }
        (Prints::Bytes, false) | (Prints::Console, _) => {
            ensure!(!text.is_empty(), "printed nothing");
        }
        (Prints::Bytes, true) => {
            ensure!(!text.is_empty(), "printed nothing");
            for line in text.lines() {
                ensure!(serde_json::from_str::<Value>(line)?["line"].is_string());
            }
        }
        (Prints::Json, _) | (Prints::Value, true) => drop(serde_json::from_str::<Value>(text)?),
        (Prints::Told, true) => {
            let value: Value = serde_json::from_str(text)?;
            let one = value.get(0).unwrap_or(&value);
            ensure!(one["result"] == "ok", "{text}");
            ensure!(
                one["filter"].is_string() || (one["name"].is_string() && one["uuid"].is_string()),
                "{text}"
            );
        }
        (Prints::Lines, true) => {
            ensure!(text.lines().count() == 1, "{text}");
            drop(serde_json::from_str::<Value>(text)?);
        }
        (Prints::Value | Prints::Lines, false) => {
            ensure!(
                !text.starts_with(['{', '[']) || text == "[]\n",
                "JSON: {text}"
            );
            ensure!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        }
    }
    Ok(())
}

/// Waits until the guest of `web` has come up so often.
fn until_booted(cli: &Cli, times: usize) -> Result<()> {
    eventually("the guest is ready", || {
        let output = cli.daemon.reeve_command(&["logs", "--console", "web"])?;
        let said = { output }.output()?.stdout;
        Ok(String::from_utf8_lossy(&said).matches("ready").count() >= times)
    })
}

/// The cursor before an event that is told: something must happen, to learn where we are.
fn last_but_one(cli: &Cli) -> Result<String> {
    let mut events = cli.spawn(&["events", "--json", "-n", "1"])?;
    // Its subscription cannot be seen from outside: something happens until it has seen something.
    eventually("an event is told", || {
        cli.ok(&["autostart", "web", "--order", "4"])?;
        std::thread::sleep(Duration::from_millis(50));
        Ok(events.0.try_wait()?.is_some())
    })?;
    let told: Value = serde_json::from_str(&events.end()?)?;
    let cursor = told["cursor"].as_str().unwrap_or_default();
    let (epoch, number) = cursor.split_once(':').unwrap_or_default();
    Ok(format!("{epoch}:{}", number.parse::<u64>()? - 1))
}

#[test]
fn every_command_prints_for_people() -> Result<()> {
    run(false)
}

#[test]
fn every_command_prints_json_for_programs() -> Result<()> {
    run(true)
}

#[test]
fn no_command_is_left_out_above() -> Result<()> {
    let cli = Cli::start()?;
    let help = cli.ok(&["--help"])?;
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    ensure!(commands.len() > 20, "{help}");
    let script = script("file", "disk", "pool", "network");
    for command in commands {
        let there = script.iter().any(|(arguments, _)| arguments[0] == command);
        ensure!(
            there || WITHOUT_A_DAEMON.contains(&command),
            "'{command}' is not in the script"
        );
    }
    Ok(())
}

#[test]
fn a_list_is_a_table_that_lines_up_and_json_with_keys_that_stay() -> Result<()> {
    let cli = Cli::start()?;
    ensure!(cli.ok(&["list"])? == "ID  NAME  STATE  CPUS  MEMORY  TITLE\n");
    cli.define("a")?;
    cli.ok(&["define", "a-longer-name", "--memory", "1G", "--cpus", "2"])?;
    cli.silent(&["label", "a-longer-name", "--title", "The other one"])?;
    cli.silent(&["start", "a"])?;
    let table = cli.ok(&["list", "--all"])?;
    let expected = "\
ID  NAME           STATE     CPUS  MEMORY  TITLE
1   a              running   1     32M
-   a-longer-name  shut off  2     1G      The other one
";
    assert_eq!(table, expected);
    ensure!(cli.ok(&["list"])?.lines().count() == 2, "only what runs");
    assert_eq!(cli.ok(&["list", "-aq"])?, "a\na-longer-name\n");
    let list = cli.json(&["list", "--all"])?;
    assert_eq!(list[0]["name"], "a");
    assert_eq!(list[0]["state"], "running");
    assert_eq!(list[0]["reason"], "booted");
    assert_eq!(list[1]["id"], Value::Null);
    assert_eq!(list[1]["memory_bytes"], 1 << 30);
    assert_eq!(list[1]["title"], "The other one");
    for key in [
        "uuid",
        "persistent",
        "autostart",
        "cpus",
        "unresponsive",
        "reaping",
        "job",
    ] {
        ensure!(list[0].get(key).is_some(), "no {key}");
    }
    // By number and by UUID as well as by name.
    let uuid = list[0]["uuid"].as_str().unwrap_or_default();
    for name in ["1", uuid, "a"] {
        assert_eq!(cli.json(&["info", name])?["uuid"], uuid);
    }
    let info = cli.ok(&["info", "a"])?;
    ensure!(info.contains("State:        running (booted)\n"), "{info}");
    Ok(())
}

#[test]
fn several_domains_are_tried_each_and_counted() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("a")?;
    cli.define("b")?;
    let output = cli
        .daemon
        .reeve_command(&["start", "a", "none", "b"])?
        .output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    ensure!(
        lines[0].contains("'none'") && lines[1] == "reeve: 1 of 3 failed",
        "{errors}"
    );
    ensure!(output.stdout.is_empty(), "nothing for people");
    assert_eq!(cli.ok(&["list", "-q"])?, "a\nb\n", "those that did");
    cli.silent(&["shutdown", "--all", "--wait", "--timeout", "5"])?;
    assert_eq!(cli.json(&["list"])?, Value::Array(Vec::new()));
    cli.misused(&["start", "a", "b", "--console"], &["name one"])?;
    assert_eq!(cli.state("a")?, "shut off", "a refusal starts nothing");
    Ok(())
}

#[test]
fn what_a_script_does_next_finds_the_domain_off() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    for _ in 0..5 {
        cli.silent(&["start", "web"])?;
        cli.silent(&["destroy", "web"])?;
        cli.silent(&["start", "web"])?;
        cli.silent(&["shutdown", "--wait", "--timeout", "1", "web"])?;
        cli.silent(&["rename", "web", "web2"])?;
        cli.silent(&["rename", "web2", "web"])?;
    }
    Ok(())
}

#[test]
fn a_guest_that_is_faster_than_its_console_is_seen_whole() -> Result<()> {
    let cli = Cli::start()?;
    for _ in 0..10 {
        let said = cli.ok(&["create", "fast", "--console", "--cmdline", "mode=bench"])?;
        ensure!(said.ends_with("R\n"), "{said}");
        eventually("it is gone", || Ok(cli.ok(&["list", "-aq"])?.is_empty()))?;
    }
    cli.ok(&[
        "create",
        "kept",
        "--memory",
        "32M",
        "--paused",
        "--cmdline",
        "mode=echo",
    ])?;
    assert_eq!(cli.state("kept")?, "paused");
    Ok(())
}
