//! The command line and what it means as a domain.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainName, DomainUuid, GenerationId, KernelBoot, Labels,
    LifecycleAction, MemorySize, Platform, PluggableMemory, ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use reeve_ipc::{BuildId, PROTOCOL};
use rustix::rand::GetRandomFlags;
use uuid::Uuid;

use crate::daemon::args::{Remote, RemoteCommand};
use crate::devices::DeviceArgs;
use crate::remote_user::RemoteUserArgs;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (worker protocol {}, build {})",
        env!("CARGO_PKG_VERSION"),
        PROTOCOL.0,
        BuildId::this().as_str()
    )
});

/// What is behind the options: examples, and what programs go by.
pub const AFTER_HELP: &str = "\
Examples:
  reeve doctor                     Check that this host can run virtual machines
  reeve run                        Boot the built-in guest and see its report
  reeve define web --memory 1G && reeve start web --console
                                   Keep a domain, start it, and open its console
  reeve define web --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0'
                                   The same with Linux; relative paths begin here, and the files
                                   must be beneath an allowed directory: /var/lib/reeve/images
  reeve list --all                 See every domain
  reeve run --kernel vmlinux --initrd initrd.img --cmdline 'console=ttyS0' --memory 512M
                                   Boot a Linux kernel with its console on this terminal

Exit codes ('reeve run' has more of its own):
  0    done
  1    failed; of several domains, at least one
  2    the command line is wrong
  141  standard output was closed

With --json every command prints one JSON value, events and logs one a line; what is done to named
domains is an array of {\"name\",\"uuid\",\"result\":\"ok\"} or {...,\"result\":\"error\",\"error\":{...}}.
A failure is one line on standard error: {\"error\":{\"code\":\"no-domain\",\"message\":\"...\"}}. Codes:
  of the daemon: no-domain, domain-exists, wrong-state, busy, invalid-argument, access-denied,
      path-refused, timeout, worker, host, storage, unsupported, shutting-down, cancelled,
      no-device, no-pool, pool-exists, no-volume, volume-exists, in-use, no-space, no-network,
      network-exists, no-port, no-nwfilter, nwfilter-exists
  of reeve: no-supervisor, connection, protocol, usage, file, changed, local, some-failed, not-tried";

const RUN_EXAMPLES: &str = "\
In a terminal every key goes to the guest, Ctrl-C too. Ctrl-] leaves the console and destroys the
guest, which has no other keeper. Standard input that is no terminal is the guest's input as it is.

Exit codes:
  0    the guest powered off, or was destroyed from its console or control socket
  1    the guest did not start
  2    the command line is wrong
  3    the guest crashed
  4    the worker that ran the guest died
  129, 130, 131, 143
       ended by SIGHUP or a closed terminal, SIGINT, SIGQUIT, SIGTERM
  141  standard output was closed

Examples:
  reeve run
      Boot the built-in guest, which prints a report and powers off
  reeve run --kernel /boot/vmlinuz --initrd initrd.img --cmdline 'console=ttyS0 quiet'
      Boot a Linux kernel (bzImage, or ELF with a PVH note)
  reeve run --cpus 4 --memory 2G --limit-memory 2200M --limit-cpu 150 --kernel vmlinux
      Four vCPUs that share one and a half CPUs of the host
  reeve run --json 2>console.log
      The report as JSON on standard output, the console in a file";

/// Virtual machines, each in a sandboxed process of its own.
#[derive(Debug, Parser)]
#[command(
    name = "reeve",
    version = VERSION.as_str(),
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub remote: Remote,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, made once")]
pub enum Command {
    /// Boot a guest in a sandboxed worker, with its console here.
    Run(Box<RunArgs>),
    /// Check each thing this host must have, and say what mends what it lacks.
    Doctor(DoctorArgs),
    /// Users who come from other hosts with a password ('tls_clients' in reeve.toml).
    #[command(arg_required_else_help = true)]
    RemoteUser(RemoteUserArgs),
    #[command(flatten)]
    Remote(RemoteCommand),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual and the completion scripts into a directory, for packages.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
}

/// What a machine is made of.
#[derive(Debug, Args)]
pub struct GuestArgs {
    /// Kernel image: bzImage, or ELF with a PVH note. Without it, the built-in guest boots.
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk of the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel", help_heading = "Guest")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line, at most 2047 bytes.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        help_heading = "Guest"
    )]
    pub cmdline: String,

    /// Number of vCPUs.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = parse_vcpus,
        allow_negative_numbers = true,
        help_heading = "Guest"
    )]
    pub cpus: Vcpus,

    /// Most virtual CPUs it can have while it runs ('reeve set-vcpus'); as many as it starts with, if not said.
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_vcpus,
        allow_negative_numbers = true,
        help_heading = "Guest"
    )]
    pub max_cpus: Option<Vcpus>,

    /// Memory of the guest, as in 512M or 4G.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256M",
        help_heading = "Guest"
    )]
    pub memory: MemorySize,

    /// Most memory the guest can have while it runs ('reeve set-memory'); as much as it starts with, if not
    /// said. The guest needs a virtio-mem driver, and takes it up in whole blocks of 2M or, of much, more.
    #[arg(long, value_name = "SIZE", help_heading = "Guest")]
    pub max_memory: Option<MemorySize>,

    /// Machine type: what the guest sees.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = MachineType::Reeve1_0.name(),
        value_parser = PossibleValuesParser::new(MachineType::ALL.map(MachineType::name)),
        help_heading = "Guest"
    )]
    pub machine: String,

    /// What the guest finds as its generation id, by which it learns that it was restored or copied:
    /// another at each start (random), always the same (a UUID), or none.
    #[arg(
        long,
        value_name = "random|none|UUID",
        default_value = "random",
        value_parser = generation_id,
        help_heading = "Guest"
    )]
    pub generation_id: GenerationId,

    /// Give the guest a port (pvpanic) by which its kernel says that it panicked. It has crashed then, and
    /// on-crash of its definition says what follows.
    #[arg(long, help_heading = "Guest")]
    pub panic_port: bool,

    #[command(flatten)]
    pub devices: DeviceArgs,

    /// Most host memory, guest and worker together. Needs cgroup v2, as every limit.
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub limit_memory: Option<MemorySize>,

    /// Most CPU time of the whole worker, I/O threads too, in percent of one CPU: 150 is one and a half.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "Limits"
    )]
    pub limit_cpu: Option<u32>,

    /// Most CPU time of the vCPUs together, in percent of one CPU; I/O threads stay free.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "Limits"
    )]
    pub limit_vcpus: Option<u32>,

    /// Most threads of the worker.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Limits"
    )]
    pub limit_pids: Option<u32>,
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    pub guest: GuestArgs,

    /// Name of the domain, for logs and process lists [default: made up].
    #[arg(long, value_name = "NAME", help_heading = "Guest")]
    pub name: Option<DomainName>,

    /// Print the report as one JSON object, the last line of standard output; the guest's console
    /// then goes to standard error. Set from the option of all commands.
    #[arg(skip)]
    pub json: bool,

    /// For scripts: a UNIX socket at PATH that takes the lines status,
    /// pause, resume, power-button, reset and destroy, and answers each with a line of JSON.
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// The program that serves shared directories [default: looked for].
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub virtiofsd: Option<PathBuf>,

    /// Say more of what happens; twice for still more. REEVE_LOG takes a filter instead.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the checks as a JSON array. Set from the option of all commands.
    #[arg(skip)]
    pub json: bool,
}

pub fn parse_vcpus(text: &str) -> Result<Vcpus, String> {
    let count = text.parse::<i64>().map_err(|_| "not a number".to_owned())?;
    let count = u32::try_from(count).unwrap_or(if count < 0 { 0 } else { u32::MAX });
    Vcpus::try_from(count).map_err(|error| error.to_string())
}

/// A generation id as people write it.
pub fn generation_id(text: &str) -> Result<GenerationId, String> {
    match text {
        "none" => Ok(GenerationId::Absent),
        "random" => Ok(GenerationId::Random),
        text => text
            .parse()
            .map(GenerationId::Fixed)
            .map_err(|_| format!("'{text}' is no generation id: write random, none or a UUID")),
    }
}

impl GuestArgs {
    /// The domain these arguments describe.
    pub fn domain(&self, name: DomainName, uuid: DomainUuid) -> Domain {
        let boot = match &self.kernel {
            None => BootSource::BuiltIn {
                command_line: self.cmdline.clone(),
            },
            Some(kernel) => BootSource::Kernel(KernelBoot {
                kernel: kernel.clone(),
                initrd: self.initrd.clone(),
                command_line: self.cmdline.clone(),
            }),
        };
        let machine = MachineType::ALL
            .into_iter()
            .find(|machine| machine.name() == self.machine)
            .unwrap_or(MachineType::Reeve1_0);
        Domain {
            name,
            uuid,
            machine,
            vcpus: self.cpus,
            max_vcpus: self.max_cpus.unwrap_or(self.cpus),
            cpu: CpuSwitches::default(),
            memory: self.memory,
            boot,
            devices: Devices {
                memory: PluggableMemory::up_to(self.max_memory, self.memory, None),
                ..self.devices.devices()
            },
            lifecycle: LifecycleAction::default(),
            limits: ResourceLimits {
                memory: self.limit_memory,
                memory_soft: None,
                memory_and_swap: None,
                cpu_percent: self.limit_cpu,
                vcpu_percent: self.limit_vcpus,
                cpu_weight: None,
                pids: self.limit_pids,
            },
            pinning: Vec::new(),
            labels: Labels::default(),
            platform: Platform {
                generation_id: self.generation_id,
                panic_port: self.panic_port,
            },
            kept: Vec::new(),
            tuning: Tuning::default(),
        }
    }
}

impl RunArgs {
    /// The domain these arguments describe. It has a new UUID each time.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn domain(&self) -> anyhow::Result<Domain> {
        let uuid = new_uuid().context("cannot make a UUID")?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => DomainName::try_from(format!("guest-{:08x}", uuid.as_fields().0))?,
        };
        Ok(self.guest.domain(name, DomainUuid(uuid)))
    }
}

/// A version 4 UUID (RFC 9562 §5.4) from the kernel itself: no device node, no fallback, no panic.
pub fn new_uuid() -> std::io::Result<Uuid> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The help of the command that the command line names, or of all.
pub fn help_command() -> String {
    let mut after_socket = false;
    let cli = Cli::command();
    for word in std::env::args().skip(1) {
        let is_value = std::mem::replace(&mut after_socket, word == "--socket");
        let command = (!is_value).then(|| cli.find_subcommand(&word)).flatten();
        if let Some(command) = command {
            return format!("reeve {} --help", command.get_name());
        }
    }
    "reeve --help".to_owned()
}
