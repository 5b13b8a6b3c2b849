//! The guest's clock, and the interrupt controllers in the kernel: taken and put back.
//!
//! Taken on the control thread, put back on the one that builds the machine.

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    kvm_clock_data, kvm_ioapic_state, kvm_ioapic_state__bindgen_ty_1, kvm_irqchip,
    kvm_irqchip__bindgen_ty_1, kvm_pic_state, kvm_pit_state2,
};
use kvm_ioctls::Cap;

use super::{KvmError, Vm};
use crate::state::time::{Moment, Passage};
use crate::state::{ClockStateV1, IrqchipStateV1};

impl Vm {
    /// The guest's clock now.
    ///
    /// # Errors
    /// `KVM_GET_CLOCK` failed.
    pub fn clock(&self) -> Result<ClockStateV1, KvmError> {
        let clock = self
            .fd()
            .get_clock()
            .map_err(KvmError::ioctl("KVM_GET_CLOCK"))?;
        let now = Moment::now();
        let told = clock.flags & KVM_CLOCK_REALTIME != 0;
        // Both clocks go back to the moment of the guest's, where KVM says which that was.
        let late = if told {
            now.realtime.saturating_sub(clock.realtime)
        } else {
            0
        };
        Ok(ClockStateV1 {
            kvmclock: clock.clock,
            realtime: now.realtime.saturating_sub(late),
            monotonic: now.monotonic.saturating_sub(late),
        })
    }

    /// Lets the guest's clock go on from where it was, the time that has passed added.
    ///
    /// # Errors
    /// `KVM_SET_CLOCK` failed.
    pub(crate) fn set_clock(&self, passage: &Passage) -> Result<(), KvmError> {
        let now = Moment::now();
        let elapsed = passage.elapsed_at(now);
        let known = self.fd().check_extension_int(Cap::AdjustClock);
        let realtime = i32::try_from(KVM_CLOCK_REALTIME).is_ok_and(|flag| known & flag != 0);
        let clock = if realtime {
            // KVM adds what has passed since, this thread's own delay included.
            kvm_clock_data {
                clock: passage.saved.kvmclock,
                flags: KVM_CLOCK_REALTIME,
                realtime: now.realtime.saturating_sub(elapsed),
                ..Default::default()
            }
        } else {
            kvm_clock_data {
                clock: passage.saved.kvmclock.wrapping_add(elapsed),
                ..Default::default()
            }
        };
        self.fd()
            .set_clock(&clock)
            .map_err(KvmError::ioctl("KVM_SET_CLOCK"))
    }

    /// PICs, IOAPIC and PIT in the kernel.
    ///
    /// # Errors
    /// There are none, or an ioctl failed.
    pub(super) fn kernel_chips(&self) -> Result<IrqchipStateV1, KvmError> {
        let pit = self
            .fd()
            .get_pit2()
            .map_err(KvmError::ioctl("KVM_GET_PIT2"))?;
        let ioapic = self.ioapic()?;
        Ok(IrqchipStateV1 {
            pics: [
                self.pic(KVM_IRQCHIP_PIC_MASTER)?,
                self.pic(KVM_IRQCHIP_PIC_SLAVE)?,
            ],
            ioapic_base: ioapic.base_address,
            ioapic_select: ioapic.ioregsel,
            ioapic_id: ioapic.id,
            ioapic_irr: ioapic.irr,
            ioapic_table: ioapic.redirtbl.map(bits),
            pit_channels: pit.channels.map(|mut channel| {
                channel.count_load_time = 0;
                channel
            }),
            pit_flags: pit.flags,
        })
    }

    /// Puts them back. After the local APICs, to which the IOAPIC sends what is due.
    ///
    /// # Errors
    /// There are none, or KVM refuses their state.
    pub(super) fn set_kernel_chips(&self, state: &IrqchipStateV1) -> Result<(), KvmError> {
        for (chip_id, pic) in (KVM_IRQCHIP_PIC_MASTER..).zip(state.pics) {
            self.set_chip(chip_id, kvm_irqchip__bindgen_ty_1 { pic })?;
        }
        let ioapic = kvm_ioapic_state {
            base_address: state.ioapic_base,
            ioregsel: state.ioapic_select,
            id: state.ioapic_id,
            irr: state.ioapic_irr,
            pad: 0,
            redirtbl: state
                .ioapic_table
                .map(|bits| kvm_ioapic_state__bindgen_ty_1 { bits }),
        };
        self.set_chip(KVM_IRQCHIP_IOAPIC, kvm_irqchip__bindgen_ty_1 { ioapic })?;
        let pit = kvm_pit_state2 {
            channels: state.pit_channels,
            flags: state.pit_flags,
            ..Default::default()
        };
        self.fd()
            .set_pit2(&pit)
            .map_err(KvmError::ioctl("KVM_SET_PIT2"))
    }

    #[expect(
        unsafe_code,
        reason = "the chip's number says which field of a union is set"
    )]
    fn pic(&self, chip_id: u32) -> Result<kvm_pic_state, KvmError> {
        let chip = self.chip(chip_id)?;
        // SAFETY: the chip asked for is a PIC; the field is plain integers.
        Ok(unsafe { chip.pic })
    }

    #[expect(
        unsafe_code,
        reason = "the chip's number says which field of a union is set"
    )]
    fn ioapic(&self) -> Result<kvm_ioapic_state, KvmError> {
        let chip = self.chip(KVM_IRQCHIP_IOAPIC)?;
        // SAFETY: the chip asked for is the IOAPIC; the field is plain integers.
        Ok(unsafe { chip.ioapic })
    }

    fn chip(&self, chip_id: u32) -> Result<kvm_irqchip__bindgen_ty_1, KvmError> {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        self.fd()
            .get_irqchip(&mut chip)
            .map_err(KvmError::ioctl("KVM_GET_IRQCHIP"))?;
        Ok(chip.chip)
    }

    fn set_chip(&self, chip_id: u32, chip: kvm_irqchip__bindgen_ty_1) -> Result<(), KvmError> {
        let chip = kvm_irqchip {
            chip_id,
            pad: 0,
            chip,
        };
        self.fd()
            .set_irqchip(&chip)
            .map_err(KvmError::ioctl("KVM_SET_IRQCHIP"))
    }
}

#[expect(unsafe_code, reason = "an entry is a union of its bits and its fields")]
fn bits(entry: kvm_ioapic_state__bindgen_ty_1) -> u64 {
    // SAFETY: every bit pattern of the entry is an integer.
    unsafe { entry.bits }
}

const _: () = assert!(KVM_IRQCHIP_PIC_MASTER == 0 && KVM_IRQCHIP_PIC_SLAVE == 1);
