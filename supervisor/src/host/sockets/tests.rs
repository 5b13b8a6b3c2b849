//! What is bound, what gives way, what is left and what is removed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;
use crate::domain::plan::AnyPath;
use crate::host::paths::AllowedPaths;

fn listen(sockets: &mut DeviceSockets, path: &Path) -> Result<OwnedFd, SocketError> {
    sockets.listen(&AnyPath, "channel", path)
}

/// Waits until nobody listens: a process that another test is making has a copy of each of our
/// descriptors for a moment.
fn refuses(path: &Path) {
    let begin = std::time::Instant::now();
    while UnixStream::connect(path).is_ok() {
        assert!(begin.elapsed().as_secs() < 10);
    }
}

#[test]
fn a_socket_is_there_for_its_owner_until_the_domain_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory
        .path()
        .join("d".repeat(60))
        .join("e".repeat(60))
        .join("s");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut sockets = DeviceSockets::default();
    assert!(!sockets.any());
    let listener = listen(&mut sockets, &path).unwrap();
    assert!(sockets.any());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let place = AnyPath.place("channel", &path).unwrap();
    assert!(is_served(&place.directory, &place.name));
    drop(listener);
    drop(sockets);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_is_to_go_is_not_the_one_that_comes_to_its_path_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut first = DeviceSockets::default();
    drop(listen(&mut first, &path).unwrap());
    let held = WorkerSockets::new(first);
    refuses(&path);
    let going = held.take(std::slice::from_ref(&path));
    assert!(!held.settled([&path], Duration::from_millis(1)).await);
    let other = directory.path().join("t");
    assert!(held.settled([&other], Duration::ZERO).await);
    // Before anybody has unlinked it.
    let mut next = DeviceSockets::default();
    let _listener = listen(&mut next, &path).unwrap();
    held.add(next);
    drop(going);
    assert!(held.settled([&path], Duration::ZERO).await);
    UnixStream::connect(&path).unwrap();
    assert!(held.any());
    held.release();
    assert!(!path.exists());
}

#[test]
fn what_nobody_listens_on_gives_way_and_what_somebody_does_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let other = UnixListener::bind(&path).unwrap();
    let mut sockets = DeviceSockets::default();
    let error = listen(&mut sockets, &path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    UnixStream::connect(&path).unwrap();
    drop(other);
    refuses(&path);
    listen(&mut sockets, &path).unwrap();
}

#[test]
fn of_many_that_come_to_one_dead_socket_at_once_one_gets_its_place() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let path = directory.path().join(format!("s{round}"));
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(4);
        let come = || {
            let mut sockets = DeviceSockets::default();
            start.wait();
            let listener = listen(&mut sockets, &path);
            listener.map(|listener| (sockets, listener))
        };
        let came: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let there: Vec<_> = came.iter().filter_map(|came| came.as_ref().ok()).collect();
        let [(_, listener)] = there[..] else {
            panic!("{} have it: {came:?}", there.len());
        };
        for refused in came.iter().filter_map(|came| came.as_ref().err()) {
            assert!(matches!(refused, SocketError::InUse { .. }), "{refused}");
        }
        UnixStream::connect(&path).unwrap();
        rustix::net::accept(listener).unwrap();
    }
    let left = fs::read_dir(directory.path()).unwrap();
    assert_eq!(left.count(), 0, "no draft stays");
}

#[test]
fn what_a_supervisor_that_was_killed_left_half_way_is_cleared_away_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (dead, served) = (".reeve-0123456789abcdef", ".reeve-00000000000000ff");
    let other = [
        ".reeve-0",
        ".reeve-0123456789abcdeg",
        "reeve-0123456789abcdef",
    ];
    for name in other.into_iter().chain([dead]) {
        drop(UnixListener::bind(at(name)).unwrap());
        refuses(&at(name));
    }
    let _served = UnixListener::bind(at(served)).unwrap();
    let file = ".reeve-fedcba9876543210";
    fs::write(at(file), "content").unwrap();
    let opened = AnyPath.place("channel", &at("s")).unwrap().directory;
    // It may be another's that is being made at this instant.
    draft::sweep(&opened, draft::STALE);
    assert!(at(dead).exists());
    draft::sweep(&opened, Duration::ZERO);
    assert!(!at(dead).exists());
    for name in other.into_iter().chain([served, file]) {
        assert!(at(name).exists(), "{name}");
    }
}

#[test]
fn a_draft_whose_old_one_is_gone_after_it_took_its_place_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    refuses(&path);
    let place = AnyPath.place("channel", &path).unwrap();
    let (draft, _socket) = Draft::make(&place.directory).unwrap();
    let clear = || {
        for entry in fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "s" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    };
    assert_eq!(draft.put_and(&place, clear).unwrap(), Put::There);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_or_a_link_in_the_way_is_refused_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "content").unwrap();
    symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let mut sockets = DeviceSockets::default();
        let error = listen(&mut sockets, path).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        drop(sockets);
        assert!(path.exists());
    }
}

#[test]
fn what_took_a_sockets_place_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut sockets = DeviceSockets::default();
    let _listener = listen(&mut sockets, &path).unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(sockets);
    assert!(path.exists());
}

#[test]
fn a_socket_that_is_left_is_removed_by_who_has_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut sockets = DeviceSockets::default();
    let listener = listen(&mut sockets, &path).unwrap();
    sockets.leave();
    drop(sockets);
    assert!(path.exists());
    let recorded = || DeviceSockets::recorded(Arc::new(AnyPath), vec![path.clone()]);
    drop(recorded());
    assert!(path.exists(), "somebody listens");
    drop(listener);
    refuses(&path);
    let mut left = recorded();
    left.leave();
    drop(left);
    assert!(path.exists());
    drop(recorded());
    assert!(!path.exists());
    drop(recorded());
    fs::write(&path, "a file").unwrap();
    drop(recorded());
    assert!(path.exists());
}

#[test]
fn nothing_is_bound_outside_the_allowed_directories() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = directory.path().join("allowed");
    fs::create_dir_all(allowed.join("deep")).unwrap();
    symlink("..", allowed.join("out")).unwrap();
    let paths = AllowedPaths::new(vec![allowed.clone()]);
    let mut sockets = DeviceSockets::default();
    for outside in ["s", "allowed/out/s", "allowed/../s"] {
        let error = sockets.listen(&paths, "vsock", &directory.path().join(outside));
        let error = error.unwrap_err();
        assert!(
            matches!(error, SocketError::Forbidden(_)),
            "{outside}: {error}"
        );
    }
    for inside in ["s", "deep/s"] {
        sockets
            .listen(&paths, "vsock", &allowed.join(inside))
            .unwrap();
        assert!(allowed.join(inside).exists());
    }
}
