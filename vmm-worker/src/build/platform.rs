//! What of the platform only some machines have: the panic port and the watchdog.

use std::sync::Arc;

use reeve_devices::bus::{Port, PortBus};
use reeve_devices::clock::{HostMonotonicClock, TimedDevice};
use reeve_devices::legacy::pvpanic::{PvPanic, PvPanicParams};
use reeve_devices::pci::Slot;
use reeve_devices::pci::root::Root;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::watchdog::{Watchdog, WatchdogFunction, WatchdogParams};
use reeve_ipc::spec::{PciSlot, WatchdogAction, WatchdogSpec};

use super::BuildError;
use super::chipset::Signals;
use super::devices::pci_slot;
use crate::arch::x86_64::layout;
use crate::device_set::{DeviceSetError, bar_address};
use crate::kvm::InterruptController;

/// Makes the panic port and gives it its place.
pub(super) fn panic_port(
    signals: &Signals,
    ports: &PortBus,
) -> Result<Shared<PvPanic>, BuildError> {
    let port = share(PvPanic::new(PvPanicParams {
        panic: Arc::clone(&signals.end) as _,
        power: Arc::clone(&signals.end) as _,
        news: Arc::clone(&signals.notices) as _,
    }));
    let place = Port(layout::PANIC.start);
    ports.insert(place, PvPanic::PORTS, Arc::clone(&port) as _)?;
    Ok(port)
}

/// A watchdog on the bus. It comes and goes with the machine only.
#[derive(Debug)]
pub struct WatchdogSet {
    place: PciSlot,
    slot: Slot,
    action: WatchdogAction,
    root: Root,
    pub(super) function: Shared<WatchdogFunction>,
    watchdog: Shared<Watchdog>,
}

impl WatchdogSet {
    /// Makes it and puts it on the bus of `root`. It stands until [`go_on`](Self::go_on).
    pub(super) fn build(
        spec: WatchdogSpec,
        interrupts: &Arc<dyn InterruptController>,
        signals: &Signals,
        root: &Root,
    ) -> Result<Self, BuildError> {
        let slot = pci_slot(spec.slot);
        let params = WatchdogParams {
            clock: Arc::new(HostMonotonicClock::new()),
            irq: interrupts.line(layout::WATCHDOG_GSI)?,
            timer: Arc::clone(&signals.waker) as _,
            news: Arc::clone(&signals.notices) as _,
        };
        let function = WatchdogFunction::new(params, bar_address(slot), layout::WATCHDOG_GSI)?;
        let watchdog = function.watchdog();
        let function = share(function);
        root.insert(slot, Arc::clone(&function) as _)
            .map_err(DeviceSetError::from)?;
        Ok(Self {
            place: spec.slot,
            slot,
            action: spec.action,
            root: root.clone(),
            function,
            watchdog,
        })
    }

    /// What ticks.
    pub(super) fn timed(&self) -> Shared<dyn TimedDevice> {
        Arc::clone(&self.watchdog) as _
    }

    /// Its place on the bus.
    #[must_use]
    pub fn place(&self) -> PciSlot {
        self.place
    }

    /// The vCPUs stand: it does too.
    pub fn hold(&self) {
        lock(&self.watchdog).hold();
    }

    /// The vCPUs are about to run.
    pub fn go_on(&self) {
        lock(&self.watchdog).go_on();
    }

    /// Whether it has expired and nothing was done about it.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        lock(&self.watchdog).has_expired()
    }

    /// As [`has_expired`](Self::has_expired), and what is to be done about it: by whoever asks.
    #[must_use]
    pub fn take_expired(&self) -> Option<WatchdogAction> {
        lock(&self.watchdog).take_expired().then_some(self.action)
    }

    /// Its registers are where its record says, from now on in the guest's eyes too.
    pub(super) fn restored(&self) {
        self.root.remap(self.slot);
    }
}
