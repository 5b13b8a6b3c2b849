//! CPUs: which there are, what they are, how they are arranged, and what they have done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::host::{
    CpuTimes, HostCpu, HostCpuModel, HostCpuPage, HostCpuStats, HostCpuTimes, HostNode,
    HostTopology, MAX_CPU_FLAGS,
};
use reeve_ipc::model::{CpuSet, MAX_HOST_CPUS};

use super::{Books, SMALL, text};

/// The directory of CPUs.
const CPUS: &str = "sys/devices/system/cpu";
/// The most bytes of the times of all CPUs, which come first in their file: a line each.
const TIMES: u64 = 1 << 20;
/// Nanoseconds of one of the clock ticks that `/proc` counts in: `USER_HZ` is 100 on x86-64.
const TICK_NS: u64 = 10_000_000;

/// A list of CPUs as the kernel writes it, without those beyond the largest host that is told of; `None` of
/// none.
pub(super) fn list(text: &str) -> Option<CpuSet> {
    let ranges = text.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        let last = last.min(MAX_HOST_CPUS - 1);
        (first <= last).then_some((first, last))
    });
    CpuSet::try_from(ranges.collect::<Vec<_>>()).ok()
}

impl Books {
    /// CPUs that run. The first does where nobody says.
    pub(super) fn online(&self) -> CpuSet {
        let told = self.line(format!("{CPUS}/online"));
        let told = told.and_then(|told| list(&told));
        told.unwrap_or_else(|| CpuSet::try_from(vec![(0, 0)]).expect("CPU 0 is a set"))
    }

    /// CPUs that are `present` or `possible`; those that run where nobody says.
    pub(super) fn cpus_named(&self, which: &str, online: &CpuSet) -> CpuSet {
        let told = self.line(format!("{CPUS}/{which}"));
        told.and_then(|told| list(&told))
            .unwrap_or_else(|| online.clone())
    }

    /// What the first CPU says of itself.
    pub(super) fn cpu_model(&self) -> HostCpuModel {
        let told = self.text("proc/cpuinfo", SMALL).unwrap_or_default();
        // Up to the blank line before the second.
        let first = told.split("\n\n").next().unwrap_or_default();
        let fields: BTreeMap<&str, &str> = first
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let field = |name: &str| fields.get(name).copied();
        let number = |name: &str| field(name)?.parse().ok();
        let whole = |text: &str| text.split(['.', ' ']).next()?.parse().ok();
        let flags = field("flags").unwrap_or_default().split_ascii_whitespace();
        HostCpuModel {
            vendor: text(field("vendor_id").unwrap_or_default()),
            name: text(field("model name").unwrap_or_default()),
            family: number("cpu family").unwrap_or(0),
            model: number("model").unwrap_or(0),
            stepping: number("stepping").unwrap_or(0),
            microcode: field("microcode").and_then(hexadecimal),
            mhz: field("cpu MHz").and_then(whole),
            physical_bits: field("address sizes").and_then(whole),
            flags: flags.take(MAX_CPU_FLAGS).map(text).collect(),
        }
    }

    fn place(&self, cpu: u32, node: u32) -> HostCpu {
        // The kernel says -1 of what it does not know.
        let told = |what: &str| {
            let path = format!("{CPUS}/cpu{cpu}/topology/{what}");
            self.number::<u32>(path)
        };
        HostCpu {
            cpu,
            node,
            socket: told("physical_package_id").unwrap_or(0),
            die: told("die_id").unwrap_or(0),
            core: told("core_id").unwrap_or(cpu),
        }
    }

    /// How the CPUs of `nodes` are arranged.
    pub(super) fn topology(&self, nodes: &[HostNode], online: &CpuSet) -> HostTopology {
        let mut sockets: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut cores: BTreeMap<(u32, u32), BTreeSet<(u32, u32)>> = BTreeMap::new();
        let mut threads: BTreeMap<(u32, u32, u32), u32> = BTreeMap::new();
        for (cpu, node) in placed(nodes, online) {
            let HostCpu {
                socket, die, core, ..
            } = self.place(cpu, node);
            sockets.entry(node).or_default().insert(socket);
            cores.entry((node, socket)).or_default().insert((die, core));
            *threads.entry((socket, die, core)).or_default() += 1;
        }
        let most = |count: Option<usize>| u32::try_from(count.unwrap_or(1)).unwrap_or(u32::MAX);
        HostTopology {
            nodes: most(Some(sockets.len())),
            sockets: most(sockets.values().map(BTreeSet::len).max()),
            cores: most(cores.values().map(BTreeSet::len).max()),
            threads: threads.values().copied().max().unwrap_or(1),
        }
    }

    /// One page of the CPUs that run, behind `after`.
    #[must_use]
    pub fn cpus(&self, nodes: &[HostNode], online: &CpuSet, after: Option<u32>) -> HostCpuPage {
        let behind = |cpu: u32| after.is_none_or(|after| cpu > after);
        let mut wanted = placed(nodes, online)
            .into_iter()
            .filter(|(cpu, _)| behind(*cpu));
        let cpus = wanted
            .by_ref()
            .take(MAX_PAGE)
            .map(|(cpu, node)| self.place(cpu, node))
            .collect();
        HostCpuPage {
            cpus,
            more: wanted.next().is_some(),
        }
    }

    /// What all CPUs have done, and `count` from `first` on.
    #[must_use]
    pub fn cpu_stats(&self, first: u32, count: u32) -> HostCpuStats {
        let mut stats = HostCpuStats {
            total: CpuTimes::default(),
            cpus: Vec::new(),
            more: false,
        };
        let Ok(file) = File::open(self.root.join("proc/stat")) else {
            return stats;
        };
        let mut wanted = usize::try_from(count).unwrap_or(usize::MAX);
        // What comes behind the CPUs may be long, and is not read.
        for line in BufReader::new(file.take(TIMES)).lines() {
            let Some((name, times)) = line.as_deref().ok().and_then(times) else {
                break;
            };
            if name.is_empty() {
                stats.total = times;
                if wanted == 0 {
                    break;
                }
                continue;
            }
            let Some(cpu) = name.parse().ok().filter(|cpu| *cpu >= first) else {
                continue;
            };
            if wanted == 0 {
                break;
            }
            if stats.cpus.len() == MAX_PAGE {
                stats.more = true;
                break;
            }
            wanted -= 1;
            stats.cpus.push(HostCpuTimes { cpu, times });
        }
        stats
    }
}

/// Each CPU that runs with its node, by rising number.
fn placed(nodes: &[HostNode], online: &CpuSet) -> Vec<(u32, u32)> {
    let of_nodes = nodes.iter().flat_map(|node| {
        let cpus = node.cpus.iter().flat_map(CpuSet::iter);
        cpus.map(|cpu| (cpu, node.node))
    });
    let of_nodes: BTreeMap<u32, u32> = of_nodes.collect();
    let node = |cpu| of_nodes.get(&cpu).copied().unwrap_or(0);
    online.iter().map(|cpu| (cpu, node(cpu))).collect()
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// A line of `/proc/stat` that is of CPUs: what stands behind `cpu`, and the times.
fn times(line: &str) -> Option<(&str, CpuTimes)> {
    let (name, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
    // user nice system idle iowait irq softirq steal; guests are among the users.
    let mut ticks = [0_u64; 8];
    for (place, told) in ticks.iter_mut().zip(rest.split_ascii_whitespace()) {
        *place = told.parse::<u64>().ok()?.saturating_mul(TICK_NS);
    }
    let [user, nice, system, idle, io_wait, hard, soft, stolen] = ticks;
    let times = CpuTimes {
        kernel_ns: system,
        user_ns: user.saturating_add(nice),
        idle_ns: idle,
        io_wait_ns: io_wait,
        interrupt_ns: hard.saturating_add(soft),
        stolen_ns: stolen,
    };
    Some((name, times))
}
