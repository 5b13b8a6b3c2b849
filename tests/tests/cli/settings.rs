//! Labels, the log's level, and the configuration: checked, read again, kept when it is bad.

use std::path::Path;
use std::process::Output;

use anyhow::{Result, ensure};
use reeve_tests::reeve::product;
use serde_json::Value;

use super::{Cli, eventually};

#[test]
fn labels_are_set_and_removed_on_what_runs_and_what_is_kept() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    cli.silent(&["start", "web"])?;
    let set = [
        "label",
        "web",
        "--title",
        "T",
        "--description",
        "D",
        "--metadata",
        "urn:x",
        "<x/>",
    ];
    cli.silent(&set)?;
    let labels = |which: &str| -> Result<Value> {
        Ok(cli.json(&["inspect", "web"])?[which]["labels"].clone())
    };
    for which in ["definition", "live_definition"] {
        let labels = labels(which)?;
        assert_eq!(labels["title"], "T");
        assert_eq!(labels["description"], "D");
        assert_eq!(labels["metadata"][0]["uri"], "urn:x");
        assert_eq!(labels["metadata"][0]["content"], "<x/>");
    }
    cli.silent(&["label", "web", "--title", "", "--metadata", "urn:x"])?;
    for which in ["definition", "live_definition"] {
        let labels = labels(which)?;
        ensure!(labels["title"].is_null(), "{labels}");
        assert_eq!(labels["description"], "D");
        assert_eq!(labels["metadata"], Value::Array(Vec::new()));
    }
    let long = "x".repeat(300);
    cli.refused(
        &["label", "web", "--title", &long],
        &["domain 'web'", "256 bytes"],
    )?;
    Ok(())
}

#[test]
fn the_level_of_the_log_changes_while_it_runs() -> Result<()> {
    let cli = Cli::start()?;
    ensure!(!cli.daemon.log().contains("\"DEBUG\""));
    cli.silent(&["log-level", "debug"])?;
    cli.ok(&["list"])?;
    eventually("it says more", || {
        Ok(cli.daemon.log().contains("\"DEBUG\""))
    })?;
    cli.refused(&["log-level", "in=fo=x"], &["in=fo=x"])?;
    cli.silent(&["log-level", "error"])?;
    Ok(())
}

#[test]
fn a_reload_tells_what_changed_and_touches_no_domain() -> Result<()> {
    let (cli, path) = Cli::configured("max_clients = 100\n")?;
    cli.define("web")?;
    cli.silent(&["start", "web"])?;
    let before = cli.json(&["inspect", "web"])?["worker"].clone();
    assert_eq!(cli.ok(&["reload"])?, "", "nothing changed");
    std::fs::write(
        &path,
        "max_clients = 50\nlog_directory = \"/var/log/other\"\n",
    )?;
    let said = cli.ok(&["reload"])?;
    ensure!(said.contains("max_clients: changed\n"), "{said}");
    ensure!(said.contains("log_directory: takes a restart"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(cli.json(&["inspect", "web"])?["worker"], before);
    assert_eq!(cli.state("web")?, "running");
    Ok(())
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_one_goes_on() -> Result<()> {
    let kernel = "/var/lib/reeve/images/vmlinuz";
    let (cli, path) = Cli::configured("max_clients = 2\nallowed_directories = []\n")?;
    for bad in [
        "max_clients = 0\n",
        "max_cleints = 4\n",
        "max_clients = \"many\"\n",
        "not toml",
        "log_level = \"in=fo=x\"\n",
        "allowed_directories = [\"relative\"]\n",
    ] {
        std::fs::write(&path, bad)?;
        cli.refused(&["reload"], &["reeve.toml:1"])?;
        // The signal finds the same, and the daemon goes on.
        let refusals = || cli.daemon.log().matches("was not read again").count();
        let before = refusals();
        let pid = cli.daemon.pid().unwrap_or_default();
        reeve_tests::daemon::signal(pid, rustix::process::Signal::HUP)?;
        eventually("the signal was served", || Ok(refusals() > before))?;
    }
    std::fs::remove_file(&path)?;
    cli.refused(&["reload"], &["cannot read", "reeve.toml"])?;
    // What it was started with still holds. root, which runs these tests, has eight places more.
    let held: Vec<_> = (0..10).map(|_| cli.daemon.connect()).collect();
    ensure!(held.iter().all(Result::is_ok), "{held:?}");
    cli.refused(&["list"], &["10 clients are connected", "try again"])?;
    drop(held);
    eventually("there is room", || Ok(cli.ok(&["list"]).is_ok()))?;
    cli.ok(&["define", "web", "--kernel", kernel])?;
    cli.refused(&["start", "web"], &["cannot start 'web'", kernel])?;
    Ok(())
}

fn check(path: &Path) -> Result<Output> {
    let mut command = std::process::Command::new(product("reeved")?);
    command.arg("--check-config").arg("--config").arg(path);
    // It must not even look at an instance.
    command.args(["--state-dir", "/nonexistent", "--run-dir", "/nonexistent"]);
    Ok(command.output()?)
}

#[test]
fn a_configuration_is_checked_without_an_instance() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("reeve.toml");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/reeve.toml");
    std::fs::write(&path, "max_clients = 5\n")?;
    for good in [Path::new(shipped), &path] {
        let output = check(good)?;
        ensure!(output.status.success());
        let said = String::from_utf8(output.stdout)?;
        assert_eq!(said, format!("{}: fine\n", good.display()));
    }
    for (text, parts) in [
        (
            "# fine\nmax_clients = 0\n",
            ["reeve.toml:2", "max_clients", "1 to 65536"],
        ),
        ("max_cleints = 4\n", ["reeve.toml:1", "max_cleints", ""]),
        (
            "log_max_bytes = 1\n",
            ["reeve.toml:1", "log_max_bytes", "4096"],
        ),
    ] {
        std::fs::write(&path, text)?;
        let output = check(&path)?;
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{text}");
        ensure!(
            output.stdout.is_empty() && errors.lines().count() == 1,
            "{errors}"
        );
        for part in parts {
            ensure!(errors.contains(part), "no '{part}' in: {errors}");
        }
    }
    let missing = check(&directory.path().join("none.toml"))?;
    ensure!(!missing.status.success(), "a misspelt path is not fine");
    Ok(())
}

#[test]
fn a_daemon_that_is_asked_what_cannot_be_says_so_in_one_line() -> Result<()> {
    for (argument, part) in [("--state-dri=/x", "'--state-dir'"), ("--driver=xen", "kvm")] {
        let output = std::process::Command::new(product("reeved")?)
            .arg(argument)
            .output()?;
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        ensure!(
            errors.starts_with("reeved: ") && errors.ends_with("see 'reeved --help'\n"),
            "{errors}"
        );
        ensure!(errors.contains(part), "{errors}");
    }
    let help = std::process::Command::new(product("reeved")?)
        .arg("--help")
        .output()?;
    ensure!(help.status.success() && help.stderr.is_empty());
    Ok(())
}
