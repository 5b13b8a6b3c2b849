//! The host itself, as its kernel tells of it: CPUs, NUMA nodes and memory, by procfs and sysfs.
//!
//! Every file is read up to a bound, every list is cut at the bounds of [`reeve_ipc::api::host`], and what a
//! kernel does not tell is left out or taken as the plainest host has it: one node, no feature. Nothing here
//! fails. What may live here: reading, for whoever asks; what may not: what is said of it to libvirt's clients.
//!
//! On a host with many CPUs it takes thousands of small files to say what it is: that much is read on a thread
//! that may wait, and kept for a few seconds.

mod cpus;
mod memory;

use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reeve_ipc::api::host::{
    HostCpuPage, HostCpuStats, HostCpuid, HostDriver, HostFreePages, HostInfo, HostMemoryStats,
    MAX_HOST_TEXT_BYTES,
};
use reeve_ipc::api::interface::{HostInterfacePage, NicNeighbour};
use reeve_ipc::spec::{MAX_VCPUS, MachineType};
use rustix::io::Errno;
use uuid::Uuid;

use super::interfaces::{self, Beside};
use super::kvm;

/// How old what is told of the host may be.
const FRESH: Duration = Duration::from_secs(5);
/// The most bytes of a file that says one thing.
const SMALL: u64 = 16 << 10;

/// Where the kernel tells of itself.
#[derive(Debug, Clone)]
pub struct Books {
    root: PathBuf,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }
}

impl Books {
    /// A file beneath the root, up to `limit` bytes; bytes that are no text are replaced.
    fn text(&self, path: impl AsRef<Path>, limit: u64) -> Option<String> {
        let file = File::open(self.root.join(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A small file without the blanks around it.
    fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.text(path, SMALL)?.trim().to_owned())
    }

    fn number<N: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<N> {
        self.line(path)?.parse().ok()
    }

    /// The UUID that its firmware or its system has, where one says any that is not everybody's.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        let places = ["sys/class/dmi/id/product_uuid", "etc/machine-id"];
        places.into_iter().find_map(|place| {
            let uuid = Uuid::try_parse(&self.line(place)?).ok()?;
            is_own(uuid).then_some(uuid)
        })
    }
}

/// Firmware whose maker has not filled it in says one byte over and over, or the example of an old
/// specification.
fn is_own(uuid: Uuid) -> bool {
    const EXAMPLE: Uuid = Uuid::from_u128(0x0300_0200_0400_0500_0006_0007_0008_0009);
    let [first, rest @ ..] = *uuid.as_bytes();
    uuid != EXAMPLE && rest.iter().any(|byte| *byte != first)
}

/// A host that clients are told of. May wait for a kernel, but for what is known.
pub trait HostBooks: Debug + Send + Sync {
    /// What it is, if that was read of late.
    fn known(&self) -> Option<Arc<HostInfo>>;

    /// What it is, read of late or now: of any number who ask at once one reads, and the others wait for that.
    fn fresh(&self) -> Arc<HostInfo>;

    /// A page of its CPUs, behind `after`.
    fn cpus(&self, after: Option<u32>) -> HostCpuPage;

    /// What its CPUs have done, `count` of them from `first` on for themselves.
    fn cpu_stats(&self, first: u32, count: u32) -> HostCpuStats;

    /// How its memory is used.
    fn memory_stats(&self) -> HostMemoryStats;

    /// The free pages of its nodes.
    fn free_pages(&self) -> Vec<HostFreePages>;

    /// What its CPUs say by CPUID.
    fn cpuid(&self) -> HostCpuid;

    /// A page of its network interfaces, behind `after`.
    ///
    /// # Errors
    /// The kernel's.
    fn interfaces(&self, after: Option<&str>) -> Result<HostInterfacePage, Errno>;

    /// What it has learned of interfaces of guests.
    ///
    /// # Errors
    /// The kernel's.
    fn neighbours(&self, of: Vec<Beside>) -> Result<Vec<NicNeighbour>, Errno>;
}

impl HostBooks for Node {
    fn known(&self) -> Option<Arc<HostInfo>> {
        Self::known(self)
    }

    fn fresh(&self) -> Arc<HostInfo> {
        Self::fresh(self)
    }

    fn cpus(&self, after: Option<u32>) -> HostCpuPage {
        let info = Self::fresh(self);
        self.books.cpus(&info.nodes, &info.online, after)
    }

    fn cpu_stats(&self, first: u32, count: u32) -> HostCpuStats {
        self.books.cpu_stats(first, count)
    }

    fn memory_stats(&self) -> HostMemoryStats {
        self.books.memory_stats()
    }

    fn free_pages(&self) -> Vec<HostFreePages> {
        self.books.free_pages()
    }

    fn cpuid(&self) -> HostCpuid {
        self.cpuid.told(self.driver)
    }

    fn interfaces(&self, after: Option<&str>) -> Result<HostInterfacePage, Errno> {
        interfaces::page(after)
    }

    fn neighbours(&self, of: Vec<Beside>) -> Result<Vec<NicNeighbour>, Errno> {
        interfaces::neighbours(of)
    }
}

/// The host, as one supervisor tells of it.
#[derive(Debug)]
pub struct Node {
    books: Books,
    uuid: Uuid,
    driver: HostDriver,
    cpuid: super::cpuid::HostCpuid,
    known: Mutex<Option<(Instant, Arc<HostInfo>)>>,
    /// Held by the one who reads what it is.
    reading: Mutex<()>,
}

impl Node {
    /// The host by its kernel's own books; `uuid` is what it is known by.
    #[must_use]
    pub fn new(books: Books, uuid: Uuid, driver: HostDriver) -> Self {
        Self {
            books,
            uuid,
            driver,
            cpuid: super::cpuid::HostCpuid::default(),
            known: Mutex::new(None),
            reading: Mutex::new(()),
        }
    }

    /// What it is, if that was read of late.
    #[must_use]
    pub fn known(&self) -> Option<Arc<HostInfo>> {
        // Nothing panics while it is held.
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, info) = known.as_ref()?;
        (read.elapsed() < FRESH).then(|| Arc::clone(info))
    }

    /// What it is, read of late or now: of any number who ask at once one reads, and the others wait for that.
    #[must_use]
    pub fn fresh(&self) -> Arc<HostInfo> {
        // As above.
        let _turn = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.known().unwrap_or_else(|| self.read())
    }

    /// What it is, read now. May wait for the kernel.
    #[must_use]
    pub fn read(&self) -> Arc<HostInfo> {
        let info = Arc::new(self.describe());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), Arc::clone(&info)));
        info
    }

    fn describe(&self) -> HostInfo {
        let names = rustix::system::uname();
        let online = self.books.online();
        let nodes = self.books.nodes(&online);
        let kvm = kvm::ready();
        HostInfo {
            hostname: host_name(),
            uuid: self.uuid,
            architecture: text(&names.machine().to_string_lossy()),
            cpu: self.books.cpu_model(),
            topology: self.books.topology(&nodes, &online),
            present: self.books.cpus_named("present", &online),
            possible: self.books.cpus_named("possible", &online),
            memory: self.books.memory_total(),
            driver: self.driver,
            machines: MachineType::ALL.to_vec(),
            max_vcpus: match (self.driver, &kvm) {
                (HostDriver::Kvm, Ok(most)) => (*most).min(MAX_VCPUS),
                _ => MAX_VCPUS,
            },
            kvm_lacks: kvm.err().map(|why| text(&why)),
            online,
            nodes,
        }
    }
}

/// What the host calls itself (uname(2), `nodename`).
#[must_use]
pub fn host_name() -> String {
    text(&rustix::system::uname().nodename().to_string_lossy())
}

/// As much of it as may be told.
fn text(text: &str) -> String {
    let mut text = text.trim().to_owned();
    let mut end = MAX_HOST_TEXT_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
