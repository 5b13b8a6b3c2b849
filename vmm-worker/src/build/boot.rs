//! What is put into guest memory before the first instruction, at launch and at every reset.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::BootSpec;

use super::BuildError;
use crate::arch::x86_64::acpi::{self, AcpiConfig};
use crate::arch::x86_64::regs::EntryState;
use crate::boot::{self, Protocol};
use crate::firmware::Firmware;
use crate::memory::GuestMemory;

/// The images a machine boots from, kept open for its resets.
#[derive(Debug)]
pub struct BootImages(Images);

#[derive(Debug)]
enum Images {
    Kernel {
        kernel: File,
        initrd: Option<File>,
        command_line: String,
    },
    Firmware(Box<Firmware>),
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
        Ok(Self(Images::Kernel {
            kernel: descriptors.take(spec.kernel)?.into(),
            initrd: spec
                .initrd
                .map(|slot| descriptors.take(slot))
                .transpose()?
                .map(File::from),
            command_line: spec.command_line.clone(),
        }))
    }

    /// Those of a machine that starts in `firmware`.
    pub(super) fn firmware(firmware: Firmware) -> Self {
        Self(Images::Firmware(Box::new(firmware)))
    }

    /// Has firmware's variables kept as the guest left them. No vCPU runs.
    pub(crate) fn settle(&self) {
        if let Images::Firmware(firmware) = &self.0 {
            firmware.settle();
        }
    }

    /// The files: kernel, and RAM disk where there is one; or the firmware.
    pub(crate) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (first, second) = match &self.0 {
            Images::Kernel { kernel, initrd, .. } => {
                (kernel.as_fd(), initrd.as_ref().map(AsFd::as_fd))
            }
            Images::Firmware(firmware) => (firmware.file(), None),
        };
        std::iter::once(first).chain(second)
    }

    /// Writes kernel, initrd, boot structures and ACPI tables into `memory`, whose content is zero; or what firmware
    /// starts with.
    ///
    /// # Errors
    /// The images are hostile: [`BuildError::Boot`]; or the tables have no room.
    pub fn load(&self, memory: &GuestMemory, tables: &AcpiConfig) -> Result<Entry, BuildError> {
        let (kernel, initrd, command_line) = match &self.0 {
            Images::Kernel {
                kernel,
                initrd,
                command_line,
            } => (kernel, initrd.as_ref(), command_line),
            Images::Firmware(firmware) => {
                firmware.load(memory, tables)?;
                return Ok(Entry {
                    entry: EntryState::at_reset(),
                    protocol: Protocol::ResetVector,
                });
            }
        };
        let plan = boot::load(kernel, initrd, command_line, memory)?;
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
