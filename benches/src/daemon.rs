//! An instance of `reeved` in directories of its own, with the worker next to it: what the daemon's
//! figures are taken of. Dropping it kills the daemon and every worker that it has.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reeve_ipc::api::SOCKET_NAME;
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDefine, DomainGet, DomainRef, DomainStart, StartOptions, SupervisorInfoGet,
};
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::GUEST_MEMORY_BYTES;
use crate::contender::DEADLINE;

/// What its definitions may name lies here, below its directory.
const IMAGES: &str = "images";
/// Its configuration, below its directory.
const CONFIGURATION: &str = "reeved.toml";

/// Where a run directory may be, as `/run` is on every host: in memory.
const IN_MEMORY: [&str; 2] = ["/run", "/dev/shm"];

/// One instance; it runs. Its run directory is on a tmpfs, where this host has one, and the rest where temporary files
/// are.
#[derive(Debug)]
pub struct Instance {
    directory: TempDir,
    run: TempDir,
    notified: UnixDatagram,
    child: Child,
}

impl Instance {
    /// One with nothing in its directories, serving.
    ///
    /// # Errors
    /// `reeved` was not built, or does not serve in time.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_by(spawn)
    }

    /// One in a network namespace of its own, which ends with it.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_in_namespace() -> anyhow::Result<Self> {
        Self::start_by(spawn_in_namespace)
    }

    fn start_by(spawn: fn(&Path, &Path) -> anyhow::Result<Child>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut places = IN_MEMORY.iter().filter(|place| is_in_memory(place));
        let run = match places.find_map(|place| tempfile::tempdir_in(place).ok()) {
            Some(run) => run,
            None => tempfile::tempdir()?,
        };
        let images = directory.path().join(IMAGES);
        std::fs::create_dir(&images)?;
        let configuration = format!("allowed_directories = [{images:?}]\n");
        std::fs::write(directory.path().join(CONFIGURATION), configuration)?;
        let notified = UnixDatagram::bind(directory.path().join("notify"))?;
        notified.set_read_timeout(Some(DEADLINE))?;
        let child = spawn(directory.path(), run.path())?;
        let instance = Self {
            directory,
            run,
            notified,
            child,
        };
        instance.wait_until_ready()?;
        Ok(instance)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let length = self.notified.recv(&mut buffer);
            let length = length.context("reeved does not tell that it serves")?;
            let told = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if told.lines().any(|line| line == "READY=1") {
                return Ok(());
            }
        }
    }

    /// Kills it as a crash does, its workers left alone, and starts it again; from the start until it
    /// has answered a client.
    ///
    /// # Errors
    /// It does not serve in time.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(self.directory.path(), self.run.path())?;
        self.wait_until_ready()?;
        self.connect()?.call(SupervisorInfoGet {})?;
        Ok(begun.elapsed())
    }

    /// A connection.
    ///
    /// # Errors
    /// It does not serve.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        let socket = self.run.path().join(SOCKET_NAME);
        Ok(Connection::open(&socket, "bench")?)
    }

    /// Where it serves clients of libvirt's.
    #[must_use]
    pub fn libvirt_socket(&self) -> PathBuf {
        self.run.path().join("libvirt-sock")
    }

    /// The built-in guest's image as a file that its definitions may name.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn guest(&self) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join(IMAGES).join("guest.elf");
        std::fs::write(&path, reeve_guest::IMAGE)?;
        Ok(path)
    }

    /// The pids of the processes that serve clients of libvirt's, or wait for one.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn gateways(&self) -> anyhow::Result<Vec<u32>> {
        let children = format!("/proc/{0}/task", self.pid());
        let mut pids = Vec::new();
        for task in std::fs::read_dir(children)? {
            let listed = std::fs::read_to_string(task?.path().join("children"))?;
            for pid in listed.split_whitespace() {
                // One that has just ended is none.
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                if name
                    .is_ok_and(|name| name.trim().as_bytes() == reeve_ipc::gateway::NAME.to_bytes())
                {
                    pids.push(pid.parse()?);
                }
            }
        }
        Ok(pids)
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pids of the workers of its domains that run.
    ///
    /// # Errors
    /// It does not answer.
    pub fn workers(&self) -> anyhow::Result<Vec<u32>> {
        let mut connection = self.connect()?;
        let mut pids = Vec::new();
        for summary in connection.domains(true)? {
            let domain = DomainRef::Uuid(summary.uuid);
            let details = connection.call(DomainGet { domain })?;
            pids.extend(details.worker.map(|worker| worker.pid));
        }
        Ok(pids)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let workers = self.workers().unwrap_or_default();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in workers {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Whether a directory is on a tmpfs.
fn is_in_memory(place: &str) -> bool {
    /// `TMPFS_MAGIC`.
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::statfs(place).is_ok_and(|found| found.f_type == TMPFS)
}

fn spawn(directory: &Path, run: &Path) -> anyhow::Result<Child> {
    let program = product()?;
    execute(Command::new(&program), directory, run)
}

fn spawn_in_namespace(directory: &Path, run: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(product()?);
    execute(command, directory, run)
}

fn product() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("reeved");
    ensure!(program.exists(), "{} was not built", program.display());
    Ok(program)
}

fn execute(mut command: Command, directory: &Path, run: &Path) -> anyhow::Result<Child> {
    command
        .arg("--config")
        .arg(directory.join(CONFIGURATION))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--run-dir")
        .arg(run)
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot execute {command:?}"))
}

/// A definition of the built-in guest, which sleeps until it is destroyed.
///
/// # Errors
/// None for a number that fits a name.
pub fn definition(number: u32) -> anyhow::Result<Domain> {
    Ok(Domain {
        name: format!("domain-{number}").parse()?,
        uuid: DomainUuid(uuid::Uuid::from_u128(u128::from(number) + 1)),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1)?,
        max_vcpus: Vcpus::try_from(1)?,
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize(GUEST_MEMORY_BYTES as u64),
        boot: BootSource::BuiltIn {
            command_line: reeve_guest::mode::HOLD.to_owned(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    })
}

/// Defines so many domains.
///
/// # Errors
/// The daemon's.
pub fn define(connection: &mut Connection, count: u32) -> anyhow::Result<()> {
    for number in 0..count {
        connection.call(DomainDefine {
            definition: Box::new(definition(number)?),
            only_new: true,
        })?;
    }
    Ok(())
}

/// Starts all that [`define`] defined.
///
/// # Errors
/// The daemon's.
pub fn start(connection: &mut Connection, count: u32) -> anyhow::Result<()> {
    for number in 0..count {
        connection.call(DomainStart {
            domain: DomainRef::Uuid(definition(number)?.uuid),
            options: StartOptions::default(),
        })?;
    }
    Ok(())
}
