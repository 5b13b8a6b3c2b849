//! The control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::harness::{Installation, PATIENCE, assert_refusal, wait, wait_for};

fn start(installation: &Installation, path: &Path) -> Child {
    let mut command = installation.run("good");
    let child = command
        .arg("--control")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(path);
    child
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(path: &Path) -> Self {
        let begin = Instant::now();
        // It has its name a moment before it listens.
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self(BufReader::new(stream)),
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask(&mut self, line: &str) -> Value {
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        self.0.read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    }
}

#[test]
fn commands_are_answered_with_a_line_each() {
    let installation = Installation::new();
    let path = installation.directory.path().join("control");
    let mut child = start(&installation, &path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect(&path);
    let status = client.ask("status\n");
    assert_eq!(status["ok"], true);
    assert_eq!(status["phase"], "running");
    assert!(Path::new(&format!("/proc/{}", status["pid"])).exists());
    for command in ["pause\n", "resume\n", "power-button\n", "reset\n"] {
        assert_eq!(client.ask(command)["ok"], true, "{command}");
    }
    assert_eq!(client.ask("dance\n")["ok"], false);
    drop(client);
    let mut second = Client::connect(&path);
    assert_eq!(second.ask("destroy\n")["ok"], true);
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(!path.exists());
    installation.assert_nothing_left();
}

#[test]
fn a_line_without_end_is_refused_and_closed() {
    let installation = Installation::new();
    let path = installation.directory.path().join("control");
    let mut child = start(&installation, &path);
    let mut client = Client::connect(&path);
    let reply = client.ask(&"x".repeat(256));
    assert_eq!(reply["ok"], false);
    let mut rest = String::new();
    assert_eq!(client.0.read_line(&mut rest).unwrap_or(0), 0);
    assert_eq!(Client::connect(&path).ask("destroy\n")["ok"], true);
    wait(&mut child);
}

#[test]
fn a_path_longer_than_a_sockets_address_works() {
    let installation = Installation::new();
    let deep = installation
        .directory
        .path()
        .join("d".repeat(100))
        .join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let path = deep.join("control");
    let mut child = start(&installation, &path);
    // A client has the same limit, and the same way around it.
    let directory = std::fs::File::open(&deep).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let short = format!("/proc/self/fd/{number}/control");
    assert_eq!(
        Client::connect(Path::new(&short)).ask("destroy\n")["ok"],
        true
    );
    wait(&mut child);
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_taken_stays_as_it_is() {
    let installation = Installation::new();
    let path = installation.directory.path().join("control");
    std::fs::write(&path, "mine").unwrap();
    let output = installation
        .run("good")
        .arg("--control")
        .arg(&path)
        .output()
        .unwrap();
    assert_refusal(&output, 1, &["control exists already", "name another"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let output = installation.output(&["run", "--control", "/nowhere/control"]);
    assert_refusal(
        &output,
        1,
        &["cannot open the directory", "/nowhere/control"],
    );
    installation.assert_nothing_left();
}
