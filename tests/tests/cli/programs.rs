//! What programs get with `--json`: a value for whatever succeeds, a code for whatever fails.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Cli, eventually};

impl Cli {
    fn with_json(&self, arguments: &[&str]) -> Result<Output> {
        let arguments = [arguments, &["--json"]].concat();
        Ok(self.daemon.reeve_command(&arguments)?.output()?)
    }

    /// The code of a failure, which is one line of JSON and names `part`.
    fn code(&self, arguments: &[&str], part: &str) -> Result<String> {
        let output = self.with_json(arguments)?;
        code(&output, part).with_context(|| format!("{arguments:?}"))
    }
}

fn code(output: &Output, part: &str) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it succeeds");
    ensure!(errors.lines().count() == 1, "not one line: {errors}");
    let value: Value = serde_json::from_str(&errors).with_context(|| errors.to_string())?;
    let error = &value["error"];
    let message = error["message"].as_str().context("no message")?;
    ensure!(message.contains(part), "no '{part}' in: {message}");
    Ok(error["code"].as_str().context("no code")?.to_owned())
}

#[test]
fn a_failure_has_a_code_and_one_line() -> Result<()> {
    let mut cli = Cli::start()?;
    cli.define("web")?;
    for command in ["info", "pause", "destroy", "events", "logs", "edit"] {
        assert_eq!(cli.code(&[command, "none"], "'none'")?, "no-domain");
    }
    assert_eq!(cli.code(&["pause", "web"], "'web'")?, "wrong-state");
    assert_eq!(
        cli.code(&["define", "web", "--new"], "'web'")?,
        "domain-exists"
    );
    assert_eq!(cli.code(&["import", "/none"], "/none")?, "file");
    let kernel = ["define", "k", "--kernel", "/etc/passwd"];
    cli.ok(&kernel)?;
    assert_eq!(cli.code(&["start", "k"], "/etc/passwd")?, "path-refused");
    for (usage, part) in [
        (&["console", "web"][..], "leave out --json"),
        (&["start", "web", "--console"], "--json or --console"),
        (&["create", "c", "--console"], "--json or --console"),
        (&["start"], "see 'reeve start --help'"),
        (&["strat"], "see 'reeve --help'"),
    ] {
        let output = cli.with_json(usage)?;
        assert_eq!(code(&output, part)?, "usage");
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
    }
    assert_eq!(cli.state("web")?, "shut off", "a refusal starts nothing");
    cli.daemon.terminate()?;
    assert_eq!(cli.code(&["list"], "systemctl")?, "no-supervisor");
    Ok(())
}

#[test]
fn of_several_domains_each_has_its_result() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("a")?;
    cli.define("b")?;
    let uuid = |name: &str| Ok::<_, anyhow::Error>(cli.json(&["info", name])?["uuid"].clone());
    let (a, b) = (uuid("a")?, uuid("b")?);
    for command in [
        "start", "pause", "resume", "nmi", "reset", "destroy", "undefine",
    ] {
        let output = cli.with_json(&[command, "a", "none", "b"])?;
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(code(&output, "1 of 3 failed")?, "some-failed");
        let each: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        assert_eq!(each.len(), 3, "{command}");
        for (one, name, uuid) in [(&each[0], "a", &a), (&each[2], "b", &b)] {
            assert_eq!((&one["name"], &one["uuid"]), (&json!(name), uuid));
            assert_eq!(one["result"], "ok", "{command}");
        }
        assert_eq!(
            (&each[1]["name"], &each[1]["result"]),
            (&json!("none"), &json!("error"))
        );
        assert_eq!(each[1]["error"]["code"], "no-domain");
    }
    // One alone is an array too, and the failure is its own.
    let output = cli.with_json(&["undefine", "a"])?;
    assert_eq!(code(&output, "'a'")?, "no-domain");
    let each: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert_eq!(each[0]["error"]["code"], "no-domain");
    Ok(())
}

#[test]
fn a_log_is_an_object_a_line() -> Result<()> {
    let cli = Cli::start()?;
    cli.ok(&["define", "web", "--cmdline", "mode=report"])?;
    cli.silent(&["start", "web"])?;
    // The log is written beside, and may be behind.
    eventually("all that it said is logged", || {
        let mut command = cli.daemon.reeve_command(&["logs", "--console", "web"])?;
        Ok(String::from_utf8_lossy(&command.output()?.stdout).contains("power off\n"))
    })?;
    let text = cli.ok(&["logs", "--console", "web"])?;
    let objects = cli.ok(&["logs", "--console", "web", "--json"])?;
    let mut lines = String::new();
    for object in objects.lines() {
        let object: Value = serde_json::from_str(object)?;
        lines.push_str(object["line"].as_str().context("no line")?);
        lines.push('\n');
    }
    assert_eq!(lines.trim_end(), text.trim_end());
    Ok(())
}

#[test]
fn a_name_that_is_misspelt_is_told_rather_than_waited_for() -> Result<()> {
    let cli = Cli::start()?;
    cli.refused(&["events", "nnoe"], &["there is no domain 'nnoe'"])
}
