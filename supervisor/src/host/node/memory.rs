//! Memory: of the whole host and of each NUMA node, in use and free, in pages of every size.

use std::collections::BTreeMap;

use reeve_ipc::api::host::{
    HostFreePages, HostMemoryStats, HostNode, HostNodeMemory, HostPages, MAX_HOST_NODES,
    MAX_PAGE_SIZES,
};
use reeve_ipc::model::{CpuSet, MemorySize};

use super::cpus::list;
use super::{Books, SMALL};

/// The directory of nodes.
const NODES: &str = "sys/devices/system/node";
/// Where huge pages are of a host without nodes.
const HUGE: &str = "sys/kernel/mm/hugepages";
/// The size of a common page, in bytes.
const PAGE: u64 = 4096;
/// How far a node is from itself (ACPI 6.5, §5.2.17), and how far another is taken to be.
const HERE: u8 = 10;
const ELSEWHERE: u8 = 20;

/// Amounts in bytes by their names.
struct Amounts(BTreeMap<String, u64>);

impl Amounts {
    /// Of `Name:   123 kB` a line, which may be of a node and say so first.
    fn of(text: &str) -> Self {
        let amounts = text.lines().filter_map(|line| {
            let (name, amount) = line.split_once(':')?;
            let name = name.rsplit(' ').next()?;
            let kibibytes: u64 = amount.split_ascii_whitespace().next()?.parse().ok()?;
            Some((name.to_owned(), kibibytes.saturating_mul(1024)))
        });
        Self(amounts.collect())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// How many pages of a size there are, or are free.
#[derive(Clone, Copy)]
enum Counted {
    All,
    Free,
}

impl Books {
    fn memory(&self) -> Amounts {
        Amounts::of(&self.text("proc/meminfo", SMALL).unwrap_or_default())
    }

    /// All memory of the host.
    pub(super) fn memory_total(&self) -> MemorySize {
        MemorySize(self.memory().get("MemTotal"))
    }

    /// The numbers of its nodes, rising; `None` where the kernel knows of none.
    fn numbers(&self) -> Option<Vec<u32>> {
        // A list like that of CPUs, and of fewer.
        let online = list(&self.line(format!("{NODES}/online"))?)?;
        Some(online.iter().take(MAX_HOST_NODES).collect())
    }

    fn node_memory(&self, node: u32) -> Amounts {
        let told = self.text(format!("{NODES}/node{node}/meminfo"), SMALL);
        Amounts::of(&told.unwrap_or_default())
    }

    /// Its NUMA nodes, or the one that it all is.
    pub(super) fn nodes(&self, online: &CpuSet) -> Vec<HostNode> {
        let Some(numbers) = self.numbers() else {
            let memory = self.memory();
            return vec![HostNode {
                node: 0,
                cpus: Some(online.clone()),
                memory: MemorySize(memory.get("MemTotal")),
                distances: vec![HERE],
                pages: self.pages(HUGE, &memory, Counted::All),
            }];
        };
        let node = |node: &u32| {
            let directory = format!("{NODES}/node{node}");
            let memory = self.node_memory(*node);
            HostNode {
                node: *node,
                cpus: self
                    .line(format!("{directory}/cpulist"))
                    .and_then(|told| list(&told)),
                memory: MemorySize(memory.get("MemTotal")),
                distances: self.distances(*node, &numbers),
                pages: self.pages(&format!("{directory}/hugepages"), &memory, Counted::All),
            }
        };
        numbers.iter().map(node).collect()
    }

    /// One for each node of `numbers`: the kernel writes as many, in the same order.
    fn distances(&self, node: u32, numbers: &[u32]) -> Vec<u8> {
        let told = self
            .line(format!("{NODES}/node{node}/distance"))
            .unwrap_or_default();
        let mut told = told.split_ascii_whitespace().map(|distance| {
            let distance: u32 = distance.parse().unwrap_or_default();
            u8::try_from(distance).unwrap_or(u8::MAX)
        });
        let plain = |other: &u32| if *other == node { HERE } else { ELSEWHERE };
        numbers
            .iter()
            .map(|other| told.next().unwrap_or_else(|| plain(other)))
            .collect()
    }

    /// Pages of every size, of the host or a node whose huge pages are told of in `directory`.
    fn pages(&self, directory: &str, memory: &Amounts, counted: Counted) -> Vec<HostPages> {
        let mut sizes: Vec<u64> = std::fs::read_dir(self.root.join(directory))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let size = name.to_str()?.strip_prefix("hugepages-")?;
                size.strip_suffix("kB")?
                    .parse::<u64>()
                    .ok()?
                    .checked_mul(1024)
            })
            .take(MAX_PAGE_SIZES - 1)
            .collect();
        sizes.sort_unstable();
        let count = |size: &u64, file: &str| {
            let path = format!("{directory}/hugepages-{}kB/{file}", size / 1024);
            self.number::<u64>(path).unwrap_or(0)
        };
        let huge = sizes.iter().map(|size| {
            let all = count(size, "nr_hugepages");
            let counted = match counted {
                Counted::All => all,
                Counted::Free => count(size, "free_hugepages").min(all),
            };
            let pages = HostPages {
                size_bytes: *size,
                count: counted,
            };
            (pages, all.saturating_mul(*size))
        });
        let huge: Vec<_> = huge.collect();
        let common = match counted {
            Counted::Free => memory.get("MemFree"),
            Counted::All => {
                let taken = huge.iter().map(|(_, bytes)| *bytes);
                let total = memory.get("MemTotal");
                total.saturating_sub(taken.fold(0, u64::saturating_add))
            }
        };
        let common = HostPages {
            size_bytes: PAGE,
            count: common / PAGE,
        };
        std::iter::once(common)
            .chain(huge.into_iter().map(|(pages, _)| pages))
            .collect()
    }

    /// How memory is used.
    #[must_use]
    pub fn memory_stats(&self) -> HostMemoryStats {
        let memory = self.memory();
        let node = |node: u32, memory: &Amounts| HostNodeMemory {
            node,
            total: memory.get("MemTotal"),
            free: memory.get("MemFree"),
        };
        let nodes = match self.numbers() {
            Some(numbers) => numbers
                .into_iter()
                .map(|number| node(number, &self.node_memory(number)))
                .collect(),
            None => vec![node(0, &memory)],
        };
        HostMemoryStats {
            total: memory.get("MemTotal"),
            free: memory.get("MemFree"),
            available: memory.get("MemAvailable"),
            buffers: memory.get("Buffers"),
            cached: memory.get("Cached"),
            nodes,
        }
    }

    /// Free pages of each node.
    #[must_use]
    pub fn free_pages(&self) -> Vec<HostFreePages> {
        match self.numbers() {
            Some(numbers) => {
                let free = |node: u32| {
                    let directory = format!("{NODES}/node{node}/hugepages");
                    let memory = self.node_memory(node);
                    let pages = self.pages(&directory, &memory, Counted::Free);
                    HostFreePages { node, pages }
                };
                numbers.into_iter().map(free).collect()
            }
            None => {
                let pages = self.pages(HUGE, &self.memory(), Counted::Free);
                vec![HostFreePages { node: 0, pages }]
            }
        }
    }
}
