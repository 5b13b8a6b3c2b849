//! Command lines that choose what the guest does, for tests and benchmarks.
//!
//! A mode is one word, `mode=NAME`; some take numbers as further words, in any order, which the
//! functions here add. [`BENCH`], [`BENCH_ANYWHERE`] and [`HOLD`] must begin the command line to
//! take their shortest way; elsewhere they work, but slower.

/// Prints the report and powers off. Also what an empty command line does.
pub const REPORT: &str = "mode=report";
/// Prints `R\n` and powers off at once: the guest of the start benchmarks. One vCPU is used.
pub const BENCH: &str = "mode=bench";
/// The same on other monitors: powers off or resets by whatever ends Cloud Hypervisor,
/// Firecracker or QEMU (with `-no-reboot`), at last by a triple fault.
pub const BENCH_ANYWHERE: &str = "mode=bench-anywhere";
/// Prints `R\n` and sleeps for good: the guest of the memory measurements. Touches few pages.
pub const HOLD: &str = "mode=hold";
/// Gives back what is typed on COM1; `q` or the power button powers off.
pub const ECHO: &str = "mode=echo";
/// Prints `tick N: D us` every 100 ms until the power button, D by the time-stamp counter.
pub const CLOCK: &str = "mode=clock";
/// Loops in ring 0 with interrupts off.
pub const SPIN: &str = "mode=spin";
/// Loops in ring 3 with interrupts off: at native speed on every KVM.
pub const SPIN_USER: &str = "mode=spin-user";
/// Shuts the processor down by a triple fault.
pub const TRIPLE_FAULT: &str = "mode=triple-fault";
/// Prints without end.
pub const FLOOD: &str = "mode=flood";
/// Resets by the FADT's reset register.
pub const RESET: &str = "mode=reset";
/// Resets by the keyboard controller.
pub const RESET_I8042: &str = "mode=reset-i8042";
/// Prints `first boot` and resets; prints `second boot` and powers off after that. The mark is
/// byte 0x40 of CMOS memory.
pub const RESET_ONCE: &str = "mode=reset-once";
/// Accesses of every size where no device is, memory and then all ports; prints `survived` for
/// each, and powers off. `ports=N` ends the sweep below port N.
pub const BAD_MMIO: &str = "mode=bad-mmio";
/// Runs ring 0 into a hole in memory, which KVM cannot emulate: an internal-error exit.
pub const EMULATION_FAILURE: &str = "mode=emulation-failure";

/// `count` random accesses to ports and interrupt controllers, from a seed that repeats them;
/// then prints `survived` and powers off.
pub fn fuzz_ports(seed: u64, count: u64) -> String {
    format!("mode=fuzz-ports seed={seed} count={count}")
}

/// Keeps every vCPU busy in ring 3 for so many milliseconds; prints how many were and powers off.
pub fn cpu_loop(milliseconds: u64) -> String {
    format!("mode=cpu-loop ms={milliseconds}")
}
