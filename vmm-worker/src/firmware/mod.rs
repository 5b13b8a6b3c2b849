//! Starting a machine in firmware: the image at its place, and what the firmware is told of the machine.
//!
//! ```text
//!  0     0xE0000  1 MiB          gap              0xFEFFC000  0xFF000000                  4 GiB
//!  | RAM | copy   | RAM ...      | BARs, APICs    | KVM's     |  ... | variables | image |
//! ```
//! The image ends at 4 GiB, in memory that the guest cannot write. Below it are the variables of UEFI firmware, where
//! there are any, which the guest changes through a device ([`Variables`]). The image's last 128 KiB are copied to the end of the
//! first MiB as well, where a PC has them: firmware in real mode jumps there in its first instruction. That copy is
//! RAM, which the guest may write; each reset makes it anew.
//!
//! What the firmware is told is in the files of its configuration device (`content`). Runs on the thread that
//! builds or resets the machine, before any vCPU runs. The image is chosen by whoever starts the machine, and is not
//! looked into: what is in it is the guest's.

mod content;
mod power_on;
mod variables;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use reeve_devices::display::VideoMemoryError;
use reeve_devices::legacy::flash::FlashSizeError;
use reeve_devices::legacy::fw_cfg::{FwCfg, ItemsError};
use reeve_devices::pci::config_space::LayoutError;
use reeve_devices::pci::root::EcamPlace;
use reeve_devices::shared::{Shared, lock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

pub use self::content::{BootTarget, Content};
pub use self::power_on::PowerOn;
pub use self::variables::{StoreFile, Variables};
use crate::arch::x86_64::acpi::AcpiConfig;
use crate::arch::x86_64::layout;
use crate::build::Board;
use crate::kvm::KvmError;
use crate::memory::{GuestMemory, Rom, RomError};

/// Where the copy of the image's end is: up to 1 MiB.
const COPY_START: u64 = 0xE_0000;
const COPY_BYTES: usize = 128 << 10;

/// Why a machine cannot start in firmware.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The image.
    #[error(transparent)]
    Image(#[from] RomError),
    /// Less memory than the first MiB (a bug of the layout).
    #[error("the firmware image could not be copied to the first MiB")]
    Copy(#[source] GuestMemoryError),
    /// KVM's interrupt controllers.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The file of the variables.
    #[error("the file of the firmware's variables cannot be used")]
    Store(#[source] RomError),
    /// It is too long for a flash.
    #[error("the firmware's variables are no flash")]
    StoreSize(#[from] FlashSizeError),
    /// Its thread.
    #[error("cannot start the thread that writes the firmware's variables")]
    StoreThread(#[source] std::io::Error),
    /// The display's memory.
    #[error(transparent)]
    VideoMemory(#[from] VideoMemoryError),
    /// A display that cannot be (a bug).
    #[error(transparent)]
    Display(#[from] LayoutError),
    /// A file that cannot be (a bug).
    #[error(transparent)]
    Items(#[from] ItemsError),
}

/// An image, in memory of its own.
#[derive(Debug)]
pub struct Image {
    file: File,
    rom: Arc<Rom>,
}

impl Image {
    /// Reads it.
    ///
    /// # Errors
    /// [`RomError`].
    pub fn take(file: File) -> Result<Self, RomError> {
        let rom = Arc::new(Rom::load(&file, layout::MMIO_GAP_END)?);
        Ok(Self { file, rom })
    }

    /// The memory.
    #[must_use]
    pub fn rom(&self) -> &Arc<Rom> {
        &self.rom
    }
}

/// All that a machine needs to start in firmware, and to start again.
#[derive(Debug)]
pub struct Firmware {
    image: Image,
    variables: Option<Variables>,
    device: Shared<FwCfg>,
    place: EcamPlace,
    chips: PowerOn,
    board: Board,
    content: Content,
}

impl Firmware {
    /// A machine on `board` with `image` and, if it is to keep any, `variables`, where `device` tells the firmware what is in `content`, and the firmware
    /// says by `place` where configuration space is. KVM's interrupt controllers start as `chips`.
    #[must_use]
    pub fn new(
        image: Image,
        variables: Option<Variables>,
        device: Shared<FwCfg>,
        place: EcamPlace,
        chips: PowerOn,
        board: Board,
        content: Content,
    ) -> Self {
        Self {
            image,
            variables,
            device,
            place,
            chips,
            board,
            content,
        }
    }

    /// As [`Variables::settle`], where there are any.
    pub(crate) fn settle(&self) {
        if let Some(variables) = &self.variables {
            variables.settle();
        }
    }

    /// The image's file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.image.file.as_fd()
    }

    /// Makes `memory`, whose content is zero, the configuration device and KVM's interrupt controllers what they are
    /// when a machine of `tables` starts.
    ///
    /// # Errors
    /// [`FirmwareError`].
    pub fn load(&self, memory: &GuestMemory, tables: &AcpiConfig) -> Result<(), FirmwareError> {
        let mut copy = vec![0; COPY_BYTES];
        let missing = self
            .image
            .rom
            .read_end(&mut copy)
            .map_err(FirmwareError::Copy)?;
        let (place, known) = (COPY_START + missing as u64, copy.get(missing..));
        memory
            .map_ref()
            .write_slice(known.unwrap_or_default(), GuestAddress(place))
            .map_err(FirmwareError::Copy)?;
        let items = self
            .content
            .items(memory, tables, &self.board, &self.place)?;
        lock(&self.device).set_items(items);
        self.chips.put_back()?;
        Ok(())
    }
}
