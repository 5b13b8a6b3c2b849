//! A daemon that serves libvirt's clients, and the clients.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::clients::Clients;
use reeve_tests::daemon::Daemon;
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{PROMPT, UP_MARKER};
use reeve_tests::namespace::NetNamespace;
use reeve_tests::reeve::{Builder, Reeve};

/// What takes seconds on an idle machine; the rest is for one under heavy load.
pub const BOOT: Duration = Duration::from_secs(150);
pub const SHELL: Duration = Duration::from_secs(60);
/// How long what was killed may take to be gone.
const SOON: Duration = Duration::from_secs(20);

const VIRSH_PROMPT: &str = "virsh # ";
/// What `virsh edit` runs for its user.
const EDITOR: &str = "sed -i 's|<title>Plain</title>|<title>Edited</title>|'";

/// The daemon and the clients.
pub struct Host {
    pub daemon: Daemon,
    _cgroup: Cgroup,
    clients: Clients,
    files: PathBuf,
    /// Where commands are typed: a program of its own for each would take most of a test.
    virsh: RefCell<Reeve>,
}

impl Host {
    pub fn start() -> Result<Host> {
        Self::start_with("")
    }

    /// With more of a configuration.
    pub fn start_with(more: &str) -> Result<Host> {
        Self::start_in(None, more)
    }

    /// In a network namespace.
    pub fn start_in(namespace: Option<&NetNamespace>, more: &str) -> Result<Host> {
        let cgroup = Cgroup::new()?;
        let mut daemon = Daemon::prepare()?;
        if let Some(namespace) = namespace {
            daemon.in_namespace(namespace);
        }
        let files = daemon.state().with_file_name("files");
        fs::create_dir(&files)?;
        let lab = assets().vmlinux.parent().context("a directory")?;
        let config = files.join("reeve.toml");
        let text = format!("libvirt = true\nallowed_directories = [{lab:?}, {files:?}]\n{more}");
        fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        daemon.argument(&format!("--cgroup={}", cgroup.0.display()));
        daemon.spawn()?;
        let clients = Clients::new()?;
        daemon.documents.start_by(clients.start());
        let mut virsh = client(&clients, &daemon, "virsh");
        // Its editor changes a title, once.
        virsh.env("TERM", "dumb").env("EDITOR", EDITOR);
        let mut virsh = Builder::new(virsh).on_terminal().spawn()?;
        virsh.expect(VIRSH_PROMPT, SHELL)?;
        Ok(Host {
            daemon,
            _cgroup: cgroup,
            clients,
            files,
            virsh: RefCell::new(virsh),
        })
    }

    /// A path that the daemon allows.
    pub fn path(&self, name: &str) -> String {
        self.files.join(name).display().to_string()
    }

    /// A file there.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// A client.
    pub fn client(&self, program: &str) -> Command {
        client(&self.clients, &self.daemon, program)
    }

    /// What virsh prints when this is typed at its prompt, without the white space around it; an error if it
    /// complains.
    pub fn virsh(&self, line: &str) -> Result<String> {
        let mut virsh = self.virsh.borrow_mut();
        virsh.send(format!("{line}\n").as_bytes())?;
        virsh.expect("\n", SHELL)?;
        let printed = virsh.expect(VIRSH_PROMPT, SHELL)?.replace('\r', "");
        ensure!(
            !printed.contains("error:"),
            "{line}: {printed}; the daemon said:\n{}",
            self.daemon.log()
        );
        let documents = &self.daemon.documents;
        documents.printed("qemu:///system", line, &printed);
        Ok(printed.trim().to_owned())
    }

    /// What a client prints, without the white space around it; an error if it fails or complains.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        let output = command.output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && complaint.is_empty(),
            "{}: {complaint}{printed}; the daemon said:\n{}",
            output.status,
            self.daemon.log()
        );
        Ok(printed.trim().to_owned())
    }

    /// Waits until virsh prints something that is as wanted.
    pub fn virsh_until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + SHELL;
        loop {
            let printed = self.virsh(line)?;
            if wanted(&printed) {
                return Ok(printed);
            }
            ensure!(Instant::now() < deadline, "virsh {line}: {printed}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn wait_for_state(&self, domain: &str, wanted: &str) -> Result<()> {
        self.virsh_until(&format!("domstate --reason {domain}"), |state| {
            state == wanted
        })?;
        Ok(())
    }

    /// virsh on a terminal.
    pub fn virsh_on_terminal(&self, line: &str) -> Result<Reeve> {
        let mut command = self.client("virsh");
        command.args(line.split_whitespace());
        Builder::new(command).on_terminal().spawn()
    }

    /// virsh on pipes, which goes on.
    pub fn virsh_listening(&self, line: &str) -> Result<Reeve> {
        let mut command = self.client("virsh");
        command.args(line.split_whitespace());
        Builder::new(command).spawn()
    }
}

/// A place for the cgroups of domains, as the packaged units have one: each domain gets its own.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Cgroup> {
        let path = format!("/sys/fs/cgroup/reeve-test-{}", std::process::id());
        fs::create_dir(&path)?;
        Ok(Cgroup(path.into()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroups(&self.0);
    }
}

/// Removes a cgroup and those in it. What is in them was killed, and is gone a moment later.
fn remove_cgroups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let deadline = Instant::now() + SOON;
    while fs::remove_dir(path).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A client, which finds the daemon as it would where libvirt's socket is the daemon's.
fn client(clients: &Clients, daemon: &Daemon, program: &str) -> Command {
    let socket = daemon.run().join("libvirt-sock");
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let mut command = clients.command(program);
    command.env("LIBVIRT_DEFAULT_URI", uri).stdin(Stdio::null());
    command
}

/// Waits for a guest's shell; what it says of itself as it comes up: its vCPUs, its memory in KiB.
pub fn expect_up(console: &mut Reeve) -> Result<(u32, u64)> {
    console.expect(UP_MARKER, BOOT)?;
    let facts = console.line(SHELL)?;
    console.expect(PROMPT, SHELL)?;
    let mut words = facts.split_whitespace();
    let mut word = || words.next().context("two numbers");
    Ok((word()?.parse()?, word()?.parse()?))
}

/// What a command prints in the guest on whose console it is; an error if it fails.
pub fn guest(console: &mut Reeve, line: &str) -> Result<String> {
    let printed = console.shell(&format!("{line}; echo \"status $?\""), SHELL)?;
    let (printed, status) = printed
        .trim_end()
        .rsplit_once("status ")
        .with_context(|| format!("{line}: {printed}"))?;
    ensure!(status == "0", "{line}: status {status}: {printed}");
    Ok(printed.trim().to_owned())
}

/// Waits until a command succeeds in the guest.
pub fn guest_until(console: &mut Reeve, line: &str) -> Result<()> {
    let next = "n=$((n+1)); [ $n -lt 300 ] || break; usleep 100000";
    guest(
        console,
        &format!("n=0; until {line} 2>/dev/null; do {next}; done; {line}"),
    )?;
    Ok(())
}
