//! A shell in the jail of a service tries what it may not. Where there is no root to give up there is nothing to try.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use reeve_sandbox::service::{Access, Service, prepare};

const UID: u32 = 0x7266_0001;

/// What a script says in the jail, which may read what is `shared` and write `shared/book`.
fn said(shared: &Path, script: &str) -> String {
    let launcher = File::open(env!("CARGO_BIN_EXE_reeve-sandbox-probe")).unwrap();
    let paths = [
        (Access::Execute, "/usr".into()),
        (Access::Execute, "/bin".into()),
        (Access::Execute, "/lib".into()),
        (Access::Execute, "/lib64".into()),
        (Access::Read, "/etc".into()),
        (Access::Read, "/proc".into()),
        (Access::Read, "/nowhere/at/all".into()),
        (Access::Write, "/dev/null".into()),
        (Access::Read, shared.to_owned()),
        (Access::Write, shared.join("book")),
    ];
    let service = Service {
        launcher: launcher.as_fd(),
        path: Path::new("/bin/sh"),
        arguments: &["-c".into(), OsString::from(script)],
        uid: UID,
        capabilities: &[10],
        paths: &paths,
        directories: &[],
        tcp_ports: &[53],
    };
    let waiting = prepare(&service).unwrap();
    assert!(Path::new(&format!("/proc/{}", waiting.pid())).exists());
    let words = waiting.go().unwrap();
    let (mut words, mut text) = (File::from(words), String::new());
    let begin = Instant::now();
    // It ends with the last of what writes there; until then there may be nothing to read.
    while words.read_to_string(&mut text).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
    text
}

fn shared() -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let shared = tempfile::tempdir().unwrap();
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(shared.path(), open(0o777)).unwrap();
    for name in ["told", "book"] {
        let file = shared.path().join(name);
        std::fs::write(&file, name).unwrap();
        chown(&file, Some(UID), Some(UID)).unwrap();
    }
    Some(shared)
}

#[test]
fn a_service_is_nobody_with_what_it_needs() {
    let Some(shared) = shared() else { return };
    let text = said(
        shared.path(),
        "cat /proc/self/status; ls /proc/self/fd; env; pwd",
    );
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let own = UID.to_string();
    assert_eq!(field("Uid:"), [own.as_str(); 4].join(" "), "{text}");
    assert_eq!(field("Gid:"), [own.as_str(); 4].join(" "));
    assert_eq!(
        (field("Groups:").as_str(), field("NoNewPrivs:").as_str()),
        ("", "1")
    );
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000400", "{set}");
    }
    assert_eq!(field("Seccomp:"), "2");
    // Those three, and the one by which ls looks.
    let fds = text.split("THP_enabled").nth(1).unwrap_or(&text);
    assert!(
        !fds.lines().any(|line| line == "4" || line == "64"),
        "{fds}"
    );
}

#[test]
fn a_service_reaches_no_file_but_its_own() {
    let Some(shared) = shared() else { return };
    let directory = shared.path().display();
    let outside = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let open = outside.path().join("open");
    std::fs::write(&open, "secret").unwrap();
    let script = format!(
        "cat {directory}/told; echo more >{directory}/book; echo more >{directory}/told; \
         echo new >{directory}/other; rm {directory}/told; cat {open}; echo x >{outside}/x; echo end",
        open = open.display(),
        outside = outside.path().display(),
    );
    let text = said(shared.path(), &script);
    assert!(text.contains("told") && text.contains("end"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let read = |name: &str| std::fs::read_to_string(shared.path().join(name)).unwrap_or_default();
    assert_eq!(
        (read("book").as_str(), read("told").as_str()),
        ("more\n", "told"),
        "{text}"
    );
    assert!(!shared.path().join("other").exists() && !outside.path().join("x").exists());
}

#[test]
fn a_service_signals_nobody_and_makes_no_namespace() {
    let Some(shared) = shared() else { return };
    let script = "kill -0 $PPID && echo killed; unshare --user true && echo unshared; \
        mount -t tmpfs x /tmp && echo mounted; nsenter -t 1 -n true && echo entered; echo end";
    let text = said(shared.path(), script);
    assert!(text.contains("end"), "{text}");
    for done in ["killed", "unshared", "mounted", "entered"] {
        assert!(!text.lines().any(|line| line == done), "{text}");
    }
}

#[test]
fn a_service_that_is_given_no_leave_ends() {
    let Some(shared) = shared() else { return };
    let launcher = File::open(env!("CARGO_BIN_EXE_reeve-sandbox-probe")).unwrap();
    let service = Service {
        launcher: launcher.as_fd(),
        path: Path::new("/bin/sh"),
        arguments: &[
            "-c".into(),
            OsString::from("echo >$0"),
            shared.path().join("book").into(),
        ],
        uid: UID,
        capabilities: &[],
        paths: &[(Access::Execute, "/usr".into())],
        directories: &[],
        tcp_ports: &[],
    };
    let waiting = prepare(&service).unwrap();
    let status = format!("/proc/{}/status", waiting.pid());
    drop(waiting);
    let begin = Instant::now();
    let lives = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
    while lives() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "it waits for ever"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let book = std::fs::read_to_string(shared.path().join("book")).unwrap();
    assert_eq!(book, "book");
    let root = Service { uid: 0, ..service };
    assert!(prepare(&root).is_err());
    let missing = Service {
        uid: UID,
        path: Path::new("/nowhere"),
        ..root
    };
    let error = prepare(&missing).unwrap().go().unwrap_err().to_string();
    assert!(error.contains("executing the program"), "{error}");
}
