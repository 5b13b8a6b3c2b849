//! What is bound, what gives way, what is left and what is removed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

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
    assert!(is_served(&place));
    drop(listener);
    drop(sockets);
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
