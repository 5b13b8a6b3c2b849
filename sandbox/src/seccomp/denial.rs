//! Denied calls: the handler in the worker that reports them, and the decoder in the supervisor.
//!
//! A denied call raises SIGSYS in the thread that made it. The handler writes one [`RECORD_LEN`]-byte
//! record to the report descriptor, without allocating or waiting, and then makes a call that no
//! filter allows: SIGSYS is blocked in its own handler, so the kernel kills the process by SIGSYS, which
//! works for pid 1 of a namespace too (a raised signal would be ignored there). The supervisor
//! records that death whatever a compromised worker does with the report, and reads the report as
//! hostile bytes.

use std::cell::Cell;
use std::fmt;
use std::io::Error;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::Role;
use crate::sys;

/// Bytes of one record.
pub const RECORD_LEN: usize = 56;

const MAGIC: u32 = u32::from_le_bytes(*b"RvDn");
const ARCH_X86_64: u32 = 0xc000_003e;
/// `SYS_SECCOMP`: the signal comes from a filter, not from somebody's `kill`.
const CODE_SECCOMP: i32 = 1;
/// What a shell shows for a death by SIGSYS; only for a thread that has no filter.
const EXIT_SIGSYS: i32 = 128 + 31;

static REPORT_FD: AtomicI32 = AtomicI32::new(-1);

thread_local! {
    static ROLE: Cell<u8> = const { Cell::new(Role::Base as u8) };
}

/// The calling thread's role, for reports.
pub(super) fn set_role(role: Role) {
    ROLE.set(role as u8);
}

/// A denied system call, as a worker reported it. Nothing in it is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Number of the call.
    pub nr: i32,
    /// `AUDIT_ARCH_*` of the entry.
    pub arch: u32,
    /// Role of the thread.
    pub role: Role,
    /// The thread, numbered in the worker's own pid namespace.
    pub tid: u32,
    /// The first three arguments.
    pub args: [u64; 3],
    /// Where in the worker's code.
    pub instruction_pointer: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not exactly one record long.
    #[error("denial report has {0} bytes, expected {RECORD_LEN}")]
    Length(usize),
    /// Does not begin as a record does.
    #[error("denial report has no magic")]
    Magic,
    /// No such role, or padding that is not zero.
    #[error("denial report names no role")]
    Role,
}

impl Denial {
    fn encode(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&self.nr.to_le_bytes());
        put(&self.arch.to_le_bytes());
        put(&u32::from(self.role as u8).to_le_bytes());
        put(&self.tid.to_le_bytes());
        put(&[0; 4]);
        for arg in self.args {
            put(&arg.to_le_bytes());
        }
        put(&self.instruction_pointer.to_le_bytes());
        bytes
    }

    /// Reads one record from a worker.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are anything but one whole record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: &[u8; RECORD_LEN] = bytes
            .try_into()
            .map_err(|_| DecodeError::Length(bytes.len()))?;
        let mut fields = Fields(record);
        if fields.u32() != MAGIC {
            return Err(DecodeError::Magic);
        }
        let nr = i32::from_ne_bytes(fields.u32().to_ne_bytes());
        let arch = fields.u32();
        let role = u8::try_from(fields.u32()).ok().and_then(Role::from_number);
        let role = role.ok_or(DecodeError::Role)?;
        let tid = fields.u32();
        if fields.u32() != 0 {
            return Err(DecodeError::Role);
        }
        let args = [fields.u64(), fields.u64(), fields.u64()];
        Ok(Self {
            nr,
            arch,
            role,
            tid,
            args,
            instruction_pointer: fields.u64(),
        })
    }

    /// The kernel's name of the call, when it has one on x86_64.
    pub fn name(&self) -> Option<&'static str> {
        (self.arch == ARCH_X86_64)
            .then(|| syscall_name(self.nr))
            .flatten()
    }
}

/// `denied system call socket (41) in role vcpu`, with the arguments.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("unknown");
        write!(
            f,
            "denied system call {name} ({}) in role {}",
            self.nr, self.role
        )?;
        let [first, second, third] = self.args;
        write!(
            f,
            ", thread {}, arguments {first:#x} {second:#x} {third:#x}",
            self.tid
        )
    }
}

/// Takes little-endian fields off a record whose length is fixed.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; 4], &[]));
        self.0 = rest;
        u32::from_le_bytes(*field)
    }

    fn u64(&mut self) -> u64 {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        self.0 = rest;
        u64::from_le_bytes(*field)
    }
}

/// The kernel's name of an x86_64 system call.
pub fn syscall_name(nr: i32) -> Option<&'static str> {
    include_str!("syscalls.txt").lines().find_map(|line| {
        let (number, name) = line.split_once(' ')?;
        (number.parse() == Ok(nr)).then_some(name)
    })
}

/// Installs the SIGSYS handler. Reports go to `report`, which stays open, is made non-blocking, and
/// should be a socket or pipe that only the supervisor reads.
///
/// # Errors
///
/// The kernel's, from `fcntl` and `sigaction`.
pub(crate) fn install(report: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(report)?;
    rustix::fs::fcntl_setfl(report, flags | rustix::fs::OFlags::NONBLOCK)?;
    REPORT_FD.store(report.as_raw_fd(), Ordering::Relaxed);
    set_handler()
}

#[expect(
    unsafe_code,
    reason = "sigaction has no safe wrapper that gives the handler its context"
)]
fn set_handler() -> Result<(), Error> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let fields = action.as_mut_ptr();
    let handler: extern "C" fn(i32, *const SigsysInfo, *const libc::ucontext_t) = on_sigsys;
    // SAFETY: `fields` points to a whole sigaction, zeroed above.
    unsafe { (*fields).sa_sigaction = handler as usize };
    // SAFETY: as above. No SA_NODEFER: SIGSYS stays blocked in the handler, which is how it ends.
    unsafe { (*fields).sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK };
    // SAFETY: the action is initialised, its handler has the signature SA_SIGINFO asks for and only
    // makes system calls.
    let result = unsafe { libc::sigaction(libc::SIGSYS, fields, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

/// `siginfo_t` as the kernel fills it for SIGSYS; libc's type hides these fields.
#[repr(C)]
struct SigsysInfo {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    call_addr: u64,
    nr: i32,
    arch: u32,
}

#[expect(
    unsafe_code,
    reason = "reads what the kernel passes to a signal handler"
)]
extern "C" fn on_sigsys(_signo: i32, info: *const SigsysInfo, context: *const libc::ucontext_t) {
    // SAFETY: the kernel passes a siginfo, filled for SIGSYS, that lives until the handler returns.
    let info = unsafe { &*info };
    // SAFETY: SA_SIGINFO: the third argument is the interrupted thread's context.
    let context = unsafe { &*context };
    if info.code == CODE_SECCOMP {
        report(info, context);
    }
    die()
}

/// Async-signal-safe: the stack, constant-initialised thread-local memory and system calls only.
fn report(info: &SigsysInfo, context: &libc::ucontext_t) {
    let register = |index: i32| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        context
            .uc_mcontext
            .gregs
            .get(index)
            .map_or(0, |value| u64::from_ne_bytes(value.to_ne_bytes()))
    };
    let denial = Denial {
        nr: info.nr,
        arch: info.arch,
        role: Role::from_number(ROLE.get()).unwrap_or(Role::Base),
        tid: sys::gettid(),
        args: [
            register(libc::REG_RDI),
            register(libc::REG_RSI),
            register(libc::REG_RDX),
        ],
        instruction_pointer: info.call_addr,
    };
    // Full or closed: the death by SIGSYS tells the supervisor what matters.
    let _ = sys::write(REPORT_FD.load(Ordering::Relaxed), &denial.encode());
}

fn die() -> ! {
    sys::no_such_call();
    sys::exit_group(EXIT_SIGSYS)
}

#[cfg(test)]
mod tests;
