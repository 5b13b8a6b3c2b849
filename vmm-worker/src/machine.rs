//! A machine that stands: everything it is made of, and its life from launch to end.
//!
//! Owned by the control thread. The order of each transition is in one place, here:
//!
//! - *pause*: vCPUs stand; devices keep serving the host's side.
//! - *save*: vCPUs stand, devices finish what they have begun; both stay so until they are resumed.
//! - *reset*: vCPUs stand, devices finish what they have begun and go to power-on, memory is emptied and
//!   loaded again, vCPUs go to power-on; then they run again, if they ran.
//! - *close*: vCPU threads end, devices finish what they have begun, then the I/O thread ends when the last
//!   output has gone out, then the VM.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use reeve_devices::bus::MmioAddress;
use reeve_devices::console::ConsoleRing;
use reeve_devices::display::Framebuffer;
use reeve_devices::irq::MsiMessage;
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::request::BootProtocol;
use reeve_ipc::spec::{DeviceSpec, MachineSpec, MachineType, PciSlot, WatchdogAction};
use reeve_ipc::vcpus::VcpuStanding;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::arch::x86_64::acpi::{self, AcpiConfig};
use crate::arch::x86_64::layout;
use crate::boot::Protocol;
use crate::build::devices::pci_slot;
use crate::build::{BootImages, BuildError, Chipset, Lineage, WatchdogSet};
use crate::device_set::{DeviceSet, DeviceSetError, Handle, STOP_PATIENCE};
use crate::io::IoThread;
use crate::kvm::Vm;
use crate::memory::GuestMemory;
use crate::notices::Notices;
use crate::plugging::Plugging;
use crate::processors::Processors;
use crate::state::{
    self, Fixture, MachineStateV1, Origin, Records, RestoreError, SaveError, Tsc, VcpusStateV1,
};
use crate::vcpu::{EndSignal, Platform, VcpuError};

/// How long the kernel may take over the memory slots of a machine, of which there are 1024 at most: about
/// a millisecond each, on a host that has time.
const BLOCKS_PATIENCE: Duration = Duration::from_secs(60);

/// Why a transition failed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A vCPU does not stand.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The machine cannot be loaded again.
    #[error("cannot reset the machine: {0}")]
    Reload(#[from] BuildError),
    /// A device does not come to rest.
    #[error(transparent)]
    Device(#[from] DeviceSetError),
    /// It is half reset.
    #[error("the machine is being reset")]
    Resetting,
    /// Memory that was plugged in could not be taken away.
    #[error("cannot take plugged memory away: {0}")]
    Unplug(String),
    /// Guest memory could not be emptied.
    #[error("cannot empty guest memory: {0}")]
    Discard(#[from] crate::memory::MemoryError),
}

impl From<MachineError> for WireError {
    fn from(error: MachineError) -> Self {
        let code = match &error {
            MachineError::Vcpu(VcpuError::Unresponsive(_)) | MachineError::Device(_) => {
                ErrorCode::Timeout
            }
            MachineError::Reload(_) => ErrorCode::BootImage,
            MachineError::Discard(_) | MachineError::Unplug(_) => ErrorCode::Memory,
            MachineError::Resetting => ErrorCode::WrongPhase,
            MachineError::Vcpu(_) => ErrorCode::Host,
        };
        Self::new(code, error.to_string())
    }
}

/// How the console stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConsoleStatus {
    /// Output that was overwritten in the ring.
    pub dropped_bytes: u64,
    /// Clients attached.
    pub clients: u32,
}

/// What a machine is for as long as it exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// Its type.
    pub machine: MachineType,
    /// The frequency of the guest's TSC in kHz; 0 if it is not known.
    pub tsc_khz: u32,
    /// How its kernel was entered; a reset may find another image.
    pub protocol: Protocol,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    /// What it was made from, without its devices.
    spec: MachineSpec,
    /// What the tables are made from, at launch and at every reset.
    tables: AcpiConfig,
    memory: GuestMemory,
    images: BootImages,
    chipset: Chipset,
    plugging: Plugging,
    vm: Arc<Vm>,
    platform: Arc<Platform>,
    vcpus: Processors,
    io: IoThread,
    resets: u64,
    /// A reset was begun and has not succeeded.
    resetting: bool,
}

impl Machine {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a machine, named by their types"
    )]
    pub(crate) fn new(
        identity: Identity,
        spec: MachineSpec,
        tables: AcpiConfig,
        memory: GuestMemory,
        images: BootImages,
        chipset: Chipset,
        plugging: Plugging,
        vm: Arc<Vm>,
        platform: Arc<Platform>,
        vcpus: Processors,
        io: IoThread,
    ) -> Self {
        Self {
            identity,
            spec,
            tables,
            memory,
            images,
            chipset,
            plugging,
            vm,
            platform,
            vcpus,
            io,
            resets: 0,
            resetting: false,
        }
    }

    /// How the kernel was entered.
    #[must_use]
    pub fn boot_protocol(&self) -> BootProtocol {
        match self.identity.protocol {
            Protocol::Pvh => BootProtocol::Pvh,
            Protocol::Linux64 => BootProtocol::Linux64,
            Protocol::ResetVector => BootProtocol::Firmware,
        }
    }

    /// Where the guest's end is left.
    #[must_use]
    pub fn end_signal(&self) -> Arc<EndSignal> {
        Arc::clone(&self.platform.end)
    }

    /// Resets since launch.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Lets the devices go on, where they were stopped, and the vCPUs run.
    ///
    /// # Errors
    /// [`MachineError::Device`]: a device that would not stop has still not done so. The machine stands
    /// as before, and may be asked to go on again. [`MachineError::Resetting`] until a reset that was begun
    /// has succeeded.
    pub fn resume(&mut self) -> Result<(), MachineError> {
        self.go_on(true)
    }

    /// Lets the devices go on, where they were stopped, and the vCPUs too if they are to run.
    ///
    /// # Errors
    /// As for [`resume`](Self::resume).
    pub(crate) fn go_on(&mut self, running: bool) -> Result<(), MachineError> {
        if self.resetting {
            return Err(MachineError::Resetting);
        }
        self.plugging.devices.resume()?;
        self.images.settle();
        self.io.release();
        if running {
            if let Some(watchdog) = self.chipset.watchdog() {
                watchdog.go_on();
            }
            self.vcpus.set_mut().run();
        }
        Ok(())
    }

    /// Makes the vCPUs stand.
    ///
    /// # Errors
    /// [`MachineError::Vcpu`] when one does not.
    pub fn pause(&mut self) -> Result<(), MachineError> {
        self.vcpus.set_mut().park()?;
        self.hold_watchdog();
        Ok(())
    }

    /// As [`pause`](Self::pause), and waits no longer than `patience`. A vCPU that does not stand then does when
    /// it can, and the others do; it may be asked again.
    ///
    /// # Errors
    /// As for [`pause`](Self::pause).
    pub fn pause_within(&mut self, patience: Duration) -> Result<(), MachineError> {
        self.vcpus.set_mut().park_within(patience)?;
        self.hold_watchdog();
        Ok(())
    }

    fn hold_watchdog(&self) {
        if let Some(watchdog) = self.chipset.watchdog() {
            watchdog.hold();
        }
    }

    /// Takes the state of the machine, whose vCPUs stand, all but its memory:
    /// [`crate::build::restore`] makes the same machine of it. The devices are stopped then, no input
    /// is taken from the console's clients, and nothing touches its memory, until
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`SaveError`]; it can be resumed then too.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        if self.resetting || self.platform.end.is_pending() {
            return Err(SaveError::Ended);
        }
        self.plugging.devices.check_saveable()?;
        self.plugging.devices.stop(STOP_PATIENCE)?;
        self.plugging.devices.check_none_goes()?;
        let input = self.io.hold();
        let general = MachineStateV1 {
            vcpus: self.vcpus.set().count(),
            memory_bytes: self.memory.size(),
            tsc_khz: self.identity.tsc_khz,
            protocol: self.identity.protocol,
            resets: self.resets,
        };
        state::save(&self.fixture(), self.identity.machine, &general, &input)
    }

    /// Takes the state of another machine over. This one was built and has not run.
    pub(crate) fn take_over(
        &mut self,
        records: Records<'_>,
        general: &MachineStateV1,
        vcpus: &VcpusStateV1,
        (origin, lineage): (Origin, Lineage),
        fresh: Tsc,
    ) -> Result<(), RestoreError> {
        self.resets = general.resets;
        self.vcpus.restore(vcpus);
        let before = state::restore(&self.fixture(), records, general, origin, fresh)?;
        match (before, lineage) {
            (None, _) => {}
            (Some(before), Lineage::Same) => self.set_generation(before),
            (Some(_), Lineage::Again) => self.begin_generation()?,
        }
        Ok(())
    }

    /// Notes which generation id the guest has.
    fn set_generation(&mut self, id: [u8; 16]) {
        self.tables.generation_id = Some(id);
        self.spec.generation_id = Some(id);
    }

    /// Gives the guest another generation id, as one of those that go on from one moment, and tells it.
    fn begin_generation(&mut self) -> Result<(), BuildError> {
        let mut id = [0; 16];
        let mut filled = 0;
        while let Some(rest) = id.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let more = getrandom(rest, GetRandomFlags::empty());
            filled += more.map_err(BuildError::Random)?;
        }
        acpi::write_generation_id(&self.memory, &id)?;
        self.set_generation(id);
        self.chipset.announce_generation();
        Ok(())
    }

    /// What makes the machine again in another worker, but for its devices, and the descriptors of that:
    /// of memory, boot images. `None` if its memory cannot be mapped by another.
    pub(crate) fn parts(&self) -> Option<(MachineSpec, Vec<BorrowedFd<'_>>)> {
        let memory = self.memory.shareable_fd()?;
        let descriptors = std::iter::once(memory).chain(self.images.files());
        Some((self.spec.clone(), descriptors.collect()))
    }

    /// Its console's output so far.
    pub(crate) fn console(&self) -> &ConsoleRing {
        &self.chipset.console
    }

    /// Its devices.
    pub(crate) fn devices(&self) -> &DeviceSet {
        &self.plugging.devices
    }

    /// What the guest draws, if it has a display.
    #[must_use]
    pub fn framebuffer(&self) -> Option<&Framebuffer> {
        self.chipset.framebuffer.as_ref()
    }

    /// Its fixed devices.
    #[cfg(test)]
    pub(crate) fn chipset(&self) -> &Chipset {
        &self.chipset
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The thread that serves its console.
    pub(crate) fn io(&self) -> &IoThread {
        &self.io
    }

    fn fixture(&self) -> Fixture<'_> {
        Fixture {
            vm: &self.vm,
            chipset: &self.chipset,
            devices: &self.plugging.devices,
            platform: &self.platform,
            vcpus: &self.vcpus,
            io: &self.io,
            generation_id: self.tables.generation_id,
        }
    }

    /// Puts the machine, whose vCPUs stand, back to the moment of its launch, with the vCPUs that it has
    /// now. Devices and vCPUs that the guest was asked to let go of go with it.
    ///
    /// # Errors
    /// The machine is in no state to run then. [`MachineError::Device`] when a device has not finished after
    /// `patience`: nothing has changed but that the others have stopped, and it may be asked again when the
    /// [`notices`](Self::notices) say that something has.
    pub fn reset(&mut self, patience: Duration) -> Result<(), MachineError> {
        self.resetting = true;
        self.plugging.devices.stop(patience)?;
        self.plugging.remove_leaving();
        self.vcpus.take_leaving(&self.chipset);
        self.chipset.reset(self.vcpus.set().present());
        self.take_out_blocks()?;
        self.memory.discard()?;
        self.tables.vcpus = self.chipset.vcpus_at_start();
        let plan = self.images.load(&self.memory, &self.tables)?;
        self.identity.protocol = plan.protocol;
        *self
            .platform
            .entry
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = plan.entry;
        self.vcpus.set().reset()?;
        self.platform.end.clear();
        self.resets += 1;
        self.resetting = false;
        Ok(())
    }

    /// Takes out all memory that was plugged in: the machine starts without it.
    fn take_out_blocks(&self) -> Result<(), MachineError> {
        let Some((control, thread)) = self.plugging.devices.memory() else {
            return Ok(());
        };
        let control = Arc::clone(control);
        match thread.call(BLOCKS_PATIENCE, move || control.take_out_all()) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(MachineError::Unplug(error.to_string())),
            None => Err(MachineError::Unplug("it takes too long".to_owned())),
        }
    }

    /// Builds a device, puts it on the bus and tells the guest.
    ///
    /// # Errors
    /// Why not; nothing of it is left.
    pub fn attach(&mut self, spec: DeviceSpec, descriptors: FdTable) -> Result<(), WireError> {
        self.plugging.attach(spec, descriptors, &self.chipset)
    }

    /// Asks the guest to let go of a device, or takes it by force.
    ///
    /// # Errors
    /// As for [`Plugging::detach`].
    pub fn detach(&mut self, slot: PciSlot, force: bool) -> Result<(), WireError> {
        self.plugging.detach(slot, force, &self.chipset)
    }

    /// Gives it so many vCPUs, as far as that is the host's to do.
    ///
    /// # Errors
    /// There can be no such number, or one could not be made; then none has come.
    pub fn set_vcpus(&mut self, count: u32) -> Result<(), WireError> {
        let spawner = &self.plugging.spawner;
        self.vcpus.set_count(count, &self.chipset, spawner)
    }

    /// Which vCPUs it has.
    #[must_use]
    pub fn vcpus(&self) -> VcpuStanding {
        self.vcpus.standing()
    }

    /// Does what the guest has done with its vCPUs, and says which there are, if that is news; and when
    /// to come back for more, if there is a time.
    pub fn settle_vcpus(&mut self) -> (Option<VcpuStanding>, Option<Duration>) {
        if self.plugging.notices.take_vcpus() {
            self.vcpus.settle(&self.chipset);
        }
        let later = self.vcpus.ask_again(&self.chipset);
        (self.vcpus.take_change(), later)
    }

    /// Its devices.
    pub fn plugging(&mut self) -> &mut Plugging {
        &mut self.plugging
    }

    /// Where devices and the guest leave what they have to tell.
    #[must_use]
    pub fn notices(&self) -> Arc<Notices> {
        Arc::clone(&self.plugging.notices)
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.chipset.press_power_button();
    }

    /// What its guest finds as its generation id, if it finds one, as it lies in memory.
    #[must_use]
    pub fn generation_id(&self) -> Option<[u8; 16]> {
        self.tables.generation_id
    }

    /// Whether its watchdog has expired, and nothing was done about it.
    #[must_use]
    pub fn watchdog_has_expired(&self) -> bool {
        self.chipset
            .watchdog()
            .is_some_and(WatchdogSet::has_expired)
    }

    /// As [`watchdog_has_expired`](Self::watchdog_has_expired), and what is to be done about it: by whoever
    /// asks.
    #[must_use]
    pub fn take_watchdog(&self) -> Option<WatchdogAction> {
        self.chipset.watchdog()?.take_expired()
    }

    /// Where its watchdog is on the bus, if it has one.
    #[must_use]
    pub fn watchdog_place(&self) -> Option<PciSlot> {
        self.chipset.watchdog().map(WatchdogSet::place)
    }

    /// Whether the device in `slot` is the one that plugs memory.
    #[must_use]
    pub fn is_memory_device(&self, slot: PciSlot) -> bool {
        let handle = self.plugging.devices.handle(pci_slot(slot));
        matches!(handle, Some(Handle::Memory(..)))
    }

    /// Whether the guest has said that it starts its crash kernel, and nobody has taken that.
    #[must_use]
    pub fn has_crash_kernel(&self) -> bool {
        self.chipset.has_crash_kernel()
    }

    /// As [`has_crash_kernel`](Self::has_crash_kernel); it is taken then.
    #[must_use]
    pub fn take_crash_kernel(&self) -> bool {
        self.chipset.take_crash_kernel()
    }

    /// Sends every vCPU an interrupt that cannot be masked (SDM vol. 3, 12.11: delivery mode NMI).
    pub fn inject_nmi(&self) {
        const NMI: u32 = 0b100 << 8;
        let messages = self.platform.interrupts.messages();
        for vcpu in self.vcpus.set().present() {
            // Eight bits of the id, and seven more of a wide one.
            let id = u64::from(vcpu);
            let destination = (id & 0xFF) << 12 | (id >> 8 & 0x7F) << 5;
            messages.send(MsiMessage {
                address: 0xFEE0_0000 | destination,
                data: NMI,
            });
        }
    }

    /// Attaches a client to the console, from byte `from` on or from the oldest that is held; gives
    /// the position of the first byte it gets.
    ///
    /// # Errors
    /// The stream cannot be made non-blocking.
    pub fn attach_console(
        &self,
        stream: OwnedFd,
        input: bool,
        from: Option<u64>,
    ) -> Result<u64, WireError> {
        let reader = match from {
            Some(position) => self.chipset.console.reader_from(position),
            None => self.chipset.console.reader(),
        };
        let position = reader.position();
        self.io.attach(stream, input, reader).map_err(|errno| {
            WireError::new(
                ErrorCode::Descriptor,
                format!("not a stream for a console: {errno}"),
            )
        })?;
        Ok(position)
    }

    /// Bytes the guest has written to its console.
    #[must_use]
    pub fn console_position(&self) -> u64 {
        self.chipset.console.stats().written
    }

    /// How the console stands.
    #[must_use]
    pub fn console_status(&self) -> ConsoleStatus {
        ConsoleStatus {
            dropped_bytes: self.chipset.console.stats().discarded,
            clients: self.io.clients(),
        }
    }

    /// Takes the machine apart.
    pub fn close(mut self) {
        // Told before either is waited for: the last output goes out while the vCPUs end.
        self.vcpus.set().order_quit();
        self.io.order_quit();
        self.vcpus.set_mut().quit();
        // What the guest was told is written must be in its files, not only here.
        if let Err(error) = self.plugging.devices.stop(STOP_PATIENCE) {
            tracing::warn!("{error}");
        }
        self.images.settle();
        self.io.quit();
        // The way to the PCI bus is itself a region of the bus that the BARs are regions of: with it in
        // place nothing of the machine would ever be freed, the VM and its memory included.
        let _ = self.platform.mmio.remove(MmioAddress(layout::ECAM.start));
    }
}
