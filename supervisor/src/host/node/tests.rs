use std::fs;
use std::path::Path;

use reeve_ipc::api::host::{HostCpuModel, HostPages};
use tempfile::TempDir;

use super::*;

/// A host whose books say what a test writes.
struct Written {
    directory: TempDir,
}

impl Written {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn with(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path: &Path = &self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn books(&self) -> Books {
        Books {
            root: self.directory.path().to_owned(),
        }
    }
}

fn node(books: Books) -> Node {
    Node::new(books, Uuid::from_u128(7), HostDriver::Test)
}

fn pages(pages: &[HostPages]) -> Vec<(u64, u64)> {
    pages
        .iter()
        .map(|pages| (pages.size_bytes, pages.count))
        .collect()
}

/// Two nodes of one socket with two cores of two threads, and a third with memory only.
fn numa() -> Written {
    let mut host = Written::new()
        .with("sys/devices/system/cpu/online", "0-6\n")
        .with("sys/devices/system/cpu/present", "0-7\n")
        .with("sys/devices/system/cpu/possible", "0-15\n")
        .with("sys/devices/system/node/online", "0-1,3\n")
        .with("sys/devices/system/node/node0/cpulist", "0-3\n")
        .with("sys/devices/system/node/node1/cpulist", "4-6\n")
        .with("sys/devices/system/node/node3/cpulist", "\n")
        .with("sys/devices/system/node/node0/distance", "10 21 400\n")
        .with("sys/devices/system/node/node1/distance", "21 10 31\n")
        .with(
            "proc/meminfo",
            "MemTotal:  6291456 kB\nMemFree: 5 kB\nMemAvailable: 9 kB\nBuffers: 3 kB\nCached: 4 kB\n",
        );
    for node in [0, 1, 3] {
        let directory = format!("sys/devices/system/node/node{node}");
        host = host
            .with(
                &format!("{directory}/meminfo"),
                format!("Node {node} MemTotal: 2097152 kB\nNode {node} MemFree:  1024 kB\n"),
            )
            .with(
                &format!("{directory}/hugepages/hugepages-2048kB/nr_hugepages"),
                "512\n",
            )
            .with(
                &format!("{directory}/hugepages/hugepages-2048kB/free_hugepages"),
                "700\n",
            )
            .with(
                &format!("{directory}/hugepages/hugepages-1048576kB/nr_hugepages"),
                "0\n",
            );
    }
    for cpu in 0..7 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        host = host
            .with(
                &format!("{topology}/physical_package_id"),
                (cpu / 4).to_string(),
            )
            .with(&format!("{topology}/die_id"), "-1")
            .with(&format!("{topology}/core_id"), (cpu / 2).to_string());
    }
    host
}

#[test]
fn a_host_of_several_nodes_is_told_as_its_kernel_has_it() {
    let host = numa();
    let info = node(host.books()).read();
    assert_eq!(info.online.to_string(), "0-6");
    assert_eq!(info.present.to_string(), "0-7");
    assert_eq!(info.possible.to_string(), "0-15");
    let topology = info.topology;
    assert_eq!((topology.nodes, topology.sockets), (2, 1));
    assert_eq!((topology.cores, topology.threads), (2, 2));
    let cpus: Vec<_> = info.nodes.iter().map(|node| node.cpus.clone()).collect();
    assert_eq!(
        cpus,
        [
            Some("0-3".parse().unwrap()),
            Some("4-6".parse().unwrap()),
            None
        ]
    );
    let [first, second, third] = &info.nodes[..] else {
        panic!("{info:?}");
    };
    assert_eq!((first.node, third.node), (0, 3));
    assert_eq!(
        first.distances,
        [10, 21, 255],
        "what is too far is as far as can be"
    );
    assert_eq!(second.distances, [21, 10, 31]);
    assert_eq!(third.distances, [20, 20, 10], "nobody says");
    assert_eq!(
        pages(&first.pages),
        [(4096, (1 << 18)), (2 << 20, 512), (1 << 30, 0)],
        "what is not of a larger size"
    );
    assert_eq!(info.memory.to_string(), "6G");
    assert_eq!(info.max_vcpus, MAX_VCPUS);
}

#[test]
fn memory_and_free_pages_are_of_each_node() {
    let host = numa();
    let stats = host.books().memory_stats();
    assert_eq!((stats.total, stats.free), (6 << 30, 5 << 10));
    assert_eq!(
        (stats.available, stats.buffers, stats.cached),
        (9 << 10, 3 << 10, 4 << 10)
    );
    let nodes: Vec<_> = stats
        .nodes
        .iter()
        .map(|node| (node.node, node.total, node.free))
        .collect();
    let one = |node| (node, 2 << 30, 1 << 20);
    assert_eq!(nodes, [one(0), one(1), one(3)]);
    let free = host.books().free_pages();
    assert_eq!(free.len(), 3);
    assert_eq!(
        pages(&free[1].pages),
        [(4096, 256), (2 << 20, 512), (1 << 30, 0)],
        "no more than there are"
    );
}

#[test]
fn a_host_that_tells_nothing_has_one_cpu_in_one_node() {
    let host = Written::new();
    let info = node(host.books()).read();
    assert_eq!(info.online.to_string(), "0");
    assert_eq!(info.possible, info.online);
    let topology = info.topology;
    assert_eq!(
        [
            topology.nodes,
            topology.sockets,
            topology.cores,
            topology.threads
        ],
        [1; 4]
    );
    assert_eq!(info.nodes.len(), 1);
    assert_eq!(info.nodes[0].distances, [10]);
    assert_eq!(pages(&info.nodes[0].pages), [(4096, 0)]);
    assert_eq!(info.cpu, HostCpuModel::default());
    assert_eq!(host.books().cpu_stats(0, 5).cpus, []);
    assert_eq!(host.books().uuid(), None);
}

#[test]
fn books_of_nonsense_are_no_worse_than_none() {
    let nonsense = [
        "",
        "\0\u{ffff}",
        "-5",
        "99999999999999999999",
        "9-1,x,,7-",
        "4096-9999",
    ];
    for text in nonsense {
        let mut host = Written::new();
        for path in [
            "sys/devices/system/cpu/online",
            "sys/devices/system/cpu/present",
            "sys/devices/system/node/online",
            "sys/devices/system/node/node0/cpulist",
            "sys/devices/system/node/node0/distance",
            "sys/devices/system/node/node0/meminfo",
            "sys/devices/system/node/node0/hugepages/hugepages-kB/nr_hugepages",
            "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
            "sys/devices/system/cpu/cpu0/topology/core_id",
            "proc/cpuinfo",
            "proc/meminfo",
            "proc/stat",
            "etc/machine-id",
        ] {
            host = host.with(path, text);
        }
        let info = node(host.books()).read();
        assert!(info.online.iter().all(|cpu| cpu < 4096), "{text}: {info:?}");
        let _ = host.books().free_pages();
        let _ = host.books().memory_stats();
        assert_eq!(host.books().cpu_stats(0, u32::MAX).cpus, [], "{text}");
        assert_eq!(host.books().uuid(), None, "{text}");
    }
}

#[test]
fn cpus_beyond_the_largest_host_are_left_out() {
    assert_eq!(cpus::list("0-9000").unwrap().to_string(), "0-4095");
    assert_eq!(cpus::list("3,4096-9000").unwrap().to_string(), "3");
    assert_eq!(cpus::list("5000"), None);
}

#[test]
fn the_first_cpu_says_what_all_are() {
    let flags = "fpu vme ".repeat(400);
    let text = format!(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n\
         model name\t: AMD EPYC: the third\nstepping\t: 2\nmicrocode\t: 0xa001165\n\
         cpu MHz\t\t: 2445.404\nflags\t\t: {flags}\naddress sizes\t: 48 bits physical, 57 bits virtual\n\n\
         processor\t: 1\nvendor_id\t: GenuineIntel\n"
    );
    let model = Written::new()
        .with("proc/cpuinfo", text)
        .books()
        .cpu_model();
    assert_eq!(
        (model.vendor.as_str(), model.name.as_str()),
        ("AuthenticAMD", "AMD EPYC: the third")
    );
    assert_eq!((model.family, model.model, model.stepping), (25, 1, 2));
    assert_eq!(model.microcode, Some(0x0a00_1165));
    assert_eq!((model.mhz, model.physical_bits), (Some(2445), Some(48)));
    assert_eq!(model.flags.len(), 512);
}

#[test]
fn times_of_cpus_are_nanoseconds_and_come_in_pages() {
    let mut text = "cpu  10 20 30 40 50 60 70 80 5 5\n".to_owned();
    for cpu in 0..300 {
        text.push_str(&format!("cpu{cpu} {cpu} 0 1 2 3\n"));
    }
    text.push_str("intr 1 2 3\ncpu5 7\n");
    let books = Written::new().with("proc/stat", text);
    let stats = books.books().cpu_stats(0, 0);
    let tick = 10_000_000;
    assert_eq!(
        stats.total,
        reeve_ipc::api::host::CpuTimes {
            kernel_ns: 30 * tick,
            user_ns: 30 * tick,
            idle_ns: 40 * tick,
            io_wait_ns: 50 * tick,
            interrupt_ns: 130 * tick,
            stolen_ns: 80 * tick,
        }
    );
    assert_eq!((stats.cpus.len(), stats.more), (0, false));
    let one = books.books().cpu_stats(7, 1);
    assert_eq!((one.cpus[0].cpu, one.cpus[0].times.user_ns), (7, 7 * tick));
    assert_eq!((one.cpus.len(), one.more), (1, false));
    let page = books.books().cpu_stats(0, u32::MAX);
    assert_eq!((page.cpus.len(), page.more), (256, true));
    let rest = books.books().cpu_stats(256, u32::MAX);
    assert_eq!((rest.cpus.len(), rest.more), (44, false));
}

#[test]
fn cpus_come_in_pages_with_their_places() {
    let host = numa();
    let info = node(host.books()).read();
    let page = host.books().cpus(&info.nodes, &info.online, Some(4));
    assert!(!page.more);
    let cpus: Vec<_> = page
        .cpus
        .iter()
        .map(|cpu| (cpu.cpu, cpu.node, cpu.core))
        .collect();
    assert_eq!(cpus, [(5, 1, 2), (6, 1, 3)]);
    let many = Written::new().with("sys/devices/system/cpu/online", "0-299");
    let info = node(many.books()).read();
    let page = many.books().cpus(&info.nodes, &info.online, None);
    assert_eq!((page.cpus.len(), page.more), (256, true));
    let rest = many.books().cpus(&info.nodes, &info.online, Some(255));
    assert_eq!((rest.cpus.len(), rest.more), (44, false));
}

#[test]
fn firmware_says_who_a_host_is_and_then_its_system() {
    let firmware = "sys/class/dmi/id/product_uuid";
    let machine = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";
    let host = |uuid: &str| {
        Written::new()
            .with("etc/machine-id", machine)
            .with(firmware, uuid)
            .books()
            .uuid()
            .unwrap()
            .to_string()
    };
    assert_eq!(
        host("4C4C4544-0031-3510-8052-B7C04F4A3732\n"),
        "4c4c4544-0031-3510-8052-b7c04f4a3732"
    );
    for nobody in [
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "03000200-0400-0500-0006-000700080009",
        "Not Settable",
    ] {
        assert_eq!(
            host(nobody),
            "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4",
            "{nobody}"
        );
    }
}

#[test]
fn what_a_host_is_is_read_once_in_a_while() {
    let node = node(Books::default());
    assert!(node.known().is_none());
    let read = node.read();
    assert!(Arc::ptr_eq(&read, &node.known().unwrap()));
    assert!(!read.hostname.is_empty());
    assert_eq!(read.architecture, "x86_64");
    assert!(read.memory.bytes() > 0);
    assert!(!read.cpu.flags.is_empty());
}
