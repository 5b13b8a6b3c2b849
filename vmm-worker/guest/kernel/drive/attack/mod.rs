//! `mode=attack`: what a driver ought not to do, one kind of it to a boot, to each device asked for.
//!
//! ```text
//!  for each device:  the case: rounds of start() ─► misbehave ─► look()
//!                    judge(): reset, negotiate, one good request ─► "works"
//! ```
//!
//! What a device says to it is its own affair: it may answer, ask to be reset, or do nothing. What counts
//! is that afterwards it resets and works, that this guest's memory is as it left it, and that the
//! machine lives to print the last line. Nothing that a device is told to write to is memory this guest
//! needs, so that a guest that dies has found a fault.

mod blocks;
mod descriptors;
mod pci;
mod registers;
mod requests;
mod rings;
mod storms;

use super::cases::{self, Case};
use super::memory::{self, DATA};
use super::options::{Device as Kind, Options};
use super::pci::Bus;
use super::queue::{Queue, Wait};
use super::virtio::{DRIVER_OK, Device, NEEDS_RESET, RING_FEATURES};
use super::{Clock, Problem};
use crate::boot::Boot;
use crate::random::XorShift;
use crate::{acpi, console, cpus, machine, ring0, time};

/// Queues of a device that are set up.
const MAX_QUEUES: usize = 8;
/// Devices of a machine.
const MAX_DEVICES: usize = 31;
/// Entries of a queue, if the device has as many.
const ENTRIES: u16 = 256;
/// Microseconds that a device is given to react to a request that it need not answer.
const PATIENCE: u64 = 3000;

/// Memory that devices may be told of: some of it is none.
const EDGES: [u64; 12] = [
    0xa_0000,
    0xc000_0000,
    0xdfff_fff0,
    0xe000_0000,
    0xfec0_0000,
    0xfee0_0000,
    0xffff_fff0,
    0x7fff_ffff_ffff,
    0x000f_ffff_ffff_f000,
    0x7fff_ffff_ffff_fff0,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

unsafe extern "C" {
    static text_start: u8;
    static rodata_end: u8;
}

/// What one device is attacked with.
struct Attack<'a> {
    device: Device,
    /// All devices, this one included.
    all: &'a [Option<Device>],
    clock: &'a Clock,
    random: XorShift,
    /// Asked for by `count=`.
    count: Option<u64>,
    /// One past the last byte of RAM.
    ram_end: u64,
    /// Processors that run.
    processors: u32,
    agreed: u64,
    /// The queue that requests are made on.
    active: u16,
    queues: [Option<Queue>; MAX_QUEUES],
    rounds: u64,
    answers: u64,
    resets: u64,
}

/// Runs the case on every device asked for.
pub fn run(boot: &Boot, bus: Bus, clock: &Clock, options: &Options) -> Result<(), Problem> {
    let case = options.case.ok_or("unknown case")?;
    let kind = options.device.ok_or("unknown device")?;
    let mut all = [None; MAX_DEVICES];
    for (place, device) in all.iter_mut().zip(Device::all(bus)) {
        *place = Some(device);
    }
    let mut processors = 1;
    if case == Case::DoubleFetch {
        cpus::set_job(storms::flip);
        if let Some(tables) = acpi::read(boot) {
            processors = cpus::start_others(boot, &tables);
        }
    }
    // Messages may be sent with any vector by then.
    if case != Case::InterruptStorm {
        ring0::mask_interrupts();
    }
    let mut result = Err("no such device");
    for (number, device) in (0..).zip(all.iter().flatten()) {
        if !kind.is(device.id) {
            continue;
        }
        let mut attack = Attack {
            device: *device,
            all: &all,
            clock,
            random: XorShift::new(
                (options.seed ^ number << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            count: options.count,
            ram_end: memory::ram_end(boot),
            processors,
            agreed: 0,
            active: 0,
            queues: [None; MAX_QUEUES],
            rounds: 0,
            answers: 0,
            resets: 0,
        };
        let outcome = attack.attack(case);
        result = match (result, outcome) {
            (Ok(()) | Err("no such device"), Ok(_)) => Ok(()),
            (Ok(()) | Err("no such device"), Err(problem)) => Err(problem),
            (first, _) => first,
        };
    }
    let mut line = console::line();
    line.text("attack ").text(name(case));
    match result {
        Ok(()) => line.text(": survived").end(),
        Err(problem) => line.text(": FAILED, ").text(problem).end(),
    }
    Ok(())
}

impl Attack<'_> {
    /// The case on each queue where it is another one, and what is said of it.
    fn attack(&mut self, case: Case) -> Result<&'static str, Problem> {
        let before = self.guard();
        let there = self.device.queues();
        let serving = self.serving_queues().iter().filter(|queue| **queue < there);
        let count = if is_about_rings(case) { MAX_QUEUES } else { 1 };
        let mut outcome = Ok(());
        for queue in serving.clone().take(count) {
            self.active = *queue;
            outcome = outcome.and_then(|()| self.perform(case));
        }
        self.active = serving.clone().next().copied().unwrap_or(0);
        let outcome = outcome.and_then(|()| self.judge());
        let outcome = match outcome {
            Ok(_) if self.guard() != before => Err("this guest's memory has changed"),
            other => other,
        };
        self.say(case, outcome);
        outcome
    }

    fn perform(&mut self, case: Case) -> Result<(), Problem> {
        match case {
            Case::ConfigAfterStart => self.config_after_start(),
            Case::QueueSize => self.queue_size(),
            Case::QueueAddress => self.queue_address(),
            Case::SelectRange => self.select_range(),
            Case::Features => self.features(),
            Case::StatusOrder => self.status_order(),
            Case::ResetInFlight => self.reset_in_flight(),
            Case::ResetStorm => self.reset_storm(),
            Case::SameHead => self.same_head(),
            Case::DoubleFetch => self.double_fetch(),
            Case::DescriptorLength => self.descriptor_length(),
            Case::DescriptorAddress => self.descriptor_address(),
            Case::DeviceWindows => self.device_windows(),
            Case::Loop => self.circles(),
            Case::Indirect => self.indirect(),
            Case::ZeroLength => self.zero_length(),
            Case::Direction => self.direction(),
            Case::LongChain => self.long_chain(),
            Case::HeadRange => self.head_range(),
            Case::AvailableJump => self.available_jump(),
            Case::Giant => self.giant(),
            Case::KickStorm => self.kick_storm(),
            Case::InterruptStorm => self.interrupt_storm(),
            Case::AccessSizes => self.access_sizes(),
            Case::DeviceConfig => self.device_config(),
            Case::NotifyRange => self.notify_range(),
            Case::BarMove => self.bar_move(),
            Case::MsixGarbage => self.msix_garbage(),
            Case::BusMaster => self.bus_master(),
            Case::HotplugRegisters => self.hotplug_registers(),
            Case::ConfigSpace => self.config_space(),
            Case::ConfigPorts => self.config_ports(),
            Case::ConfigWindow => self.config_window(),
            Case::EventIndex => self.event_index(),
            Case::RingOverwrite => self.ring_overwrite(),
            Case::BadRequests => self.bad_requests(),
            Case::FormatProbe => self.format_probe(),
            Case::MemoryBlocks => self.memory_blocks(),
            Case::Random => self.at_random(),
        }
    }

    /// The rounds to be made.
    fn count(&self, default: u64) -> u64 {
        self.count.unwrap_or(default)
    }

    fn queue(&mut self) -> Result<&mut Queue, Problem> {
        self.queues
            .get_mut(usize::from(self.active))
            .and_then(Option::as_mut)
            .ok_or("device lacks a queue")
    }

    /// Begins a round: the device reset, all it offers agreed on, its queues set up, running.
    fn start(&mut self) -> Result<(), Problem> {
        self.start_with(u64::MAX, Wait::Poll)
    }

    fn start_with(&mut self, wanted: u64, wait: Wait) -> Result<(), Problem> {
        self.rounds += 1;
        self.agreed = self.device.begin(wanted | self.needed())?;
        self.set_up(wait)?;
        self.device.run()
    }

    fn set_up(&mut self, wait: Wait) -> Result<(), Problem> {
        self.device.prepare_interrupts(wait)?;
        let count = self.device.queues();
        for (index, place) in (0..count).zip(&mut self.queues) {
            let queue = self
                .device
                .set_up(index, index, ENTRIES, self.agreed, wait)?;
            *place = Some(queue);
        }
        Ok(())
    }

    /// Ends a round: whether the device has answered, and whether it asks to be reset.
    fn look(&mut self) {
        self.look_for(PATIENCE);
    }

    fn look_for(&mut self, microseconds: u64) {
        let begin = time::cycles();
        let whole = self.clock.cycles(microseconds);
        // A status costs as much as a thousand looks at memory.
        let step = whole / 8;
        let mut next = step;
        loop {
            let taken = self.take();
            let passed = time::cycles().wrapping_sub(begin);
            if passed > next || taken > 0 {
                if self.device.status() & NEEDS_RESET != 0 {
                    self.resets += 1;
                    return;
                }
                next = passed + step;
            }
            if taken > 0 || passed > whole {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Takes what the device gave back on the active queue; how much it was. A ring that was written
    /// over may be one in which there is always more.
    fn take(&mut self) -> u64 {
        const MOST: usize = 1024;
        let Ok(queue) = self.queue() else {
            return 0;
        };
        let taken = core::iter::from_fn(|| queue.take()).take(MOST).count() as u64;
        self.answers += taken;
        taken
    }

    /// Whether the device still runs: status as it was, and its function there.
    fn runs(&self) -> bool {
        let status = self.device.status();
        status & DRIVER_OK != 0 && status & NEEDS_RESET == 0
    }

    /// Whether its function answers at all.
    fn is_gone(&self) -> bool {
        self.device.function.read_u16(super::pci::IDENTITY) == 0xffff
    }

    /// After the case: the device must reset and serve a good request.
    fn judge(&mut self) -> Result<&'static str, Problem> {
        if self.is_gone() {
            return Ok("is gone");
        }
        memory::fill(DATA, 64 << 10, 0);
        self.agreed = self.device.begin(RING_FEATURES | self.needed())?;
        self.set_up(Wait::Poll)?;
        self.device.run()?;
        self.serve_one()?;
        self.device.reset();
        Ok("works")
    }

    /// A sum over memory that no device is told of: what this kernel is made of, and what lies before
    /// the arena.
    fn guard(&self) -> u64 {
        const BEFORE: u64 = 64 << 10;
        let code = &raw const text_start as u64..&raw const rodata_end as u64;
        let before = memory::ARENA - BEFORE..memory::ARENA;
        code.step_by(8)
            .chain(before.step_by(8))
            .fold(0, |sum: u64, at| sum.rotate_left(1) ^ machine::read_u64(at))
    }

    fn say(&self, case: Case, outcome: Result<&'static str, Problem>) {
        let mut line = console::line();
        line.text("attack ")
            .text(name(case))
            .text(" ")
            .text(Kind::name_of(self.device.id))
            .text(" ")
            .decimal(self.device.function.slot.into())
            .text(": ")
            .decimal(self.rounds)
            .text(" rounds, ")
            .decimal(self.answers)
            .text(" answers, ")
            .decimal(self.resets)
            .text(" needs-reset, ");
        match outcome {
            Ok(state) => line.text(state).end(),
            Err(problem) => line.text("FAILED, ").text(problem).end(),
        }
    }
}

/// Whether it is about what is in a queue, and not about registers or time.
fn is_about_rings(case: Case) -> bool {
    matches!(
        case,
        Case::ResetInFlight
            | Case::SameHead
            | Case::DoubleFetch
            | Case::DescriptorLength
            | Case::DescriptorAddress
            | Case::DeviceWindows
            | Case::Loop
            | Case::Indirect
            | Case::ZeroLength
            | Case::Direction
            | Case::LongChain
            | Case::HeadRange
            | Case::AvailableJump
            | Case::Giant
            | Case::RingOverwrite
    )
}

fn name(case: Case) -> &'static str {
    cases::ALL
        .iter()
        .find(|(_, known)| *known == case)
        .map_or("", |(name, _)| name)
}
