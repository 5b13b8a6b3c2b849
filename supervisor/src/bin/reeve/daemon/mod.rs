//! The commands that speak to the daemon: each one connection, a few calls, and what is printed.
//!
//! What may live here: how arguments become calls, and answers become tables or JSON. What may not:
//! rules of domains, which are the daemon's; the commands that need no daemon stay beside this folder.

pub mod args;
mod console;
mod define;
mod devices;
mod edit;
mod error;
mod events;
mod file;
mod host;
mod host_end;
mod life;
mod logs;
mod network;
pub mod network_args;
mod outcome;
mod pool;
mod show;
pub mod storage_args;
mod table;
mod tune;
mod vcpus;
mod volume;

use std::io::Write as _;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::TestHypervisorUse;
use serde::Serialize;

use self::args::{Remote, RemoteCommand};
pub use self::error::CommandError;

/// Runs one command; gives the exit code.
pub fn run(remote: &Remote, command: RemoteCommand) -> u8 {
    finish(remote, |out| execute(remote, out, command))
}

/// Runs a command that prints as these do, and needs no daemon; gives the exit code.
pub fn finish(remote: &Remote, command: impl FnOnce(Output) -> Result<(), CommandError>) -> u8 {
    let out = Output { json: remote.json };
    match command(out) {
        Ok(()) => 0,
        Err(error) => {
            let error = error.at(&remote.socket);
            match error {
                CommandError::Unread => {}
                _ if out.json => line(&error_line(&error.json())),
                _ => say(&error.to_string()),
            }
            error.exit_code()
        }
    }
}

/// A usage error as `--json` has errors.
pub fn usage_json(message: &str) -> String {
    error_line(&CommandError::Usage(message.to_owned()).json())
}

fn error_line(error: &serde_json::Value) -> String {
    serde_json::json!({ "error": error }).to_string()
}

/// A console is bytes as they come: there is no JSON of it.
fn refuse_json_console(out: Output, command: &RemoteCommand) -> Result<(), CommandError> {
    use RemoteCommand as C;
    let without = match command {
        C::Console(_) => "--json",
        C::Start(args) if args.how.console => "--json or --console",
        C::Create(args) if args.how.console => "--json or --console",
        _ => return Ok(()),
    };
    if !out.json {
        return Ok(());
    }
    Err(CommandError::Usage(format!(
        "a console is the guest's own bytes, of which there is no JSON: leave out {without}"
    )))
}

fn execute(remote: &Remote, out: Output, command: RemoteCommand) -> Result<(), CommandError> {
    use RemoteCommand as C;
    refuse_json_console(out, &command)?;
    // It opens its own, and more than one where it has to.
    let command = match command {
        C::Shutdown(args) if args.host && remote.test => {
            let why = "a test hypervisor is on no host that goes down: leave out --test or --host";
            return Err(CommandError::Usage(why.to_owned()));
        }
        C::Shutdown(args) if args.host => {
            return host_end::shutdown(&remote.socket, out, args.timeout);
        }
        command => command,
    };
    let mut connection = Connection::open(&remote.socket, "reeve")?;
    if remote.test {
        connection.call(TestHypervisorUse {})?;
    }
    let connection = &mut connection;
    match command {
        C::List(args) => show::list(connection, out, &args),
        C::Info(args) => show::info(connection, out, &args.domain),
        C::Inspect(args) => show::inspect(connection, &args.domain),
        C::Status => show::status(connection, out),
        C::Host => host::host(connection, out),
        C::Define(args) => define::define(connection, out, &args),
        C::Create(args) => define::create(connection, out, &args),
        C::Export(args) => define::export(connection, out, &args),
        C::Import(args) => define::import(connection, out, &args),
        C::Edit(args) => edit::edit(connection, out, &args.domain),
        C::Start(args) => life::start(connection, out, &args),
        C::Shutdown(args) => life::shutdown(connection, out, &args),
        C::Reboot(args) => life::reboot(connection, out, &args.domains),
        C::Reset(args) => life::reset(connection, out, &args.domains),
        C::Nmi(args) => life::nmi(connection, out, &args.domains),
        C::Pause(args) => life::pause(connection, out, &args.domains),
        C::Upgrade(args) => life::upgrade(connection, out, &args.domains),
        C::Resume(args) => life::resume(connection, out, &args.domains),
        C::Destroy(args) => life::destroy(connection, out, &args.domains),
        C::Undefine(args) => life::undefine(connection, out, &args.domains),
        C::Autostart(args) => life::autostart(connection, out, &args),
        C::Rename(args) => life::rename(connection, out, &args),
        C::Label(args) => life::label(connection, out, &args),
        C::Attach(args) => devices::attach(connection, out, &args),
        C::Detach(args) => devices::detach(connection, out, &args),
        C::Update(args) => devices::update(connection, out, &args),
        C::Resize(args) => devices::resize(connection, out, &args),
        C::ChangeMedia(args) => devices::change_media(connection, out, &args),
        C::SetMemory(args) => tune::set_memory(connection, out, &args),
        C::SetVcpus(args) => vcpus::set(connection, out, &args),
        C::Tune(args) => tune::tune(connection, out, &args),
        C::Stats(args) => devices::stats(connection, out, &args.domain),
        C::Pool(command) => pool::pool(connection, out, command),
        C::Volume(command) => volume::volume(connection, out, command),
        C::Network(command) => network::network(connection, out, command),
        C::Console(args) => console::console(connection, &args.domain, !args.read_only),
        C::Events(args) => events::events(connection, out, &args),
        C::Logs(args) => logs::logs(connection, out, &args),
        C::Reload => life::reload(connection, out),
        C::LogLevel(args) => life::log_level(connection, out, &args.filter),
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// One value: as JSON, or as `text` makes it.
    pub fn value<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        if self.json {
            json(value)
        } else {
            print(&text())
        }
    }

    /// Says on standard error what is no failure.
    pub fn notice(self, text: &str) {
        if self.json {
            line(&serde_json::json!({ "notice": text }).to_string());
        } else {
            say(text);
        }
    }
}

/// Prints a value as JSON, indented, with a line's end.
fn json<T: Serialize>(value: &T) -> Result<(), CommandError> {
    print(&json_text(value)?)
}

fn json_text<T: Serialize>(value: &T) -> Result<String, CommandError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| CommandError::Own(format!("cannot write JSON: {error}")))
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => CommandError::Unread,
            _ => CommandError::Own(format!("cannot write to standard output: {error}")),
        })
}

/// Says one line on standard error.
fn say(text: &str) {
    line(&format!("reeve: {text}"));
}

fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
