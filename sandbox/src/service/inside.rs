//! The launcher: a process of ours, single-threaded, that makes the program's own, and that process until the program
//! is executed.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Display;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Access, LAUNCHER, MAX_WORDS, SYNC_FD, filter};
use crate::landlock::{self, Allowed};
use crate::sys;

/// The exit code of whatever did not come to its end; words say more.
const FAILED: i32 = 125;
/// The most files that it may have open.
const MAX_OPEN: u64 = 1024;
/// The most processes of its uid, which services may share.
const MAX_PROCESSES: u64 = 16_384;
/// The most bytes of memory.
const MAX_MEMORY: u64 = 256 << 20;
/// The most bytes of a file that it writes.
const MAX_FILE: u64 = 64 << 20;
const PR_CAP_AMBIENT: i32 = libc::PR_CAP_AMBIENT;
const PR_CAP_AMBIENT_RAISE: usize = libc::PR_CAP_AMBIENT_RAISE as usize;

type Failure = (&'static str, String);

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| (what, error.to_string())
}

fn number(what: &'static str) -> impl FnOnce(sys::Errno) -> Failure {
    move |errno| (what, std::io::Error::from_raw_os_error(errno.0).to_string())
}

/// To be called first thing in a program that is to be a launcher as well: does not return where this process was
/// started to be one.
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

#[expect(unsafe_code, reason = "descriptors are handed over by number")]
fn sync() -> BorrowedFd<'static> {
    // SAFETY: the caller of the launcher put it there; where it did not, calls on it fail.
    unsafe { BorrowedFd::borrow_raw(SYNC_FD) }
}

fn say(words: &str) -> Result<(), Failure> {
    send(sync(), words.as_bytes(), SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(failed("telling the caller"))
}

/// What was asked for, as it was written on the command line.
struct Request {
    uid: u32,
    capabilities: Vec<u32>,
    tcp_ports: Vec<u16>,
    paths: Vec<(Access, OsString)>,
    argv: Vec<CString>,
}

fn numbers<T: std::str::FromStr>(list: &OsStr) -> Option<Vec<T>> {
    let list = list.to_str()?;
    let words = list.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().ok()).collect()
}

impl Request {
    fn read(arguments: &[OsString]) -> Option<Self> {
        let [uid, capabilities, ports, count, rest @ ..] = arguments else {
            return None;
        };
        let count: usize = count.to_str()?.parse().ok()?;
        let (paths, program) = rest.split_at_checked(count.checked_mul(2)?)?;
        let paths = paths.chunks_exact(2).map(|pair| {
            let [access, path] = pair else {
                return None;
            };
            let access = Access::ALL.into_iter().find(|a| *access == *a.word())?;
            Some((access, path.clone()))
        });
        let argv = program.iter().map(|a| CString::new(a.as_bytes()).ok());
        Some(Self {
            uid: uid.to_str()?.parse().ok().filter(|uid| *uid != 0)?,
            capabilities: numbers(capabilities)?,
            tcp_ports: numbers(ports)?,
            paths: paths.collect::<Option<_>>()?,
            argv: argv.collect::<Option<Vec<_>>>().filter(|a| !a.is_empty())?,
        })
    }
}

fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let request = Request::read(&arguments);
    let request = request.ok_or(("reading its arguments", "they are none of ours".to_owned()))?;
    sys::setsid().map_err(number("leaving the session"))?;
    match fork().map_err(number("making the program's process"))? {
        0 => {
            confine(&request)?;
            say("+")?;
            await_caller()?;
            execute(&request.argv)
        }
        pid => {
            say(&format!("pid {pid}"))?;
            sys::exit_group(0)
        }
    }
}

#[expect(unsafe_code, reason = "fork of a process with one thread")]
fn fork() -> sys::Result<i32> {
    // SAFETY: there is no other thread, so that the child is as whole as its parent.
    match unsafe { libc::fork() } {
        -1 => Err(sys::Errno(libc::EAGAIN)),
        pid => Ok(pid),
    }
}

/// Waits for the caller's leave to go on; it is gone where this supervisor is.
fn await_caller() -> Result<(), Failure> {
    let heard = rustix::io::retry_on_intr(|| recv(sync(), &mut [0; 1], RecvFlags::empty()));
    match heard {
        Ok((1, _)) => Ok(()),
        Ok(_) => Err(("waiting for the caller", "it is gone".to_owned())),
        Err(errno) => Err(failed("waiting for the caller")(errno)),
    }
}

/// Identity, capabilities, limits, files, system calls and descriptors, in the order in which each is still allowed.
fn confine(request: &Request) -> Result<(), Failure> {
    // While it may still look there.
    let mut allowed = Vec::new();
    for (access, path) in &request.paths {
        match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => allowed.push(opened(*access, fd).map_err(failed("looking at its paths"))?),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(failed("looking at its paths")(errno)),
        }
    }
    sys::set_limit(libc::RLIMIT_CORE, 0).map_err(number("setting limits"))?;
    sys::set_limit(libc::RLIMIT_NOFILE, MAX_OPEN).map_err(number("setting limits"))?;
    sys::set_limit(libc::RLIMIT_NPROC, MAX_PROCESSES).map_err(number("setting limits"))?;
    sys::set_limit(libc::RLIMIT_AS, MAX_MEMORY).map_err(number("setting limits"))?;
    sys::set_limit(libc::RLIMIT_FSIZE, MAX_FILE).map_err(number("setting limits"))?;

    sys::no_groups().map_err(number("dropping groups"))?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(number("keeping capabilities"))?;
    sys::setresgid(request.uid).map_err(number("taking the group"))?;
    sys::setresuid(request.uid).map_err(number("taking the user"))?;
    let what = "reducing capabilities";
    let bits = request.capabilities.iter();
    let bits = bits.fold(0, |bits, bit| bits | 1_u64.checked_shl(*bit).unwrap_or(0));
    sys::capset(bits, bits, bits).map_err(number(what))?;
    for capability in &request.capabilities {
        let capability = usize::try_from(*capability).unwrap_or(usize::MAX);
        sys::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability).map_err(number(what))?;
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(number("giving up new privileges"))?;

    landlock::restrict_to(&allowed, &request.tcp_ports).map_err(number("restricting files"))?;
    drop(allowed);
    sys::close_range(SYNC_FD + 1, u32::MAX).map_err(number("closing descriptors"))?;
    // Its end tells the caller that the program is executed.
    rustix::io::fcntl_setfd(sync(), rustix::io::FdFlags::CLOEXEC)
        .map_err(failed("closing descriptors"))?;
    filter::install().map_err(number("setting a filter"))
}

fn opened(access: Access, fd: OwnedFd) -> Result<Allowed, Errno> {
    let stat = rustix::fs::fstat(&fd)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let rights = match access {
        Access::Read => landlock::READ_FILE,
        Access::Execute => landlock::READ_FILE | landlock::EXECUTE,
        Access::Write => landlock::READ_FILE | landlock::WRITE_FILE | landlock::TRUNCATE,
    };
    let list = if directory { landlock::READ_DIR } else { 0 };
    Ok(Allowed {
        fd,
        rights: rights | list,
    })
}

#[expect(unsafe_code, reason = "execve with pointers to strings of this frame")]
fn execute(argv: &[CString]) -> Result<(), Failure> {
    let mut pointers: Vec<_> = argv.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    let path = pointers.first().copied().unwrap_or(std::ptr::null());
    let (path, argv, environment) = (
        path.addr(),
        pointers.as_ptr().addr(),
        environment.as_ptr().addr(),
    );
    // SAFETY: both vectors end with a null pointer, and the strings live across the call.
    let executed = unsafe { sys::call(libc::SYS_execve, [path, argv, environment, 0, 0, 0]) };
    executed.map(drop).map_err(number("executing the program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written_or_not_at_all() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let request = Request::read(&words("7 10,12 53 2 r /etc w /x /bin/y -a")).unwrap();
        assert_eq!((request.uid, request.capabilities), (7, vec![10, 12]));
        assert_eq!(request.tcp_ports, [53]);
        assert_eq!(request.paths[1], (Access::Write, "/x".into()));
        assert_eq!(request.argv, [c"/bin/y".to_owned(), c"-a".to_owned()]);
        let bad = [
            "0 10 53 0 /bin/y",
            "7 a 53 0 /bin/y",
            "7 10 53 1 /bin/y",
            "7 10 53 1 q /x /y",
            "7 10 53 0",
            "7",
            "7 10 53 18446744073709551615 /y",
        ];
        for bad in bad {
            assert!(Request::read(&words(bad)).is_none(), "{bad}");
        }
    }
}
