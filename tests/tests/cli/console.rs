//! `reeve console` on a terminal, and domains that live as long as a command.

use anyhow::{Result, ensure};
use reeve_tests::reeve::Reeve;

use super::{Cli, PATIENCE, eventually};

/// Ctrl-].
const ESCAPE: &[u8] = b"\x1d";

impl Cli {
    /// A guest that echoes, and is there to do so.
    fn echo(&self) -> Result<()> {
        self.define("web")?;
        self.silent(&["start", "web"])?;
        self.until_said("ready")
    }

    fn said(&self) -> Result<String> {
        let mut command = self.daemon.reeve_command(&["logs", "--console", "web"])?;
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    }

    fn until_said(&self, part: &str) -> Result<()> {
        eventually(part, || Ok(self.said()?.contains(part)))
    }

    fn on_terminal(&self, arguments: &[&str]) -> Result<Reeve> {
        let command =
            Reeve::command()?.env("REEVE_SOCKET", &self.daemon.socket().display().to_string());
        let command = arguments
            .iter()
            .fold(command, |command, word| command.arg(word));
        command.on_terminal().spawn()
    }
}

#[test]
fn every_key_goes_to_the_guest_until_the_escape_and_the_domain_goes_on() -> Result<()> {
    let cli = Cli::start()?;
    cli.echo()?;
    for round in 0..2 {
        let mut reeve = cli.on_terminal(&["console", "web"])?;
        reeve.expect("Ctrl-] leaves the console", PATIENCE)?;
        ensure!(reeve.terminal_is_raw()?);
        let word = format!("typed{round}");
        // Ctrl-C is the guest's, too.
        reeve.send(&[b"\x03", word.as_bytes()].concat())?;
        reeve.expect(&word, PATIENCE)?;
        reeve.send(&[ESCAPE, b"behind"].concat())?;
        reeve.expect("left the console; the domain goes on", PATIENCE)?;
        ensure!(reeve.wait(PATIENCE)?.success());
        ensure!(reeve.terminal_is_restored()?);
        assert_eq!(cli.state("web")?, "running");
    }
    ensure!(!cli.said()?.contains("behind"), "{}", cli.said()?);
    Ok(())
}

#[test]
fn whoever_only_looks_types_nothing_and_leaves_with_the_escape() -> Result<()> {
    let cli = Cli::start()?;
    cli.echo()?;
    let mut looks = cli.on_terminal(&["console", "--read-only", "web"])?;
    looks.expect("Ctrl-] leaves the console", PATIENCE)?;
    looks.send(b"unheard")?;
    let mut types = cli.on_terminal(&["console", "web"])?;
    types.expect("Ctrl-] leaves the console", PATIENCE)?;
    types.send(b"heard-by-all")?;
    looks.expect("heard-by-all", PATIENCE)?;
    looks.send(ESCAPE)?;
    looks.expect("left the console", PATIENCE)?;
    ensure!(looks.wait(PATIENCE)?.success());
    ensure!(looks.terminal_is_restored()?);
    cli.until_said("heard-by-all")?;
    ensure!(!cli.said()?.contains("unheard"), "{}", cli.said()?);
    Ok(())
}

#[test]
fn the_terminal_is_restored_when_the_guest_ends_under_its_console() -> Result<()> {
    let cli = Cli::start()?;
    cli.echo()?;
    let mut reeve = cli.on_terminal(&["console", "web"])?;
    reeve.expect("Ctrl-] leaves the console", PATIENCE)?;
    cli.silent(&["destroy", "web"])?;
    reeve.expect("the console is closed", PATIENCE)?;
    ensure!(reeve.wait(PATIENCE)?.success());
    ensure!(reeve.terminal_is_restored()?);
    Ok(())
}

#[test]
fn a_domain_that_is_destroyed_with_its_command_goes_with_it() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    // However the command ends.
    let mut command = cli.spawn(&["start", "web", "--auto-destroy"])?;
    eventually("it runs", || Ok(cli.state("web")? == "running"))?;
    ensure!(command.0.try_wait()?.is_none(), "it goes on until then");
    drop(command);
    // And its worker released: until then it cannot be started again.
    eventually("it is off", || {
        let info = cli.json(&["info", "web"])?;
        Ok(info["state"] == "shut off" && info["reaping"] == false)
    })?;
    // The command ends when its domain does.
    let command = cli.spawn(&["start", "web", "--auto-destroy"])?;
    eventually("it runs", || Ok(cli.state("web")? == "running"))?;
    cli.silent(&["destroy", "web"])?;
    command.end()?;
    // One that leaves its console is such an end.
    let create = [
        "create",
        "once",
        "--auto-destroy",
        "--console",
        "--cmdline",
        "mode=echo",
    ];
    let mut reeve = cli.on_terminal(&create)?;
    reeve.expect("ready", PATIENCE)?;
    reeve.send(ESCAPE)?;
    ensure!(reeve.wait(PATIENCE)?.success());
    eventually("it is gone", || Ok(cli.ok(&["list", "-aq"])? == "web\n"))
}
