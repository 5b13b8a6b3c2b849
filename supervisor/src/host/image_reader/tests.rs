//! Processes that answer, die, lie and hang. The worker's own reader is tested with the daemon.

use std::os::unix::fs::FileExt as _;

use rustix::net::{SendFlags, send};

use super::*;

/// A reader whose process is this test's to play; it ends when it is told to.
fn played() -> (Reader, OwnedFd) {
    let kind = SocketType::SEQPACKET;
    let (answer, theirs) =
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let _process = Process(None);
    (Reader { _process, answer }, theirs)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[test]
fn an_answer_is_heard() {
    let (reader, theirs) = played();
    let answer = ImageAnswer::Backing(None);
    let bytes = codec::encode(&answer).unwrap();
    send(&theirs, &bytes, SendFlags::empty()).unwrap();
    assert_eq!(reader.hear(soon()), Ok(answer));
}

#[test]
fn what_is_no_answer_is_refused_in_words() {
    let long = ImageAnswer::Unreadable("w".repeat(1000));
    let long = codec::encode(&long).unwrap();
    for bytes in [&b"\xff\xff"[..], &[0; 4096], &long] {
        let (reader, theirs) = played();
        send(&theirs, bytes, SendFlags::empty()).unwrap();
        let refused = reader.hear(soon()).unwrap_err();
        assert!(matches!(refused, ReadError::Process(_)), "{refused}");
    }
}

#[test]
fn a_process_that_dies_or_hangs_is_not_waited_for() {
    let (reader, theirs) = played();
    drop(theirs);
    let begun = Instant::now();
    assert!(matches!(reader.hear(soon()), Err(ReadError::Process(_))));
    assert!(begun.elapsed() < Duration::from_secs(4));
    let (reader, _theirs) = played();
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(matches!(reader.hear(deadline), Err(ReadError::Slow(_))));
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_image_is_handed_over_for_reading_only() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let again = read_only(file.as_fd()).unwrap();
    assert_eq!(rustix::io::read(&again, &mut [0; 2]), Ok(1));
    assert_eq!(rustix::io::write(&again, b"y"), Err(Errno::BADF));
}
