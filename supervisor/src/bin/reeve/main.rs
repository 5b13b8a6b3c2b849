//! `reeve`: the command line. One process, no daemon: the supervisor's library runs in it.

mod args;
mod console;
mod control;
mod doctor;
mod messages;
mod report;
mod run;
mod session;
mod signals;
mod terminal;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use self::args::{Cli, Command};

/// The exit code of a command line that cannot be meant.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed.map(|cli| cli.command) {
        Ok(Command::Run(run)) => ExitCode::from(run::run(&run)),
        Ok(Command::Doctor(doctor)) => ExitCode::from(doctor::doctor(&doctor)),
        Ok(Command::Completion { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reeve", &mut script);
            print(&script)
        }
        Err(error) => {
            let usage = error.use_stderr();
            let _ = match error.kind() {
                // Help and version; or nothing was asked for, which help answers best.
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.print(),
                _ if usage => writeln!(std::io::stderr(), "{}", args::one_line(&error)),
                _ => error.print(),
            };
            ExitCode::from(if usage { USAGE } else { 0 })
        }
    }
}

/// Writes to standard output; a reader that has gone is no failure.
fn print(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
