use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reeve_ipc::model::{DomainName, DomainUuid};

use super::*;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_log_keeps_the_newest_within_its_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log/web.log");
    let mut log = RotatingFile::open(&path, 2048, 2).unwrap();
    for number in 0..1000 {
        log.write(format!("line {number}\n").as_bytes());
    }
    log.write(&[b'x'; 5000]);
    log.write(b"\nlast\n");
    assert_eq!(log.dropped_bytes(), 0);
    let parent = path.parent().unwrap();
    assert_eq!(names(parent), ["web.log", "web.log.1", "web.log.2"]);
    for name in names(parent) {
        assert!(
            fs::metadata(parent.join(&name)).unwrap().len() <= 2048,
            "{name}"
        );
    }
    assert!(fs::read_to_string(&path).unwrap().ends_with("\nlast\n"));
    drop(log);
    // Fewer from now on; what stands is continued.
    let mut log = RotatingFile::open(&path, 2048, 1).unwrap();
    assert_eq!(names(parent), ["web.log", "web.log.1"]);
    log.write(b"more\n");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .ends_with("\nlast\nmore\n")
    );
}

#[test]
fn a_log_without_predecessors_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut log = RotatingFile::open(&path, 1024, 0).unwrap();
    for _ in 0..100 {
        log.write(&[b'a'; 100]);
    }
    assert_eq!(names(directory.path()), ["web.log"]);
    assert!(fs::metadata(&path).unwrap().len() <= 1024);
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_and_told_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    crate::store::test_disk::on_small_disk(&path, "64k", || {
        let file = path.join("web.log");
        let mut log = RotatingFile::open(&file, 1 << 20, 1).unwrap();
        log.write(b"before\n");
        let _ = fs::write(path.join("ballast"), vec![0; 128 << 10]);
        for _ in 0..100 {
            log.write(&[b'x'; 100]);
        }
        let lost = log.dropped_bytes();
        assert!(lost > 0 && lost <= 10_000, "{lost}");
        fs::remove_file(path.join("ballast")).unwrap();
        log.write(b"after\n");
        let text = fs::read_to_string(&file).unwrap();
        let expected = format!("\n[reeve: {lost} bytes are lost here]\nafter\n");
        assert!(text.ends_with(&expected), "{text}");
        assert_eq!(log.dropped_bytes(), lost);
    });
}

#[test]
fn a_console_goes_on_once_a_full_disk_has_room_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    crate::store::test_disk::on_small_disk(&path, "64k", || {
        let bounds = LogBounds {
            log_bytes: 1 << 20,
            log_keep: 1,
            console_bytes: 1 << 20,
            console_keep: 1,
        };
        let files = LogFiles::start(&path, bounds).unwrap();
        let name: DomainName = "web".parse().unwrap();
        let uuid = DomainUuid(uuid::Uuid::from_u128(1));
        let console = files.paths(&name, uuid).console;
        let until = |text: &str| {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while !fs::read_to_string(&console).is_ok_and(|log| log.ends_with(text)) {
                assert!(std::time::Instant::now() < deadline, "{text}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        files.console(&name, uuid, b"before\n".to_vec()).unwrap();
        until("before\n");
        let _ = fs::write(path.join("ballast"), vec![0; 128 << 10]);
        for _ in 0..10 {
            files.console(&name, uuid, vec![b'x'; 8192]).unwrap();
        }
        // The thread that writes them has far less to do.
        std::thread::sleep(Duration::from_secs(1));
        fs::remove_file(path.join("ballast")).unwrap();
        files.console(&name, uuid, b"after\n".to_vec()).unwrap();
        until("bytes are lost here]\nafter\n");
    });
}

#[test]
fn a_log_that_cannot_be_rotated_does_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut log = RotatingFile::open(&path, 1024, 2).unwrap();
    fs::write(directory.path().join("web.log.2"), "old").unwrap();
    fs::create_dir_all(directory.path().join("web.log.1/in the way")).unwrap();
    fs::remove_file(directory.path().join("web.log.2")).unwrap();
    fs::create_dir_all(directory.path().join("web.log.2/in the way")).unwrap();
    for _ in 0..100 {
        log.write(&[b'a'; 100]);
    }
    assert!(fs::metadata(&path).unwrap().len() <= 1024);
    assert!(log.dropped_bytes() > 8000);
}

#[test]
fn a_log_that_cannot_be_opened_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    fs::create_dir(&path).unwrap();
    assert!(RotatingFile::open(&path, 4096, 1).is_err());
    let mut log = RotatingFile::open_or_drop(&path, 4096, 1);
    log.write(b"lost\n");
    fs::remove_dir(&path).unwrap();
    log.write(b"kept\n");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "[reeve: 5 bytes are lost here]\nkept\n");
}

#[test]
fn a_pipe_in_the_place_of_a_log_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    assert!(RotatingFile::open(&path, 4096, 1).is_err());
}

#[test]
fn a_line_has_its_time_and_cannot_be_forged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.log");
    let mut log = DomainLog::new(RotatingFile::open(&path, 1 << 20, 1).unwrap());
    log.line("worker", "up\nreeved: \u{1b}[2Jfalse\n");
    log.line("worker", &"é".repeat(5000));
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    let (time, rest) = lines[0].split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!(rest, "worker: up\\nreeved: \\u{1b}[2Jfalse");
    assert!(lines[1].ends_with("é...") && lines[1].len() < 4200);
}

#[test]
fn every_name_has_valid_files_of_its_own() {
    let uuid = DomainUuid(uuid::Uuid::from_u128(7));
    let long = "ü".repeat(127);
    let all = [
        "web",
        "web.console",
        "web.log",
        "web.console.log",
        ".",
        ".hidden",
        "%2Ehidden",
        "a b",
        "web%2Econsole",
        "-rf",
        "%",
        "%~",
        &long,
        "...",
    ];
    let directory = Path::new("/l");
    let mut seen = BTreeSet::new();
    for name in all
        .iter()
        .filter_map(|name| name.parse::<DomainName>().ok())
    {
        let LogPaths { log, console } = LogPaths::new(directory, &name, uuid);
        for path in [log, console] {
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(
                file.len() <= 255 - ".99".len() && !file.starts_with('.'),
                "{file}"
            );
            assert_eq!(path, directory.join(&file));
            assert!(seen.insert(file.clone()), "{file}");
        }
    }
    assert_eq!(seen.len(), 2 * (all.len() - 1));
    assert!(seen.contains("web.log") && seen.contains("web.console.log"));
    let other = DomainUuid(uuid::Uuid::from_u128(8));
    let name: DomainName = long.parse().unwrap();
    assert_ne!(
        LogPaths::new(directory, &name, uuid),
        LogPaths::new(directory, &name, other)
    );
}

#[test]
fn a_misspelt_level_is_refused() {
    for good in [
        "info",
        "WARN",
        "off",
        "info,reeved::domain=debug",
        "reeved[domain{uuid=1}]=trace",
    ] {
        check_filter(good).unwrap();
    }
    for wrong in ["", "inof", "info,", "a=b=c", "debug,reeved::x=loud"] {
        assert!(check_filter(wrong).is_err(), "{wrong}");
    }
    let long = vec!["info"; 300].join(",");
    assert!(check_filter(&long).is_err());
    // What would be a pattern is a text.
    check_filter("reeved[domain{name=(a+)+$]=trace").unwrap_err();
    check_filter("reeved[domain{name=[}]=trace").unwrap();
}

/// What is written, and a gate that may be shut.
#[derive(Clone, Default)]
struct Out {
    text: Arc<Mutex<Vec<u8>>>,
    gate: Arc<Mutex<()>>,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _open = self.gate.lock().unwrap();
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn lines(&self) -> Vec<serde_json::Value> {
        let text = self.text.lock().unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[test]
fn the_daemons_lines_are_objects_and_its_level_changes_at_run_time() {
    let out = Out::default();
    let (subscriber, log) = subscriber("info", out.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!("unheard");
        let span = tracing::info_span!("domain", domain = "web");
        span.in_scope(|| tracing::info!(pid = 7, "started\n\"well\""));
        log.set_filter("debug").unwrap();
        tracing::debug!("heard");
        assert!(log.set_filter("lound").is_err());
        tracing::debug!("still");
    });
    assert!(log.flush(Duration::from_secs(10)));
    let lines = out.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"], "started\n\"well\"");
    assert_eq!(lines[0]["pid"], 7);
    assert_eq!(lines[0]["span"]["domain"], "web");
    assert_eq!(lines[2]["message"], "still");
}

#[test]
fn a_stuck_standard_error_stops_nobody_and_the_loss_is_told() {
    let out = Out::default();
    let (subscriber, log) = subscriber("info", out.clone()).unwrap();
    let shut = out.gate.lock().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..2000 {
            tracing::info!(number, "again");
        }
    });
    let dropped = log.dropped_lines();
    assert!((1400..2000).contains(&dropped), "{dropped}");
    assert!(!log.flush(Duration::from_millis(10)));
    drop(shut);
    while !log.flush(Duration::from_secs(10)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let lines = out.lines();
    let told: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
    assert_eq!(told, dropped);
    assert_eq!(
        lines.iter().filter(|line| line["number"].is_u64()).count() as u64,
        2000 - dropped
    );
}
