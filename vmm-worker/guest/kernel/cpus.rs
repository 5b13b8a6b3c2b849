//! Application processors: bringing them up, and keeping all of them busy.
//!
//! Each gets a block of one page, prepared here and found by the number it draws in `ap.s`:
//!
//! ```text
//! 0x000  GDT register image          0x0d0  return frame popped by iretq
//! 0x010  its GDT (a busy TSS         0x400  top of its ring-0 stack
//!        descriptor is per processor)
//! 0x060  its TSS, no I/O bitmap      0x1000 top of its ring-3 stack
//! ```

#[cfg(drivers)]
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::boot::Boot;
use crate::{acpi, apic, console, machine, ring0, steady, time};

/// The blocks; `ap.s` has the same number.
const BLOCKS: u64 = 2 << 20;
const BLOCK_SIZE: u64 = 4096;
/// One more than KVM allows in a machine at the time of writing; bounds the blocks to 16 MiB.
const MAX_PROCESSORS: u32 = 4096;
/// Page number, below 1 MiB, where the real-mode part is copied to. The loader's start info,
/// command line and tables lie elsewhere.
const TRAMPOLINE_PAGE: u8 = 0x09;

const GDT_WORDS: usize = 8;
const TSS_SELECTOR: u64 = 0x30;
const CODE64_R3: u64 = 0x28 + 3;
const DATA_R3: u64 = 0x20 + 3;

static ONLINE: AtomicU32 = AtomicU32::new(0);
static FINISHED: AtomicU32 = AtomicU32::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// Time-stamp counter at which the processors stop being busy. Zero: at once.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// What the processors do instead of counting rounds.
#[cfg(drivers)]
static JOB: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// Whether they are busy for good, as `steady.rs` has it.
static FOR_GOOD: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static gdt: [AtomicU64; GDT_WORDS];
    static ap_next: AtomicU32;
    static ap_blocks_ready: AtomicU32;
    static ap_start: u8;
    static ap_end: u8;
}

/// Starts every processor of the MADT and returns how many are up, this one included.
pub fn start_others(boot: &Boot, tables: &acpi::Tables) -> u32 {
    let others = tables.processors.saturating_sub(1).min(MAX_PROCESSORS);
    if others == 0 || !prepare(boot, others) {
        return 1;
    }
    apic::start_others(TRAMPOLINE_PAGE);
    time::wait_until(|| ONLINE.load(Ordering::Acquire) >= others);
    1 + ONLINE.load(Ordering::Acquire)
}

/// Writes the blocks and the trampoline; false if there is no memory for them.
fn prepare(boot: &Boot, others: u32) -> bool {
    let end = BLOCKS + u64::from(others) * BLOCK_SIZE;
    let fits = |ram: crate::boot::Ram| {
        ram.address <= BLOCKS && ram.address.saturating_add(ram.size) >= end
    };
    if !boot.ram().any(fits) {
        return false;
    }
    for number in 0..u64::from(others) {
        let address = BLOCKS + number * BLOCK_SIZE;
        machine::map(address, BLOCK_SIZE);
        // SAFETY: RAM by the memory map, mapped just now, above everything the loader placed
        // low; the number is drawn once, so nobody else has this block.
        unsafe { prepare_block(address) };
    }
    let code = &raw const ap_start;
    let code_end = &raw const ap_end;
    let trampoline = (u64::from(TRAMPOLINE_PAGE) << 12) as *mut u8;
    // SAFETY: the symbols bound the real-mode code in the image (ap.s), a few dozen bytes; the
    // page is low memory that holds nothing else.
    unsafe { code.copy_to_nonoverlapping(trampoline, code_end as usize - code as usize) };
    // SAFETY: defined in ap.s, four aligned bytes each that live as long as the image.
    let next = unsafe { &ap_next };
    // SAFETY: as above.
    let ready = unsafe { &ap_blocks_ready };
    next.store(0, Ordering::Relaxed);
    ready.store(others, Ordering::Release);
    true
}

/// # Safety
///
/// `address` is a free, mapped page below 4 GiB.
unsafe fn prepare_block(address: u64) {
    let put = |offset: u64, value: u64| {
        // SAFETY: within the page; every offset used is a multiple of two, so unaligned.
        unsafe { ((address + offset) as *mut u64).write_unaligned(value) };
    };
    put(0x0, GDT_WORDS as u64 * 8 - 1);
    put(0x2, address + 0x10);
    // SAFETY: defined in entry.s, lives as long as the image.
    let template = unsafe { &gdt };
    for (place, descriptor) in (0..).zip(template) {
        put(0x10 + 8 * place, descriptor.load(Ordering::Relaxed));
    }
    // Available 64-bit TSS of 0x68 bytes (SDM vol 3, 7.2.3).
    let tss = address + 0x60;
    let low = 0x67 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
    put(0x10 + TSS_SELECTOR, low);
    put(0x10 + TSS_SELECTOR + 8, 0);
    for offset in (0x60..0xc8).step_by(8) {
        put(offset, 0);
    }
    put(0x64, address + 0x400);
    // Interrupts stay off; the stack is as after a call.
    let entry: extern "C" fn() -> ! = ring3_ap;
    let frame = [
        entry as usize as u64,
        CODE64_R3,
        0x002,
        address + BLOCK_SIZE - 8,
        DATA_R3,
    ];
    for (place, word) in (0..).zip(frame) {
        put(0xd0 + 8 * place, word);
    }
}

/// Where an application processor begins in ring 3: reports, works as long as asked, parks.
extern "C" fn ring3_ap() -> ! {
    let number = ONLINE.fetch_add(1, Ordering::AcqRel);
    #[cfg(drivers)]
    run_job();
    if FOR_GOOD.load(Ordering::Acquire) {
        steady::work(number);
    }
    work();
    ring0::park()
}

fn work() {
    let deadline = DEADLINE.load(Ordering::Acquire);
    let mut rounds = 0;
    while time::cycles() < deadline {
        rounds += 1;
    }
    ROUNDS.fetch_add(rounds, Ordering::AcqRel);
    FINISHED.fetch_add(1, Ordering::AcqRel);
}

/// Starts every other processor, to be busy for good; how many are.
pub fn start_steady(boot: &Boot, tables: &acpi::Tables) -> u32 {
    FOR_GOOD.store(true, Ordering::Release);
    start_others(boot, tables) - 1
}

/// Keeps every processor busy for `milliseconds` and says how much they did.
pub fn busy(boot: &Boot, milliseconds: u64) {
    let Some(tables) = acpi::read(boot) else {
        return;
    };
    let Some(tsc_khz) = time::measure_tsc_khz() else {
        return;
    };
    apic::enable();
    let length = tsc_khz.saturating_mul(milliseconds);
    DEADLINE.store(time::cycles().saturating_add(length), Ordering::Release);
    let up = start_others(boot, &tables);
    work();
    time::wait_until(|| FINISHED.load(Ordering::Acquire) >= up);
    console::line()
        .text("cpu-loop: ")
        .decimal(u64::from(FINISHED.load(Ordering::Acquire)))
        .text(" cpus, ")
        .decimal(milliseconds)
        .text(" ms, ")
        .decimal(ROUNDS.load(Ordering::Acquire))
        .text(" rounds")
        .end();
}

/// Has every other processor run `job` as soon as it is up; to be called before they are started.
/// A job has three kilobytes of stack, may access memory that is mapped already, and no ports.
#[cfg(drivers)]
pub fn set_job(job: fn()) {
    JOB.store(job as *mut (), Ordering::Release);
}

#[cfg(drivers)]
fn run_job() {
    let job = JOB.load(Ordering::Acquire);
    if !job.is_null() {
        // SAFETY: only `set_job` stores what is not null, and that is a function of this type.
        let job = unsafe { core::mem::transmute::<*mut (), fn()>(job) };
        job();
    }
}
