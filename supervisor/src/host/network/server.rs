//! A network's server of names and addresses: dnsmasq, one for each, in a jail of its own.
//!
//! ```text
//!   <run>/servers/<uuid>/dnsmasq.conf    what it is told (`configuration.rs`)
//!   <run>/servers/<uuid>/dhcp-hosts      known hosts; read again on SIGHUP, as is
//!   <run>/servers/<uuid>/dns-hosts       names of addresses
//!   <run>/servers/<uuid>/hosts           copies of the host's `/etc/hosts` and `/etc/resolv.conf`, where it gives
//!   <run>/servers/<uuid>/resolv.conf     files by TFTP
//!   <run>/servers/<uuid>/unread-*        what of these was written since the server has read them last
//!   <state>/leases/<uuid>                its book, which it alone writes; survives the network's stop
//! ```
//!
//! It outlives the supervisor, as a worker does, and the next takes it over by its number and its start.
//!
//! ## Decisions
//!
//! 1. 2026-11: each server has a uid of its own, behind those of workers, by the number of its bridge: no two bridges of
//!    a host have one, so that nothing has to be handed out, noted or taken back for a process that may outlive three
//!    supervisors. Numbers that are 65,536 apart share one, and servers of several network namespaces may: each sees and
//!    signals none of the others all the same (`reeve_sandbox::service`).
//!    Its way to its own files must be open to others: the run and the state directory are given that where they have it
//!    not, what is in them is closed by itself.
//! 2. 2026-11: one that gives no files reads `/etc` and where `/etc/resolv.conf` points, as far as anybody may: whom
//!    the host asks for names changes while it runs, by files that are renamed into their place, which a rule for one
//!    file would not follow.
//! 3. 2026-11: the directory of TFTP is one that clients may name (`allowed_directories`), opened by that policy and
//!    handed over as it was opened: dnsmasq finds it by its path. Where that leads elsewhere by then, or by a link in it,
//!    guests get what the server may read besides. So such a server reads nothing of `/etc` but the list of libraries;
//!    of what else it asks for there it has copies, which are compared as often as the network is looked after
//!    ([`copy_names`](Places::copy_names)).

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reeve_ipc::model::{Network, NetworkUuid};
use reeve_sandbox::service::{self, Access, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::book;
use super::configuration::{self, Copies, Files};
use super::failure::{host, host_io};
use super::{Directories, NetworkHostError};
use crate::host::identity::{FIRST_UID, UID_COUNT};
use crate::host::process;
use crate::network::host::ServerProcess;

/// Where Debian has it (package dnsmasq-base).
pub(super) const PROGRAM: &str = "/usr/sbin/dnsmasq";
/// The first uid and gid of servers; as many follow as workers have.
const FIRST: u32 = FIRST_UID + UID_COUNT;
/// NET_BIND_SERVICE: ports 53, 67 and 547. NET_ADMIN: to answer who has no address yet, past ARP. NET_RAW: to ask
/// whether an address is used before it is given out, and to advertise the host as a router.
const CAPABILITIES: [u32; 3] = [10, 12, 13];
/// Names over TCP, from guests and to whom is asked.
const TCP_PORTS: [u16; 1] = [53];
/// How long it has to be there.
const START: Duration = Duration::from_secs(5);
/// How long it has to end by itself.
const END: Duration = Duration::from_millis(500);
/// How long the kernel has to end it.
const KILL: Duration = Duration::from_secs(2);
/// That others may pass through a directory.
const PASS: u32 = 0o001;
/// That others may read a file.
const READ: u32 = 0o004;
/// What it says when it serves.
const STARTED: &str = "started, version";
/// The most of its words that are kept.
const MAX_WORDS: usize = 16 << 10;
/// Names of addresses that the host knows by itself: the file in `/etc` and its copy.
const HOSTS: &str = "hosts";
/// Whom the host asks for names: the same.
const RESOLVERS: &str = "resolv.conf";
/// There while what is read at the start was written, and no server has started with it.
const UNREAD_CONFIGURATION: &str = "unread-configuration";
/// The same of what is read again on SIGHUP, too.
const UNREAD_HOSTS: &str = "unread-hosts";
/// The most bytes of either file in `/etc` that are copied.
const MAX_COPIED: u64 = 1 << 20;

/// The uid and gid of the server of a network whose bridge has that number.
pub(super) const fn uid_of(bridge: u32) -> u32 {
    FIRST + bridge % UID_COUNT
}

/// Where a network's files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    directory: PathBuf,
    leases: PathBuf,
}

impl Places {
    pub(super) fn of(directories: &Directories, uuid: NetworkUuid) -> Self {
        let name = uuid.to_string();
        Self {
            directory: directories.run.join("servers").join(&name),
            leases: directories.state.join("leases").join(&name),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The book.
    pub(super) fn leases(&self) -> &Path {
        &self.leases
    }

    /// Takes what a server is told away, not its book.
    pub(super) fn remove(&self) -> Result<(), NetworkHostError> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(host_io("cannot remove", &self.directory, &error))
            }
            _ => Ok(()),
        }
    }

    /// Writes what the server of a network is told. Gives what of it one that runs has not read.
    pub(super) fn write(
        &self,
        network: &Network,
        bridge: &str,
    ) -> Result<Unread, NetworkHostError> {
        directory(&self.directory, 3)?;
        let leases = self.leases.parent().unwrap_or(&self.leases);
        directory(leases, 2)?;
        let (dhcp_hosts, dns_hosts) = (self.file("dhcp-hosts"), self.file("dns-hosts"));
        let (copied_hosts, resolvers) = (self.file(HOSTS), self.file(RESOLVERS));
        let copies = Copies {
            hosts: &copied_hosts,
            resolvers: &resolvers,
        };
        let files = Files {
            dhcp_hosts: &dhcp_hosts,
            dns_hosts: &dns_hosts,
            leases: &self.leases,
            copies: gives_files(network).then_some(copies),
        };
        let text = configuration::configuration(network, bridge, files);
        let hosts = Some(UNREAD_HOSTS);
        self.put(
            "dhcp-hosts",
            configuration::dhcp_hosts(network).as_bytes(),
            hosts,
        )?;
        self.put(
            "dns-hosts",
            configuration::dns_hosts(network).as_bytes(),
            hosts,
        )?;
        self.copy_names(network)?;
        self.put("dnsmasq.conf", text.as_bytes(), Some(UNREAD_CONFIGURATION))?;
        Ok(self.unread())
    }

    /// Copies what the host knows of names for a server that does not get to it. Of whom to ask it finds another by
    /// itself, as it does of the host's.
    pub(super) fn copy_names(&self, network: &Network) -> Result<(), NetworkHostError> {
        if !gives_files(network) {
            return Ok(());
        }
        self.put(RESOLVERS, &of_host(RESOLVERS)?, None)?;
        self.put(HOSTS, &of_host(HOSTS)?, Some(UNREAD_HOSTS))
    }

    /// Writes a file, where it is not that already, and notes first that it is `unread`: whoever has the server read it
    /// may end before that.
    fn put(&self, name: &str, text: &[u8], unread: Option<&str>) -> Result<(), NetworkHostError> {
        let path = self.file(name);
        if fs::read(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        if let Some(unread) = unread.map(|unread| self.file(unread)) {
            let noted = fs::File::create(&unread);
            noted.map_err(|error| host_io("cannot write", &unread, &error))?;
        }
        put(&path, text)
    }

    /// What its server has not read yet.
    pub(super) fn unread(&self) -> Unread {
        let is = |name| self.file(name).exists();
        match (is(UNREAD_CONFIGURATION), is(UNREAD_HOSTS)) {
            (true, _) => Unread::Configuration,
            (false, true) => Unread::Hosts,
            (false, false) => Unread::Nothing,
        }
    }

    /// Its server has read all of it, or at least the hosts. Where that cannot be noted it reads them once more.
    fn is_read(&self, names: &[&str]) {
        for path in names.iter().map(|name| self.file(name)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "cannot remove {}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// What of its files a server has not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// What is read again on SIGHUP.
    Hosts,
    /// What is read at the start.
    Configuration,
}

/// A directory that others may pass through, whatever the umask is; with `ours` of those that
/// lead to it, itself among them.
fn directory(path: &Path, ours: usize) -> Result<(), NetworkHostError> {
    let made = fs::DirBuilder::new().recursive(true).create(path);
    made.map_err(|error| host_io("cannot make", path, &error))?;
    for each in path.ancestors().take(ours) {
        let mode = mode(each)?;
        if mode & PASS == 0 {
            let open = fs::Permissions::from_mode(mode | PASS);
            let opened = fs::set_permissions(each, open);
            opened.map_err(|error| host_io("cannot open", each, &error))?;
        }
    }
    Ok(())
}

fn mode(path: &Path) -> Result<u32, NetworkHostError> {
    let found = fs::metadata(path);
    let found = found.map_err(|error| host_io("cannot look at", path, &error))?;
    Ok(found.permissions().mode() & 0o7777)
}

/// That a process of another user gets to a file; of a directory that it does not pass, its name is told.
fn reachable(path: &Path) -> Result<(), NetworkHostError> {
    for each in path
        .ancestors()
        .skip(1)
        .filter(|each| *each != Path::new(""))
    {
        if mode(each)? & PASS == 0 {
            return Err(host(format!(
                "the server of names, which is another user, does not get to {} through {}: 'chmod o+x' lets it",
                path.display(),
                each.display()
            )));
        }
    }
    Ok(())
}

/// Writes a file by a temporary.
fn put(path: &Path, text: &[u8]) -> Result<(), NetworkHostError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text)?;
        // What is beneath the run directory is in memory; a later reader must not find half of it all the same.
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| host_io("cannot write", path, &error))
}

/// A file of the host's `/etc`, as far as it is copied; nothing where there is none that anybody may read.
fn of_host(name: &str) -> Result<Vec<u8>, NetworkHostError> {
    let path = Path::new("/etc").join(name);
    let mut text = Vec::new();
    let read = fs::File::open(&path).and_then(|file| {
        let found = file.metadata()?;
        let open = found.is_file() && found.permissions().mode() & READ != 0;
        let most = if open { MAX_COPIED } else { 0 };
        file.take(most).read_to_end(&mut text)
    });
    match read {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(host_io("cannot read", &path, &error))
        }
        _ => Ok(text),
    }
}

/// A server that is there.
fn open(server: &ServerProcess) -> Option<OwnedFd> {
    process::open_of_this_boot(server.pid, server.start_time).ok()
}

/// Its pidfd; `None` where it has ended.
pub(super) fn watch(server: &ServerProcess) -> Option<OwnedFd> {
    open(server).filter(|pidfd| !process::has_ended(pidfd.as_fd()))
}

/// Whether a network's server gives files, so that guests may get what it may read.
fn gives_files(network: &Network) -> bool {
    tftp_roots(network).next().is_some()
}

/// The directories whose files a network's server gives by TFTP.
pub(super) fn tftp_roots(network: &Network) -> impl Iterator<Item = &Path> {
    let roots = network.addresses.iter();
    roots.filter_map(|address| address.tftp_root.as_deref())
}

/// Starts the server of a network whose files are written, as that user and with its TFTP directories opened. `note` is
/// told of it before it runs.
pub(super) fn start(
    launcher: &OwnedFd,
    program: &Path,
    network: &Network,
    places: &Places,
    (uid, roots): (u32, &[OwnedFd]),
    note: impl FnOnce(&ServerProcess) -> Result<(), NetworkHostError>,
) -> Result<ServerProcess, NetworkHostError> {
    if !program.is_file() {
        return Err(host(format!(
            "there is no {}, which gives out addresses and names: install it with 'sudo apt install dnsmasq-base'",
            program.display()
        )));
    }
    book::make_ready(&places.leases, network, uid)?;
    reachable(&places.leases)?;
    reachable(&places.file("dnsmasq.conf"))?;
    for root in tftp_roots(network) {
        // What is in it, and not only itself.
        reachable(&root.join("file"))?;
    }
    let failed = |error: service::ServiceError| {
        host(format!(
            "cannot start {} for network '{}': {error}",
            program.display(),
            network.name
        ))
    };
    let mut option = OsString::from("--conf-file=");
    option.push(places.file("dnsmasq.conf"));
    let waiting = service::prepare(&Service {
        launcher: launcher.as_fd(),
        path: program,
        arguments: &[option],
        uid,
        capabilities: &CAPABILITIES,
        paths: &paths(program, places, gives_files(network)),
        directories: &roots.iter().map(AsFd::as_fd).collect::<Vec<_>>(),
        tcp_ports: &TCP_PORTS,
    })
    .map_err(failed)?;
    let identity = process::identify(waiting.pid());
    let identity = identity.ok_or_else(|| host("the server of names ended at once".to_owned()))?;
    let server = ServerProcess {
        pid: identity.pid,
        start_time: identity.start_ticks,
    };
    let pidfd =
        open(&server).ok_or_else(|| host("the server of names ended at once".to_owned()))?;
    note(&server)?;
    let words = waiting.go().map_err(failed)?;
    await_start(&words, &pidfd).map_err(|last| {
        let _ = end(&server);
        host(format!(
            "{} does not serve network '{}': {last}",
            program.display(),
            network.name
        ))
    })?;
    places.is_read(&[UNREAD_CONFIGURATION, UNREAD_HOSTS]);
    Ok(server)
}

/// What it may do with which paths, where it gives files or not.
fn paths(program: &Path, places: &Places, gives_files: bool) -> Vec<(Access, PathBuf)> {
    let mut paths: Vec<(Access, PathBuf)> = vec![(Access::Execute, program.to_owned())];
    for system in [
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/dnsmasq-base",
        "/lib",
        "/lib64",
    ] {
        paths.push((Access::Execute, system.into()));
    }
    for readable in ["/usr/share/locale", "/proc/sys/net", "/dev/urandom"] {
        paths.push((Access::Read, readable.into()));
    }
    if gives_files {
        paths.push((Access::Read, "/etc/ld.so.cache".into()));
    } else {
        paths.push((Access::Read, "/etc".into()));
        if let Ok(resolver) = fs::canonicalize("/etc/resolv.conf") {
            paths.extend(resolver.parent().map(|at| (Access::Read, at.to_owned())));
        }
    }
    paths.push((Access::Write, "/dev/null".into()));
    paths.push((Access::Read, places.directory.clone()));
    paths.push((Access::Write, places.leases.clone()));
    paths
}

/// Waits until it says that it serves; its last line where it does not.
fn await_start(words: &OwnedFd, pidfd: &OwnedFd) -> Result<(), String> {
    let deadline = Instant::now() + START;
    let mut said = Vec::new();
    loop {
        let ended = process::has_ended(pidfd.as_fd());
        let mut buffer = [0; 4096];
        while let Ok(length) = rustix::io::read(words, &mut buffer) {
            if length == 0 {
                break;
            }
            if said.len() < MAX_WORDS {
                said.extend_from_slice(buffer.get(..length).unwrap_or_default());
            }
        }
        let text = String::from_utf8_lossy(&said);
        if !ended && text.contains(STARTED) {
            return Ok(());
        }
        let last = || last_words(&text);
        if ended {
            return Err(last().unwrap_or_else(|| "it ended at once".to_owned()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let said = last().map_or(String::new(), |line| format!("; it said: {line}"));
            return Err(format!("it is not there after {START:?}{said}"));
        }
        wait(&[words, pidfd], left);
    }
}

/// Its last line that says something, without its name and number.
fn last_words(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).rev();
    let mut lines = lines.map(|line| match line.split_once(": ") {
        Some((name, rest)) if name.starts_with("dnsmasq") => rest,
        _ => line,
    });
    let line = lines.find(|line| !line.is_empty() && *line != "FAILED to start up");
    line.map(str::to_owned)
}

fn wait(fds: &[&OwnedFd], left: Duration) {
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(left).ok();
    // Whatever comes of it is looked at by the caller.
    let _ = poll(&mut fds, timeout.as_ref());
}

/// Has it read what it does not only read at its start; gives whether it is there to.
pub(super) fn reload(server: &ServerProcess, places: &Places) -> Result<bool, NetworkHostError> {
    let told = match watch(server) {
        Some(pidfd) => pidfd_send_signal(pidfd, Signal::HUP),
        None => Err(Errno::SRCH),
    };
    match told {
        Ok(()) => {
            places.is_read(&[UNREAD_HOSTS]);
            Ok(true)
        }
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => {
            let reason = crate::host::reason(errno);
            Err(host(format!(
                "cannot tell the server of names to read its hosts: {reason}"
            )))
        }
    }
}

/// Ends it: by its own will, or where that takes long the kernel's, which also ends one that is stopped. Whoever is
/// its parent reaps it, the host's first process.
pub(super) fn end(server: &ServerProcess) -> Result<(), NetworkHostError> {
    let Some(pidfd) = watch(server) else {
        return Ok(());
    };
    for (signal, time) in [(Signal::TERM, END), (Signal::KILL, KILL)] {
        if pidfd_send_signal(&pidfd, signal) == Err(Errno::SRCH) {
            return Ok(());
        }
        let deadline = Instant::now() + time;
        while !process::has_ended(pidfd.as_fd()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&[&pidfd], left);
        }
        if process::has_ended(pidfd.as_fd()) {
            return Ok(());
        }
    }
    let pid = server.pid;
    Err(host(format!(
        "the server of names, process {pid}, does not end"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_those_that_say_why() {
        let said = "\ndnsmasq[7]: bad option at line 3 of /x\ndnsmasq[7]: FAILED to start up\n\n";
        let words = last_words(said);
        assert_eq!(words.as_deref(), Some("bad option at line 3 of /x"));
        assert_eq!(
            last_words("dnsmasq: no: more\n").as_deref(),
            Some("no: more")
        );
        assert_eq!(last_words(" \n"), None);
    }

    #[test]
    fn a_way_that_others_have_not_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run/servers/x/dnsmasq.conf");
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(directory.path(), closed).unwrap();
        super::directory(file.parent().unwrap(), 3).unwrap();
        let line = reachable(&file).unwrap_err().to_string();
        let through = format!("through {}:", directory.path().display());
        assert!(line.contains(&through), "{line}");
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(directory.path(), open).unwrap();
        reachable(&file).unwrap();
    }
}
