//! The arguments of `reeve pool` and `reeve volume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reeve_ipc::api::call::{NewCapacity, PoolRef};
use reeve_ipc::model::{MODE_BITS, MemorySize, PoolName, PoolUuid, Qcow2Compat, VolumeName};
use reeve_ipc::spec::DiskFormat;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List pools: those that are active, or all.
    List(PoolListArgs),
    /// Show one pool.
    Info(PoolArgs),
    /// Keep a definition of a pool.
    Define(PoolDefineArgs),
    /// Make the directory of a pool that is not active.
    Build(PoolArgs),
    /// Start a pool: look what volumes its directory has.
    Start(PoolStartArgs),
    /// Stop a pool; what is in its directory stays.
    Stop(PoolArgs),
    /// Look again what volumes a pool has.
    Refresh(PoolArgs),
    /// Start a pool with the host, or no longer.
    Autostart(PoolAutostartArgs),
    /// Remove the directory of a pool that is not active, if it is empty.
    Delete(PoolArgs),
    /// Forget the definition of a pool that is not active; its directory stays.
    Undefine(PoolArgs),
}

#[derive(Debug, Args)]
pub struct PoolListArgs {
    /// Those that are not active too.
    #[arg(short, long)]
    pub all: bool,
    /// Names only.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct PoolArgs {
    /// Name or UUID.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
}

#[derive(Debug, Args)]
pub struct PoolDefineArgs {
    /// Its name.
    pub name: PoolName,
    /// Its directory: an allowed directory of the daemon, or one beneath. It need not exist yet.
    pub directory: PathBuf,
    /// Its UUID [default: that of the pool of this name, or made up].
    #[arg(long)]
    pub uuid: Option<Uuid>,
    /// Mode of the directory when it is made, in octal.
    #[arg(long, value_parser = mode)]
    pub mode: Option<u32>,
    /// Owner of the directory, a number.
    #[arg(long, value_name = "UID")]
    pub owner: Option<u32>,
    /// Group of the directory, a number.
    #[arg(long, value_name = "GID")]
    pub group: Option<u32>,
    /// Refuse to replace a definition.
    #[arg(long)]
    pub new: bool,
}

#[derive(Debug, Args)]
pub struct PoolStartArgs {
    /// Name or UUID.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Make its directory first, if it is not there.
    #[arg(long)]
    pub build: bool,
}

#[derive(Debug, Args)]
pub struct PoolAutostartArgs {
    /// Name or UUID.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// No longer.
    #[arg(long)]
    pub off: bool,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List the volumes of a pool.
    List(VolumeListArgs),
    /// Show one volume.
    Info(VolumeArgs),
    /// Make a volume.
    Create(VolumeCreateArgs),
    /// Make a volume with what another has.
    Clone(VolumeCloneArgs),
    /// Change the size of a volume that no machine uses.
    Resize(VolumeResizeArgs),
    /// Overwrite all that a volume has with zeros.
    Wipe(VolumeArgs),
    /// Remove a volume.
    Delete(VolumeDeleteArgs),
    /// Write a file, or standard input, into a volume.
    Upload(VolumeTransferArgs),
    /// Write what is in a volume to a file, or to standard output.
    Download(VolumeTransferArgs),
}

#[derive(Debug, Args)]
pub struct VolumeListArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Names only.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume.
    pub volume: VolumeName,
}

#[derive(Debug, Args)]
pub struct VolumeCreateArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume.
    pub volume: VolumeName,
    /// Its size, as 10G; may be left out where it builds upon a file.
    #[arg(required_unless_present = "backing")]
    pub size: Option<MemorySize>,
    /// What is in it: raw or qcow2.
    #[arg(long, default_value = "raw")]
    pub format: DiskFormat,
    /// Take all its room at once.
    #[arg(long)]
    pub allocate: bool,
    /// A file that it builds upon, of qcow2.
    #[arg(long, value_name = "FILE", requires = "backing_format")]
    pub backing: Option<PathBuf>,
    /// What is in that file: raw or qcow2; never guessed.
    #[arg(long, value_name = "FORMAT", requires = "backing")]
    pub backing_format: Option<DiskFormat>,
    /// Lay out all tables at once, of qcow2.
    #[arg(long)]
    pub preallocate_metadata: bool,
    /// Version, of qcow2: 0.10 or 1.1.
    #[arg(long, value_name = "VERSION", default_value = "1.1", value_parser = compat)]
    pub compat: Qcow2Compat,
    /// Bytes of a cluster, of qcow2: 512 to 2097152.
    #[arg(long, value_name = "BYTES", default_value_t = reeve_ipc::model::DEFAULT_CLUSTER_BYTES)]
    pub cluster_bytes: u32,
    /// Mode of its file, in octal.
    #[arg(long, value_parser = mode)]
    pub mode: Option<u32>,
}

#[derive(Debug, Args)]
pub struct VolumeCloneArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume that is copied.
    pub volume: VolumeName,
    /// Name of the copy.
    pub name: VolumeName,
    /// Make it in another pool.
    #[arg(long, value_name = "POOL", value_parser = pool)]
    pub to: Option<PoolRef>,
    /// What is in the copy [default: what is in the other].
    #[arg(long)]
    pub format: Option<DiskFormat>,
    /// What is in the other [default: what its first bytes look like, which its guest may have written].
    #[arg(long)]
    pub from_format: Option<DiskFormat>,
    /// Share blocks with the other, or fail.
    #[arg(long)]
    pub reflink: bool,
}

#[derive(Debug, Args)]
pub struct VolumeResizeArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume.
    pub volume: VolumeName,
    /// Its size, as 10G; or by how much, as +1G or -1G.
    #[arg(allow_hyphen_values = true, value_parser = capacity)]
    pub size: NewCapacity,
    /// Let it become smaller; what was behind its end is lost.
    #[arg(long)]
    pub shrink: bool,
    /// Take the room of what it has more at once, of raw.
    #[arg(long)]
    pub allocate: bool,
    /// What is in it [default: what its first bytes look like, which its guest may have written].
    #[arg(long)]
    pub format: Option<DiskFormat>,
}

#[derive(Debug, Args)]
pub struct VolumeDeleteArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume.
    pub volume: VolumeName,
    /// Overwrite it with zeros first.
    #[arg(long)]
    pub zero: bool,
}

#[derive(Debug, Args)]
pub struct VolumeTransferArgs {
    /// Name or UUID of the pool.
    #[arg(value_parser = pool)]
    pub pool: PoolRef,
    /// Name of the volume.
    pub volume: VolumeName,
    /// The file; - is standard input or output.
    pub file: PathBuf,
    /// From this byte of the volume's file on.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
    /// So many bytes at most.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub length: u64,
}

/// A pool as people name it.
fn pool(text: &str) -> Result<PoolRef, String> {
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Ok(PoolRef::Uuid(PoolUuid(uuid)));
    }
    text.parse()
        .map(PoolRef::Name)
        .map_err(|error: reeve_ipc::model::InvalidName| error.to_string())
}

fn mode(text: &str) -> Result<u32, String> {
    let bits = u32::from_str_radix(text, 8).ok();
    bits.filter(|bits| *bits <= MODE_BITS)
        .ok_or_else(|| "a mode is an octal number of at most 777".to_owned())
}

fn compat(text: &str) -> Result<Qcow2Compat, String> {
    match text {
        "0.10" => Ok(Qcow2Compat::V2),
        "1.1" => Ok(Qcow2Compat::V3),
        _ => Err("versions are 0.10 and 1.1".to_owned()),
    }
}

fn capacity(text: &str) -> Result<NewCapacity, String> {
    let (how, text): (fn(u64) -> NewCapacity, &str) = match text.split_at_checked(1) {
        Some(("+", rest)) => (NewCapacity::More, rest),
        Some(("-", rest)) => (NewCapacity::Less, rest),
        _ => (NewCapacity::To, text),
    };
    let size: MemorySize = text
        .parse()
        .map_err(|error: reeve_ipc::model::ParseMemorySizeError| error.to_string())?;
    Ok(how(size.bytes()))
}
