//! What confines a running worker and a gateway, read from the kernel and not from Reeve: on this machine and in the
//! lab, started by root and by an ordinary user.
//!
//! Every thread and every open descriptor of a worker must be in the tables here, which say what it
//! is for. A new one is added here with its reason, or it does not belong in the worker.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{DomainDefine, DomainStart, StartOptions};
use reeve_ipc::model::MemorySize;
use reeve_tests::control::{Control, Place};
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};
use reeve_tests::domain::{status, unique_name};
use reeve_tests::injected::Stopped;
use reeve_tests::lab::inside_outer_guest;
use reeve_tests::reeve::Reeve;

const SOON: Duration = Duration::from_secs(20);
const VCPUS: u32 = 2;

/// A running worker that sleeps: the guest that holds still.
struct Worker {
    pid: u32,
    /// How many sockets it has.
    sockets: usize,
}

/// One that `reeve run` started.
struct Held {
    reeve: Reeve,
    control: Control,
    worker: Worker,
    _place: Place,
}

impl Held {
    fn start(machine: &str, as_user: bool) -> Result<Held> {
        let place = Place::new()?;
        let mut builder = Reeve::run()?
            .name(&unique_name("held"))
            .machine(machine)
            .cpus(VCPUS)
            .memory("64M")
            .cmdline("mode=hold")
            .control(&place)
            .json();
        if as_user {
            builder = builder.as_user();
        }
        let mut reeve = builder.spawn()?;
        let mut control = place.connect(SOON)?;
        let pid = control.worker()?;
        // The guest has run: what KVM makes at the first entry exists. With a JSON report the
        // console is on standard error.
        reeve.expect_error("R\n", SOON)?;
        let worker = Worker {
            pid,
            // Control socket and a second handle on it for last words; log; console client.
            sockets: 4,
        };
        worker.wait_for_threads()?;
        Ok(Held {
            reeve,
            control,
            worker,
            _place: place,
        })
    }

    /// The report at the end.
    fn report(mut self) -> Result<serde_json::Value> {
        self.control.order("destroy")?;
        let status = self.reeve.wait(SOON)?;
        ensure!(status.success(), "{status}");
        let output = self.reeve.output();
        let line = output.lines().last().context("no report")?;
        Ok(serde_json::from_str(line)?)
    }
}

impl Worker {
    /// Waits until each thread has closed its filter, which is its first act after its name: on a busy
    /// host the last vCPU's has not been scheduled yet, while the first one runs the guest.
    fn wait_for_threads(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            match every_thread_is_known_and_filtered(self) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }

    /// The same for its console's client, which comes after the start.
    fn wait_for_sockets(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            match every_descriptor_is_explained(self) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// What a thread may be called, and what it is for.
const THREADS: &[(&str, &str, Kind)] = &[
    (
        "reeve-worker",
        "control thread: speaks to the supervisor",
        Kind::Ours,
    ),
    (
        "io",
        "moves the console's bytes, runs device timers",
        Kind::Ours,
    ),
    (
        "spawner",
        "makes threads for devices that come later",
        Kind::Ours,
    ),
    ("vcpu0", "runs a vCPU", Kind::Ours),
    ("vcpu1", "runs a vCPU", Kind::Ours),
    (
        "kvm-nx-lpage-re",
        "KVM's own: gives back split huge pages; made at the first entry, so by a filtered thread",
        Kind::Kernel,
    ),
    (
        "kvm-pit",
        "KVM's own: the timer of a legacy machine",
        Kind::Kernel,
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Runs our code.
    Ours,
    /// Never leaves the kernel.
    Kernel,
}

fn every_thread_is_known_and_filtered(held: &Worker) -> Result<()> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(held.path("task"))? {
        let directory = entry?.path();
        let name = fs::read_to_string(directory.join("comm"))?
            .trim()
            .to_owned();
        let (_, _, kind) = THREADS
            .iter()
            .find(|(known, _, _)| *known == name)
            .with_context(|| format!("thread '{name}' is not in the table"))?;
        let status = status(&directory.join("status").display().to_string())?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            ensure!(
                status[set].chars().all(|digit| digit == '0'),
                "{name}: {set} is {}",
                status[set]
            );
        }
        ensure!(status["NoNewPrivs"] == "1", "{name}: no_new_privs");
        ensure!(status["Seccomp"] == "2", "{name}: no filter");
        let filters: u32 = status["Seccomp_filters"].parse()?;
        // Base and its seal; a role stacks one more. What the kernel makes for a VM has what the
        // thread had that caused it, and runs none of our code.
        let least = if *kind == Kind::Ours { 3 } else { 2 };
        ensure!(filters >= least, "{name}: {filters} filters");
        seen.push(name);
    }
    for (name, _, kind) in THREADS {
        let count = seen.iter().filter(|seen| seen == name).count();
        let right = match kind {
            Kind::Ours => count == 1,
            Kind::Kernel => count <= 1,
        };
        ensure!(right, "{count} threads '{name}' in {seen:?}");
    }
    Ok(())
}

/// Rings of io_uring for disks that come later: each a descriptor, and its event another. None where the
/// host has no io_uring.
const RINGS: usize = 4;
const RING: &str = "anon_inode:[io_uring]";
const EVENT: &str = "anon_inode:[eventfd]";

/// What a descriptor may be, how often, and what for.
const DESCRIPTORS: &[(&str, usize, &str)] = &[
    ("/dev/null", 3, "standard streams, which lead nowhere"),
    (
        "/memfd:built-in-guest (deleted)",
        1,
        "the kernel image, for resets",
    ),
    (
        "/memfd:guest-memory (deleted)",
        2,
        "guest memory, and the handle of its mapping",
    ),
    ("anon_inode:kvm-vm", 1, "the VM"),
    ("anon_inode:kvm-vcpu:0", 1, "a vCPU"),
    ("anon_inode:kvm-vcpu:1", 1, "a vCPU"),
    (
        EVENT,
        3,
        "the guest's end, and what devices have to tell, for the control thread; wakes the I/O thread",
    ),
    (RING, 0, "in reserve for disks that come later"),
];

fn every_descriptor_is_explained(held: &Worker) -> Result<()> {
    only_these_descriptors(held, DESCRIPTORS, RINGS)
}

/// With as many rings as are kept in reserve, or none.
fn only_these_descriptors(
    held: &Worker,
    known: &[(&str, usize, &str)],
    reserve: usize,
) -> Result<()> {
    let mut counts = BTreeMap::new();
    let mut sockets = 0;
    for entry in fs::read_dir(held.path("fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?.display().to_string();
        if target.starts_with("socket:") {
            sockets += 1;
            continue;
        }
        let (pattern, _, _) = known
            .iter()
            .find(|(pattern, _, _)| target == *pattern)
            .with_context(|| format!("descriptor {:?} is {target}", entry.file_name()))?;
        *counts.entry(*pattern).or_insert(0_usize) += 1;
    }
    let count = |pattern| counts.get(pattern).copied().unwrap_or_default();
    let rings = count(RING);
    ensure!(rings == 0 || rings == reserve, "{rings} rings");
    for (pattern, expected, _) in known {
        let rings = if [EVENT, RING].contains(pattern) {
            rings
        } else {
            0
        };
        let (count, expected) = (count(pattern), expected + rings);
        ensure!(count == expected, "{count} of {pattern}, not {expected}");
    }
    ensure!(
        sockets == held.sockets,
        "{sockets} sockets, not {}",
        held.sockets
    );
    Ok(())
}

/// Whatever kinds the kernel has. The time namespace is shared: an offset of clocks is of no use to
/// anyone, and the guest's clock is to be the host's.
fn every_namespace_is_its_own(held: &Worker) -> Result<()> {
    const SHARED: [&str; 2] = ["time", "time_for_children"];
    let mut own = 0;
    for entry in fs::read_dir("/proc/self/ns")? {
        let kind = entry?.file_name().to_string_lossy().into_owned();
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let (theirs, ours) = (of(&held.pid.to_string())?, of("self")?);
        let shared = SHARED.contains(&kind.as_str());
        ensure!(
            (theirs == ours) == shared,
            "{kind}: {theirs:?} and {ours:?}"
        );
        own += usize::from(!shared);
    }
    // cgroup, ipc, mnt, net, pid, pid_for_children, user, uts
    ensure!(own == 8, "{own} kinds of namespaces");
    // Nothing in its network but a loopback that is down.
    let devices = held.read("net/dev")?;
    let names: Vec<&str> = devices
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .collect();
    ensure!(names.iter().all(|name| name.trim() == "lo"), "{names:?}");
    Ok(())
}

fn it_is_one_user(held: &Worker, expected: Option<u32>) -> Result<()> {
    let fields = status(&held.path("status"))?;
    let uid: u32 = fields["Uid"]
        .split_whitespace()
        .next()
        .context("Uid")?
        .parse()?;
    for ids in ["Uid", "Gid"] {
        let all: Vec<&str> = fields[ids].split_whitespace().collect();
        ensure!(all.iter().all(|id| *id == all[0]), "{ids}: {all:?}");
    }
    ensure!(uid != 0, "it is root");
    match expected {
        Some(expected) => ensure!(uid == expected, "uid {uid}"),
        None => {
            ensure!(uid != rustix::process::getuid().as_raw(), "our own uid");
            ensure!(fields["Groups"].is_empty(), "groups {}", fields["Groups"]);
        }
    }
    for map in ["uid_map", "gid_map"] {
        let text = held.read(map)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        ensure!(
            words.len() == 3 && words[0] == words[1] && words[2] == "1",
            "{map}: {text}"
        );
    }
    Ok(())
}

fn its_root_is_empty(held: &Worker) -> Result<()> {
    ensure!(
        fs::read_dir(held.path("root"))?.count() == 0,
        "something is in its root"
    );
    let mounts = held.read("mountinfo")?;
    ensure!(mounts.lines().count() == 1, "{mounts}");
    let options = mounts.split_whitespace().nth(5).context("options")?;
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(
            options.split(',').any(|known| known == option),
            "{option}: {mounts}"
        );
    }
    let directory = fs::read_link(held.path("cwd"))?;
    ensure!(directory == Path::new("/"), "{directory:?}");
    ensure!(held.read("environ")?.is_empty(), "it has an environment");
    Ok(())
}

fn its_limits_hold(held: &Worker) -> Result<()> {
    let limits = held.read("limits")?;
    let hard = |name: &str| -> Result<String> {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("limit")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .context("hard limit")?
            .to_owned())
    };
    for name in [
        "Max core file size",
        "Max msgqueue size",
        "Max nice priority",
        "Max realtime priority",
    ] {
        ensure!(hard(name)? == "0", "{name}: {}", hard(name)?);
    }
    let files: u64 = hard("Max open files")?.parse()?;
    ensure!(files <= 4096, "{files} files");
    Ok(())
}

/// No page of the worker is both writable and executable, nothing executable is not its program.
fn its_code_is_its_program(held: &Worker) -> Result<()> {
    let maps = held.read("maps")?;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let rights = words.nth(1).context("rights")?;
        let path = words.nth(3).unwrap_or_default();
        ensure!(!(rights.contains('w') && rights.contains('x')), "{line}");
        let program = path.ends_with("reeve-worker") || path.ends_with("reeve-gateway");
        let known = program || path == "[vdso]" || path == "[vsyscall]";
        ensure!(!rights.contains('x') || known, "{line}");
    }
    Ok(())
}

/// Landlock does not show in `/proc`. So: with its filters suspended, which only the host's root can
/// do, the worker opens its own root directory, which is there and readable. What refuses that is
/// Landlock.
fn landlock_refuses_what_nothing_else_does(held: &Worker) -> Result<()> {
    let here = bits(libc::AT_FDCWD.into());
    let directory = bits((libc::O_DIRECTORY | libc::O_CLOEXEC).into());
    let mut stopped = Stopped::stop(held.pid)?;
    // The call works as such: a path, which needs no right of Landlock's.
    let path_only = bits(libc::O_PATH.into()) | directory;
    let opened = stopped.call(libc::SYS_openat, [here, 0, path_only], Some(c"/"))?;
    ensure!(opened >= 0, "O_PATH of the root: {opened}");
    let closed = stopped.call(libc::SYS_close, [bits(opened), 0, 0], None)?;
    ensure!(closed == 0, "close: {closed}");
    let refused = stopped.call(libc::SYS_openat, [here, 0, directory], Some(c"/"))?;
    ensure!(
        refused == -i64::from(libc::EACCES),
        "opening the root gave {refused}"
    );
    Ok(())
}

fn is_confined(held: &Worker, uid: Option<u32>) -> Result<()> {
    every_thread_is_known_and_filtered(held)?;
    every_descriptor_is_explained(held)?;
    every_namespace_is_its_own(held)?;
    it_is_one_user(held, uid)?;
    its_root_is_empty(held)?;
    its_limits_hold(held)?;
    its_code_is_its_program(held)
}

/// The report must say what the kernel says.
fn report_is_true(held: Held, level: &str) -> Result<()> {
    let fields = status(&held.worker.path("status"))?;
    let uid: u32 = fields["Uid"]
        .split_whitespace()
        .next()
        .context("Uid")?
        .parse()?;
    let report = held.report()?;
    let confinement = &report["confinement"];
    ensure!(confinement["level"] == level, "{confinement}");
    ensure!(confinement["uid"] == uid, "{confinement}");
    let abi = confinement["landlock_abi"].as_u64().context("ABI")?;
    ensure!(abi >= 1, "Landlock ABI {abi}");
    if inside_outer_guest() {
        ensure!(abi == 2, "Debian 12's kernel has Landlock ABI 2, not {abi}");
    }
    Ok(())
}

fn holds_for_root() -> Result<()> {
    for machine in ["reeve-1.0", "reeve-legacy-1.0"] {
        let held = Held::start(machine, false)?;
        is_confined(&held.worker, None).with_context(|| machine.to_owned())?;
        landlock_refuses_what_nothing_else_does(&held.worker)?;
        // It still lives after that, unchanged.
        is_confined(&held.worker, None).with_context(|| machine.to_owned())?;
        report_is_true(held, "system")?;
    }
    Ok(())
}

/// Without root, most of `/proc` about a process that is not dumpable is closed to its own user: which
/// is part of what is wanted. What stays readable is looked at.
fn holds_as_seen_by_its_own_user() -> Result<()> {
    let held = Held::start("reeve-1.0", false)?;
    every_thread_is_known_and_filtered(&held.worker)?;
    ensure!(
        fs::read_dir(held.worker.path("fd")).is_err(),
        "its descriptors can be listed"
    );
    ensure!(
        fs::read(held.worker.path("environ")).is_err(),
        "its memory can be read"
    );
    it_is_one_user(&held.worker, Some(rustix::process::getuid().as_raw()))?;
    report_is_true(held, "user")
}

#[test]
fn a_worker_on_this_machine_is_confined_and_all_of_it_is_explained() -> Result<()> {
    if rustix::process::getuid().is_root() {
        holds_for_root()
    } else {
        holds_as_seen_by_its_own_user()
    }
}

#[reeve_tests::in_lab(timeout = "90s", root)]
fn a_worker_of_root_in_the_lab_is_confined_and_all_of_it_is_explained() -> Result<()> {
    holds_for_root()
}

#[reeve_tests::in_lab(timeout = "90s", root)]
fn a_worker_of_an_ordinary_user_is_confined_and_all_of_it_is_explained() -> Result<()> {
    // Outside of an outer guest there is no such user: then it is root's worker again.
    let uid = inside_outer_guest().then_some(1000);
    let held = Held::start("reeve-1.0", true)?;
    is_confined(&held.worker, uid)?;
    landlock_refuses_what_nothing_else_does(&held.worker)?;
    report_is_true(held, if uid.is_some() { "user" } else { "system" })
}

/// A daemon's worker has its adoption socket beside what each worker has; the console's one client is
/// the daemon's log of it. The next daemon finds it as confined as the first one made it.
fn holds_for_a_daemons_worker() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let mut domain = built_in("held", "mode=hold");
    domain.vcpus = VCPUS.try_into()?;
    domain.max_vcpus = domain.vcpus;
    domain.memory = MemorySize::mebibytes(64);
    connection.call(DomainDefine {
        definition: Box::new(domain),
        only_new: true,
    })?;
    connection.call(DomainStart {
        domain: named("held"),
        options: StartOptions::default(),
    })?;
    for _ in 0..2 {
        let details = wait_for(&mut connection, &named("held"), |details| {
            details.is_some_and(|details| details.worker.is_some())
        })?;
        let worker = details.and_then(|details| details.worker);
        let worker = Worker {
            pid: worker.context("no worker")?.pid,
            sockets: 5,
        };
        worker.wait_for_threads()?;
        worker.wait_for_sockets()?;
        is_confined(&worker, None)?;
        landlock_refuses_what_nothing_else_does(&worker)?;
        daemon.crash()?;
        connection = daemon.connect()?;
    }
    Ok(())
}

/// What a gateway may have open beside sockets, how often, and what for.
const GATEWAY_DESCRIPTORS: &[(&str, usize, &str)] = &[
    ("/dev/null", 3, "standard streams, which lead nowhere"),
    (
        "anon_inode:[eventpoll]",
        2,
        "the event loop, and a second handle on it",
    ),
    ("anon_inode:[eventfd]", 1, "wakes the event loop"),
];
/// Three handles on the socket to the daemon, and three on the pair by which the event loop would hear of signals.
const IDLE_SOCKETS: usize = 3 + 3;

/// The children of the daemon that are gateways.
fn gateways(daemon: &Daemon) -> Result<Vec<u32>> {
    let daemon = daemon.pid().context("no daemon")?.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(fields) = status(&format!("/proc/{pid}/status")) else {
            continue;
        };
        if fields.get("PPid") == Some(&daemon) && fields["Name"] == "reeve-gateway" {
            found.push(pid);
        }
    }
    Ok(found)
}

fn a_gateway_is_confined(gateway: &Worker) -> Result<()> {
    let fields = status(&gateway.path("status"))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(fields[set].chars().all(|digit| digit == '0'), "{set}");
    }
    ensure!(fields["NoNewPrivs"] == "1", "no_new_privs");
    ensure!(fields["Threads"] == "1", "{} threads", fields["Threads"]);
    ensure!(fields["Seccomp"] == "2", "no filter");
    // Base, its seal, and the role's.
    ensure!(
        fields["Seccomp_filters"] == "3",
        "{} filters",
        fields["Seccomp_filters"]
    );
    only_these_descriptors(gateway, GATEWAY_DESCRIPTORS, 0)?;
    every_namespace_is_its_own(gateway)?;
    it_is_one_user(gateway, None)?;
    its_root_is_empty(gateway)?;
    its_limits_hold(gateway)?;
    its_code_is_its_program(gateway)
}

/// Those that wait for a client and the one that has one, each with a uid that nobody else has.
fn holds_for_gateways() -> Result<()> {
    let mut daemon = Daemon::prepare()?;
    daemon.serve_libvirt()?;
    daemon.spawn()?;
    let socket = daemon.run().join("libvirt-sock");
    let deadline = Instant::now() + SOON;
    for (clients, count) in [(0, 2), (1, 3)] {
        let connected: Vec<UnixStream> = (0..clients)
            .map(|_| UnixStream::connect(&socket))
            .collect::<std::io::Result<_>>()?;
        loop {
            let found = gateways(&daemon)?;
            let mut uids = Vec::new();
            let mut sockets = Vec::new();
            let confined = found.iter().try_for_each(|pid| {
                let fields = status(&format!("/proc/{pid}/status"))?;
                uids.push(fields["Uid"].clone());
                let served = count_sockets(*pid)?.saturating_sub(IDLE_SOCKETS);
                sockets.push(served);
                let pid = *pid;
                let sockets = IDLE_SOCKETS + served;
                a_gateway_is_confined(&Worker { pid, sockets })
            });
            uids.sort();
            uids.dedup();
            sockets.sort_unstable();
            // A client's, and an end of its session.
            let expected: Vec<usize> = (0..count)
                .map(|at| if at + clients < count { 0 } else { 2 })
                .collect();
            let whole = confined.is_ok() && uids.len() == count && sockets == expected;
            if whole {
                let last = found.last().context("a gateway")?;
                landlock_refuses_what_nothing_else_does(&Worker {
                    pid: *last,
                    sockets: 0,
                })?;
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{found:?}: {confined:?}, uids {uids:?}, sockets {sockets:?}: {}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(connected);
    }
    Ok(())
}

fn count_sockets(pid: u32) -> Result<usize> {
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path())?;
        sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(sockets)
}

#[test]
fn a_gateway_on_this_machine_is_confined_and_all_of_it_is_explained() -> Result<()> {
    holds_for_gateways()
}

#[reeve_tests::in_lab(timeout = "90s", root)]
fn a_gateway_in_the_lab_is_confined_and_all_of_it_is_explained() -> Result<()> {
    holds_for_gateways()
}

#[test]
fn a_daemons_worker_on_this_machine_is_confined_and_all_of_it_is_explained() -> Result<()> {
    holds_for_a_daemons_worker()
}

#[reeve_tests::in_lab(timeout = "90s", root)]
fn a_daemons_worker_in_the_lab_is_confined_and_all_of_it_is_explained() -> Result<()> {
    holds_for_a_daemons_worker()
}

/// A number as the register that carries it.
fn bits(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}
