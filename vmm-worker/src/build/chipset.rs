//! The fixed devices of a machine and how they hang together.
//!
//! ```text
//!  port bus ── COM1 ──► console ring ──► I/O thread
//!           ── i8042, reset control, PM1a ──► end signal ──► control thread
//!           ── RTC, PM timer
//!           ── hotplug registers ──► ejections
//!           ── panic port ──► end signal
//!           ── PCI configuration ──┐
//!  MMIO bus ── ECAM ──────────────┴► PCI root bus ──► BARs, on the MMIO bus again
//!           ── IOAPIC (split) ──► messages and routes ──► KVM
//! ```

use std::sync::Arc;
use std::time::Duration;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::clock::{HostMonotonicClock, HostWallClock, TimedDevice};
use reeve_devices::console::ConsoleRing;
use reeve_devices::display::Framebuffer;
use reeve_devices::ioapic::Ioapic;
use reeve_devices::legacy::acpi_pm::{AcpiPm, AcpiPmParams, PmTimerWidth};
use reeve_devices::legacy::cmos::{Cmos, CmosMemory, CmosParams};
use reeve_devices::legacy::hotplug::EjectSink;
use reeve_devices::legacy::hotplug::cpu::{Answers, CpuHotplug};
use reeve_devices::legacy::hotplug::pci::PciHotplug;
use reeve_devices::legacy::i8042::{self, I8042};
use reeve_devices::legacy::pvpanic::PvPanic;
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::legacy::serial::Serial;
use reeve_devices::pci::root::Root;
use reeve_devices::power::Reset;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::Saveable;
use reeve_ipc::spec::WatchdogSpec;

use super::board::Board;
use super::platform::{WatchdogSet, panic_port};
use super::{BuildError, pci};
use crate::arch::x86_64::acpi::AcpiConfig;
use crate::arch::x86_64::layout;
use crate::io::Waker;
use crate::kvm::InterruptController;
use crate::memory::GuestMemory;
use crate::notices::Notices;
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
    /// The PCI bus.
    pub pci: Root,
    pci_hotplug: Shared<PciHotplug>,
    cpu_hotplug: Shared<CpuHotplug>,
    panic_port: Option<Shared<PvPanic>>,
    watchdog: Option<WatchdogSet>,
    /// What the guest draws, if it has a display.
    pub framebuffer: Option<Framebuffer>,
    /// What a machine reset puts back, in this order: lines fall before the IOAPIC forgets them.
    resets: Vec<Shared<dyn Reset>>,
    /// What is saved, by the unit's name. The IOAPIC is apart: it is put back before the rest.
    saved: Vec<(&'static str, Shared<dyn Saveable>)>,
}

impl std::fmt::Debug for Chipset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chipset").finish_non_exhaustive()
    }
}

/// Whom the devices wake.
#[derive(Debug)]
pub(super) struct Signals {
    /// The control thread, at the guest's end.
    pub end: Arc<EndSignal>,
    /// The control thread, for what a device or the guest's ACPI has to tell.
    pub notices: Arc<Notices>,
    /// The I/O thread.
    pub waker: Arc<Waker>,
}

impl Chipset {
    /// Makes the devices and gives them their places.
    #[expect(
        clippy::too_many_arguments,
        reason = "what they hang together with, named by its types"
    )]
    pub(super) fn build(
        board: &Board,
        interrupts: &Arc<dyn InterruptController>,
        signals: &Signals,
        memory: &GuestMemory,
        tables: &AcpiConfig,
        watchdog: Option<WatchdogSpec>,
        ports: &PortBus,
        mmio: &Arc<MmioBus>,
    ) -> Result<Self, BuildError> {
        let Signals {
            end,
            notices,
            waker,
        } = signals;
        let console = Arc::new(ConsoleRing::new(
            ConsoleRing::DEFAULT_CAPACITY,
            Arc::clone(waker) as _,
        ));
        let serial = share(Serial::new(
            interrupts.line(layout::COM1_GSI)?,
            Arc::clone(&console) as _,
            Arc::clone(waker) as _,
        ));
        let ejections: Arc<dyn EjectSink> = Arc::clone(notices) as _;
        let pci_hotplug = share(PciHotplug::new(Arc::clone(&ejections)));
        let cpu_hotplug = share(CpuHotplug::new(tables.vcpus, tables.max_vcpus, ejections));
        let pm = share(AcpiPm::new(AcpiPmParams {
            timer_width: PmTimerWidth::Bits32,
            clock: Arc::new(HostMonotonicClock::new()),
            sci: interrupts.line(layout::SCI_GSI)?,
            power: Arc::clone(end) as _,
            timer: Arc::clone(waker) as _,
            gpes: vec![
                (layout::PCI_HOTPLUG_GPE, Arc::clone(&pci_hotplug) as _),
                (layout::CPU_HOTPLUG_GPE, Arc::clone(&cpu_hotplug) as _),
            ],
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
        let mut i8042 = I8042::new(Arc::clone(end) as _);
        if board.keyboard_errors {
            i8042 = i8042.with_errors();
        }
        let i8042 = share(i8042);
        let reset = share(ResetControl::new(Arc::clone(end) as _));

        ports.insert(
            Port(layout::COM1.start),
            Serial::PORTS,
            Arc::clone(&serial) as _,
        )?;
        ports.insert(Port(layout::RTC.start), Cmos::PORTS, Arc::clone(&rtc) as _)?;
        ports.insert(
            // GPE0 is behind the PM timer.
            Port(layout::PM1A_EVENT.start),
            AcpiPm::PORTS,
            Arc::clone(&pm) as _,
        )?;
        ports.insert(
            Port(layout::PCI_HOTPLUG.start),
            PciHotplug::PORTS,
            Arc::clone(&pci_hotplug) as _,
        )?;
        ports.insert(
            Port(layout::CPU_HOTPLUG.start),
            CpuHotplug::PORTS,
            Arc::clone(&cpu_hotplug) as _,
        )?;
        for (port, offset) in [
            (layout::I8042_DATA, i8042::DATA),
            (layout::I8042_COMMAND, i8042::COMMAND),
        ] {
            ports.insert_at(Port(port), I8042_LEN, offset, Arc::clone(&i8042) as _)?;
        }

        let window_64 = tables.pci_window_64.clone().unwrap_or(0..0);
        let pci = pci::build(board, mmio, ports, Arc::clone(&reset), window_64)?;
        let panic_port = tables
            .panic_port
            .then(|| panic_port(signals, ports))
            .transpose()?;
        let watchdog = watchdog
            .map(|spec| WatchdogSet::build(spec, interrupts, signals, &pci.root))
            .transpose()?;
        let mut saved: Vec<(&'static str, Shared<dyn Saveable>)> = vec![
            ("serial", Arc::clone(&serial) as _),
            ("acpi-pm", Arc::clone(&pm) as _),
            ("rtc", Arc::clone(&rtc) as _),
            ("reset-control", Arc::clone(&reset) as _),
            ("pci-ports", Arc::clone(&pci.ports) as _),
            ("pci-host-bridge", share(pci.root.clone())),
            ("pci-hotplug", Arc::clone(&pci_hotplug) as _),
            ("cpu-hotplug", Arc::clone(&cpu_hotplug) as _),
        ];
        let mut resets: Vec<Shared<dyn Reset>> = vec![
            share(pci.root.clone()),
            pci.ports as _,
            Arc::clone(&serial) as _,
            Arc::clone(&pm) as _,
            Arc::clone(&rtc) as _,
            Arc::clone(&pci_hotplug) as _,
            Arc::clone(&cpu_hotplug) as _,
            reset as _,
        ];
        if let Some(port) = &panic_port {
            saved.push(("pvpanic", Arc::clone(port) as _));
            resets.push(Arc::clone(port) as _);
        }
        if let Some(watchdog) = &watchdog {
            // The root resets it, as every function.
            saved.push(("watchdog", Arc::clone(&watchdog.function) as _));
        }
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
            pci: pci.root,
            pci_hotplug,
            cpu_hotplug,
            panic_port,
            watchdog,
            framebuffer: None,
            resets,
            saved,
        })
    }

    /// Adds a device to what is saved, by the unit's name.
    pub(super) fn add_saved(&mut self, unit: &'static str, device: Shared<dyn Saveable>) {
        self.saved.push((unit, device));
    }

    /// Adds a device to what a machine reset puts back.
    pub(super) fn add_reset(&mut self, device: Shared<dyn Reset>) {
        self.resets.push(device);
    }

    /// Devices with something to do at a given time.
    #[must_use]
    pub fn timed(&self) -> Vec<Shared<dyn TimedDevice>> {
        let mut timed: Vec<Shared<dyn TimedDevice>> =
            vec![Arc::clone(&self.pm) as _, Arc::clone(&self.rtc) as _];
        timed.extend(self.watchdog.as_ref().map(WatchdogSet::timed));
        timed
    }

    /// The watchdog, if there is one.
    #[must_use]
    pub fn watchdog(&self) -> Option<&WatchdogSet> {
        self.watchdog.as_ref()
    }

    /// Whether the guest has said that it starts its crash kernel, and nobody has taken that.
    #[must_use]
    pub fn has_crash_kernel(&self) -> bool {
        let port = self.panic_port.as_ref();
        port.is_some_and(|port| lock(port).has_crash_kernel())
    }

    /// As [`has_crash_kernel`](Self::has_crash_kernel); it is taken then.
    #[must_use]
    pub fn take_crash_kernel(&self) -> bool {
        let port = self.panic_port.as_ref();
        port.is_some_and(|port| lock(port).take_crash_kernel())
    }

    /// Tells the guest that its generation id, which was written already, is another.
    pub fn announce_generation(&self) {
        lock(&self.pm).raise_gpe(layout::GENERATION_GPE);
    }

    /// Goes on from what was restored of each device.
    pub fn restored(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.restored();
        }
    }

    /// What is saved of the fixed devices, by the unit's name; the IOAPIC is the interrupt
    /// controller's.
    #[must_use]
    pub fn saved(&self) -> &[(&'static str, Shared<dyn Saveable>)] {
        &self.saved
    }

    /// Lets time pass for the fixed devices that their clocks have not shown.
    pub fn pass(&self, time: Duration) {
        lock(&self.pm).pass(time);
    }

    /// Puts every device back to power-on. Every vCPU stands, and those of `vcpus` are there: a guest's word
    /// alone takes none away.
    pub fn reset(&self, vcpus: impl Iterator<Item = u32>) {
        for index in vcpus {
            lock(&self.cpu_hotplug).insert(index);
        }
        for device in &self.resets {
            lock(device).reset();
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        lock(&self.pm).press_power_button();
    }

    /// How many vCPUs, from 0 on, a guest that starts now may count on.
    #[must_use]
    pub fn vcpus_at_start(&self) -> u32 {
        lock(&self.cpu_hotplug).present_without_gap()
    }

    /// Tells the guest that there is something new in `slot` of the root bus, 1 to 31, where it can
    /// be reached already.
    pub fn announce_slot(&self, slot: u8) {
        if lock(&self.pci_hotplug).insert(slot) {
            lock(&self.pm).raise_gpe(layout::PCI_HOTPLUG_GPE);
        }
    }

    /// Asks the guest to let go of what is in `slot` of the root bus, 1 to 31. It may be asked
    /// again, if it did not: it looks at each question once.
    pub fn ask_for_slot(&self, slot: u8) {
        if lock(&self.pci_hotplug).request_removal(slot) {
            lock(&self.pm).raise_gpe(layout::PCI_HOTPLUG_GPE);
        }
    }

    /// Tells the guest that the vCPU `index`, which waits for its start already, is there; false if
    /// it was there before or cannot be.
    pub fn announce_vcpu(&self, index: u32) -> bool {
        let new = lock(&self.cpu_hotplug).insert(index);
        if new {
            lock(&self.pm).raise_gpe(layout::CPU_HOTPLUG_GPE);
        }
        new
    }

    /// Asks the guest to let go of the vCPU `index`; false if it is not there or cannot go. It may
    /// be asked again, as for a slot.
    pub fn ask_for_vcpu(&self, index: u32) -> bool {
        let there = lock(&self.cpu_hotplug).request_removal(index);
        if there {
            lock(&self.pm).raise_gpe(layout::CPU_HOTPLUG_GPE);
        }
        there
    }

    /// Takes the question back, as far as the guest has not seen it.
    pub fn no_longer_ask_for_vcpu(&self, index: u32) {
        lock(&self.cpu_hotplug).withdraw_removal(index);
    }

    /// Says that the vCPU `index` is not there any more, to a guest that is being reset.
    pub fn take_vcpu(&self, index: u32) {
        lock(&self.cpu_hotplug).take(index);
    }

    /// Whether the guest has not ejected the vCPU `index`, which is there.
    #[must_use]
    pub fn guest_has_vcpu(&self, index: u32) -> bool {
        lock(&self.cpu_hotplug).is_present(index)
    }

    /// What the guest has said of its vCPUs since this was last asked.
    #[must_use]
    pub fn take_vcpu_answers(&self) -> Answers {
        lock(&self.cpu_hotplug).take_answers()
    }
}
