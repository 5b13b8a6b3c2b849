//! The shape of a filter table: what a role may call, under which conditions, and why.
//!
//! Plain constant data. `build.rs` compiles it into BPF, so that a worker carries ready programs and
//! spends no time or memory on them; the library keeps the tables so that tests and documents can
//! list them. A call that no rule names traps.

/// What happens to a call whose conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The kernel carries the call out.
    Allow,
    /// The call returns this error number and does nothing.
    Errno(u16),
    /// The call raises SIGSYS, as one that no rule names does.
    Trap,
}

/// One condition on an argument. Only the low 32 bits are looked at: every argument filtered here
/// is an `int` or `unsigned int` to the kernel, or flags that live in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The argument is one of these values.
    OneOf {
        /// Position of the argument, 0 to 5.
        arg: u8,
        /// The values, in any order, none twice.
        values: &'static [u32],
    },
    /// `argument & mask == value`.
    Masked {
        /// Position of the argument, 0 to 5.
        arg: u8,
        /// The bits that are compared.
        mask: u32,
        /// What they must be.
        value: u32,
    },
}

/// One system call of a role. All checks must hold, or the call traps.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number on x86_64.
    pub nr: u32,
    /// Conditions on its arguments, all of which must hold.
    pub checks: &'static [Check],
    /// What happens then.
    pub action: Action,
    /// Why the role needs the call. Read by documents, and by whoever opens the table.
    pub reason: &'static str,
}

/// A call allowed with any arguments.
pub const fn allow(nr: i64, reason: &'static str) -> Rule {
    allow_if(nr, &[], reason)
}

/// A call allowed when every check holds.
pub const fn allow_if(nr: i64, checks: &'static [Check], reason: &'static str) -> Rule {
    Rule {
        nr: number(nr),
        checks,
        action: Action::Allow,
        reason,
    }
}

/// A call answered with an error number.
pub const fn fail_with(nr: i64, errno: u16, reason: &'static str) -> Rule {
    Rule {
        nr: number(nr),
        checks: &[],
        action: Action::Errno(errno),
        reason,
    }
}

/// A call denied by a filter that allows what it does not name.
pub const fn deny(nr: i64, reason: &'static str) -> Rule {
    Rule {
        nr: number(nr),
        checks: &[],
        action: Action::Trap,
        reason,
    }
}

/// `libc` types call numbers as `c_long`; the kernel hands filters an `int`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "evaluated at compile time over libc's constants, and bounded by the assertion"
)]
const fn number(nr: i64) -> u32 {
    assert!(
        nr >= 0 && nr < 0x4000_0000,
        "not an x86_64 system call number"
    );
    nr as u32
}

/// The argument at `arg` is one of `values`.
pub const fn one_of(arg: u8, values: &'static [u32]) -> Check {
    Check::OneOf { arg, values }
}

/// None of `bits` is set in the argument at `arg`.
pub const fn clear(arg: u8, bits: u32) -> Check {
    Check::Masked {
        arg,
        mask: bits,
        value: 0,
    }
}

/// All of `bits` are set in the argument at `arg`.
pub const fn set(arg: u8, bits: u32) -> Check {
    Check::Masked {
        arg,
        mask: bits,
        value: bits,
    }
}
