//! Who outlives whom, where a process is born, and what happens outside of a jail.

use std::fs;
use std::process::Command as Process;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use reeve_sandbox::OnParentDeath;
use reeve_sandbox::cgroup::{Hierarchy, Limits};

use crate::harness::{Caller, PROBE, Probe};

#[test]
fn it_dies_with_the_thread_that_spawned_it_when_asked_to() {
    if !Caller::all().contains(&Caller::Root) {
        return dies_with_its_launcher();
    }
    let start = || Probe::start_as(OnParentDeath::Die, None);
    let probe = thread::spawn(start).join().unwrap();
    assert_eq!(
        probe.await_end(Duration::from_secs(5)),
        Some(Some(libc::SIGKILL))
    );
}

fn dies_with_its_launcher() {
    let mut probe = Probe::start(Caller::User, "full", "base", "stay");
    probe.kill_launcher();
    assert!(gone(probe.pid, Duration::from_secs(5)));
}

#[test]
fn an_ordinary_users_worker_dies_with_its_launcher() {
    dies_with_its_launcher();
}

#[test]
fn it_outlives_the_thread_that_spawned_it_when_asked_to() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let probe = thread::spawn(|| Probe::start_as(OnParentDeath::Live, None))
        .join()
        .unwrap();
    assert_eq!(
        probe.await_end(Duration::from_millis(200)),
        None,
        "still alive"
    );
    assert_eq!(probe.finish("").said, ["done ok"]);
}

#[test]
fn it_is_born_in_its_cgroup_and_sees_that_as_the_root() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let hierarchy = Hierarchy::find().expect("a cgroup v2 hierarchy");
    let name = format!("reeve-sandbox-test-{}", std::process::id());
    let cgroup = hierarchy.create(&name, &Limits::default()).unwrap();
    let probe = Probe::start_as(OnParentDeath::Die, Some(cgroup.dir()));
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", probe.pid)).unwrap();
    let own = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap();
    assert!(own.ends_with(&format!("/domains/{name}")), "{membership}");
    let namespace = fs::read_link(format!("/proc/{}/ns/cgroup", probe.pid)).unwrap();
    assert_ne!(namespace, fs::read_link("/proc/self/ns/cgroup").unwrap());
    // The only process in it: the helpers, born there too, are gone.
    let inside = fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap();
    assert_eq!(inside.trim(), probe.pid.to_string());
    cgroup.kill().unwrap();
    assert_eq!(
        probe.await_end(Duration::from_secs(5)),
        Some(Some(libc::SIGKILL))
    );
    cgroup.remove().unwrap();
}

#[test]
fn many_are_started_at_once() {
    let caller = Caller::all()[0];
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..4 {
                    let end = Probe::start(caller, "full", "io", "stay").finish("");
                    assert_eq!(end.said, ["done ok"]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_process_that_stage_a_did_not_start_is_not_jailed() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let status = Process::new(PROBE)
            .args(["full", "base", "stay"])
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .status();
        let _ = sender.send(status.unwrap());
    });
    // Its name is not `jailed`, and no descriptor is where stage B looks.
    let status = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    drop(ours);
    assert!(!status.success());
}

fn gone(pid: i32, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while fs::metadata(format!("/proc/{pid}")).is_ok() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
