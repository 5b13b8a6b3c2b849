//! The worker: one sandboxed process that runs one domain on KVM.
//!
//! From the bottom up: [`memory`] maps the guest's RAM, [`kvm`] wraps every KVM ioctl, [`arch`]
//! holds what is particular to x86-64 (CPUID, registers, ACPI), [`boot`] loads a kernel; [`vcpu`]
//! and [`io`] are the threads that touch what the guest says; [`build`] makes a [`machine`] of all
//! that from a specification, or of what [`state`] kept of it, which [`hand_over`] moves to another worker; [`control`] and [`service`] do what the supervisor asks.
//!
//! ```text
//!  main = control thread      vcpu0 .. vcpuN            io
//!  ─────────────────────      ──────────────            ──
//!  requests, replies          KVM_RUN, register         console ring ↔ clients,
//!  life cycle, loading        accesses to devices       device timers
//!          │ orders, kicks ──────► │ ── console ring, wake ──► │
//!          │ ◄── the guest's end ──┘                           │
//!          └── clients to serve ───────────────────────────────┘
//! ```
//!
//! What may not live here: XML, host paths, policy. The worker opens nothing: it is handed every
//! descriptor it ever uses.
//!
//! ## Decisions
//! 1. (2026-11) No thread that only spawns threads yet: every thread of a machine exists before the
//!    control thread closes its own filter. It comes with the hotplug of vCPUs and I/O threads.
//! 2. (2026-11) Time goes on while a guest is paused: its clocks are right when it is resumed, and
//!    kvmclock tells it of the pause, so that its watchdogs keep still. So it is between a save and a
//!    restore: every counter moves on by the same time, or a kernel that checks one by another drops it.
//! 3. (2026-11) A restored machine stands and asks for nothing of the host, and a saved one can go on:
//!    whoever moves a guest decides which of the two does, and only one ever has.

// So that a harness of the tests beside this crate serves those inside it as well.
#[cfg(test)]
extern crate self as reeve_worker;

pub mod adoption;
pub mod arch;
#[cfg(feature = "attack-points")]
mod attack;
pub mod boot;
pub mod build;
pub mod control;
pub mod device_set;
pub mod display;
pub mod events;
mod failure;
pub mod firmware;
pub mod hand_over;
mod image_reader;
mod images;
pub mod io;
pub mod kvm;
pub mod log;
pub mod machine;
pub mod memory;
pub mod news;
pub mod notices;
pub mod plugging;
pub mod processors;
pub mod service;
pub mod spawner;
pub mod state;
pub mod vcpu;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use reeve_ipc::endpoint::Endpoint;
use reeve_ipc::message::JailFacts;
use reeve_ipc::{CONTROL_FD, LOG_FD, exit_code};

/// The whole of the process, from the closing of the jail on; gives its exit code.
#[must_use]
pub fn run() -> u8 {
    // The same program, as the one that starts others in a jail of another kind.
    reeve_sandbox::program::run_if_launcher();
    reeve_sandbox::service::run_if_launcher();
    if images::is_asked_for() {
        return images::run();
    }
    if image_reader::is_asked_for() {
        return image_reader::run();
    }
    ignore_broken_pipes();
    let (control, log) = inherited();
    let jail = match reeve_sandbox::enter(log.as_fd()) {
        Ok(report) => JailFacts {
            landlock_abi: report.landlock.number(),
        },
        Err(error) => {
            // Nothing of this process is set up yet: the bare line is all there is.
            let line = format!("ERROR jail: {error}");
            let _ = rustix::io::write(&log, line.as_bytes());
            return exit_code::JAIL;
        }
    };
    let dropped = log::install(log);
    match rustix::io::fcntl_dupfd_cloexec(&control, 0) {
        Ok(second) => failure::or_exit(
            failure::install(second),
            "cannot install the handlers of fatal signals",
        ),
        Err(errno) => {
            tracing::error!("the control socket cannot be duplicated: {errno}");
            return exit_code::HOST;
        }
    }
    control::serve(Endpoint::new(control), jail, dropped).unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.exit_code()
    })
}

/// A client that closes its end is an error of that write, not the end of the worker.
#[expect(unsafe_code, reason = "a signal's disposition belongs to the process")]
fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code of ours; there is one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[expect(
    unsafe_code,
    reason = "descriptors that the supervisor hands over are known by number"
)]
fn inherited() -> (OwnedFd, OwnedFd) {
    // SAFETY: the supervisor put the control socket there, nobody else in this process owns it, and
    // this function runs once. In a process it did not start, what is there is no socket or not
    // open, and the first use of it fails.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    // SAFETY: as above, for the log socket.
    let log = unsafe { OwnedFd::from_raw_fd(LOG_FD) };
    (control, log)
}
