//! Command lines that choose what the guest does, for tests and benchmarks.
//!
//! A mode is one word, `mode=NAME`; some take numbers as further words, in any order, which the
//! functions here add. [`BENCH`], [`BENCH_ANYWHERE`] and [`HOLD`] must begin the command line to
//! take their shortest way; elsewhere they work, but slower.
//!
//! The modes from [`VIRTIO_REPORT`] on drive devices and are known to [`DRIVERS_IMAGE`] only; they need
//! 32 MiB of memory at least. They find the devices by themselves: on bus 0, the first virtio device of
//! a kind (virtio over PCI, the modern interface). They end with the line `power off`, or with one that
//! begins with `error:`; what is wrong with the machine has `FAILED` in its line. For QEMU, add
//! `disable-legacy=on` to devices.
//!
//! [`DRIVERS_IMAGE`]: crate::DRIVERS_IMAGE

#[path = "../kernel/drive/cases.rs"]
pub(crate) mod cases;

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
/// Keeps every vCPU busy until the power button, each with a live vector register and an eye on the
/// others' time-stamp counter, and prints `steady N: T cycles, pm P us, C busy, R rounds` every 50 ms:
/// the time since the last line by the time-stamp counter and by the PM timer, how many vCPUs did
/// something meanwhile, and how much all have done so far. A line that begins with `steady: FAILED`
/// names a register that changed by itself or a counter that went back.
pub const STEADY: &str = "mode=steady";
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

/// Lists PCI functions and virtio devices: `virtio SLOT: NAME, id N, bar A, vectors N, features F`,
/// `queues SLOT: SIZE ...`.
pub const VIRTIO_REPORT: &str = "mode=virtio-report";

/// Whether the mode of that name needs [`DRIVERS_IMAGE`](crate::DRIVERS_IMAGE).
#[must_use]
pub fn needs_drivers(name: &str) -> bool {
    [
        "virtio-report",
        "block-verify",
        "block-bench",
        "block-watch",
        "net-bench",
        "net-echo",
        "rng-read",
        "attack",
        "panic",
        "crash-kernel",
        "watchdog",
        "watchdog-attack",
        "generation",
        "measure",
        "vsock-dial",
        "memory-watch",
    ]
    .contains(&name)
}

/// How a guest learns that a request was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It looks all the time.
    Poll,
    /// It sleeps until a message of MSI-X.
    Interrupt,
}

impl Wait {
    const fn word(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Interrupt => "interrupt",
        }
    }
}

/// `count` random reads, writes, flushes, discards and writes of zeroes of the first disk, eight at a
/// time, and all that was written read again at the end. Prints `block: N requests verified, N sectors
/// compared`. Destroys what is on the disk.
pub fn block_verify(seed: u64, count: u64, wait: Wait) -> String {
    let wait = wait.word();
    format!("mode=block-verify seed={seed} count={count} wait={wait}")
}

/// What [`block_bench`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockBench {
    /// Requests in flight.
    pub depth: u16,
    /// Bytes of each: a multiple of 512; ten MiB at most in all.
    pub size: u32,
    /// Writes (and destroys what is on the disk) and does not read.
    pub write: bool,
    /// One place after the other, not random ones.
    pub sequential: bool,
    /// How long, in milliseconds.
    pub milliseconds: u64,
    /// How completion is waited for.
    pub wait: Wait,
}

/// Keeps the first disk busy. Prints `requests`, `errors`, `elapsed` (microseconds), `iops`, and the
/// mean `latency` and the `longest` in nanoseconds.
pub fn block_bench(bench: BlockBench) -> String {
    format!(
        "mode=block-bench depth={} size={} write={} sequential={} ms={} wait={}",
        bench.depth,
        bench.size,
        u8::from(bench.write),
        u8::from(bench.sequential),
        bench.milliseconds,
        bench.wait.word()
    )
}

/// Says how large the first disk is, at first and at each change for so many milliseconds: `capacity: N` in
/// sectors, then of the first sector of each of `count` places, `stride` bytes apart, `sector N: status S, byte
/// B`, and `looked` at the end.
pub fn block_watch(count: u64, stride: u64, milliseconds: u64) -> String {
    format!("mode=block-watch count={count} size={stride} ms={milliseconds}")
}

/// Plugs and unplugs memory as the memory device asks it to, for so many milliseconds, with a mark in each
/// block that is looked at all the time. Prints `block: N`, `region: N` and `plugged at first: N` in bytes,
/// then `plugged: N` at each change.
pub fn memory_watch(milliseconds: u64) -> String {
    format!("mode=memory-watch ms={milliseconds}")
}

/// Sends frames of `size` bytes by the first network device, as many as it takes, `depth` in flight,
/// with EtherType 0x88b5 to 02:00:00:00:00:01. Prints `packets`, `bytes`, `elapsed` (microseconds) and
/// `rate` (packets a second).
pub fn net_transmit(size: u32, depth: u16, milliseconds: u64, wait: Wait) -> String {
    let wait = wait.word();
    format!("mode=net-bench direction=tx size={size} depth={depth} ms={milliseconds} wait={wait}")
}

/// Counts frames, with room for `depth` of them, until there were `count` or the time is over. Prints
/// `net-bench: ready` before, and then as [`net_transmit`], where `elapsed` is from the first frame to
/// the last.
pub fn net_receive(count: u64, depth: u16, milliseconds: u64, wait: Wait) -> String {
    let wait = wait.word();
    format!("mode=net-bench direction=rx count={count} depth={depth} ms={milliseconds} wait={wait}")
}

/// As [`block_bench`], for a benchmark of the machine's: runs for a fifth of a second, prints
/// `measure: ready`, sleeps for a tenth, and then runs for as long as was said. Prints one line,
/// `measure: operations N, errors N, ns N, min N, p50 N, p99 N`: the time of all by the time-stamp counter,
/// and of the quickest, the middle and the slowest hundredth (3 % too much at most), in nanoseconds. Sleeps
/// for a second, in which the processor time of the process that runs it can be read, and ends.
pub fn measure_block(bench: BlockBench) -> String {
    let line = block_bench(bench);
    line.replace("mode=block-bench", "mode=measure device=block")
}

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the guest. The time of a frame is that until its buffer comes back.
    Transmit,
    /// To the guest. The time of a frame is that from the one before.
    Receive,
    /// From the guest to somebody who sends it back. The time of a frame is that of both ways.
    RoundTrip,
}

/// What [`measure_net`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetMeasure {
    /// Which way frames go.
    pub way: Way,
    /// Frames in flight, or buffers to receive into.
    pub depth: u16,
    /// Bytes of a frame.
    pub size: u32,
    /// How long, in milliseconds.
    pub milliseconds: u64,
    /// How completion is waited for.
    pub wait: Wait,
}

/// As [`measure_block`], for the first network device; frames are those of [`net_transmit`].
pub fn measure_net(measure: NetMeasure) -> String {
    let direction = match measure.way {
        Way::Transmit => "tx",
        Way::Receive => "rx",
        Way::RoundTrip => "rtt",
    };
    format!(
        "mode=measure device=net direction={direction} depth={} size={} ms={} wait={}",
        measure.depth,
        measure.size,
        measure.milliseconds,
        measure.wait.word()
    )
}

/// Sends each frame back with its addresses swapped, until the time is over. Prints `net-echo: ready`
/// before, and the number of `packets` after.
pub fn net_echo(depth: u16, milliseconds: u64, wait: Wait) -> String {
    let wait = wait.word();
    format!("mode=net-echo depth={depth} ms={milliseconds} wait={wait}")
}

/// Reads so many bytes of the first entropy device; prints `bytes`, `requests`, and how many of the
/// bits were `ones`.
pub fn rng_read(bytes: u64, wait: Wait) -> String {
    let wait = wait.word();
    format!("mode=rng-read count={bytes} wait={wait}")
}

/// Says `count` times by the panic port that the kernel panicked; prints what the port understands before,
/// as `panic-port: N`, and an error where it runs on.
pub fn panic(count: u64) -> String {
    format!("mode=panic count={count}")
}

/// Says `count` times by the panic port that the crash kernel starts.
pub fn crash_kernel(count: u64) -> String {
    format!("mode=crash-kernel count={count}")
}

/// Enables the watchdog, to expire after so many milliseconds, reloads it `reloads` times after half of
/// them, and then no more. Prints `watchdog: armed`, `watchdog: left alone`, and what comes of it:
/// `watchdog: has expired`, `watchdog: NMI`, `watchdog: power button`; after a reset only
/// `watchdog: has expired before`. A `q` on COM1 powers off.
pub fn watchdog(milliseconds: u64, reloads: u64) -> String {
    format!("mode=watchdog ms={milliseconds} count={reloads}")
}

/// `count` random accesses to the watchdog, from a seed that repeats them; prints
/// `watchdog-attack: survived`.
pub fn watchdog_attack(seed: u64, count: u64) -> String {
    format!("mode=watchdog-attack seed={seed} count={count}")
}

/// Prints the generation id as `generation at the start: LOW HIGH`, two numbers, and after
/// `generation is another` when it is told of another; a `q` on COM1 powers off, any other byte has it
/// printed after `generation now`.
pub const GENERATION: &str = "mode=generation";

/// Connects to `port` of the host by the first socket device whenever a `c` is typed: sends `bytes`, at most 256 KiB, of which the
/// byte at place N is N * 167 / 8 modulo 256, shuts that direction down and reads what comes back. Prints
/// `vsock: ready` before, and for each `vsock: refused`, or `vsock: connected`, `vsock: bytes: N` and
/// `vsock: sum: S` of what came, each byte added to 31 times the sum so far, modulo 2^64. An `f` has it open and
/// reset 1,000 connections before one that it waits for, and print `vsock: flooded`. `vsock: transport reset`
/// when it is told so; a `q` ends.
pub fn vsock_dial(port: u32, bytes: u64) -> String {
    format!("mode=vsock-dial count={port} size={bytes}")
}

/// The names of all attacks, for [`attack`]; `kernel/drive/cases.rs` says what each does.
pub const ATTACKS: [&str; cases::COUNT] = {
    let mut names = [""; cases::COUNT];
    let mut index = 0;
    while index < names.len() {
        names[index] = cases::ALL[index].0;
        index += 1;
    }
    names
};

/// One of [`ATTACKS`], on every device of a kind (`rng`, `block`, `net`, `console`, `balloon`, `vsock`,
/// `mem`, `fs`), or on each device there is (`any`), one after the other. Prints what each said, and
/// `attack NAME: survived` if all of them can be used afterwards. `rounds` changes how often what can be
/// repeated is; `seed` what is random. A second vCPU makes `double-fetch` sharper. What is on the disks
/// is destroyed. `console` has to have a port 0 for its data queue to be served; `block` must not be
/// read-only for what writes.
pub fn attack(name: &str, device: &str, seed: u64, rounds: Option<u64>) -> String {
    let rounds = rounds.map_or_else(String::new, |rounds| format!(" count={rounds}"));
    format!("mode=attack case={name} device={device} seed={seed}{rounds}")
}
