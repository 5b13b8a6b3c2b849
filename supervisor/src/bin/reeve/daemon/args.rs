//! The arguments of the commands that speak to the daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reeve_ipc::api::call::{DomainRef, TuningChange};
use reeve_ipc::api::{RUN_DIRECTORY, SOCKET_NAME};
use reeve_ipc::model::{DeviceName, DomainName, DomainUuid, Medium, MemorySize, Vcpus};
use reeve_ipc::spec::{DiskThrottle, Rate};
use uuid::Uuid;

use super::storage_args::{PoolCommand, VolumeCommand};
use crate::args::{GuestArgs, parse_vcpus};
use crate::devices::{OneDevice, limits, medium};

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
    /// Follow what happens to domains and storage pools.
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

/// What a file says itself.
const BY_OPTIONS: [&str; 12] = [
    "name",
    "kernel",
    "disk",
    "net",
    "rng",
    "balloon",
    "vsock",
    "channel",
    "share",
    "watchdog",
    "generation_id",
    "panic_port",
];

#[derive(Debug, Args)]
pub struct DefinitionArgs {
    /// File with the definition, TOML or JSON; - is standard input. Relative paths in it begin at
    /// the file's directory.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = BY_OPTIONS)]
    pub file: Option<PathBuf>,

    /// The domain's name, where there is no file.
    #[arg(required_unless_present = "file")]
    pub name: Option<DomainName>,

    #[command(flatten)]
    pub guest: GuestArgs,
}

#[derive(Debug, Args)]
pub struct DefineArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,
    /// Refuse to replace a definition.
    #[arg(long)]
    pub new: bool,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub definition: DefinitionArgs,
    #[command(flatten)]
    pub how: HowArgs,
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
pub struct AttachArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    #[command(flatten)]
    pub device: OneDevice,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A device is named by a disk's target (vda), by an interface's address or name on the \
host, as share:TAG, channel:NAME, console:PORT, rng, balloon, vsock, ports (all channels and consoles), watchdog or memory, or by \
its address on the bus (5). 'reeve stats' shows those of a domain that runs."
)]
pub struct DetachArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The device.
    pub device: DeviceName,
    /// Take it, whatever its guest does with it. Otherwise the guest is asked, and has ten seconds; for a
    /// channel or console it is asked only where that is the last.
    #[arg(long)]
    pub force: bool,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The device, named as for 'reeve detach'.
    pub device: DeviceName,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ChangeArgs {
    /// Plug in, or pull, the cable of a network interface.
    #[arg(long, value_name = "up|down", value_parser = limits::link)]
    pub link: Option<bool>,
    /// How fast a disk may be used, or none: total-bytes=N, or read-bytes=N and write-bytes=N; the same
    /// with iops. N is as in 10M; N:BURST:SECONDS allows more for a while. What is not said is not limited.
    #[arg(long, value_name = "KEY=N[,...]|none", value_parser = limits::throttle)]
    pub throttle: Option<DiskThrottle>,
    /// How fast a network interface may be used, or none: inbound=N (to the guest), outbound=N, in bytes.
    #[arg(long, value_name = "KEY=N[,...]|none", value_parser = limits::rates)]
    pub rates: Option<(Option<Rate>, Option<Rate>)>,
    /// Take the medium out of a removable disk.
    #[arg(long)]
    pub eject: bool,
    /// Put this medium into a removable disk, in place of what is there: as for 'reeve change-media'.
    #[arg(long, value_name = "PATH,format=raw|qcow2[,...]", value_parser = medium)]
    pub insert: Option<Medium>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The guest sees the new size at once; its partitions and file systems are its own to change. A \
file becomes longer or, of a raw image, shorter; the size of a block device is changed where it comes from, and \
without SIZE the disk becomes as large as its device or file is by now. Of a domain that is off, use 'qemu-img \
resize'."
)]
pub struct ResizeArgs {
    /// Name, UUID, or number.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The disk, by its target (vda).
    pub disk: DeviceName,
    /// Its new size in bytes, or as in 20G.
    pub size: Option<MemorySize>,
    /// It may become smaller: what is behind its new end is lost.
    #[arg(long)]
    pub shrink: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A disk is removable if its definition says so (removable = true, read-only = true). The guest is \
told, and not asked: have it unmount the disk first, or it may go on with what it has cached."
)]
pub struct ChangeMediaArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The disk, by its target (vdc).
    pub disk: DeviceName,
    #[command(flatten)]
    pub medium: MediumArgs,
    /// In the definition that is kept, too; of a domain that is off, in that only.
    #[arg(long)]
    pub persistent: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct MediumArgs {
    /// Take the medium out.
    #[arg(long)]
    pub eject: bool,
    /// Put this one in, in place of what is there. What a qcow2 image builds upon is said as for
    /// --disk: backing=PATH,backing-format=raw|qcow2, or backing=auto.
    #[arg(long, value_name = "PATH,format=raw|qcow2[,...]", value_parser = medium)]
    pub insert: Option<Medium>,
}

#[derive(Debug, Args)]
pub struct SetMemoryArgs {
    /// Name, UUID, or number.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// What the guest is to have, as in 512M; no more than it was started with, or than max-memory of its
    /// definition.
    pub memory: MemorySize,
    /// The guest that runs: where neither is said, if there is one.
    #[arg(long)]
    pub live: bool,
    /// From its next start on.
    #[arg(long)]
    pub config: bool,
    /// The most that it can have from its next start on.
    #[arg(long, conflicts_with_all = ["live", "config"])]
    pub max: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --live and --config what runs is meant where the domain runs, and else what it starts \
with. A limit can be set while it runs only where it was started with one, or in a cgroup that every domain has."
)]
pub struct TuneArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// Where a vCPU may run, as in 0=2-3; 0=any for anywhere. May be said several times.
    #[arg(long, value_name = "VCPU=CPUS", value_parser = vcpu_cpus)]
    pub vcpu: Vec<TuningChange>,
    /// Where all other threads of its worker may run, as in 0-1; any for anywhere.
    #[arg(long, value_name = "CPUS", value_parser = emulator_cpus)]
    pub emulator: Option<TuningChange>,
    /// The most memory of the host; none for no limit.
    #[arg(long, value_name = "SIZE", value_parser = memory_limit)]
    pub limit_memory: Option<TuningChange>,
    /// How much memory of the host it may have before it is slowed down and its memory is taken back; none for no limit.
    #[arg(long, value_name = "SIZE", value_parser = memory_soft_limit)]
    pub limit_memory_soft: Option<TuningChange>,
    /// The most memory of the host and swap together, no less than the most memory; none for no limit.
    #[arg(long, value_name = "SIZE", value_parser = memory_and_swap_limit)]
    pub limit_memory_and_swap: Option<TuningChange>,
    /// The most CPU time, in percent of one CPU; none for no limit.
    #[arg(long, value_name = "PERCENT", value_parser = cpu_percent)]
    pub limit_cpu: Option<TuningChange>,
    /// The most CPU time of its vCPUs, in percent of one CPU; none for no limit.
    #[arg(long, value_name = "PERCENT", value_parser = vcpu_percent)]
    pub limit_vcpus: Option<TuningChange>,
    /// The share of contended CPU time, 1 to 10000; none for the common one.
    #[arg(long, value_name = "WEIGHT", value_parser = cpu_weight)]
    pub cpu_weight: Option<TuningChange>,
    /// What runs.
    #[arg(long)]
    pub live: bool,
    /// What the domain starts with.
    #[arg(long)]
    pub config: bool,
}

/// A value, or `nothing` for none.
fn or<T>(text: &str, nothing: &str) -> Result<Option<T>, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text == nothing {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error: T::Err| error.to_string())
}

fn vcpu_cpus(text: &str) -> Result<TuningChange, String> {
    let (vcpu, cpus) = text
        .split_once('=')
        .ok_or("write a vCPU and its CPUs, as in 0=2-3")?;
    let vcpu = vcpu.parse().map_err(|_| format!("'{vcpu}' is no vCPU"))?;
    let cpus = or(cpus, "any")?;
    Ok(TuningChange::VcpuCpus { vcpu, cpus })
}

fn emulator_cpus(text: &str) -> Result<TuningChange, String> {
    or(text, "any").map(TuningChange::EmulatorCpus)
}

fn memory_limit(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::MemoryLimit)
}

fn memory_soft_limit(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::MemorySoftLimit)
}

fn memory_and_swap_limit(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::MemoryAndSwapLimit)
}

fn cpu_percent(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::CpuPercent)
}

fn vcpu_percent(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::VcpuPercent)
}

fn cpu_weight(text: &str) -> Result<TuningChange, String> {
    or(text, "none").map(TuningChange::CpuWeight)
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --live and --config the machine is meant where the domain runs, and else what it \
starts with. A machine never has more vCPUs than --max-cpus said; its guest may have to bring new ones \
online: echo 1 > /sys/devices/system/cpu/cpu1/online."
)]
pub struct SetVcpusArgs {
    /// Name, UUID, or number while it runs.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// How many. Of those that are too many the guest is asked to let go, and has ten seconds.
    #[arg(value_parser = parse_vcpus)]
    pub vcpus: Vcpus,
    /// The machine that runs.
    #[arg(long)]
    pub live: bool,
    /// What the domain starts with.
    #[arg(long)]
    pub config: bool,
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
pub struct ExportArgs {
    /// Name or UUID.
    #[arg(value_parser = domain)]
    pub domain: DomainRef,
    /// The file; standard output where none is given.
    pub file: Option<PathBuf>,
    /// The definition it runs with, rather than the one that is kept.
    #[arg(long)]
    pub live: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; - is standard input. Relative paths in it begin at the file's directory.
    pub file: PathBuf,
    /// Refuse to replace a definition.
    #[arg(long)]
    pub new: bool,
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
