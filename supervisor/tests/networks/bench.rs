//! A host to try networks on: a network namespace of the calling thread, where there is the right to one.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reeve_ipc::model::Network;
use reeved::host::network::{Directories, Host};
use reeved::network::host::{NetworkHost, NetworkHostError, NetworkResources};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// How long what happens by itself may take.
pub const SOON: Duration = Duration::from_secs(20);

/// Runs the test where it can break nothing; not at all where there is no right to a namespace.
pub fn alone(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        #[expect(
            unsafe_code,
            reason = "unshare may leave a process with shared descriptors"
        )]
        // SAFETY: descriptors stay shared; the namespaces are a matter of this thread only.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) };
        if unshared.is_ok() {
            // `/sys` shows the interfaces of the namespace in which it was mounted.
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).unwrap();
            ip(&["link", "set", "lo", "up"]);
            test();
        }
    };
    std::thread::spawn(run).join().unwrap();
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

pub fn ip_shows(arguments: &[&str]) -> String {
    run("ip", arguments)
}

pub fn nft(arguments: &[&str]) -> String {
    run("nft", arguments)
}

pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What `ip` shows without what goes on by itself: timers, and the search for others with an address.
fn settled(shown: &str) -> String {
    let mut words = shown.split_inclusive([' ', '\n']);
    let mut kept = String::new();
    while let Some(word) = words.next() {
        if word.trim_end().ends_with("_timer") {
            // Blanks, and the time.
            words.by_ref().find(|word| !word.trim().is_empty());
        } else if word.trim_end() != "tentative" {
            kept += word;
        }
    }
    kept
}

/// The networks of a host, and where they are written down.
pub struct Bench {
    pub host: Host,
    pub directory: tempfile::TempDir,
    /// What was noted last.
    pub noted: RefCell<Option<NetworkResources>>,
}

fn launcher() -> OwnedFd {
    let file = std::fs::File::open(env!("CARGO_BIN_EXE_reeve-hostile-worker"));
    file.unwrap().into()
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // As that of the daemon, others pass through it.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let host = Self::supervisor(directory.path());
        Self {
            host,
            directory,
            noted: RefCell::default(),
        }
    }

    /// A supervisor of those directories.
    pub fn supervisor(directory: &Path) -> Host {
        Host::new(Directories {
            run: directory.join("run"),
            state: directory.join("state"),
        })
        .with_launcher(launcher())
    }

    pub fn start(&self, network: &Network) -> Result<NetworkResources, NetworkHostError> {
        let started = self.host.start(network, &mut |noted| self.note(noted));
        if let Ok(resources) = &started {
            let noted = self.noted.borrow();
            assert_eq!(noted.clone().unwrap_or_default(), *resources);
        }
        started
    }

    pub fn update(
        &self,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
    ) -> Result<NetworkResources, NetworkHostError> {
        let note = &mut |noted: &NetworkResources| self.note(noted);
        self.host.update(before, after, resources, note)
    }

    pub fn note(&self, noted: &NetworkResources) -> Result<(), NetworkHostError> {
        *self.noted.borrow_mut() = Some(noted.clone());
        Ok(())
    }

    /// All that a network could leave on a host.
    pub fn dump(&self) -> String {
        let mut dump = String::new();
        for of in [
            &["-details", "link"][..],
            &["addr"],
            &["route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
            &["rule"],
        ] {
            dump += &settled(&ip_shows(of));
        }
        dump += &nft(&["list", "ruleset"]);
        let settings = "cd /proc/sys/net && grep . ipv4/ip_forward ipv*/conf/*/forwarding ipv4/conf/*/accept_redirects";
        dump += &run("sh", &["-c", settings]);
        let servers = self.directory.path().join("run/servers");
        let servers = std::fs::read_dir(servers);
        dump += &servers.map_or(0, Iterator::count).to_string();
        dump
    }
}

impl Drop for Bench {
    /// A test that fails leaves no server behind: they outlive whoever started them.
    fn drop(&mut self) {
        let own = self.directory.path().as_os_str().as_encoded_bytes();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let pid = pid.and_then(rustix::process::Pid::from_raw);
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let ours = line.windows(own.len()).any(|part| part == own);
            if let Some(pid) = pid.filter(|_| ours) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
