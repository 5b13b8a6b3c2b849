//! What is put into guest memory before the first instruction, at launch and at every reset.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::BootSpec;

use super::BuildError;
use crate::arch::x86_64::acpi::{self, AcpiConfig};
use crate::arch::x86_64::regs::EntryState;
use crate::boot::{self, Protocol};
use crate::memory::GuestMemory;

/// The images a machine boots from, kept open for its resets.
#[derive(Debug)]
pub struct BootImages {
    kernel: File,
    initrd: Option<File>,
    command_line: String,
}

/// How the first vCPU starts.
#[derive(Debug)]
pub struct Entry {
    /// Its registers.
    pub entry: EntryState,
    /// The way in.
    pub protocol: Protocol,
}

impl BootImages {
    pub(super) fn take(spec: &BootSpec, descriptors: &mut FdTable) -> Result<Self, BuildError> {
        Ok(Self {
            kernel: descriptors.take(spec.kernel)?.into(),
            initrd: spec
                .initrd
                .map(|slot| descriptors.take(slot))
                .transpose()?
                .map(File::from),
            command_line: spec.command_line.clone(),
        })
    }

    /// The files: kernel, and RAM disk where there is one.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let initrd = self.initrd.as_ref().map(AsFd::as_fd);
        std::iter::once(self.kernel.as_fd()).chain(initrd)
    }

    /// Writes kernel, initrd, boot structures and ACPI tables into `memory`, whose content is zero.
    ///
    /// # Errors
    /// The images are hostile: [`BuildError::Boot`]; or the tables have no room.
    pub fn load(&self, memory: &GuestMemory, tables: &AcpiConfig) -> Result<Entry, BuildError> {
        let plan = boot::load(
            &self.kernel,
            self.initrd.as_ref(),
            &self.command_line,
            memory,
        )?;
        acpi::write(memory, tables)?;
        let entry = EntryState::new(&plan);
        entry
            .write_tables(memory)
            .map_err(BuildError::EntryTables)?;
        Ok(Entry {
            entry,
            protocol: plan.protocol,
        })
    }
}
