//! `reeve`: the command line. `reeve run` needs no daemon, the supervisor's library runs in it; the
//! commands about kept domains speak to the daemon.

mod args;
mod console;
mod control;
mod daemon;
mod devices;
mod doctor;
mod manual;
mod messages;
mod remote_user;
mod report;
mod run;
mod session;
mod signals;
mod terminal;
#[path = "../reeved/usage.rs"]
mod usage;

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
    match parsed.map(|cli| (cli.remote, cli.command)) {
        Ok((remote, Command::Run(mut run))) => {
            run.json = remote.json;
            ExitCode::from(run::run(&run))
        }
        Ok((remote, Command::Doctor(mut doctor))) => {
            doctor.json = remote.json;
            ExitCode::from(doctor::doctor(&doctor))
        }
        Ok((remote, Command::Remote(command))) => ExitCode::from(daemon::run(&remote, command)),
        Ok((remote, Command::RemoteUser(args))) => ExitCode::from(daemon::finish(&remote, |out| {
            remote_user::remote_user(out, &args)
        })),
        Ok((_, Command::Completion { shell })) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reeve", &mut script);
            print(&script)
        }
        Ok((_, Command::Man { directory })) => manual::write(&directory),
        Err(error) => {
            let usage = error.use_stderr();
            let _ = match error.kind() {
                // Help and version; or nothing was asked for, which help answers best.
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.print(),
                _ if usage => {
                    let line = usage::one_line(&error, &args::help_command());
                    // The command line was not understood: whether it is there is all that is known.
                    let line = if std::env::args_os().any(|word| word == "--json") {
                        daemon::usage_json(&line)
                    } else {
                        format!("reeve: {line}")
                    };
                    writeln!(std::io::stderr(), "{line}")
                }
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
