//! Which process is meant: a pid with its start time and boot, and the pidfd that stands for it.
//!
//! A pid that was written down may be another process' by now, and is never sent a signal. What is
//! opened here is proved first: of this boot, with the recorded start time (proc(5), `starttime`).
//! A process that lived when it was recorded and has that start time still is the recorded one, and
//! a pidfd opened before the look at `/proc` is of it too.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::domain::driver::ProcessIdentity;

/// The boot this process belongs to; empty where `/proc` does not tell, which equals no other.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// What a process that lives is recorded as.
pub(crate) fn identify(pid: u32) -> Option<ProcessIdentity> {
    Some(ProcessIdentity {
        pid,
        start_ticks: start_ticks(pid)?,
        boot_id: boot_id().to_owned(),
    })
}

/// Why a recorded process is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// The host was booted since.
    #[error("the host was booted since")]
    OtherBoot,
    /// Nobody has its pid, or somebody else.
    #[error("its process is gone")]
    Gone,
    /// The kernel does not hand it out.
    #[error("its process cannot be watched: {0}")]
    Refused(Errno),
}

/// Opens the very process that was recorded; it may have died since, and be a zombie.
pub(crate) fn open(recorded: &ProcessIdentity) -> Result<OwnedFd, Missing> {
    if recorded.boot_id != boot_id() || recorded.boot_id.is_empty() {
        return Err(Missing::OtherBoot);
    }
    let raw = i32::try_from(recorded.pid).map_err(|_| Missing::Gone)?;
    let pid = Pid::from_raw(raw).ok_or(Missing::Gone)?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Err(Missing::Gone),
        Err(errno) => return Err(Missing::Refused(errno)),
    };
    if start_ticks(recorded.pid) == Some(recorded.start_ticks) {
        Ok(pidfd)
    } else {
        Err(Missing::Gone)
    }
}

/// As [`open`], of one that was recorded since the host was booted: where a record is in memory.
pub(crate) fn open_of_this_boot(pid: u32, start_ticks: u64) -> Result<OwnedFd, Missing> {
    open(&ProcessIdentity {
        pid,
        start_ticks,
        boot_id: boot_id().to_owned(),
    })
}

/// Whether the process has ended.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut gone = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut gone, Some(&NOW)).is_ok_and(|count| count > 0)
}

/// Nanoseconds of one of the clock ticks that `/proc` counts in: `USER_HZ` is 100 on x86-64.
const TICK_NS: u64 = 10_000_000;
/// Bytes of one of the pages that `/proc` counts in.
const PAGE_BYTES: u64 = 4096;
/// Bytes that no text of the kernel's about one process or cgroup has.
const SHORT_TEXT: usize = 4096;

/// What the kernel has written down of a process, or of one of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// It runs, or would.
    pub(crate) runs: bool,
    /// CPU time in the program and its guest, in nanoseconds.
    pub(crate) user_ns: u64,
    /// CPU time in the kernel for it, in nanoseconds.
    pub(crate) system_ns: u64,
    /// Memory that it holds, in bytes.
    pub(crate) resident_bytes: u64,
    /// The CPU that it ran on last.
    pub(crate) cpu: Option<u32>,
}

/// Reads it (proc(5), fields 3, 14, 15, 24 and 39 of `stat`).
pub(crate) fn account(stat: &str) -> Option<Account> {
    parse_account(&short_text(Path::new(stat))?)
}

/// As [`account`], of a whole process and to the nanosecond: the ticks of `stat` say only what part of its CPU
/// time was in the kernel.
pub(crate) fn process_account(pid: u32) -> Option<Account> {
    let mut account = account(&format!("/proc/{pid}/stat"))?;
    let ticks = account.user_ns.saturating_add(account.system_ns);
    let used = cpu_clock(pid)?;
    let share = u128::from(used) * u128::from(account.system_ns) / u128::from(ticks.max(1));
    account.system_ns = u64::try_from(share).unwrap_or(used).min(used);
    account.user_ns = used - account.system_ns;
    Some(account)
}

/// The CPU time of all threads of a process, in nanoseconds (clock_getcpuclockid(3)).
#[expect(unsafe_code, reason = "no library reads another process's CPU clock")]
fn cpu_clock(pid: u32) -> Option<u64> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let (mut clock, mut time) = (
        0,
        libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    );
    // SAFETY: it writes to the one variable that it is given, which lives through the call.
    let found = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } == 0;
    // SAFETY: likewise; a clock that is none is refused.
    let read = found && unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    let seconds = u64::try_from(time.tv_sec).ok().filter(|_| read)?;
    let nanoseconds = u64::try_from(time.tv_nsec).ok()?;
    Some(
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanoseconds),
    )
}

/// The text of a file of the kernel's, which gives all of it at the first read; `None` where it has
/// [`SHORT_TEXT`] bytes or more, and where it cannot be read.
fn short_text(path: &Path) -> Option<String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = [0; SHORT_TEXT];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes)).ok()?;
    let text = bytes
        .get(..length)
        .filter(|text| text.len() < bytes.len())?;
    String::from_utf8(text.to_vec()).ok()
}

fn parse_account(stat: &str) -> Option<Account> {
    // Behind the name, which may contain anything, comes field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Account {
        runs: *fields.first()? == "R",
        user_ns: number(11)?.saturating_mul(TICK_NS),
        system_ns: number(12)?.saturating_mul(TICK_NS),
        resident_bytes: number(21)?.saturating_mul(PAGE_BYTES),
        cpu: number(36).and_then(|cpu| u32::try_from(cpu).ok()),
    })
}

/// CPU time in nanoseconds and resident bytes of a process, or of one of its threads.
pub(crate) fn usage(stat: &str) -> Option<(u64, u64)> {
    let account = account(stat)?;
    let time = account.user_ns.saturating_add(account.system_ns);
    Some((time, account.resident_bytes))
}

/// CPU time of all that is or was in a cgroup, in nanoseconds: in programs and guests, and in the kernel
/// (Documentation/admin-guide/cgroup-v2.rst, `cpu.stat`).
pub(crate) fn cgroup_times(cgroup: &Path) -> Option<(u64, u64)> {
    parse_cgroup_times(&short_text(&cgroup.join("cpu.stat"))?)
}

fn parse_cgroup_times(stat: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        let microseconds: u64 = lines.find(|(found, _)| *found == name)?.1.parse().ok()?;
        microseconds.checked_mul(1000)
    };
    Some((of("user_usec")?, of("system_usec")?))
}

/// Kills every process of `uid`, which must be of a block that is this instance's alone. Whether
/// there was any.
pub(crate) fn kill_all_of(uid: u32) -> bool {
    let mut found = false;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        let owned = || entry.metadata().is_ok_and(|data| data.uid() == uid);
        if !owned() {
            continue;
        }
        // Again, now that the pid cannot be used again unnoticed.
        match pidfd_open(pid, PidfdFlags::empty()) {
            // One that has ended and is reaped by nobody needs no signal.
            Ok(pidfd) if !has_ended(pidfd.as_fd()) && real_uid(pid) == Some(uid) => {
                found = true;
                let _ = pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
            }
            _ => {}
        }
    }
    found
}

fn real_uid(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22, counted behind the name, which may contain anything.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_account_is_read_as_the_kernel_writes_it() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) R b) S {}\n", fields.join(" "));
        let account = Account {
            runs: false,
            user_ns: 140_000_000,
            system_ns: 150_000_000,
            resident_bytes: 24 * 4096,
            cpu: Some(39),
        };
        assert_eq!(parse_account(&stat), Some(account));
        let running = parse_account(&stat.replace(" S ", " R ")).unwrap();
        assert!(running.runs);
        assert_eq!(parse_account("7 (a) S 1 2"), None);
        assert_eq!(parse_account(""), None);
        let own = super::account("/proc/self/stat").unwrap();
        assert!(own.resident_bytes > 0 && own.cpu.is_some(), "{own:?}");
    }

    #[test]
    fn a_process_is_accounted_for_in_less_than_ticks() {
        let used = || {
            let account = process_account(std::process::id()).unwrap();
            account.user_ns + account.system_ns
        };
        let before = used();
        let mut after = before;
        // Well below a tick: this thread has done something in any case.
        while after == before {
            after = used();
        }
        assert!(before > 0 && after > before);
        assert_eq!(process_account(u32::MAX), None);
    }

    #[test]
    fn times_of_a_cgroup_are_read_as_the_kernel_writes_them() {
        let stat = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 0\n";
        assert_eq!(parse_cgroup_times(stat), Some((20_000, 10_000)));
        assert_eq!(parse_cgroup_times("usage_usec 30\n"), None);
        assert_eq!(
            parse_cgroup_times(&format!("user_usec {}\nsystem_usec 1", u64::MAX)),
            None
        );
    }

    #[test]
    fn a_name_does_not_shift_the_start_time() {
        let stat = "7 (a) S 1 (b) R 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 98";
        assert_eq!(parse_start_ticks(stat), Some(4711));
        assert_eq!(parse_start_ticks("7 (a"), None);
    }

    #[test]
    fn a_process_is_opened_only_as_it_was_recorded() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let recorded = identify(child.id()).unwrap();
        let pidfd = open(&recorded).unwrap();
        assert!(!has_ended(pidfd.as_fd()));
        let later = ProcessIdentity {
            start_ticks: recorded.start_ticks + 1,
            ..recorded.clone()
        };
        assert_eq!(open(&later).unwrap_err(), Missing::Gone);
        let elsewhere = ProcessIdentity {
            boot_id: "another".to_owned(),
            ..recorded.clone()
        };
        assert_eq!(open(&elsewhere).unwrap_err(), Missing::OtherBoot);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(pidfd.as_fd()));
        assert_eq!(open(&recorded).unwrap_err(), Missing::Gone);
    }
}
