//! A system call made in another process's name, with its filters suspended: shows what the walls
//! behind the filters hold. Needs root on the host (ptrace(2), `PTRACE_O_SUSPEND_SECCOMP`).
//!
//! The process is stopped, its next instruction becomes a `syscall` it has executed before, and
//! afterwards its registers are put back and it goes on.

use std::ffi::CStr;
use std::io::Error;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The kernel's answer: a value, or a negated error number.
pub type Answer = i64;

/// `PTRACE_O_SUSPEND_SECCOMP` (linux/ptrace.h).
const SUSPEND_SECCOMP: usize = 1 << 21;
/// How long a process may be at something.
const SOON: Duration = Duration::from_secs(10);
/// `syscall`, little-endian.
const SYSCALL: i64 = 0x050f;

/// A stopped thread whose filters are suspended; goes on when dropped.
#[derive(Debug)]
pub struct Stopped {
    thread: i32,
    saved: libc::user_regs_struct,
}

impl Stopped {
    /// Stops the main thread of `pid` once it is inside a system call that waits.
    pub fn stop(pid: u32) -> Result<Stopped> {
        let deadline = Instant::now() + SOON;
        loop {
            let stopped = Self::stop_now(pid)?;
            if stopped.is_in_a_call()? {
                return Ok(stopped);
            }
            ensure!(
                Instant::now() < deadline,
                "the worker waits in no system call"
            );
            drop(stopped);
            // It has something to do just now, as one that has only been started has.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop_now(pid: u32) -> Result<Stopped> {
        let thread = i32::try_from(pid)?;
        ptrace(libc::PTRACE_SEIZE, thread, 0, SUSPEND_SECCOMP)
            .context("cannot trace the worker with its filters suspended")?;
        ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0)?;
        wait_for_stop(thread)?;
        let saved = registers(thread)?;
        Ok(Stopped { thread, saved })
    }

    fn is_in_a_call(&self) -> Result<bool> {
        let word = ptrace(libc::PTRACE_PEEKTEXT, self.thread, self.saved.rip - 2, 0)?;
        Ok(word & 0xffff == SYSCALL)
    }

    /// Makes a call whose second argument is `text`, if there is one.
    pub fn call(
        &mut self,
        number: i64,
        mut arguments: [u64; 3],
        text: Option<&CStr>,
    ) -> Result<Answer> {
        let instruction = self.saved.rip - 2;
        if let Some(text) = text {
            // Below the red zone (System V ABI, x86-64, 3.2.2).
            let place = (self.saved.rsp - 512) & !7;
            for (index, chunk) in (0_u64..).zip(text.to_bytes_with_nul().chunks(8)) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                let value = usize::from_le_bytes(bytes);
                ptrace(libc::PTRACE_POKEDATA, self.thread, place + 8 * index, value)?;
            }
            arguments[1] = place;
        }
        let mut regs = self.saved;
        regs.rip = instruction;
        regs.rax = u64::from_ne_bytes(number.to_ne_bytes());
        // No restart of the call it waited in.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx] = arguments;
        set_registers(self.thread, &regs)?;
        ptrace(libc::PTRACE_SINGLESTEP, self.thread, 0, 0)?;
        wait_for_stop(self.thread)?;
        Ok(i64::from_ne_bytes(
            registers(self.thread)?.rax.to_ne_bytes(),
        ))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Where this fails the process is gone.
        let _ = set_registers(self.thread, &self.saved);
        let _ = ptrace(libc::PTRACE_DETACH, self.thread, 0, 0);
    }
}

#[expect(unsafe_code, reason = "rustix has no ptrace")]
fn ptrace(request: libc::c_uint, thread: i32, address: u64, data: usize) -> Result<i64> {
    // SAFETY: of the requests made here the kernel takes addresses in the other process only, or
    // none; reading a word writes to glibc's own variable, whose value is returned.
    let value = unsafe { libc::ptrace(request, thread, address, data) };
    if value == -1 && request != libc::PTRACE_PEEKTEXT {
        bail!("ptrace request {request:#x}: {}", Error::last_os_error());
    }
    Ok(value)
}

#[expect(unsafe_code, reason = "rustix has no ptrace")]
fn registers(thread: i32) -> Result<libc::user_regs_struct> {
    let mut regs = MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the kernel writes one user_regs_struct there.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, 0, regs.as_mut_ptr()) };
    ensure!(
        result == 0,
        "cannot read registers: {}",
        Error::last_os_error()
    );
    // SAFETY: plain numbers, zeroed and then written.
    Ok(unsafe { regs.assume_init() })
}

#[expect(unsafe_code, reason = "rustix has no ptrace")]
fn set_registers(thread: i32, regs: &libc::user_regs_struct) -> Result<()> {
    // SAFETY: the kernel reads one user_regs_struct from the reference.
    let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, 0, std::ptr::from_ref(regs)) };
    ensure!(
        result == 0,
        "cannot set registers: {}",
        Error::last_os_error()
    );
    Ok(())
}

#[expect(unsafe_code, reason = "waits for a tracee, which rustix cannot")]
fn wait_for_stop(thread: i32) -> Result<()> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    ensure!(
        waited == thread,
        "waiting for the worker: {}",
        Error::last_os_error()
    );
    ensure!(
        libc::WIFSTOPPED(status),
        "the worker ended: status {status:#x}"
    );
    Ok(())
}
