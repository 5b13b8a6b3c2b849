//! The daemon's command line. Included by `reeve` too, which writes the manual of both.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, ValueEnum};
use reeve_ipc::BuildId;
use reeve_ipc::api::{API, RUN_DIRECTORY};
use reeved::config::DEFAULT_PATH;

/// The state directory of the host's own instance.
pub const STATE_DIRECTORY: &str = reeved::config::HOST_STATE_DIRECTORY;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (API {}, build {})",
        env!("CARGO_PKG_VERSION"),
        API.0,
        BuildId::this().as_str()
    )
});

/// The supervisor of virtual machines: keeps their definitions, and runs each in a sandboxed process
/// of its own that outlives it.
///
/// SIGHUP has it read its configuration again; SIGTERM ends it. Neither touches a domain.
#[derive(Debug, Parser)]
#[command(name = "reeved", version = VERSION.as_str())]
pub struct Arguments {
    /// The configuration; without the file every setting has its default.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Check the configuration and end.
    #[arg(long)]
    pub check_config: bool,

    /// Where definitions are kept. Another one makes another instance, with --run-dir.
    #[arg(long, value_name = "DIR", default_value = STATE_DIRECTORY)]
    pub state_dir: PathBuf,

    /// Where the socket and the run-time status are; in memory, and new at each boot.
    #[arg(long, value_name = "DIR", default_value = RUN_DIRECTORY)]
    pub run_dir: PathBuf,

    /// The cgroup v2 directory in which each domain gets a cgroup, delegated to this daemon and
    /// without processes of its own. Without it only domains with limits get one, in the daemon's.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// Be a test hypervisor and nothing else: without KVM and without root, for the tests of programs that use the
    /// API or libvirt's protocol. One domain, 'test', runs; domains are in memory, and gone at the end. It makes
    /// --run-dir, with the sockets; a configuration is read where --config names one.
    #[arg(long, conflicts_with_all = ["state_dir", "cgroup", "driver"])]
    pub test: bool,

    /// What runs domains.
    #[arg(long, value_name = "DRIVER", value_enum, default_value = "kvm")]
    pub driver: DriverName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DriverName {
    /// KVM, in sandboxed workers.
    Kvm,
    /// Nothing: machines that only look like some, with definitions that are kept as any.
    Test,
}
