//! An instance of its own for each test, and clients of any user that say what they like.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{Call, CallBody, DomainDefine, DomainRef, DomainStart, StartOptions};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::message::{CallId, FromClient, ToClient};
use reeve_ipc::api::{API, ApiVersion, SOCKET_NAME};
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use reeve_ipc::{codec, local, scm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tempfile::TempDir;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(10);

/// Groups that every host has (`/etc/group`), and users that none needs to know.
pub const READ_WRITE: (&str, u32) = ("daemon", 1);
pub const READ_ONLY: (&str, u32) = ("bin", 2);
/// In no group that may anything.
pub const STRANGER: User = User(4242, &[4242]);
pub const WRITER: User = User(4243, &[4243, READ_WRITE.1]);
pub const READER: User = User(4244, &[READ_ONLY.1]);

/// A uid, with its groups; the first is the one that its processes have.
#[derive(Debug, Clone, Copy)]
pub struct User(pub u32, pub &'static [u32]);

/// A running `reeved`.
pub struct Instance {
    directory: TempDir,
    child: Option<Child>,
    program: PathBuf,
}

impl Instance {
    /// With the two groups, and these further lines of configuration; without libvirt's front door.
    pub fn start(configuration: &str) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_reeved"));
        Self::start_program(&format!("libvirt = false\n{configuration}"), |_| program)
    }

    /// With the two groups, and `gateway` in the place of the program that serves clients of libvirt's
    /// protocol.
    pub fn with_gateway(configuration: &str, gateway: &Path) -> Self {
        Self::start_program(configuration, |directory| {
            let place = directory.join("bin");
            fs::create_dir(&place).unwrap();
            // It takes the one that lies beside it.
            let reeved = place.join("reeved");
            for (from, to) in [
                (Path::new(env!("CARGO_BIN_EXE_reeved")), reeved.clone()),
                (gateway, place.join("reeve-gateway")),
            ] {
                if fs::hard_link(from, &to).is_err() {
                    fs::copy(from, &to).unwrap();
                }
            }
            reeved
        })
    }

    fn start_program(configuration: &str, program: impl FnOnce(&Path) -> PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Other users have to find the socket.
        let anybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), anybody).unwrap();
        let program = program(directory.path());
        let mut instance = Self {
            directory,
            child: None,
            program,
        };
        let groups = format!(
            "read_write_group = \"{}\"\nread_only_group = \"{}\"\n",
            READ_WRITE.0, READ_ONLY.0
        );
        instance.configure(&(groups + configuration));
        instance.spawn();
        instance
    }

    /// Writes the configuration; a start or a reload takes it up.
    pub fn configure(&self, text: &str) {
        fs::write(self.directory.path().join("reeve.toml"), text).unwrap();
    }

    fn spawn(&mut self) {
        let at = |name: &str| self.directory.path().join(name);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(at("log"))
            .unwrap();
        let child = Command::new(&self.program)
            .args(["--driver", "test", "--config"])
            .arg(at("reeve.toml"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--run-dir")
            .arg(at("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.eventually("it serves", |instance| {
            Connection::open(&instance.socket(), "test").is_ok()
        });
    }

    /// Kills it and starts it again.
    pub fn crash(&mut self) {
        self.end();
        self.spawn();
    }

    /// Tells it to end in good order, and waits.
    pub fn terminate(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let ended = self.child.take().unwrap().wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log());
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run").join(SOCKET_NAME)
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        let pid = self.pid().as_raw_nonzero();
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    /// Stops it while `work` is done: all that `work` says is there when it goes on.
    pub fn frozen<T>(&self, work: impl FnOnce() -> T) -> T {
        kill_process(self.pid(), Signal::STOP).unwrap();
        let result = work();
        kill_process(self.pid(), Signal::CONT).unwrap();
        result
    }

    /// A connection as root.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket(), "test").unwrap()
    }

    /// Waits until something is so.
    pub fn eventually(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < deadline, "never: {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does something as another user: a thread of its own has that user's credentials.
pub fn as_user<T: Send>(user: User, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let groups: Vec<Gid> = user.1.iter().map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups).unwrap();
            set_thread_gid(groups[0]).unwrap();
            set_thread_uid(Uid::from_raw(user.0)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A client that says what it likes.
#[derive(Debug)]
pub struct Raw(OwnedFd);

impl Raw {
    pub fn connect(instance: &Instance) -> Self {
        Self(local::connect(&instance.socket()).unwrap())
    }

    /// Connected and let in.
    pub fn greeted(instance: &Instance) -> Self {
        let raw = Self::connect(instance);
        raw.hello(API);
        let first = raw.hear();
        assert!(matches!(first, Some(ToClient::Welcome { .. })), "{first:?}");
        raw
    }

    pub fn hello(&self, api: ApiVersion) {
        let client = "raw".to_owned();
        self.say(&FromClient::Hello { api, client });
    }

    pub fn call(&self, id: u64, call: impl Call) {
        let body = call.into_body();
        self.body(id, body);
    }

    pub fn body(&self, id: u64, body: CallBody) {
        let id = CallId(id);
        self.say(&FromClient::Call { id, body });
    }

    pub fn say(&self, message: &FromClient) {
        assert!(self.bytes(&codec::encode(message).unwrap(), &[]), "closed");
    }

    /// Whether the bytes could be sent.
    pub fn bytes(&self, bytes: &[u8], fds: &[OwnedFd]) -> bool {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        scm::send(self.0.as_fd(), bytes, &fds).is_ok()
    }

    /// Whether the bytes could be sent with descriptors; a kernel that can refuses them (Linux 6.16).
    pub fn strays(&self, bytes: &[u8], fds: &[OwnedFd]) -> bool {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        match scm::send(self.0.as_fd(), bytes, &fds) {
            Err(scm::ScmError::Os(Errno::PERM)) => false,
            sent => {
                sent.unwrap();
                true
            }
        }
    }

    /// Sends past our own side's limit; whether the kernel took it.
    pub fn unlimited(&self, bytes: &[u8]) -> bool {
        rustix::net::send(&self.0, bytes, rustix::net::SendFlags::NOSIGNAL).is_ok()
    }

    /// The next message; `None` when the supervisor has closed the connection.
    pub fn hear(&self) -> Option<ToClient> {
        let timeout = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        assert_eq!(ready, Ok(1), "the supervisor says nothing");
        match scm::receive_message(self.0.as_fd()) {
            Ok((bytes, _)) => Some(codec::decode(&bytes).unwrap()),
            Err(scm::ScmError::Closed) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message is an answer: its call and its error, if it has one.
    pub fn answer(&self) -> (u64, Option<ApiError>) {
        match self.hear() {
            Some(ToClient::Reply { id, result }) => (id.0, result.err()),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The connection is refused: why.
    pub fn refusal(&self) -> ApiError {
        match self.hear() {
            Some(ToClient::Refused(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn shut(self) {
        drop(self.0);
    }
}

pub fn named(name: &str) -> DomainRef {
    DomainRef::Name(name.parse().unwrap())
}

pub fn domain(name: &str) -> Domain {
    Domain {
        name: name.parse().unwrap(),
        uuid: DomainUuid(Uuid::new_v4()),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(32),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

pub fn define(name: &str) -> DomainDefine {
    DomainDefine {
        definition: Box::new(domain(name)),
        only_new: false,
    }
}

pub fn start(name: &str, auto_destroy: bool) -> DomainStart {
    DomainStart {
        domain: named(name),
        options: StartOptions {
            paused: false,
            auto_destroy,
        },
    }
}

/// The code of a refusal.
pub fn code(error: &reeve_ipc::api::blocking::CallError) -> Option<ApiErrorCode> {
    error.refused().map(|error| error.code)
}
