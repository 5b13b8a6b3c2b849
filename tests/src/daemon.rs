//! A whole instance of the daemon in two directories of its own, started, killed and started again.
//!
//! Dropping it ends the daemon and kills the workers that live on, so that a failed test leaves nothing. Before that
//! the documents are checked that it printed for clients of libvirt's ([`Documents`]).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_ipc::api::SOCKET_NAME;
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainGet, DomainRef};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::DomainDetails;
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use uuid::Uuid;

use crate::documents::{Documents, fails_at_end};
use crate::reeve::product;

/// How long a daemon may take to serve, or to end.
const SOON: Duration = Duration::from_secs(20);

/// The configuration of one that a test does not configure.
const OWN_CONFIG: &str = "own.toml";

/// One instance.
#[derive(Debug)]
pub struct Daemon {
    directory: TempDir,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// Its executable, where that is not the product itself.
    program: Option<PathBuf>,
    /// How many descriptors it may open.
    descriptors: Option<u32>,
    /// The capabilities that it may have, as setpriv(1) has them; all, where nothing is said.
    capabilities: Option<String>,
    /// What its log is written to.
    log: PathBuf,
    /// What it printed for clients of libvirt's.
    pub documents: Documents,
}

impl Daemon {
    /// An instance with nothing in its directories, serving.
    ///
    /// # Errors
    /// It does not serve in time; its log is in the error.
    pub fn start() -> Result<Self> {
        let mut daemon = Self::prepare()?;
        daemon.spawn()?;
        Ok(daemon)
    }

    /// An instance that is not started yet.
    ///
    /// # Errors
    /// No directory for it.
    pub fn prepare() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("reeved-")
            .tempdir_in(std::env::temp_dir())?;
        // As what holds the directories of a packaged one: servers of networks, which are other users, pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory.path(), open)?;
        let log = directory.path().join("reeved.log");
        // Its processes and descriptors are counted.
        std::fs::write(directory.path().join(OWN_CONFIG), "libvirt = false\n")?;
        Ok(Self {
            directory,
            child: None,
            environment: Vec::new(),
            arguments: Vec::new(),
            program: None,
            descriptors: None,
            capabilities: None,
            log,
            documents: Documents::default(),
        })
    }

    /// Sets a variable of its environment from the next start on; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(other, _)| other != name);
        if !value.is_empty() {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Lets it serve clients of libvirt's protocol, from the next start on, where no test configures it
    /// otherwise.
    ///
    /// # Errors
    /// No room for its configuration.
    pub fn serve_libvirt(&mut self) -> Result<()> {
        std::fs::write(self.directory.path().join(OWN_CONFIG), "libvirt = true\n")?;
        Ok(())
    }

    /// A further argument from the next start on.
    pub fn argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// Lets it execute another product in place of the worker, from the next start on: it takes the
    /// worker that lies beside it.
    ///
    /// # Errors
    /// There is no such product, or no room for a copy.
    pub fn set_worker(&mut self, worker: &str) -> Result<()> {
        let place = self.directory.path().join("bin");
        std::fs::create_dir_all(&place)?;
        let program = place.join("reeved");
        for (product, to) in [
            (product("reeved")?, program.clone()),
            (product(worker)?, place.join("reeve-worker")),
        ] {
            if std::fs::hard_link(&product, &to).is_err() {
                std::fs::copy(&product, &to)?;
            }
        }
        self.program = Some(program);
        Ok(())
    }

    /// How many descriptors it may open at most, from the next start on; `None` is as many as the
    /// test itself.
    pub fn limit_descriptors(&mut self, limit: Option<u32>) {
        self.descriptors = limit;
    }

    /// Gives it the capabilities that the package's unit does and no other, from the next start on.
    ///
    /// # Errors
    /// The unit cannot be read, or says nothing of them.
    pub fn confine_as_packaged(&mut self) -> Result<()> {
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/reeved.service");
        let unit = std::fs::read_to_string(unit)?;
        let set = unit
            .lines()
            .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .context("the unit has no CapabilityBoundingSet=")?;
        let mut capabilities = "-all".to_owned();
        for name in set.split_whitespace() {
            let name = name.strip_prefix("CAP_").context("a capability")?;
            capabilities.push_str(&format!(",+{}", name.to_lowercase()));
        }
        self.capabilities = Some(capabilities);
        Ok(())
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Its run directory.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run().join(SOCKET_NAME)
    }

    /// What it has logged since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its command line, to be run by the caller.
    ///
    /// # Errors
    /// There is no such program.
    pub fn command(&self) -> Result<Command> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => product("reeved")?,
        };
        let mut command = match (self.descriptors, &self.capabilities) {
            (None, None) => Command::new(program),
            (None, Some(capabilities)) => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--no-new-privs", "--inh-caps=-all"])
                    .arg(format!("--bounding-set={capabilities}"))
                    .arg(program);
                command
            }
            (Some(limit), _) => {
                let mut command = Command::new("prlimit");
                command
                    .arg(format!("--nofile={limit}:{limit}"))
                    .arg(program);
                command
            }
        };
        if !self
            .arguments
            .iter()
            .any(|argument| argument.starts_with("--config"))
        {
            let own = self.directory.path().join(OWN_CONFIG);
            command.arg("--config").arg(own);
        }
        command
            .arg("--state-dir")
            .arg(self.state())
            .arg("--run-dir")
            .arg(self.run())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(command)
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// It ends, or does not serve in time; its log is in the error.
    pub fn spawn(&mut self) -> Result<()> {
        self.spawn_unready()?;
        let deadline = Instant::now() + SOON;
        loop {
            if Connection::open(&self.socket(), "test").is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                self.child = None;
                bail!("reeved ended with {status}: {}", self.log());
            }
            ensure!(
                Instant::now() < deadline,
                "reeved does not serve: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// It cannot be executed.
    pub fn spawn_unready(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = self.command()?.stderr(log).spawn();
        self.child = Some(child.context("reeved cannot be executed")?);
        Ok(())
    }

    /// A connection to it.
    ///
    /// # Errors
    /// It does not serve.
    pub fn connect(&self) -> Result<Connection> {
        Ok(Connection::open(&self.socket(), "test")?)
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// As for [`Self::spawn`].
    pub fn crash(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn()
    }

    /// Whether it has ended by itself; it can be started again then.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?.is_some(),
            None => true,
        };
        if ended {
            self.child = None;
        }
        Ok(ended)
    }

    /// Waits for an end that somebody else makes; whether it was killed by a signal.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait_for_end(&mut self) -> Result<std::process::ExitStatus> {
        let child = self.child.as_mut().context("it does not run")?;
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "reeved does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells it to end in good order, and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        let pid = self.pid().context("it does not run")?;
        signal(pid, Signal::TERM)?;
        self.wait_for_end()
    }

    /// Runs `reeve` against it; its standard output, if it succeeds.
    ///
    /// # Errors
    /// It fails; its standard error is in the error.
    pub fn reeve(&self, arguments: &[&str]) -> Result<String> {
        let output = self.reeve_command(arguments)?.output()?;
        ensure!(
            output.status.success(),
            "reeve {arguments:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The command line of `reeve` against it.
    ///
    /// # Errors
    /// There is no such program.
    pub fn reeve_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(product("reeve")?);
        command
            .env("REEVE_SOCKET", self.socket())
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The workers of this instance that live.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        worker_pids(&self.run())
    }
}

/// Removes the cgroup of a killed daemon's gateways, which its next one would remove: they end with it, a moment
/// later.
fn remove_cgroup_of_gateways(daemon: u32) {
    let end = format!("-{daemon}");
    let is_its = |name: &str| name.starts_with("gateways-") && name.ends_with(&end);
    let place = std::fs::read_dir("/sys/fs/cgroup");
    let mut entries = place.into_iter().flatten().flatten();
    let found = entries.find(|entry| entry.file_name().to_str().is_some_and(is_its));
    let Some(cgroup) = found.map(|entry| entry.path()) else {
        return;
    };
    let deadline = Instant::now() + SOON;
    while std::fs::remove_dir(&cgroup).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let serves = matches!(self.has_ended(), Ok(false));
        let socket = self.run().join("libvirt-sock");
        let socket = Some(socket).filter(|socket| serves && socket.exists());
        let documents = match std::thread::panicking() {
            false => self.documents.check(socket.as_deref()),
            true => Ok(()),
        };
        if let Some(pid) = self.pid() {
            let _ = self.kill();
            remove_cgroup_of_gateways(pid);
        }
        for pid in self.workers() {
            let _ = signal(pid, Signal::KILL);
            let _ = crate::domain::wait_until_gone(pid, Duration::from_secs(5));
        }
        if std::thread::panicking() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "the daemon said:\n{}", self.log());
        }
        if let Err(fault) = documents {
            fails_at_end(&fault);
        }
    }
}

/// A definition of the built-in guest with this command line, 32 MiB and one vCPU.
#[must_use]
pub fn built_in(name: &str, command_line: &str) -> Domain {
    Domain {
        name: name
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
        uuid: DomainUuid(Uuid::new_v4()),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap_or_else(|error| panic!("{error}")),
        max_vcpus: Vcpus::try_from(1).unwrap_or_else(|error| panic!("{error}")),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(32),
        boot: BootSource::BuiltIn {
            command_line: command_line.to_owned(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

/// Names a domain by its name.
#[must_use]
pub fn named(name: &str) -> DomainRef {
    DomainRef::Name(
        name.parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

/// Waits until the domain is in a state that `wanted` accepts; `None` is no domain.
///
/// # Errors
/// It is not in time; the last state is in the error.
pub fn wait_for(
    connection: &mut Connection,
    domain: &DomainRef,
    wanted: impl Fn(Option<&DomainDetails>) -> bool,
) -> Result<Option<DomainDetails>> {
    let deadline = Instant::now() + SOON;
    loop {
        let call = DomainGet {
            domain: domain.clone(),
        };
        let details = match connection.call(call) {
            Ok(details) => Some(details),
            Err(error)
                if error
                    .refused()
                    .is_some_and(|e| e.code == ApiErrorCode::NoDomain) =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        if wanted(details.as_ref()) {
            return Ok(details);
        }
        ensure!(Instant::now() < deadline, "domain {domain} is {details:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {pid:?}"))
}

/// The workers that a run directory's statuses tell of and that live.
fn worker_pids(run: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(run.join("domains"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(text) = std::fs::read(entry.path().join("status.json")) else {
            continue;
        };
        let status: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if let Some(pid) = find_pid(&status).and_then(|pid| u32::try_from(pid).ok()) {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if exe.to_string_lossy().contains("reeve-worker") {
                pids.push(pid);
            }
        }
    }
    pids
}

fn find_pid(value: &serde_json::Value) -> Option<u64> {
    match value {
        serde_json::Value::Object(fields) => fields
            .get("pid")
            .and_then(serde_json::Value::as_u64)
            .or_else(|| fields.values().find_map(find_pid)),
        _ => None,
    }
}
