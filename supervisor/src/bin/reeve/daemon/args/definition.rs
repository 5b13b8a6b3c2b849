//! The arguments of the commands that take a definition, or give one.

use std::path::PathBuf;

use clap::Args;
use reeve_ipc::api::call::DomainRef;
use reeve_ipc::model::DomainName;

use super::{HowArgs, domain};
use crate::args::GuestArgs;

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
