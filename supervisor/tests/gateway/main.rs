//! libvirt's front door of a real `reeved`, with processes behind it that do what their clients say: who is let
//! in, who is given what, and what becomes of either when the other goes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../api/harness.rs"]
#[expect(dead_code, reason = "the API's own tests use the rest of it")]
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reeve_ipc::api::blocking::Connection;
use rustix::process::{Pid, Signal, kill_process};

use self::harness::{Instance, PATIENCE, READER, STRANGER, User, WRITER, as_user};

const HOSTILE: &str = env!("CARGO_BIN_EXE_reeve-hostile-gateway");
/// No gateway, and it ends at once.
const NONE: &str = env!("CARGO_BIN_EXE_reeve");

fn start(configuration: &str) -> Instance {
    Instance::with_gateway(configuration, Path::new(HOSTILE))
}

fn socket(instance: &Instance) -> PathBuf {
    instance.socket().with_file_name("libvirt-sock")
}

fn read_only(instance: &Instance) -> PathBuf {
    instance.socket().with_file_name("libvirt-sock-ro")
}

/// A client at a socket.
struct Client(UnixStream);

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn connect_as(user: User, path: &Path) -> Self {
        as_user(user, || Self::connect(path))
    }

    /// The answer to a word; `None` once the connection is closed.
    fn ask(&mut self, word: &str) -> Option<String> {
        if self.0.write_all(word.as_bytes()).is_err() {
            return None;
        }
        self.hear()
    }

    fn hear(&mut self) -> Option<String> {
        let mut bytes = [0; 256];
        match self.0.read(&mut bytes) {
            Ok(0) => None,
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither answered nor closed: {error}"),
        }
    }
}

fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().to_owned())
}

/// The gateways of an instance: with the test driver it has no other children.
fn gateways(instance: &Instance) -> BTreeSet<u32> {
    let daemon = instance.pid().as_raw_nonzero().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let alive = || status(pid, "State:").is_some_and(|state| !state.starts_with('Z'));
        if status(pid, "PPid:").as_deref() == Some(&daemon) && alive() {
            found.insert(pid);
        }
    }
    found
}

fn wait_for_gateways(instance: &Instance, count: usize) -> BTreeSet<u32> {
    instance.eventually(&format!("{count} gateways"), |instance| {
        gateways(instance).len() == count
    });
    gateways(instance)
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn as_many_processes_wait_as_are_told_and_one_more_comes_for_each_client() {
    let instance = start("libvirt_warm_processes = 2\n");
    let warm = wait_for_gateways(&instance, 2);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(gateways(&instance), warm, "nothing is started for nobody");
    let mut clients: Vec<_> = (0..5)
        .map(|_| Client::connect(&socket(&instance)))
        .collect();
    for client in &mut clients {
        assert_eq!(client.ask("this").as_deref(), Some("heard this"));
    }
    let all = wait_for_gateways(&instance, 7);
    let uids: BTreeSet<_> = all.iter().filter_map(|pid| status(*pid, "Uid:")).collect();
    assert_eq!(uids.len(), 7, "a uid each: {uids:?}");
    assert!(uids.iter().all(|uid| !uid.starts_with("0\t")), "{uids:?}");
    drop(clients);
    wait_for_gateways(&instance, 2);
}

#[test]
fn without_warm_processes_each_client_waits_for_its_own() {
    let instance = start("libvirt_warm_processes = 0\n");
    for _ in 0..2 {
        assert!(gateways(&instance).is_empty());
        let mut client = Client::connect(&socket(&instance));
        assert_eq!(client.ask("this").as_deref(), Some("heard this"));
        assert_eq!(gateways(&instance).len(), 1);
        drop(client);
        wait_for_gateways(&instance, 0);
    }
}

#[test]
fn without_the_door_there_is_neither_a_socket_nor_a_process() {
    let instance = start("libvirt = false\n");
    assert!(!socket(&instance).exists() && !read_only(&instance).exists());
    assert!(gateways(&instance).is_empty());
}

#[test]
fn rights_are_the_kernels_word_and_the_sockets() {
    let instance = start("");
    let (all, look) = (
        "read-write read-write done",
        "read-only read-only AccessDenied",
    );
    let root = User(0, &[0]);
    for (user, by_the_first) in [(root, all), (WRITER, all), (READER, look)] {
        for (path, expected) in [
            (socket(&instance), by_the_first),
            (read_only(&instance), look),
        ] {
            let rights = Client::connect_as(user, &path).ask("rights");
            assert_eq!(rights.as_deref(), Some(expected), "{user:?} at {path:?}");
        }
    }
}

#[test]
fn whoever_may_nothing_is_closed_and_logged_by_either_socket() {
    let instance = start("");
    for path in [socket(&instance), read_only(&instance)] {
        let mut client = Client::connect_as(STRANGER, &path);
        assert_eq!(client.ask("this"), None);
        let line = format!("a client was closed at {}", path.display());
        instance.eventually("it is logged", |instance| {
            let log = instance.log();
            let line = log.lines().find(|logged| logged.contains(&line));
            line.is_some_and(|line| line.contains("4242"))
        });
    }
}

#[test]
fn a_client_that_says_nothing_holds_nobody_up() {
    let instance = start("");
    let silent: Vec<_> = (0..8)
        .map(|_| Client::connect(&socket(&instance)))
        .collect();
    let mut other = Client::connect(&socket(&instance));
    assert_eq!(other.ask("this").as_deref(), Some("heard this"));
    // Longer than a client of the native API may take to say who it is.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(other.ask("that").as_deref(), Some("heard that"));
    for mut client in silent {
        assert_eq!(client.ask("late").as_deref(), Some("heard late"));
    }
}

#[test]
fn a_flood_is_bounded_for_its_user_and_leaves_places_for_root() {
    let instance = start("max_clients = 6\nmax_clients_per_uid = 4\n");
    let path = socket(&instance);
    let mut flood: Vec<_> = (0..40).map(|_| Client::connect_as(WRITER, &path)).collect();
    let inside: Vec<bool> = flood
        .iter_mut()
        .map(|client| client.ask("in").is_some())
        .collect();
    assert_eq!(
        inside.iter().filter(|inside| **inside).count(),
        4,
        "{inside:?}"
    );
    instance.eventually("it is logged", |instance| {
        let why = "4 clients of yours are connected; close one";
        instance.log().contains(why)
    });
    // The places are the native API's as well: two are left for all, and eight for root.
    let readers = as_user(READER, || {
        (0..3).map(|_| Client::connect(&path)).collect::<Vec<_>>()
    });
    let inside = readers.into_iter().filter_map(|mut client| {
        let answer = client.ask("in");
        answer.map(|_| client)
    });
    let readers: Vec<_> = inside.collect();
    assert_eq!(readers.len(), 2);
    let native = as_user(READER, || Connection::open(&instance.socket(), "test"));
    assert!(native.is_err(), "6 clients are connected");
    assert!(Connection::open(&instance.socket(), "test").is_ok());
    let mut root = Client::connect(&path);
    assert_eq!(root.ask("this").as_deref(), Some("heard this"));
    drop(flood);
    instance.eventually("the places come back", |_| {
        Client::connect_as(WRITER, &path).ask("in").is_some()
    });
}

#[test]
fn a_process_that_dies_takes_its_own_client_alone() {
    let instance = start("libvirt_warm_processes = 1\n");
    let mut other = Client::connect(&socket(&instance));
    assert!(other.ask("this").is_some());
    for way in ["killed", "exit", "lie"] {
        // The one that waits is the one that the next client gets.
        let before = wait_for_gateways(&instance, 2);
        let mut client = Client::connect(&socket(&instance));
        assert!(client.ask("this").is_some());
        if way == "killed" {
            let mut waited = before.into_iter();
            let (first, second) = (waited.next().unwrap(), waited.next().unwrap());
            // The other client's is the older of the two, unless the numbers have begun again.
            kill(first.max(second));
            assert_eq!(client.hear(), None);
        } else {
            assert_eq!(client.ask(way), None, "{way}");
        }
        assert_eq!(other.ask("that").as_deref(), Some("heard that"), "{way}");
    }
    for how in ["ended with exit code 7", "was ended by signal 9"] {
        let told = format!("a gateway {how}");
        instance.eventually(&told, |instance| instance.log().contains(&told));
    }
    wait_for_gateways(&instance, 2);
}

#[test]
fn a_process_that_dies_while_it_waits_is_replaced() {
    let instance = start("libvirt_warm_processes = 1\n");
    let mut dead = BTreeSet::new();
    for _ in 0..3 {
        for pid in wait_for_gateways(&instance, 1) {
            dead.insert(pid);
            kill(pid);
        }
        instance.eventually("another one waits", |instance| {
            let now = gateways(instance);
            !now.is_empty() && now.is_disjoint(&dead)
        });
    }
    let mut client = Client::connect(&socket(&instance));
    assert_eq!(client.ask("this").as_deref(), Some("heard this"));
}

#[test]
fn a_program_that_ends_at_once_is_started_ever_more_seldom() {
    let instance = Instance::with_gateway("", Path::new(NONE));
    std::thread::sleep(Duration::from_secs(2));
    let died = |instance: &Instance| instance.log().matches("a gateway has ended").count();
    // With rests of 0.1, 0.2, 0.4, 0.8 s, and two started before each.
    let count = died(&instance);
    assert!((2..=14).contains(&count), "{count}: {}", instance.log());
    let begin = Instant::now();
    assert!(instance.connect().domains(false).unwrap().is_empty());
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "the API is served"
    );
    // A client's connection ends with the process that it was given, or is not served.
    let mut client = Client::connect(&socket(&instance));
    assert_eq!(client.ask("this"), None);
}

#[test]
fn what_a_process_says_is_logged_within_bounds_and_obeyed_by_no_terminal() {
    let instance = start("");
    let mut client = Client::connect(&socket(&instance));
    assert_eq!(client.ask("shout").as_deref(), Some("shouted"));
    assert_eq!(client.ask("this").as_deref(), Some("heard this"));
    instance.eventually("it is logged", |instance| instance.log().contains("loud"));
    let log = instance.log();
    assert!(log.matches("loud").count() <= 20, "{log}");
    assert!(
        !log.contains('\u{1b}') && log.contains("words\\\\nof"),
        "{log}"
    );
}

#[test]
fn the_next_daemon_serves_at_the_same_sockets_and_no_process_of_the_last_is_left() {
    let mut instance = start("");
    let mut client = Client::connect(&socket(&instance));
    assert!(client.ask("this").is_some());
    let before = wait_for_gateways(&instance, 3);
    instance.crash();
    assert_eq!(client.hear(), None);
    for pid in before {
        instance.eventually("it is gone", |_| status(pid, "State:").is_none());
    }
    for path in [socket(&instance), read_only(&instance)] {
        assert!(Client::connect(&path).ask("this").is_some());
    }
    let log = instance.log();
    assert!(!log.contains("goes on unsupervised"), "{log}");
    // One that ends in good order takes them away.
    let before = wait_for_gateways(&instance, 2);
    instance.terminate();
    for path in [socket(&instance), read_only(&instance)] {
        assert!(!path.exists(), "{path:?}");
    }
    for pid in before {
        instance.eventually("it is gone", |_| status(pid, "State:").is_none());
    }
}

#[test]
fn further_sockets_are_bound_and_what_is_somebody_elses_stays() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let free = at("made/libvirt-sock");
    let (taken, file, dead) = (at("taken"), at("file"), at("dead"));
    let other = UnixListener::bind(&taken).unwrap();
    fs::write(&file, "precious").unwrap();
    drop(UnixListener::bind(&dead).unwrap());
    let mut instance = start(&format!(
        "libvirt_sockets = {:?}\n",
        [&free, &taken, &file, &dead]
    ));
    for path in [
        free.clone(),
        at("made/libvirt-sock-ro"),
        dead,
        socket(&instance),
    ] {
        let mut client = Client::connect(&path);
        assert_eq!(
            client.ask("this").as_deref(),
            Some("heard this"),
            "{path:?}"
        );
    }
    let rights = Client::connect(&at("taken-ro")).ask("rights").unwrap();
    assert!(rights.starts_with("read-only"), "{rights}");
    drop(UnixStream::connect(&taken).unwrap());
    other.accept().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    for path in [&taken, &file] {
        let path = path.to_str().unwrap();
        instance.eventually("it is logged", |instance| instance.log().contains(path));
    }
    let log = instance.log();
    for path in [&taken, &file] {
        let named = |line: &&str| line.contains("ERROR") && line.contains(path.to_str().unwrap());
        assert_eq!(log.lines().filter(named).count(), 1, "{log}");
    }
    // A name that somebody else has by now is not removed at the end.
    fs::remove_file(&free).unwrap();
    let _successor = UnixListener::bind(&free).unwrap();
    instance.terminate();
    assert!(free.exists() && taken.exists() && file.exists());
    assert!(!at("made/libvirt-sock-ro").exists());
}
