//! The command line: `mode=NAME` and the numbers some modes take.
//!
//! Pure, and compiled into the host library's tests as well. Unknown words are skipped, since a
//! monitor may add its own; an unknown mode is an error. The last of equal words counts.

/// What the guest is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Report on the machine and power off.
    Report,
    /// One line, power off.
    Bench,
    /// One line, then end whichever monitor this is.
    BenchAnywhere,
    /// One line, sleep for good.
    Hold,
    /// Give back what is typed.
    Echo,
    /// A line every 100 ms.
    Clock,
    /// Keep every processor busy for a while.
    CpuLoop,
    /// Keep every processor busy for good, and watch the clocks.
    Steady,
    /// Loop in ring 0, interrupts off.
    Spin,
    /// Loop in ring 3, interrupts off.
    SpinUser,
    /// Shut the processor down.
    TripleFault,
    /// Print without end.
    Flood,
    /// Reset by port 0xcf9.
    Reset,
    /// Reset by the keyboard controller.
    ResetKeyboard,
    /// Reset once, power off after it.
    ResetOnce,
    /// Touch memory and ports where nothing is.
    BadMmio,
    /// Make KVM give up on an instruction.
    EmulationFailure,
    /// Random device accesses.
    FuzzPorts,
    /// A name that is none of the above.
    Unknown,
}

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub mode: Mode,
    /// `seed=`: start of the random sequence.
    pub seed: u64,
    /// `count=`: how many random accesses.
    pub count: u64,
    /// `ms=`: how long, in milliseconds.
    pub milliseconds: u64,
    /// `ports=`: how many ports, from 0, the sweep covers (at most 65536).
    pub ports: u32,
}

impl Options {
    /// Parses a command line without its terminating NUL.
    pub fn parse(line: &[u8]) -> Self {
        let mut options = Self {
            mode: Mode::Report,
            seed: 1,
            count: 10_000,
            milliseconds: 100,
            ports: 0x1_0000,
        };
        for word in line.split(|&byte| byte <= b' ') {
            if let Some(name) = word.strip_prefix(b"mode=") {
                options.mode = mode(name);
            } else if let Some(value) = word.strip_prefix(b"seed=") {
                options.seed = number(value);
            } else if let Some(value) = word.strip_prefix(b"count=") {
                options.count = number(value);
            } else if let Some(value) = word.strip_prefix(b"ms=") {
                options.milliseconds = number(value);
            } else if let Some(value) = word.strip_prefix(b"ports=") {
                options.ports = number(value).min(0x1_0000) as u32;
            }
        }
        options
    }
}

/// A table and not a `match`, which would compare in line and be a kilobyte longer.
const MODES: [(&[u8], Mode); 18] = [
    (b"report", Mode::Report),
    (b"bench", Mode::Bench),
    (b"bench-anywhere", Mode::BenchAnywhere),
    (b"hold", Mode::Hold),
    (b"echo", Mode::Echo),
    (b"clock", Mode::Clock),
    (b"cpu-loop", Mode::CpuLoop),
    (b"steady", Mode::Steady),
    (b"spin", Mode::Spin),
    (b"spin-user", Mode::SpinUser),
    (b"triple-fault", Mode::TripleFault),
    (b"flood", Mode::Flood),
    (b"reset", Mode::Reset),
    (b"reset-i8042", Mode::ResetKeyboard),
    (b"reset-once", Mode::ResetOnce),
    (b"bad-mmio", Mode::BadMmio),
    (b"emulation-failure", Mode::EmulationFailure),
    (b"fuzz-ports", Mode::FuzzPorts),
];

fn mode(name: &[u8]) -> Mode {
    MODES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(Mode::Unknown, |&(_, mode)| mode)
}

/// A decimal number; what is not a digit ends it, what does not fit becomes the largest number.
pub fn number(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |value: u64, byte| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
}
