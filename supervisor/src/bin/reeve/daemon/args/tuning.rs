//! The arguments of the commands that change how much a domain has, and what it may use of the host.

use clap::Args;
use reeve_ipc::api::call::{DomainRef, TuningChange};
use reeve_ipc::model::{MemorySize, Vcpus};

use super::domain;
use crate::args::parse_vcpus;

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
