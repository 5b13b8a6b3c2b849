//! The fixed devices of a machine and how they hang together.
//!
//! ```text
//!  port bus ── COM1 ──► console ring ──► I/O thread
//!           ── i8042, reset control, PM1a ──► end signal ──► control thread
//!           ── RTC, PM timer
//!  MMIO bus ── IOAPIC (split) ──► messages and routes ──► KVM
//! ```

use std::sync::Arc;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::clock::{HostMonotonicClock, HostWallClock, TimedDevice};
use reeve_devices::console::ConsoleRing;
use reeve_devices::ioapic::Ioapic;
use reeve_devices::legacy::acpi_pm::{AcpiPm, AcpiPmParams, PmTimerWidth};
use reeve_devices::legacy::cmos::{Cmos, CmosMemory, CmosParams};
use reeve_devices::legacy::i8042::{self, I8042};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::legacy::serial::Serial;
use reeve_devices::power::Reset;
use reeve_devices::shared::{Shared, lock, share};

use super::BuildError;
use crate::arch::x86_64::layout;
use crate::io::Waker;
use crate::kvm::InterruptController;
use crate::memory::GuestMemory;
use crate::vcpu::EndSignal;

/// Where the legacy I/O APIC's interrupt lines are; the keyboard controller's two ports lie four
/// apart, with ports of others between.
const I8042_LEN: u64 = 1;

/// The fixed devices.
pub struct Chipset {
    /// The guest's output.
    pub console: Arc<ConsoleRing>,
    /// COM1.
    pub serial: Shared<Serial>,
    pm: Shared<AcpiPm>,
    rtc: Shared<Cmos>,
    /// What a machine reset puts back, in this order: lines fall before the IOAPIC forgets them.
    resets: Vec<Shared<dyn Reset>>,
}

impl std::fmt::Debug for Chipset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chipset").finish_non_exhaustive()
    }
}

impl Chipset {
    /// Makes the devices and gives them their places.
    pub(super) fn build(
        interrupts: &Arc<dyn InterruptController>,
        end: &Arc<EndSignal>,
        waker: &Arc<Waker>,
        memory: &GuestMemory,
        ports: &PortBus,
        mmio: &MmioBus,
    ) -> Result<Self, BuildError> {
        let console = Arc::new(ConsoleRing::new(
            ConsoleRing::DEFAULT_CAPACITY,
            Arc::clone(waker) as _,
        ));
        let serial = share(Serial::new(
            interrupts.line(layout::COM1_GSI)?,
            Arc::clone(&console) as _,
            Arc::clone(waker) as _,
        ));
        let pm = share(AcpiPm::new(AcpiPmParams {
            timer_width: PmTimerWidth::Bits32,
            clock: Arc::new(HostMonotonicClock::new()),
            sci: interrupts.line(layout::SCI_GSI)?,
            power: Arc::clone(end) as _,
            timer: Arc::clone(waker) as _,
        }));
        let rtc = share(Cmos::new(CmosParams {
            memory: CmosMemory {
                below_4g: memory.low_end(),
                above_4g: memory.size().saturating_sub(memory.low_end()),
            },
            clock: Arc::new(HostWallClock),
            irq: interrupts.line(layout::RTC_GSI)?,
            timer: Arc::clone(waker) as _,
        }));
        let i8042 = share(I8042::new(Arc::clone(end) as _));
        let reset = share(ResetControl::new(Arc::clone(end) as _));

        ports.insert(
            Port(layout::COM1.start),
            Serial::PORTS,
            Arc::clone(&serial) as _,
        )?;
        ports.insert(Port(layout::RTC.start), Cmos::PORTS, Arc::clone(&rtc) as _)?;
        ports.insert(
            Port(layout::PM1A_EVENT.start),
            AcpiPm::PORTS,
            Arc::clone(&pm) as _,
        )?;
        ports.insert(
            Port(layout::RESET_PORT),
            ResetControl::PORTS,
            Arc::clone(&reset) as _,
        )?;
        for (port, offset) in [
            (layout::I8042_DATA, i8042::DATA),
            (layout::I8042_COMMAND, i8042::COMMAND),
        ] {
            ports.insert_at(Port(port), I8042_LEN, offset, Arc::clone(&i8042) as _)?;
        }

        let mut resets: Vec<Shared<dyn Reset>> = vec![
            Arc::clone(&serial) as _,
            Arc::clone(&pm) as _,
            Arc::clone(&rtc) as _,
            reset as _,
        ];
        if let Some(ioapic) = interrupts.ioapic() {
            mmio.insert(
                MmioAddress(layout::IOAPIC_BASE.into()),
                Ioapic::MMIO_LEN,
                Arc::clone(&ioapic) as _,
            )?;
            resets.push(ioapic as _);
        }
        Ok(Self {
            console,
            serial,
            pm,
            rtc,
            resets,
        })
    }

    /// Devices with something to do at a given time.
    #[must_use]
    pub fn timed(&self) -> Vec<Shared<dyn TimedDevice>> {
        vec![Arc::clone(&self.pm) as _, Arc::clone(&self.rtc) as _]
    }

    /// Puts every device back to power-on. Every vCPU stands.
    pub fn reset(&self) {
        for device in &self.resets {
            lock(device).reset();
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        lock(&self.pm).press_power_button();
    }
}
