//! The interrupt controller of a machine, in its two variants.
//!
//! - [`ControllerKind::Split`]: local APICs in the kernel, the IOAPIC in this process, no PIC and no
//!   PIT. A pin's interrupt is sent as a message. Level-triggered pins have a route as well, by which
//!   KVM knows to tell us of the end of their interrupts (`KVM_EXIT_IOAPIC_EOI`).
//! - [`ControllerKind::InKernel`]: everything in the kernel, PICs and PIT included.
//!
//! Called by any thread, devices' locks held: nothing here calls back into a device other than the
//! IOAPIC, and the IOAPIC's sinks are ioctls.

use std::fmt::Debug;
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_msi, kvm_pit_config,
};
use kvm_ioctls::{Cap, VmFd};
use reeve_devices::error::DeviceError;
use reeve_devices::ioapic::{Ioapic, Route, RouteSink};
use reeve_devices::irq::{IrqBacking, IrqLine, MsiMessage, MsiSink};
use reeve_devices::shared::{Shared, lock, share};

use super::routes::Routes;
use super::{KvmError, Vm};
use crate::arch::x86_64::layout;
use crate::state::IrqchipStateV1;

/// Which interrupt controller a machine has; a property of its machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerKind {
    /// Local APICs in the kernel, IOAPIC in the worker.
    Split,
    /// All in the kernel.
    InKernel,
}

/// The interrupt controller as the machine uses it.
pub trait InterruptController: Debug + Send + Sync {
    /// The line that a device drives. One device a line.
    ///
    /// # Errors
    /// There is no such line.
    fn line(&self, gsi: u8) -> Result<IrqLine, DeviceError>;

    /// Where devices send messages of their own.
    fn messages(&self) -> Arc<dyn MsiSink>;

    /// A local APIC ended an interrupt of this vector (`KVM_EXIT_IOAPIC_EOI`).
    fn end_of_interrupt(&self, vector: u8);

    /// The IOAPIC, if it is in this process: to be put on the memory bus at
    /// [`layout::IOAPIC_BASE`], and reset and saved like a device.
    fn ioapic(&self) -> Option<Shared<Ioapic>>;

    /// The state of what is in the kernel besides local APICs, if there is anything. Every vCPU stands.
    ///
    /// # Errors
    /// An ioctl failed.
    fn kernel_chips(&self) -> Result<Option<IrqchipStateV1>, KvmError>;

    /// Puts that state back. After the local APICs'.
    ///
    /// # Errors
    /// KVM refuses it.
    fn set_kernel_chips(&self, state: &IrqchipStateV1) -> Result<(), KvmError>;
}

/// Makes the controller's part in the kernel. Memory slots first, vCPUs after.
pub(super) fn create(fd: &VmFd, kind: ControllerKind) -> Result<(), KvmError> {
    let need = |cap, name| {
        if fd.check_extension(cap) {
            Ok(())
        } else {
            Err(KvmError::MissingCapability(name))
        }
    };
    match kind {
        ControllerKind::Split => {
            need(Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP")?;
            let mut cap = kvm_enable_cap {
                cap: KVM_CAP_SPLIT_IRQCHIP,
                ..Default::default()
            };
            // GSIs kept for the pins: KVM reports the ends of interrupts of these only.
            cap.args[0] = u64::from(layout::IOAPIC_PINS);
            fd.enable_cap(&cap)
                .map_err(KvmError::ioctl("KVM_ENABLE_CAP(SPLIT_IRQCHIP)"))
        }
        ControllerKind::InKernel => {
            need(Cap::Irqchip, "KVM_CAP_IRQCHIP")?;
            need(Cap::Pit2, "KVM_CAP_PIT2")?;
            fd.create_irq_chip()
                .map_err(KvmError::ioctl("KVM_CREATE_IRQCHIP"))?;
            // The speaker's port belongs to the PIT and is answered in the kernel.
            let pit = kvm_pit_config {
                flags: KVM_PIT_SPEAKER_DUMMY,
                ..Default::default()
            };
            fd.create_pit2(pit)
                .map_err(KvmError::ioctl("KVM_CREATE_PIT2"))
        }
    }
}

/// The controller of a finished VM.
pub(super) fn wire(vm: &Arc<Vm>, kind: ControllerKind) -> Arc<dyn InterruptController> {
    let local = LocalApics { vm: Arc::clone(vm) };
    match kind {
        ControllerKind::Split => {
            let messages = Arc::new(local);
            let routes = Arc::new(PinRoutes(Routes::new(Arc::clone(vm))));
            let ioapic = share(Ioapic::new(messages.clone(), routes));
            Arc::new(Split { messages, ioapic })
        }
        ControllerKind::InKernel => Arc::new(InKernel {
            messages: Arc::new(local),
        }),
    }
}

#[derive(Debug)]
struct Split {
    messages: Arc<LocalApics>,
    ioapic: Shared<Ioapic>,
}

impl InterruptController for Split {
    fn line(&self, gsi: u8) -> Result<IrqLine, DeviceError> {
        Ioapic::irq_line(&self.ioapic, gsi)
    }

    fn messages(&self) -> Arc<dyn MsiSink> {
        Arc::clone(&self.messages) as _
    }

    fn end_of_interrupt(&self, vector: u8) {
        lock(&self.ioapic).end_of_interrupt(vector);
    }

    fn ioapic(&self) -> Option<Shared<Ioapic>> {
        Some(Arc::clone(&self.ioapic))
    }

    fn kernel_chips(&self) -> Result<Option<IrqchipStateV1>, KvmError> {
        Ok(None)
    }

    fn set_kernel_chips(&self, _state: &IrqchipStateV1) -> Result<(), KvmError> {
        Err(KvmError::MissingCapability(
            "an interrupt controller of KVM's own",
        ))
    }
}

#[derive(Debug)]
struct InKernel {
    messages: Arc<LocalApics>,
}

impl InterruptController for InKernel {
    fn line(&self, gsi: u8) -> Result<IrqLine, DeviceError> {
        if gsi >= layout::IOAPIC_PINS {
            return Err(DeviceError::NoSuchPin { pin: gsi });
        }
        Ok(IrqLine::new(Arc::new(KernelPin {
            vm: Arc::clone(&self.messages.vm),
            gsi,
        })))
    }

    fn messages(&self) -> Arc<dyn MsiSink> {
        Arc::clone(&self.messages) as _
    }

    fn end_of_interrupt(&self, _vector: u8) {
        // The IOAPIC in the kernel has seen it.
    }

    fn ioapic(&self) -> Option<Shared<Ioapic>> {
        None
    }

    fn kernel_chips(&self) -> Result<Option<IrqchipStateV1>, KvmError> {
        self.messages.vm.kernel_chips().map(Some)
    }

    fn set_kernel_chips(&self, state: &IrqchipStateV1) -> Result<(), KvmError> {
        self.messages.vm.set_kernel_chips(state)
    }
}

/// The local APICs, to which messages go.
#[derive(Debug)]
struct LocalApics {
    vm: Arc<Vm>,
}

impl MsiSink for LocalApics {
    fn send(&self, message: MsiMessage) -> bool {
        let (address_lo, address_hi) = kvm_address(message.address, self.vm.wide_apic_ids());
        let message = kvm_msi {
            address_lo,
            address_hi,
            data: message.data,
            ..Default::default()
        };
        match self.vm.fd().signal_msi(message) {
            Ok(taken) => taken > 0,
            Err(error) => {
                tracing::debug!(%error, "message refused");
                false
            }
        }
    }
}

/// The routes of the IOAPIC's pins: GSI n is pin n.
#[derive(Debug)]
struct PinRoutes(Routes);

impl RouteSink for PinRoutes {
    fn route_changed(&self, pin: u8, route: Option<Route>) {
        // Edge-triggered pins need no route: their interrupts are sent as messages, and nobody waits
        // for their end. Each change of the table costs every vCPU an exit.
        let message = route
            .filter(|route| route.level_triggered)
            .map(|route| route.message);
        if let Err(error) = self.0.set(u32::from(pin), message) {
            // The guest asked for a message that cannot be: its own device will not work.
            tracing::warn!(pin, %error, "interrupt route refused");
        }
    }
}

/// A pin of the IOAPIC and the PICs in the kernel.
#[derive(Debug)]
struct KernelPin {
    vm: Arc<Vm>,
    gsi: u8,
}

impl IrqBacking for KernelPin {
    fn set_level(&self, asserted: bool) {
        if let Err(error) = self.vm.fd().set_irq_line(u32::from(self.gsi), asserted) {
            tracing::warn!(gsi = self.gsi, %error, "interrupt line not set");
        }
    }
}

/// A message's address as KVM wants it, lower and upper half. With wide APIC ids, bits 11 to 5 are
/// bits 14 to 8 of the destination (`KVM_FEATURE_MSI_EXT_DEST_ID`), which KVM takes in the upper
/// half.
pub(super) fn kvm_address(address: u64, wide_apic_ids: bool) -> (u32, u32) {
    const EXTENDED: u32 = 0x7F << 5;
    let low = (address & 0xFFFF_FFFF) as u32;
    if wide_apic_ids {
        (low & !EXTENDED, (low & EXTENDED) << 3)
    } else {
        (low, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::kvm_address;

    #[test]
    fn extended_destination_goes_to_the_upper_half() {
        // Destination 0x312: the low byte in bits 19..12, the rest in bits 11..5.
        let address = 0xFEE0_0000 | (0x12 << 12) | (0x3 << 5);
        assert_eq!(kvm_address(address, true), (0xFEE1_2000, 0x300));
        assert_eq!(kvm_address(address, false), (0xFEE1_2060, 0));
    }
}
