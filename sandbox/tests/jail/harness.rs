//! Starts probes in jails: from this process when it is root, and through a launcher as an ordinary
//! user always (as root: uid and gid 65534).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use reeve_sandbox::seccomp::denial::Denial;
use reeve_sandbox::{Command, Identity, OnParentDeath, Resource, Rlimit, spawn};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// The domain's uid and gid when root spawns.
pub const BLOCK: u32 = 71_234;
/// The ordinary user.
pub const NOBODY: u32 = 65_534;

/// Who spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Root,
    User,
}

impl Caller {
    /// Those that this test run can play.
    pub fn all() -> Vec<Self> {
        if rustix::process::geteuid().is_root() {
            vec![Self::Root, Self::User]
        } else {
            vec![Self::User]
        }
    }

    /// The uid and gid that the probe must have.
    pub fn identity(self) -> (u32, u32) {
        match self {
            Self::Root => (BLOCK, BLOCK),
            Self::User if rustix::process::geteuid().is_root() => (NOBODY, NOBODY),
            Self::User => (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        }
    }
}

/// A jailed probe.
pub struct Probe {
    pub pid: i32,
    messages: OwnedFd,
    report: OwnedFd,
    process: Started,
}

enum Started {
    Directly(OwnedFd),
    ByLauncher(std::process::Child),
}

/// How a probe ended.
#[derive(Debug)]
pub struct End {
    /// Its messages after the first.
    pub said: Vec<String>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    pub denial: Option<Denial>,
}

/// The probe program.
pub const PROBE: &str = env!("CARGO_BIN_EXE_reeve-sandbox-probe");
const LIMITS: &[Rlimit] = &[
    Rlimit {
        resource: Resource::Core,
        value: 0,
    },
    Rlimit {
        resource: Resource::Descriptors,
        value: 64,
    },
];

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

impl Probe {
    /// Starts a probe and waits until it stands in its role. `layers`: `full` or `unfiltered`.
    pub fn start(caller: Caller, layers: &str, role: &str, attempt: &str) -> Self {
        let (messages, theirs) = pair();
        let (report, report_theirs) = pair();
        let (pid, process) = match caller {
            Caller::Root => {
                let words = [layers, role, attempt];
                directly(words, theirs, report_theirs, OnParentDeath::Die, None)
            }
            Caller::User => by_launcher([layers, role, attempt], &theirs, &report_theirs),
        };
        Self {
            pid,
            messages,
            report,
            process,
        }
        .stand()
    }

    /// Starts one from this process, which must be root's.
    pub fn start_as(on_parent_death: OnParentDeath, cgroup: Option<BorrowedFd<'_>>) -> Self {
        let (messages, theirs) = pair();
        let (report, report_theirs) = pair();
        let words = ["full", "io", "stay"];
        let (pid, process) = directly(words, theirs, report_theirs, on_parent_death, cgroup);
        Self {
            pid,
            messages,
            report,
            process,
        }
        .stand()
    }

    fn stand(self) -> Self {
        let ready = self.hear().expect("a first message");
        assert!(ready.starts_with("ready"), "{ready}");
        assert_eq!(self.hear().as_deref(), Some("entered"));
        self
    }

    /// Waits for it to end by itself: `None` when it does not, else the signal that ended it.
    pub fn await_end(&self, within: Duration) -> Option<Option<i32>> {
        let Started::Directly(pidfd) = &self.process else {
            panic!("started by a launcher")
        };
        let deadline = Instant::now() + within;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        loop {
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).unwrap();
            if let Some(status) = status {
                return Some(status.terminating_signal());
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the ordinary user's process that spawned it.
    pub fn kill_launcher(&mut self) {
        let Started::ByLauncher(launcher) = &mut self.process else {
            panic!("has no launcher")
        };
        launcher.kill().unwrap();
        launcher.wait().unwrap();
    }

    fn hear(&self) -> Option<String> {
        let mut buffer = [0; 256];
        let (length, _) = recv(&self.messages, &mut buffer[..], RecvFlags::empty()).ok()?;
        (length > 0).then(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Lets it carry out its attempt, and sees it end.
    pub fn finish(self, argument: &str) -> End {
        send(
            &self.messages,
            argument.as_bytes(),
            rustix::net::SendFlags::NOSIGNAL,
        )
        .unwrap();
        let said: Vec<String> = std::iter::from_fn(|| self.hear()).collect();
        let signal = match self.process {
            Started::Directly(pidfd) => {
                let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
                ended.and_then(|status| status.terminating_signal())
            }
            Started::ByLauncher(mut launcher) => {
                Some(launcher.wait().unwrap().code().unwrap()).filter(|code| *code != 0)
            }
        };
        let mut buffer = [0; 256];
        let received = recv(&self.report, &mut buffer[..], RecvFlags::DONTWAIT);
        let length = received.map_or(0, |(length, _)| length);
        let denial = (length > 0).then(|| Denial::decode(&buffer[..length]).expect("a record"));
        End {
            said,
            signal,
            denial,
        }
    }
}

fn directly(
    words: [&str; 3],
    messages: OwnedFd,
    report: OwnedFd,
    on_parent_death: OnParentDeath,
    cgroup: Option<BorrowedFd<'_>>,
) -> (i32, Started) {
    let exe = File::open(PROBE).unwrap();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let words: Vec<CString> = ["jailed"]
        .iter()
        .chain(&words)
        .map(|word| CString::new(*word).unwrap())
        .collect();
    let argv: Vec<&CStr> = words.iter().map(CString::as_c_str).collect();
    let child = spawn(Command {
        exe: exe.as_fd(),
        argv: &argv,
        null: null.as_fd(),
        fds: vec![(messages, 4), (report, 5)],
        identity: Identity::Block {
            uid: BLOCK,
            gid: BLOCK,
        },
        rlimits: LIMITS,
        memory_policy: None,
        cgroup,
        on_parent_death,
    });
    let child = child.unwrap_or_else(|error| panic!("{error}: {:?}", error.remedy()));
    (
        child.pid.as_raw_nonzero().get(),
        Started::Directly(child.pidfd),
    )
}

#[expect(unsafe_code, reason = "arranges descriptors between fork and exec")]
fn by_launcher(words: [&str; 3], messages: &OwnedFd, report: &OwnedFd) -> (i32, Started) {
    // By descriptor, as the ordinary user may not search the path to it.
    let exe = File::open(PROBE).unwrap();
    let exe = rustix::io::fcntl_dupfd_cloexec(exe, 20).unwrap();
    rustix::io::fcntl_setfd(&exe, rustix::io::FdFlags::empty()).unwrap();
    let (exe_fd, messages, report) = (exe.as_raw_fd(), messages.as_raw_fd(), report.as_raw_fd());
    let mut process = Process::new(format!("/proc/self/fd/{exe_fd}"));
    process.arg0("launch").args(words).stdout(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        process.uid(NOBODY).gid(NOBODY);
    }
    let arrange = move || {
        // Duplicated out of each other's way; what is on 4 and 5 in the end is inherited.
        let (first, second) = (duplicate(messages)?, duplicate(report)?);
        duplicate_onto(first, 4)?;
        duplicate_onto(second, 5)
    };
    // SAFETY: only system calls that are async-signal-safe, between fork and exec.
    unsafe { process.pre_exec(arrange) };
    let mut launcher = process.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(launcher.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid = line
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("launcher: {line}"));
    (pid, Started::ByLauncher(launcher))
}

/// Above the numbers that are handed over, and closed on exec.
#[expect(unsafe_code, reason = "descriptors by number, between fork and exec")]
fn duplicate(fd: i32) -> std::io::Result<i32> {
    // SAFETY: makes a new descriptor, touches no memory.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) } {
        -1 => Err(std::io::Error::last_os_error()),
        new => Ok(new),
    }
}

#[expect(unsafe_code, reason = "descriptors by number, between fork and exec")]
fn duplicate_onto(fd: i32, target: i32) -> std::io::Result<()> {
    // SAFETY: the child owns all its descriptors; the program is executed by a number above these.
    match unsafe { libc::dup2(fd, target) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}
