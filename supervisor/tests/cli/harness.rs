//! An installation of its own for each test, and what to do with a running `reeve`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// `reeve` and the hostile worker in a directory that everybody may read.
pub struct Installation {
    pub directory: TempDir,
}

impl Installation {
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let anybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), anybody).unwrap();
        let binaries = [
            (env!("CARGO_BIN_EXE_reeve"), "reeve"),
            (env!("CARGO_BIN_EXE_reeve-hostile-worker"), "reeve-worker"),
        ];
        for (built, name) in binaries {
            let to = directory.path().join(name);
            // A link where the file system is the same: the binaries are large.
            if fs::hard_link(built, &to).is_err() {
                fs::copy(built, &to).unwrap();
            }
        }
        Self { directory }
    }

    pub fn reeve(&self) -> PathBuf {
        self.directory.path().join("reeve")
    }

    /// `reeve run` of a domain that behaves as `behaviour` says.
    pub fn run(&self, behaviour: &str) -> Command {
        let mut command = Command::new(self.reeve());
        command.args(["run", "--memory", "16M", "--name", behaviour]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        Command::new(self.reeve())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Asserts that no process of this installation is left, whatever it is called.
    pub fn assert_nothing_left(&self) {
        let begin = Instant::now();
        while let Some(left) = self.processes().first() {
            assert!(begin.elapsed() < PATIENCE, "{left} is left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a `reeve` has a worker: it obeys signals then.
    pub fn wait_for_worker(&self) {
        let begin = Instant::now();
        while self.processes().len() < 2 {
            assert!(begin.elapsed() < PATIENCE, "no worker came");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn processes(&self) -> Vec<u32> {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/exe"))
                    .is_ok_and(|exe| exe.starts_with(self.directory.path()))
            })
            .collect()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that `output` is a refusal: this code, nothing on standard output, one line that says
/// all of `parts`.
pub fn assert_refusal(output: &Output, code: i32, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert_eq!(line.lines().count(), 1, "not one line: {line}");
    assert!(line.starts_with("reeve: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "no '{part}' in: {line}");
    }
}

/// The report on the last line of standard output.
pub fn report(stdout: &[u8]) -> Value {
    let stdout = text(stdout);
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for the end, at most [`PATIENCE`].
pub fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("reeve does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads lines until one has `wanted` in it.
pub fn wait_for_line(from: &mut impl BufRead, wanted: &str) {
    let found = from
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains(wanted));
    assert!(found, "'{wanted}' never came");
}

/// Starts `command` and waits until the domain is started; gives the rest of standard error.
pub fn start(command: &mut Command) -> (Child, BufReader<ChildStderr>) {
    let command = command.arg("-v").stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "started");
    (child, stderr)
}

/// Waits until `path` exists.
pub fn wait_for(path: &Path) {
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < PATIENCE, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}
