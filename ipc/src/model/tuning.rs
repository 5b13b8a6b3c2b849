//! What a domain is held to beside its limits: the memory that its guest makes do with, and where its worker runs.

use serde::{Deserialize, Serialize};

use super::{CpuSet, MemorySize};

/// Nothing of it set: its guest has all memory that it starts with, and its worker runs anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// What its guest is asked to make do with from its start on (libvirt `<currentMemory>`): its balloon is to
    /// take the rest, or its memory device to bring more. A domain without the device has what it starts with.
    pub current_memory: Option<MemorySize>,
    /// Where all threads of its worker but the vCPUs may run (libvirt `<emulatorpin>`).
    pub emulator_cpus: Option<CpuSet>,
}

impl Tuning {
    /// What a decoder counts for it beside what is of fixed size.
    pub(super) fn bytes(&self) -> usize {
        self.emulator_cpus.as_ref().map_or(0, CpuSet::bytes)
    }
}
