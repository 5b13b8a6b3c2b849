//! Datagrams and descriptors over a real socketpair.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::scm::{ScmError, pair, receive, send};
use crate::{MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS};

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
        .unwrap()
}

/// Whether every copy of the pipe's write end is closed.
fn is_closed(read_end: &OwnedFd) -> bool {
    match rustix::io::read(read_end, &mut [0; 1]) {
        Ok(0) => true,
        Err(Errno::AGAIN) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn descriptors_arrive_in_order_and_close_on_exec() {
    let (left, right) = pair().unwrap();
    let (reader, writer) = pipe();
    send(left.as_fd(), b"two", &[reader.as_fd(), writer.as_fd()]).unwrap();
    let mut buffer = [0; 16];
    let (length, fds) = receive(right.as_fd(), &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"two");
    let [received_reader, received_writer] = <[OwnedFd; 2]>::try_from(fds).unwrap();
    for fd in [&received_reader, &received_writer] {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
    }
    drop((reader, writer));
    rustix::io::write(&received_writer, b"!").unwrap();
    let mut byte = [0; 1];
    rustix::io::read(&received_reader, &mut byte).unwrap();
    assert_eq!(&byte, b"!");
}

#[test]
fn both_ends_of_a_pair_are_close_on_exec_and_never_block() {
    let (left, right) = pair().unwrap();
    for fd in [&left, &right] {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        assert!(matches!(
            receive(fd.as_fd(), &mut [0; 1]),
            Err(ScmError::WouldBlock)
        ));
    }
}

#[test]
fn a_datagram_keeps_its_boundary() {
    let (left, right) = pair().unwrap();
    send(left.as_fd(), b"one", &[]).unwrap();
    send(left.as_fd(), b"three", &[]).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(receive(right.as_fd(), &mut buffer).unwrap().0, 3);
    assert_eq!(receive(right.as_fd(), &mut buffer).unwrap().0, 5);
}

#[test]
fn a_cut_datagram_is_refused_and_its_descriptors_are_closed() {
    let (left, right) = pair().unwrap();
    let (reader, writer) = pipe();
    send(left.as_fd(), &[7; 9], &[writer.as_fd()]).unwrap();
    drop(writer);
    assert!(!is_closed(&reader), "a copy is in flight");
    assert!(matches!(
        receive(right.as_fd(), &mut [0; 8]),
        Err(ScmError::Oversized)
    ));
    assert!(is_closed(&reader));
    // The rest of it is gone, not read as the next one.
    assert!(matches!(
        receive(right.as_fd(), &mut [0; 8]),
        Err(ScmError::WouldBlock)
    ));
}

#[test]
fn the_most_descriptors_pass_and_one_more_does_not() {
    let (left, right) = pair().unwrap();
    let (reader, writer) = pipe();
    let most = [writer.as_fd(); MAX_MESSAGE_FDS];
    send(left.as_fd(), b"x", &most).unwrap();
    let (_, fds) = receive(right.as_fd(), &mut [0; 1]).unwrap();
    assert_eq!(fds.len(), MAX_MESSAGE_FDS);
    let more = [writer.as_fd(); MAX_MESSAGE_FDS + 1];
    assert!(matches!(
        send(left.as_fd(), b"x", &more),
        Err(ScmError::Oversized)
    ));
    assert!(matches!(
        receive(right.as_fd(), &mut [0; 1]),
        Err(ScmError::WouldBlock)
    ));
    drop((fds, writer));
    assert!(is_closed(&reader));
}

/// A sender without our limits: what a hostile worker has.
fn send_many(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    let bytes = [std::io::IoSlice::new(b"x")];
    sendmsg(socket, &bytes, &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn a_datagram_with_too_many_descriptors_is_refused_and_all_are_closed() {
    let (left, right) = pair().unwrap();
    for count in [MAX_MESSAGE_FDS + 1, 253] {
        let (reader, writer) = pipe();
        send_many(left.as_fd(), &vec![writer.as_fd(); count]);
        drop(writer);
        assert!(matches!(
            receive(right.as_fd(), &mut [0; 1]),
            Err(ScmError::Oversized)
        ));
        assert!(is_closed(&reader), "{count}");
    }
}

#[test]
fn the_largest_message_passes_at_default_buffer_sizes() {
    let (left, right) = pair().unwrap();
    let bytes: Vec<u8> = (0..MAX_MESSAGE_BYTES).map(|n| n.to_le_bytes()[0]).collect();
    let (_reader, writer) = pipe();
    send(left.as_fd(), &bytes, &[writer.as_fd(); MAX_MESSAGE_FDS]).unwrap();
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let (length, fds) = receive(right.as_fd(), &mut buffer).unwrap();
    assert_eq!((length, fds.len()), (MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS));
    assert_eq!(buffer, bytes);
    assert!(matches!(
        send(left.as_fd(), &vec![0; MAX_MESSAGE_BYTES + 1], &[]),
        Err(ScmError::Oversized)
    ));
}

#[test]
fn a_full_socket_says_so_and_takes_more_once_it_is_read() {
    let (left, right) = pair().unwrap();
    let bytes = vec![1; MAX_MESSAGE_BYTES];
    let mut sent = 0;
    while let Ok(()) = send(left.as_fd(), &bytes, &[]) {
        sent += 1;
        assert!(sent < 10_000, "the socket never fills");
    }
    assert!(matches!(
        send(left.as_fd(), &bytes, &[]),
        Err(ScmError::WouldBlock)
    ));
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    for _ in 0..sent {
        receive(right.as_fd(), &mut buffer).unwrap();
    }
    send(left.as_fd(), &bytes, &[]).unwrap();
}

#[test]
fn a_closed_peer_is_told_apart_from_an_empty_socket() {
    let (left, right) = pair().unwrap();
    drop(right);
    assert!(matches!(
        send(left.as_fd(), b"x", &[]),
        Err(ScmError::Closed)
    ));
    assert!(matches!(
        receive(left.as_fd(), &mut [0; 1]),
        Err(ScmError::Closed)
    ));
    assert!(matches!(
        receive(left.as_fd(), &mut [0; 1]),
        Err(ScmError::Closed)
    ));
}

#[test]
fn a_peer_that_only_stopped_writing_reads_as_closed() {
    let (left, right) = pair().unwrap();
    shutdown(&right, Shutdown::Write).unwrap();
    assert!(matches!(
        receive(left.as_fd(), &mut [0; 1]),
        Err(ScmError::Closed)
    ));
}

#[test]
fn what_a_peer_said_before_it_closed_is_still_read() {
    let (left, right) = pair().unwrap();
    send(right.as_fd(), b"last", &[]).unwrap();
    drop(right);
    let mut buffer = [0; 8];
    assert_eq!(receive(left.as_fd(), &mut buffer).unwrap().0, 4);
    assert!(matches!(
        receive(left.as_fd(), &mut buffer),
        Err(ScmError::Closed)
    ));
}

#[test]
fn what_a_peer_said_is_read_even_if_it_closed_without_reading() {
    // The kernel reports the unread message as ECONNRESET, once, ahead of what is queued here.
    let (left, right) = pair().unwrap();
    send(left.as_fd(), b"never read", &[]).unwrap();
    send(right.as_fd(), b"last", &[]).unwrap();
    drop(right);
    let mut buffer = [0; 8];
    assert_eq!(receive(left.as_fd(), &mut buffer).unwrap().0, 4);
    assert!(matches!(
        receive(left.as_fd(), &mut buffer),
        Err(ScmError::Closed)
    ));
}

#[test]
fn control_data_other_than_descriptors_is_refused() {
    let (left, right) = pair().unwrap();
    rustix::net::sockopt::set_socket_passcred(&right, true).unwrap();
    send(left.as_fd(), b"x", &[]).unwrap();
    let error = receive(right.as_fd(), &mut [0; 8]).unwrap_err();
    assert!(matches!(error, ScmError::UnexpectedControlData), "{error}");
}

#[test]
fn an_unconnected_socket_is_closed_and_not_a_panic() {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    assert!(matches!(
        send(socket.as_fd(), b"x", &[]),
        Err(ScmError::Closed)
    ));
    assert!(receive(socket.as_fd(), &mut [0; 1]).is_err());
    let (stream, _other) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    assert!(matches!(
        receive(stream.as_fd(), &mut [0; 1]),
        Err(ScmError::WouldBlock)
    ));
}
