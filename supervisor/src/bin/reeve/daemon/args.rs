//! The arguments of the commands that speak to the daemon: which commands there are, and what those take that are about
//! a domain as a whole, or about the daemon.

mod definition;
mod devices;
mod tuning;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reeve_ipc::api::call::DomainRef;
use reeve_ipc::api::{RUN_DIRECTORY, SOCKET_NAME};
use reeve_ipc::model::{DomainName, DomainUuid};
use uuid::Uuid;

pub use self::definition::{CreateArgs, DefineArgs, DefinitionArgs, ExportArgs, ImportArgs};
pub use self::devices::{AttachArgs, ChangeMediaArgs, DetachArgs, ResizeArgs, UpdateArgs};
pub use self::tuning::{SetMemoryArgs, SetVcpusArgs, TuneArgs};
use super::network_args::NetworkCommand;
use super::storage_args::{PoolCommand, VolumeCommand};

/// What every such command takes.
#[derive(Debug, Args)]
pub struct Remote {
    /// The daemon's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "REEVE_SOCKET",
        default_value_os_t = default_socket(),
        help_heading = "Daemon"
    )]
    pub socket: PathBuf,

    /// Speak to the daemon's test hypervisor instead: domains that only look like some, in its memory.
    #[arg(long, global = true, help_heading = "Daemon")]
    pub test: bool,

    /// Print JSON instead of text, errors too; 'reeve --help' has their codes. A console has none.
    #[arg(long, global = true, help_heading = "Daemon")]
    pub json: bool,
}

fn default_socket() -> PathBuf {
    PathBuf::from(RUN_DIRECTORY).join(SOCKET_NAME)
}

#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// List domains: those that run, or all.
    List(ListArgs),
    /// Show one domain.
    Info(OneArgs),
    /// Show everything that is known of one domain, as JSON.
    Inspect(OneArgs),
    /// Keep a definition, from a file or from options.
    Define(Box<DefineArgs>),
    /// Start a domain whose definition is not kept: it is gone when it ends.
    Create(Box<CreateArgs>),
    /// Start defined domains.
    Start(StartArgs),
    /// Ask guests to shut down.
    Shutdown(ShutdownArgs),
    /// Ask guests to shut down, and boot them again.
    Reboot(ManyArgs),
    /// Reset machines, as their reset button does.
    Reset(ManyArgs),
    /// Send every vCPU an interrupt that guests cannot mask (NMI).
    Nmi(ManyArgs),
    /// Stop the vCPUs of domains.
    Pause(ManyArgs),
    /// Let the vCPUs of paused domains run.
    Resume(ManyArgs),
    /// Have fresh workers take over domains that run.
    Upgrade(ManyArgs),
    /// End domains at once, whatever their guests do.
    Destroy(ManyArgs),
    /// Remove definitions. A domain that runs goes on until it ends.
    Undefine(ManyArgs),
    /// Open a domain's console. Ctrl-] leaves it; the domain goes on.
    Console(ConsoleArgs),
    /// Change a definition in $VISUAL or $EDITOR.
    Edit(OneArgs),
    /// Start a domain with the host, or no longer.
    Autostart(AutostartArgs),
    /// Give a domain that is off another name.
    Rename(RenameArgs),
    /// Set title, description or metadata of a domain.
    Label(LabelArgs),
    /// Give a domain one more device.
    Attach(Box<AttachArgs>),
    /// Take a device from a domain.
    Detach(DetachArgs),
    /// Change a device of a domain.
    Update(UpdateArgs),
    /// Change the size of a disk of a domain that runs.
    Resize(ResizeArgs),
    /// Put another medium into a removable disk, or none.
    ChangeMedia(ChangeMediaArgs),
    /// Ask a guest to make do with less memory, by its balloon, or to take up more.
    SetMemory(SetMemoryArgs),
    /// Give a domain vCPUs, or ask its guest to let go of some.
    SetVcpus(SetVcpusArgs),
    /// Change where a domain runs on the host, and what it may use of it.
    Tune(TuneArgs),
    /// Show what the vCPUs and the devices of a domain that runs have done.
    Stats(OneArgs),
    /// Follow what happens to domains, storage pools and networks.
    Events(EventsArgs),
    /// Show a domain's log, or what its guest wrote to its console.
    Logs(LogsArgs),
    /// Write a definition to a file, or to standard output.
    Export(ExportArgs),
    /// Keep a definition that was exported.
    Import(ImportArgs),
    /// Storage pools: directories of images.
    #[command(subcommand, arg_required_else_help = true)]
    Pool(PoolCommand),
    /// Volumes: the images of a storage pool.
    #[command(subcommand, arg_required_else_help = true)]
    Volume(VolumeCommand),
    /// Virtual networks, and who is on them.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Show how the daemon stands.
    Status,
    /// Show what the host is, and what of it is for domains.
    Host,
    /// Have the daemon read its configuration again.
    Reload,
    /// Change what the daemon logs, until it ends.
    LogLevel(LogLevelArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Those that are off, too.
    #[arg(short, long)]
    pub all: bool,
    /// Names only, one a line.
    #[arg(short, long, conflicts_with = "long")]
    pub quiet: bool,
    /// What each uses of the host, too.
    #[arg(short, long)]
    pub long: bool,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
}

#[derive(Debug, Args)]
pub struct ManyArgs {
    /// Names, UUIDs, or numbers of those that run.
    #[arg(required = true, value_parser = domain)]
    pub domains: Vec<DomainRef>,
}

#[derive(Debug, Args)]
pub struct HowArgs {
    /// Let it stand with no vCPU running.
    #[arg(long)]
    pub paused: bool,
    /// Open its console; Ctrl-] leaves it.
    #[arg(short, long)]
    pub console: bool,
    /// Destroy it when this command ends, which goes on until then.
    #[arg(long)]
    pub auto_destroy: bool,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub many: ManyArgs,
    #[command(flatten)]
    pub how: HowArgs,
}

#[derive(Debug, Args)]
pub struct ShutdownArgs {
    /// Names, UUIDs, or numbers of those that run.
    #[arg(required_unless_present_any = ["all", "host"], value_parser = domain)]
    pub domains: Vec<DomainRef>,
    /// Every domain that runs.
    #[arg(short, long, conflicts_with = "domains")]
    pub all: bool,
    /// As when the host shuts down: every domain, whatever its policies say, until all are off. The
    /// time-out is that of /etc/reeve/reeve.toml; domains that are not off half a minute after it are
    /// named, and the command fails.
    #[arg(long, conflicts_with_all = ["domains", "all", "wait"])]
    pub host: bool,
    /// Destroy those whose guests have not ended after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// Go on until they are off.
    #[arg(short, long)]
    pub wait: bool,
}

#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// Only look.
    #[arg(short, long)]
    pub read_only: bool,
}

#[derive(Debug, Args)]
pub struct AutostartArgs {
    #[command(flatten)]
    pub many: ManyArgs,
    /// Its place: lowest first, those of one place together.
    #[arg(long, value_name = "N", default_value = "0")]
    pub order: u32,
    /// It no longer starts with the host.
    #[arg(long, conflicts_with = "order")]
    pub disable: bool,
}

#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Name or UUID.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The new name.
    pub name: DomainName,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("label").required(true).multiple(true))]
pub struct LabelArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// Its title, one line; empty for none.
    #[arg(long, group = "label")]
    pub title: Option<String>,
    /// Its description; empty for none.
    #[arg(long, group = "label")]
    pub description: Option<String>,
    /// An element of metadata, by its namespace; without content it is removed.
    #[arg(long, num_args = 1..=2, value_names = ["URI", "CONTENT"], group = "label")]
    pub metadata: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this domain.
    #[arg(value_parser = domain)]
    pub domain: Option<DomainRef>,
    /// End after so many.
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// End when nothing has happened for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Begin behind this event, as EPOCH:NUMBER; told again is what the daemon still has.
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    pub since: Option<reeve_ipc::api::event::Cursor>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "With --json each line is an object, {\"line\":\"...\"}; one longer than 65536 \
bytes comes in pieces."
)]
pub struct LogsArgs {
    /// Name or UUID.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// What its guest wrote to its console, instead of what was said about it.
    #[arg(short, long)]
    pub console: bool,
    /// Go on with what is added.
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct LogLevelArgs {
    /// error, warn, info, debug or trace; or a filter as REEVE_LOG takes it.
    pub filter: String,
}

/// A domain as people name it: a UUID, a number, or a name.
fn domain(text: &str) -> Result<DomainRef, String> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Ok(DomainRef::Uuid(DomainUuid(uuid)));
    }
    match text.parse::<u32>() {
        Ok(id) => Ok(DomainRef::Id(id)),
        Err(_) => text
            .parse()
            .map(DomainRef::Name)
            .map_err(|error: reeve_ipc::model::InvalidName| error.to_string()),
    }
}

fn cursor(text: &str) -> Result<reeve_ipc::api::event::Cursor, String> {
    let wrong = || "a cursor is EPOCH:NUMBER, as 'reeve events --json' prints it".to_owned();
    let (epoch, number) = text.split_once(':').ok_or_else(wrong)?;
    Ok(reeve_ipc::api::event::Cursor {
        epoch: epoch.parse().map_err(|_| wrong())?,
        number: number.parse().map_err(|_| wrong())?,
    })
}
