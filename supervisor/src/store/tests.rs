//! Both directories under everything a disk and an administrator do to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reeve_ipc::api::view::{AgentTimeout, DomainDefinition, ShutOffReason};
use reeve_ipc::model::DevicePlace;
use reeve_ipc::spec::PciSlot;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use tempfile::TempDir;

use super::test_disk::on_small_disk;
use super::*;
use crate::domain::actor::{Intents, LiveRecord};
use crate::domain::driver::{DeviceResources, ProcessIdentity, Resources};
use crate::host::tap::{LentAddress, MacvtapRecord, TapId};

fn record(number: u8) -> DomainDefinition {
    let text = format!(
        r#"{{"schema": 2, "domain": {{"name": "d{number}",
        "uuid": "00000000-0000-4000-8000-0000000000{number:02x}", "machine": "reeve-1.0",
        "vcpus": 1, "cpu": {{"tsc_deadline": true, "kvmclock": true, "invariant_tsc": true,
        "transactional_memory": false}}, "memory_bytes": 268435456,
        "boot": {{"built_in": {{"command_line": ""}}}}, "on_power_off": "destroy",
        "on_reboot": "restart", "on_crash": "destroy"}}}}"#
    );
    decode(text.as_bytes()).unwrap()
}

fn status(number: u8) -> Status {
    Status {
        record: LiveRecord {
            definition: record(number).domain,
            intents: Intents {
                stopping: Some(ShutOffReason::Destroyed),
                restart_after_resets: Some(2),
                shutting_down: true,
                for_host: true,
                destroy_at_boot_ms: Some(7),
                auto_destroy: true,
                tuning: true,
                tuned_before: Some(Box::new(record(number).domain)),
                asks_memory: true,
            },
            started_ms: 1_764_000_000_000,
            agent_timeout: Some(AgentTimeout::Seconds(7)),
        },
        resources: Resources {
            uid: 0x7265_0401,
            own_uid: true,
            cgroup: Some("/sys/fs/cgroup/reeve/x".into()),
            socket: "/run/reeve/domains/x/adopt".into(),
            digest: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255],
            process: Some(ProcessIdentity {
                pid: 77,
                start_ticks: 123,
                boot_id: "b".to_owned(),
            }),
            successor: None,
            launched: true,
            devices: vec![
                DeviceResources {
                    place: PciSlot::try_from(5).unwrap().into(),
                    taps: vec![TapId {
                        name: "vnet0".to_owned(),
                        index: Some(17),
                    }],
                    macvtaps: vec![MacvtapRecord {
                        name: "vnet0".to_owned(),
                        index: 17,
                        lent: Some(LentAddress {
                            index: 2,
                            was: "52:54:00:00:00:01".parse().unwrap(),
                            given: "52:54:00:00:00:02".parse().unwrap(),
                        }),
                    }],
                    sockets: Vec::new(),
                },
                DeviceResources {
                    place: DevicePlace::port(6.try_into().unwrap(), 3),
                    taps: Vec::new(),
                    macvtaps: Vec::new(),
                    sockets: vec!["/images/s".into()],
                },
            ],
        },
    }
}

fn state(directory: &TempDir) -> StateDir {
    let state = StateDir::open(&directory.path().join("state")).unwrap();
    state.load_all().unwrap();
    state
}

fn file_of(state: &StateDir, record: &DomainDefinition) -> PathBuf {
    let name = format!("{}.json", record.domain.uuid);
    state.path().join("domains").join(name)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_record_is_there_for_the_next_supervisor_until_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let one = record(1);
    let mut two = record(2);
    {
        let state = state(&directory);
        let mode = fs::metadata(state.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o711);
        state.write_record(&two).unwrap();
        state.write_record(&one).unwrap();
        two.autostart = Some(4);
        state.write_record(&two).unwrap();
    }
    {
        let state = state(&directory);
        let loaded = state.load_all().unwrap();
        assert_eq!(loaded.records, [one.clone(), two.clone()]);
        assert_eq!(loaded.refused, []);
        state.remove_record(one.domain.uuid).unwrap();
        state.remove_record(one.domain.uuid).unwrap();
    }
    let state = state(&directory);
    assert_eq!(state.load_all().unwrap().records, [two.clone()]);
    assert_eq!(
        names(&state.path().join("domains")),
        [format!("{}.json", two.domain.uuid)]
    );
}

#[test]
fn a_second_supervisor_is_told_the_pid_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = state(&directory);
    let error = StateDir::open(first.path()).unwrap_err();
    assert_eq!(
        error,
        StoreError::Held {
            path: first.path().to_owned(),
            pid: Some(std::process::id())
        }
    );
    let run = RunDir::open(&directory.path().join("run")).unwrap();
    assert!(matches!(
        RunDir::open(run.path()),
        Err(StoreError::Held { .. })
    ));
    drop(first);
    state(&directory);
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = state(&directory).path().to_owned();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(
        StateDir::open(&path).unwrap_err(),
        StoreError::Exposed { path }
    );
}

#[test]
fn damaged_newer_misnamed_and_duplicate_files_are_listed_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let good = record(1);
    let path = {
        let state = state(&directory);
        state.write_record(&good).unwrap();
        state.path().join("domains")
    };
    let uuid = |number: u8| record(number).domain.uuid;
    let text = |number: u8| String::from_utf8(encode(&record(number)).unwrap()).unwrap();
    let put = |number: u8, text: &[u8]| {
        fs::write(path.join(format!("{}.json", uuid(number))), text).unwrap();
    };
    put(2, &text(2).as_bytes()[..100]);
    put(3, br#"{"schema": 99, "domain": 1}"#);
    put(4, text(5).as_bytes());
    put(6, text(6).replace("\"d6\"", "\"d1\"").as_bytes());
    put(7, &vec![b' '; MAX_RECORD_BYTES + 1]);
    put(8, b"\xff\xfe\x00");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        path.join(format!("{}.json", uuid(9))),
        rustix::fs::Mode::RWXU,
    )
    .unwrap();
    fs::write(path.join(".left.json.0.tmp"), "half").unwrap();
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let before = names(&path);

    let state = StateDir::open(path.parent().unwrap()).unwrap();
    let loaded = state.load_all().unwrap();
    assert_eq!(loaded.records, [good]);
    let said: Vec<&str> = loaded
        .refused
        .iter()
        .map(|refused| refused.reason.as_str())
        .collect();
    for (said, expected) in said.iter().zip([
        "damaged",
        "newer Reeve",
        "its name must be",
        "'d1' is that of the domain in",
        "1048577 bytes",
        "damaged",
        "no regular file",
    ]) {
        assert!(said.contains(expected), "{said}: {expected}");
    }
    assert_eq!(said.len(), 7);
    let after: Vec<String> = before
        .into_iter()
        .filter(|name| !name.ends_with(".tmp"))
        .collect();
    assert_eq!(names(&path), after);

    let refused = state.write_record(&record(2)).unwrap_err();
    let line = refused.to_string();
    assert!(line.contains(&format!("{}.json", uuid(2))), "{line}");
    assert!(matches!(refused, StoreError::Refused(_)));
    assert!(matches!(
        state.remove_record(uuid(3)),
        Err(StoreError::Refused(_))
    ));
    assert_eq!(
        fs::read(path.join(format!("{}.json", uuid(2))))
            .unwrap()
            .len(),
        100
    );
    // Once it is moved away the UUID is free.
    fs::remove_file(path.join(format!("{}.json", uuid(2)))).unwrap();
    state.write_record(&record(2)).unwrap();
}

#[test]
fn a_file_that_appeared_meanwhile_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(&directory);
    let file = file_of(&state, &record(1));
    fs::write(&file, "somebody's").unwrap();
    assert!(matches!(
        state.write_record(&record(1)),
        Err(StoreError::Refused(_))
    ));
    assert!(matches!(
        state.remove_record(record(1).domain.uuid),
        Err(StoreError::Refused(_))
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    assert_eq!(names(file.parent().unwrap()).len(), 1);
}

#[test]
fn a_full_disk_keeps_the_record_before_and_leaves_nothing_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    on_small_disk(&path, "64k", || {
        let state = StateDir::open(&path).unwrap();
        state.load_all().unwrap();
        state.write_record(&record(1)).unwrap();
        let _ = fs::write(path.join("ballast"), vec![0; 128 << 10]);
        let mut changed = record(1);
        changed.autostart = Some(1);
        let error = state.write_record(&changed).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Io {
                    errno: Errno::NOSPC,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.to_string().contains('\n'));
        assert!(matches!(
            state.write_record(&record(2)),
            Err(StoreError::Io {
                errno: Errno::NOSPC,
                ..
            })
        ));
        assert_eq!(names(&path.join("domains")).len(), 1);
        drop(state);
        // A full disk does not keep a supervisor from its domains.
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.load_all().unwrap().records, [record(1)]);
        fs::remove_file(path.join("ballast")).unwrap();
        state.write_record(&changed).unwrap();
    });
}

#[test]
fn a_disk_that_turned_read_only_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    on_small_disk(&path, "64k", || {
        let state = StateDir::open(&path).unwrap();
        state.load_all().unwrap();
        state.write_record(&record(1)).unwrap();
        drop(state);
        mount_remount(&path, MountFlags::RDONLY, "").unwrap();
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.load_all().unwrap().records, [record(1)]);
        for error in [
            state.write_record(&record(1)).unwrap_err(),
            state.remove_record(record(1).domain.uuid).unwrap_err(),
        ] {
            assert!(
                matches!(
                    error,
                    StoreError::Io {
                        errno: Errno::ROFS,
                        ..
                    }
                ),
                "{error}"
            );
        }
        assert!(matches!(
            StateDir::open(&path),
            Err(StoreError::Held { .. })
        ));
    });
}

#[test]
fn a_state_directory_that_is_gone_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(&directory);
    fs::remove_dir_all(state.path()).unwrap();
    let line = state.write_record(&record(1)).unwrap_err().to_string();
    assert!(
        line.ends_with("its directory is gone: restart reeved"),
        "{line}"
    );
}

#[test]
fn a_status_is_there_for_the_next_supervisor_until_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let uuid = record(1).domain.uuid;
    let run = RunDir::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("domains"))), (0o755, 0o700));
    let own = run.directory(uuid).unwrap();
    assert_eq!(mode(&own), 0o700);
    run.write_status(uuid, &status(1)).unwrap();
    run.set_console_position(uuid, 1 << 40).unwrap();
    drop(run);

    // Of a start that never came to anything.
    fs::create_dir(path.join("domains").join(record(3).domain.uuid.to_string())).unwrap();
    let run = RunDir::open(&path).unwrap();
    let loaded = run.load_all().unwrap();
    assert_eq!(loaded.statuses, [(uuid, status(1))]);
    assert_eq!(loaded.refused, []);
    assert_eq!(run.console_position(uuid), Some(1 << 40));
    fs::write(own.join(SOCKET_NAME), "").unwrap();
    run.remove_status(uuid).unwrap();
    run.remove_status(uuid).unwrap();
    assert!(names(&path.join("domains")).is_empty());
}

#[test]
fn a_status_with_nothing_made_yet_round_trips() {
    let mut status = status(1);
    status.record.intents = Intents::default();
    status.resources.process = None;
    status.resources.cgroup = None;
    status.resources.launched = false;
    let text = super::status::encode(&status).unwrap();
    assert_eq!(super::status::decode(&text).unwrap(), status);
}

#[test]
fn a_damaged_status_is_listed_and_blocks_its_domain() {
    let directory = tempfile::tempdir().unwrap();
    let run = RunDir::open(&directory.path().join("run")).unwrap();
    let uuid = record(1).domain.uuid;
    run.write_status(uuid, &status(1)).unwrap();
    let file = run.directory(uuid).unwrap().join("status.json");
    fs::write(&file, "{").unwrap();
    run.write_status(record(2).domain.uuid, &status(1)).unwrap();
    let loaded = run.load_all().unwrap();
    assert_eq!((loaded.statuses.len(), loaded.refused.len()), (0, 2));
    let line = run.write_status(uuid, &status(1)).unwrap_err().to_string();
    assert!(line.contains(&file.display().to_string()), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{");
    fs::remove_file(&file).unwrap();
    run.write_status(uuid, &status(1)).unwrap();
}

#[test]
fn a_wiped_run_directory_is_made_again_by_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let run = RunDir::open(&path).unwrap();
    let uuid = record(1).domain.uuid;
    run.write_status(uuid, &status(1)).unwrap();
    fs::remove_dir_all(&path).unwrap();
    run.remove_status(uuid).unwrap();
    run.write_status(uuid, &status(1)).unwrap();
    assert_eq!(run.load_all().unwrap().statuses.len(), 1);
    let mode = fs::metadata(path.join("domains"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_full_run_directory_keeps_the_status_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    on_small_disk(&path, "64k", || {
        let run = RunDir::open(&path).unwrap();
        let uuid = record(1).domain.uuid;
        run.write_status(uuid, &status(1)).unwrap();
        let _ = fs::write(path.join("ballast"), vec![0; 128 << 10]);
        let mut changed = status(1);
        changed.record.started_ms = 1;
        let error = run.write_status(uuid, &changed).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Io {
                    errno: Errno::NOSPC,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(run.load_all().unwrap().statuses, [(uuid, status(1))]);
    });
}

/// Kills a process of its own at every point of writing, replacing and removing a record, and looks
/// at what the next supervisor finds.
#[cfg(feature = "fault-points")]
#[test]
fn a_supervisor_that_dies_while_it_writes_leaves_the_record_before_or_the_one_after() {
    use std::os::unix::process::ExitStatusExt;

    const INNER: &str = "REEVE_STORE_TEST_INNER";
    let mut changed = record(1);
    changed.autostart = Some(9);
    if let Some(path) = std::env::var_os(INNER) {
        let state = StateDir::open(Path::new(&path)).unwrap();
        if state.load_all().unwrap().records.is_empty() {
            state.write_record(&record(1)).unwrap();
        } else if std::env::var("REEVE_CRASH").unwrap().starts_with("define") {
            state.write_record(&changed).unwrap();
        } else {
            state.remove_record(changed.domain.uuid).unwrap();
        }
        panic!("the point was not reached");
    }
    let name = "store::tests::a_supervisor_that_dies_while_it_writes_leaves_the_record_before_or_the_one_after";
    // The point, whether there is a record before, and whether what was asked is found after.
    for (point, before, done) in [
        ("define.before-write", false, false),
        ("define.after-temporary", false, false),
        ("define.after-rename", false, true),
        ("define.after-write", false, true),
        ("define.before-write", true, false),
        ("define.after-temporary", true, false),
        ("define.after-rename", true, true),
        ("define.after-write", true, true),
        ("undefine.before-remove", true, false),
        ("undefine.after-unlink", true, true),
        ("undefine.after-remove", true, true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        if before {
            state(&directory).write_record(&record(1)).unwrap();
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("REEVE_CRASH", point)
            .env(INNER, directory.path().join("state"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "{point}");
        let expected = match (before, done, point.starts_with("undefine")) {
            (false, false, _) | (true, true, true) => vec![],
            (false, true, _) | (true, false, _) => vec![record(1)],
            (true, true, false) => vec![changed.clone()],
        };
        let state = state(&directory);
        let found = state.load_all().unwrap();
        assert_eq!(
            (found.records, found.refused),
            (expected, vec![]),
            "{point}"
        );
        let left = names(&state.path().join("domains"));
        assert!(left.iter().all(|name| name.ends_with(".json")), "{left:?}");
    }
}
