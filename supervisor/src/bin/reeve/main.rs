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
        Err(error) if error.use_stderr() => {
            let _ = writeln!(std::io::stderr(), "{}", args::one_line(&error));
            ExitCode::from(USAGE)
        }
        Err(help) => print(help.render().ansi().to_string().as_bytes()),
    }
}

/// Writes to standard output; a reader that has gone is no failure.
fn print(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
