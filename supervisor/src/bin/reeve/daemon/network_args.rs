//! The arguments of `reeve network`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reeve_ipc::api::call::NetworkRef;
use reeve_ipc::model::{EditCommand, NetworkUuid};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List networks: those that are active, or all.
    List(NetworkListArgs),
    /// Show one network.
    Show(NetworkArgs),
    /// Keep the definition of a network, from a file.
    Define(NetworkFileArgs),
    /// Start a network from a file without keeping its definition: it is gone when it is stopped.
    Create(NetworkFileArgs),
    /// Write the definition of a network as such a file has it.
    Export(NetworkExportArgs),
    /// Start a network.
    Start(NetworkArgs),
    /// Stop a network; machines that are on it reach nothing until it is started again.
    Stop(NetworkArgs),
    /// Forget the definition of a network. One that is active lives on until it is stopped.
    Undefine(NetworkArgs),
    /// Start a network with the host, or no longer.
    Autostart(NetworkAutostartArgs),
    /// Change a part of a network's definition, from a file, without stopping it.
    Update(NetworkUpdateArgs),
    /// List the interfaces of machines that are on a network.
    Ports(NetworkArgs),
    /// List the addresses that a network has lent.
    Leases(NetworkArgs),
}

#[derive(Debug, Args)]
pub struct NetworkListArgs {
    /// Those that are not active too.
    #[arg(short, long)]
    pub all: bool,
    /// Names only.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Name or UUID.
    #[arg(value_parser = network)]
    pub network: NetworkRef,
}

#[derive(Debug, Args)]
pub struct NetworkFileArgs {
    /// The file, of TOML or JSON; - is standard input. Its keys are in the administrator's guide.
    pub file: PathBuf,
    /// Refuse to replace a definition.
    #[arg(long)]
    pub new: bool,
}

#[derive(Debug, Args)]
pub struct NetworkExportArgs {
    /// Name or UUID.
    #[arg(value_parser = network)]
    pub network: NetworkRef,
    /// The definition that it will have with its next start, rather than the one that it has.
    #[arg(long)]
    pub kept: bool,
}

#[derive(Debug, Args)]
pub struct NetworkAutostartArgs {
    /// Name or UUID.
    #[arg(value_parser = network)]
    pub network: NetworkRef,
    /// No longer.
    #[arg(long)]
    pub off: bool,
}

#[derive(Debug, Args)]
pub struct NetworkUpdateArgs {
    /// Name or UUID.
    #[arg(value_parser = network)]
    pub network: NetworkRef,
    /// What is done: add, add-first, modify or delete.
    pub command: EditCommand,
    /// The part, of TOML or JSON; - is standard input: one of dhcp_host, dhcp_range, forward_interface,
    /// port_group, dns_host, dns_text and dns_service.
    pub file: PathBuf,
    /// In the definition that is active [default: in it, where it is, and in the one that is kept, where one is].
    #[arg(long)]
    pub live: bool,
    /// In the definition that is kept.
    #[arg(long)]
    pub persistent: bool,
}

/// A network as people name it.
fn network(text: &str) -> Result<NetworkRef, String> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Ok(NetworkRef::Uuid(NetworkUuid(uuid)));
    }
    text.parse()
        .map(NetworkRef::Name)
        .map_err(|error: reeve_ipc::model::InvalidName| error.to_string())
}
