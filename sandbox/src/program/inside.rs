//! The launcher: a process of ours, single-threaded, from its own start to the program's, and then its
//! watcher.

use std::ffi::{CString, OsString};
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::{DIRECTORY_FD, HANDED_FD, LAUNCHER, MAX_WORDS, NETWORK, SYNC_FD, c_string, mounts};
use crate::sys;

/// What the program may do as root of its own namespace: be other users there, of whom there are none but
/// root, and what root does with files (capabilities(7)). `SETPCAP` and `SYS_CHROOT` are for what it drops
/// and closes by itself at its start.
const CAPABILITIES: [u32; 10] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    18, // SYS_CHROOT
    27, // MKNOD
    31, // SETFCAP
];
/// More than any kernel has.
const LAST_CAPABILITY: u32 = 63;
/// The exit code of whatever did not come to its end; words say more.
const FAILED: i32 = 125;

type Failure = (&'static str, String);

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| (what, error.to_string())
}

fn number(what: &'static str) -> impl FnOnce(sys::Errno) -> Failure {
    move |errno| (what, std::io::Error::from_raw_os_error(errno.0).to_string())
}

/// To be called first thing in a program that is to be a launcher as well: does not return where this
/// process was started to be one.
pub fn run_if_launcher() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != LAUNCHER) {
        return;
    }
    if let Err((what, why)) = run(arguments.collect()) {
        let mut words = format!("{what}: {why}").into_bytes();
        words.truncate(MAX_WORDS);
        let _ = send(sync(), &words, SendFlags::NOSIGNAL);
    }
    sys::exit_group(FAILED)
}

/// The descriptors that were handed over, by number.
#[expect(unsafe_code, reason = "descriptors are handed over by number")]
fn sync() -> BorrowedFd<'static> {
    // SAFETY: the caller of the launcher put it there; where it did not, calls on it fail.
    unsafe { BorrowedFd::borrow_raw(SYNC_FD) }
}

#[expect(unsafe_code, reason = "descriptors are handed over by number")]
fn words() -> BorrowedFd<'static> {
    // SAFETY: as above; standard error is never closed here.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Waits for the caller's leave to go on.
fn await_caller() -> Result<(), Failure> {
    let heard = rustix::io::retry_on_intr(|| recv(sync(), &mut [0; 1], RecvFlags::empty()));
    match heard {
        Ok((1, _)) => Ok(()),
        Ok(_) => Err(("waiting for the caller", "it is gone".to_owned())),
        Err(errno) => Err(failed("waiting for the caller")(errno)),
    }
}

fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let [access, identity, program @ ..] = &arguments[..] else {
        return Err(("reading its arguments", "there are too few".to_owned()));
    };
    let path = program
        .first()
        .ok_or(("reading its arguments", "there is no program".to_owned()))?;
    let argv = program
        .iter()
        .map(|argument| c_string(argument))
        .collect::<Result<Vec<CString>, _>>()
        .map_err(failed("reading its arguments"))?;
    let _ = rustix::thread::set_name(c"reeve-jail");

    await_caller()?;
    sys::setsid().map_err(number("leaving the session"))?;
    // Where it stands goes along into the new namespace; a descriptor does not.
    let network = access == NETWORK;
    let mut namespaces = 0;
    if !network {
        sys::fchdir(DIRECTORY_FD).map_err(number("entering the directory"))?;
        namespaces |= libc::CLONE_NEWNET;
    }
    namespaces |= libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    sys::unshare(namespaces).map_err(number("making namespaces"))?;
    send(sync(), b"+", SendFlags::NOSIGNAL).map_err(failed("telling the caller"))?;
    await_caller()?;
    let privileged = identity == "block";
    if privileged {
        sys::no_groups().map_err(number("dropping groups"))?;
    }
    sys::setresgid(0).map_err(number("taking the group"))?;
    sys::setresuid(0).map_err(number("taking the user"))?;

    match fork().map_err(number("making the program's process"))? {
        None => {
            let directory = (!network).then_some(access == "ro");
            mounts::enter(Path::new(path), directory)?;
            confine(privileged)?;
            execute(&argv)
        }
        Some(pid) => watch(pid),
    }
}

#[expect(unsafe_code, reason = "fork of a process with one thread")]
fn fork() -> sys::Result<Option<Pid>> {
    // SAFETY: there is no other thread, so that the child is as whole as its parent.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .map(Some)
            .ok_or(sys::Errno(libc::EAGAIN)),
    }
}

/// Capabilities, limits and descriptors of the program, and its end with the launcher's.
fn confine(privileged: bool) -> Result<(), Failure> {
    let what = "reducing capabilities";
    for capability in 0..=LAST_CAPABILITY {
        if CAPABILITIES.contains(&capability) {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, capability as usize, 0) {
            Ok(()) | Err(sys::Errno(libc::EINVAL)) => {}
            Err(errno) => return Err(number(what)(errno)),
        }
    }
    let bits = CAPABILITIES.iter().fold(0, |bits, bit| bits | 1 << bit);
    sys::capset(bits, bits, 0).map_err(number(what))?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(number("giving up new privileges"))?;
    if !privileged {
        no_setgroups()?;
    }
    sys::set_limit(libc::RLIMIT_CORE, 0).map_err(number("setting limits"))?;
    // After the identity: a change of it clears this.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0)
        .map_err(number("binding the program to the launcher"))?;
    sys::close(DIRECTORY_FD).map_err(number("closing descriptors"))?;
    sys::close_range(HANDED_FD + 1, u32::MAX).map_err(number("closing descriptors"))?;
    // Its end tells the caller that the program is executed.
    rustix::io::fcntl_setfd(sync(), rustix::io::FdFlags::CLOEXEC)
        .map_err(failed("closing descriptors"))
}

/// Without privilege groups cannot be dropped, and the kernel refuses to try: a program that drops them
/// as a matter of course is told that it has. It is in the caller's groups as long as it lives.
#[expect(unsafe_code, reason = "passes a filter to the kernel")]
fn no_setgroups() -> Result<(), Failure> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        // Codes are below 0x100.
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    // Other conventions for calls have other numbers for it, and do not get past the program's own filter.
    let setgroups = u32::try_from(libc::SYS_setgroups).unwrap_or(u32::MAX);
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setgroups),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_ptr().cast_mut(),
    };
    let pointer = (&raw const program).addr();
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel copies a program of four instructions, which live across the call.
    let set = unsafe { sys::call(libc::SYS_seccomp, [mode, 0, pointer, 0, 0, 0]) };
    set.map(drop).map_err(number("setting a filter"))
}

#[expect(unsafe_code, reason = "execve with pointers to strings of this frame")]
fn execute(argv: &[CString]) -> Result<(), Failure> {
    let mut pointers: Vec<_> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    let path = pointers.first().copied().unwrap_or(std::ptr::null());
    // SAFETY: both vectors end with a null pointer, and the strings live across the call.
    let executed = unsafe {
        sys::call(
            libc::SYS_execve,
            [
                path.addr(),
                pointers.as_ptr().addr(),
                environment.as_ptr().addr(),
                0,
                0,
                0,
            ],
        )
    };
    executed.map(drop).map_err(number("executing the program"))
}

/// Lives as long as the program, and the program as long as somebody holds the other end of its words.
fn watch(pid: Pid) -> Result<(), Failure> {
    // The caller waits for the program's, which goes as it is executed.
    sys::close(SYNC_FD).map_err(number("closing descriptors"))?;
    let _ = sys::close_range(DIRECTORY_FD, u32::MAX);
    let ended = || rustix::process::waitpid(Some(pid), WaitOptions::empty());
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::io::retry_on_intr(ended);
        sys::exit_group(FAILED)
    };
    loop {
        let (words, nothing) = (words(), PollFlags::empty());
        let mut fds = [
            PollFd::new(&words, nothing),
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let [words, pidfd] = fds;
        if !words.revents().is_empty() || !pidfd.revents().is_empty() {
            break;
        }
    }
    let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = rustix::io::retry_on_intr(ended);
    sys::exit_group(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn arguments_are_taken_as_bytes() {
        let odd = OsString::from("a b\u{fc}");
        assert_eq!(c_string(&odd).unwrap().as_bytes(), odd.as_bytes());
    }
}
