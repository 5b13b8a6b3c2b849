//! A machine that starts in firmware: its image, and the devices that only it has.
//!
//! No message asks for such a machine yet: [`firmware_machine`] is for the tests of this package.

use std::fs::File;
use std::sync::Arc;

use reeve_devices::bus::{MmioBus, Port, PortBus};
use reeve_devices::console::ConsoleSink;
use reeve_devices::display::{DisplayFunction, DisplayParams, VideoMemory};
use reeve_devices::legacy::debug_port::DebugPort;
use reeve_devices::legacy::fw_cfg::FwCfg;
use reeve_devices::legacy::port92::Port92;
use reeve_devices::pci::Slot;
use reeve_devices::pci::lpc::LpcBridge;
use reeve_devices::shared::{Shared, share};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{BootSpec, MachineSpec};

use super::board::Board;
use super::chipset::{Chipset, Signals};
use super::{BootImages, BuildError, Parts, launch};
use crate::arch::x86_64::layout;
use crate::device_set::DeviceSetError;
use crate::firmware::{Content, Firmware, FirmwareError, Image, PowerOn, Variables};
use crate::kvm::{BareVm, InterruptController, KvmVideoMemory, Vm};
use crate::machine::Machine;
use crate::memory::GuestMemory;

/// What makes a machine one that starts in firmware.
#[derive(Debug)]
pub struct FirmwareParams {
    /// What the firmware is told.
    pub content: Content,
    /// The file that its variables are kept in, open for reading and writing, if it is to keep any.
    pub variables: Option<File>,
    /// Who hears its debug port, if anybody does.
    pub debug: Option<Arc<dyn ConsoleSink>>,
    /// The display, if there is one.
    pub display: Option<DisplayPlace>,
}

/// A display on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayPlace {
    /// Its slot, 1 to 30.
    pub slot: u8,
    /// The picture's size that its monitor prefers, in pixels.
    pub width: u16,
    /// The same, in lines.
    pub height: u16,
    /// Its expansion ROM, by which BIOS firmware draws; perhaps empty.
    pub rom: Vec<u8>,
}

/// As [`machine`](super::machine), for one that starts in firmware, whose image is in the place of the kernel's; it
/// has no RAM disk and no command line. Its state cannot be restored yet.
///
/// # Errors
/// As for [`machine`](super::machine).
pub fn firmware_machine(
    mut spec: MachineSpec,
    firmware: FirmwareParams,
    descriptors: &mut FdTable,
) -> Result<Machine, BuildError> {
    // Its tables have none yet, and what is at its place is the copy of the image.
    spec.generation_id = None;
    let present: Vec<u32> = (0..spec.vcpus).collect();
    let parts = Parts::assemble(
        &mut spec,
        &present,
        descriptors,
        None,
        false,
        Some(firmware),
    )?;
    launch(spec, parts)
}

/// What a machine starts with, while its parts are made.
pub(super) enum Start {
    Kernel(BootImages),
    Firmware {
        image: Image,
        variables: Option<Variables>,
        video: Option<VideoMemory>,
        params: FirmwareParams,
    },
}

impl Start {
    /// Takes the files.
    pub(super) fn take(
        spec: &BootSpec,
        firmware: Option<FirmwareParams>,
        descriptors: &mut FdTable,
    ) -> Result<Self, BuildError> {
        let Some(mut params) = firmware else {
            return BootImages::take(spec, descriptors).map(Self::Kernel);
        };
        let file = File::from(descriptors.take(spec.kernel)?);
        let image = Image::take(file).map_err(FirmwareError::from)?;
        let below = image.rom().address();
        let variables = params.variables.take();
        let variables = variables.map(|file| Variables::take(file, below));
        let video = params.display.as_ref().map(|_| VideoMemory::new());
        Ok(Self::Firmware {
            image,
            variables: variables.transpose()?,
            video: video.transpose().map_err(FirmwareError::from)?,
            params,
        })
    }

    /// Gives the VM what is no RAM, and the pages of KVM their place.
    pub(super) fn place(&self, vm: &mut BareVm, board: &Board) -> Result<(), BuildError> {
        if let Self::Firmware {
            image,
            variables,
            video,
            ..
        } = self
        {
            vm.add_rom(image.rom())?;
            if let Some(variables) = variables {
                vm.add_rom(variables.rom())?;
            }
            if let Some(video) = video {
                vm.add_video_memory(video);
            }
        }
        if let Some(pages) = board.kvm_pages {
            vm.place_pages(pages);
        }
        Ok(())
    }

    /// Gives the flash its place, where there is one.
    pub(super) fn insert_flash(&self, mmio: &MmioBus) -> Result<(), BuildError> {
        match self {
            Self::Firmware {
                variables: Some(variables),
                ..
            } => variables.insert(mmio),
            Self::Firmware { .. } | Self::Kernel(_) => Ok(()),
        }
    }

    /// Adds the devices to `chipset`.
    pub(super) fn finish(
        self,
        chipset: &mut Chipset,
        board: Board,
        (vm, interrupts): (&Arc<Vm>, &Arc<dyn InterruptController>),
        memory: &GuestMemory,
        signals: &Signals,
        ports: &PortBus,
    ) -> Result<BootImages, BuildError> {
        let (image, variables, video, params) = match self {
            Self::Kernel(images) => return Ok(images),
            Self::Firmware {
                image,
                variables,
                video,
                params,
            } => (image, variables, video, params),
        };
        let FirmwareParams {
            content,
            debug,
            display,
            ..
        } = params;
        let device = devices(chipset, memory, signals, ports)?;
        if let Some(sink) = debug {
            let port = share(DebugPort::new(sink));
            ports.insert(Port(layout::DEBUG_PORT), DebugPort::PORTS, port)?;
        }
        if let Some(variables) = &variables {
            chipset.add_saved("flash", Arc::clone(variables.flash()) as _);
            chipset.add_reset(Arc::clone(variables.flash()) as _);
        }
        if let (Some(place), Some(memory)) = (display, video) {
            add_display(chipset, vm, place, memory)?;
        }
        let place = chipset.pci.ecam_place().unwrap_or_default();
        let chips = PowerOn::of(interrupts)?;
        Ok(BootImages::firmware(Firmware::new(
            image, variables, device, place, chips, board, content,
        )))
    }
}

/// Adds the display.
fn add_display(
    chipset: &mut Chipset,
    vm: &Arc<Vm>,
    place: DisplayPlace,
    memory: VideoMemory,
) -> Result<(), BuildError> {
    let mover = KvmVideoMemory::new(Arc::clone(vm)).map_err(BuildError::IoThread)?;
    let function = DisplayFunction::new(DisplayParams {
        width: place.width,
        height: place.height,
        rom: place.rom,
        memory,
        slot: Some(Arc::new(mover)),
    });
    let function = function.map_err(FirmwareError::from)?;
    chipset.framebuffer = Some(function.framebuffer());
    let function = share(function);
    let slot = Slot::new(place.slot).unwrap_or(Slot::HOST_BRIDGE);
    chipset
        .pci
        .insert(slot, Arc::clone(&function) as _)
        .map_err(DeviceSetError::from)?;
    chipset.add_saved("display", function);
    Ok(())
}

/// Adds the devices that every such machine has; gives the configuration device.
fn devices(
    chipset: &mut Chipset,
    memory: &GuestMemory,
    signals: &Signals,
    ports: &PortBus,
) -> Result<Shared<FwCfg>, BuildError> {
    let fw_cfg = share(FwCfg::new(memory.ram()));
    ports.insert(
        Port(layout::FW_CFG.start),
        FwCfg::PORTS,
        Arc::clone(&fw_cfg) as _,
    )?;
    let port92 = share(Port92::new(Arc::clone(&signals.end) as _));
    ports.insert(Port(layout::PORT_92), Port92::PORTS, port92)?;
    let bridge = share(LpcBridge::new(layout::PM1A_EVENT.start));
    if let Some(slot) = Slot::new(LpcBridge::SLOT) {
        chipset
            .pci
            .insert(slot, Arc::clone(&bridge) as _)
            .map_err(DeviceSetError::from)?;
    }
    chipset.add_saved("fw-cfg", Arc::clone(&fw_cfg) as _);
    // The root resets it, as every function.
    chipset.add_saved("lpc-bridge", bridge);
    chipset.add_reset(Arc::clone(&fw_cfg) as _);
    Ok(fw_cfg)
}
