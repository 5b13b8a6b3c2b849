//! The door to ring 0: the assembly, and a safe function for each service it offers.
//!
//! A service is entered by `ring0_call` (`gates.s`), which any processor that has a TSS may use.
//! The counters are written by interrupt stubs on the boot processor and only read here.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

#[cfg(drivers)]
global_asm!(".set DRIVERS, 1");
global_asm!(include_str!("entry.s"), options(raw));
global_asm!(include_str!("gates.s"), options(raw));
global_asm!(include_str!("ap.s"), options(raw));

type Service = unsafe extern "C" fn();

unsafe extern "C" {
    fn ring0_call(service: Service, a: u64, b: u64) -> u64;
    fn r0_write();
    fn r0_wait();
    fn r0_park();
    fn r0_spin();
    fn r0_mask_interrupts();
    fn r0_triple_fault();
    fn r0_jump();
    fn r0_sweep_ports();

    static timer_interrupts: AtomicU32;
    static serial_interrupts: AtomicU32;
    static sci_interrupts: AtomicU32;
    #[cfg(drivers)]
    static device_interrupts: AtomicU32;
    #[cfg(drivers)]
    static nmi_interrupts: AtomicU32;
    static power_events: AtomicU16;
    static fault_record: [AtomicU64; 4];
    static entry_tsc: AtomicU64;
}

/// What the exception stub recorded.
pub struct Fault {
    /// Exception vector.
    pub vector: u64,
    /// Error code, or zero where the exception has none.
    pub error_code: u64,
    /// Address of the instruction.
    pub rip: u64,
    /// CR2 as it was; meaningful for page faults only.
    pub cr2: u64,
}

/// Interrupt sources that have a counter.
#[derive(Clone, Copy)]
pub enum Interrupt {
    /// Local APIC timer.
    Timer,
    /// COM1.
    Serial,
    /// ACPI system control interrupt.
    SystemControl,
    /// Messages of PCI functions.
    #[cfg(drivers)]
    Device,
    /// Interrupts that cannot be masked.
    #[cfg(drivers)]
    Nmi,
}

impl Interrupt {
    /// The vector whose stub counts this source.
    pub const fn vector(self) -> u8 {
        match self {
            Self::Timer => 0x20,
            Self::SystemControl => 0x21,
            Self::Serial => 0x22,
            #[cfg(drivers)]
            Self::Device => 0x24,
            #[cfg(drivers)]
            Self::Nmi => 2,
        }
    }

    fn counter(self) -> &'static AtomicU32 {
        match self {
            // SAFETY: defined in gates.s, four aligned bytes that live as long as the image.
            Self::Timer => unsafe { &timer_interrupts },
            // SAFETY: as above.
            Self::Serial => unsafe { &serial_interrupts },
            // SAFETY: as above.
            Self::SystemControl => unsafe { &sci_interrupts },
            #[cfg(drivers)]
            // SAFETY: as above.
            Self::Device => unsafe { &device_interrupts },
            #[cfg(drivers)]
            // SAFETY: as above.
            Self::Nmi => unsafe { &nmi_interrupts },
        }
    }

    /// How often it has been taken so far (wrapping).
    pub fn count(self) -> u32 {
        self.counter().load(Ordering::Acquire)
    }

    /// Sleeps until some interrupt is taken, unless this one's count is no longer `seen`.
    pub fn wait(self, seen: u32) {
        let counter: *const AtomicU32 = self.counter();
        // SAFETY: r0_wait reads the counter it is given and halts; it writes no memory.
        unsafe { ring0_call(r0_wait, counter as u64, u64::from(seen)) };
    }
}

/// Writes `text` to COM1 from ring 0, where an exit is cheapest.
pub fn write_serial(text: &[u8]) {
    // SAFETY: r0_write reads exactly the bytes of the slice and touches no other memory.
    unsafe { ring0_call(r0_write, text.as_ptr() as u64, text.len() as u64) };
}

/// Sleeps for good; interrupts are taken but change nothing.
pub fn sleep_forever() -> ! {
    loop {
        let timer = Interrupt::Timer;
        timer.wait(timer.count());
    }
}

/// Stops this processor for good, interrupts off.
pub fn park() -> ! {
    // SAFETY: halts; touches no memory.
    unsafe { ring0_call(r0_park, 0, 0) };
    unreachable_after_ring0()
}

/// Loops in ring 0 with interrupts off.
pub fn spin() -> ! {
    // SAFETY: loops; touches no memory.
    unsafe { ring0_call(r0_spin, 0, 0) };
    unreachable_after_ring0()
}

/// Takes an exception without a descriptor table: the processor shuts down.
pub fn triple_fault() -> ! {
    // SAFETY: ends this machine's life; no Rust code runs afterwards.
    unsafe { ring0_call(r0_triple_fault, 0, 0) };
    unreachable_after_ring0()
}

/// Runs whatever is at `address`, in ring 0. For provoking faults: nothing is expected to be there.
pub fn jump(address: u64) -> ! {
    // SAFETY: not sound in general, and the point of it: the caller passes an address where no
    // memory is, so that no instruction can be fetched and no Rust state is changed.
    unsafe { ring0_call(r0_jump, address, 0) };
    unreachable_after_ring0()
}

/// Turns this processor's interrupts off from here on.
pub fn mask_interrupts() {
    // SAFETY: changes IF in the saved flags and nothing else.
    unsafe { ring0_call(r0_mask_interrupts, 0, 0) };
}

/// Reads and writes (zeroes) each port of `first..end` with one, two and four bytes.
pub fn sweep_ports(first: u16, end: u32) {
    // SAFETY: port accesses; none of this machine's devices writes memory because of one.
    unsafe { ring0_call(r0_sweep_ports, u64::from(first), u64::from(end)) };
}

/// ACPI PM1 status bits seen by the interrupt stub so far; reading clears them.
pub fn take_power_events() -> u16 {
    // SAFETY: defined in gates.s, two aligned bytes that live as long as the image.
    let events = unsafe { &power_events };
    events.swap(0, Ordering::AcqRel)
}

/// The time-stamp counter just after the first byte went out.
pub fn entry_time() -> u64 {
    // SAFETY: defined in entry.s, eight aligned bytes that live as long as the image.
    let time = unsafe { &entry_tsc };
    time.load(Ordering::Relaxed)
}

/// The exception that brought us to `ring3_fault`.
pub fn last_fault() -> Fault {
    // SAFETY: defined in gates.s, four aligned words that live as long as the image.
    let [vector, error_code, rip, cr2] = unsafe { &fault_record };
    Fault {
        vector: vector.load(Ordering::Relaxed),
        error_code: error_code.load(Ordering::Relaxed),
        rip: rip.load(Ordering::Relaxed),
        cr2: cr2.load(Ordering::Relaxed),
    }
}

/// For the services that never return; spins if one does, since there is nowhere to go.
fn unreachable_after_ring0() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
