//! Descriptors of strangers, closed where that may take for ever.
//!
//! Closing the last copy of a descriptor can block: a file of FUSE or NFS asks its server, a socket
//! with `SO_LINGER` waits for its peer. A worker or a client that sends one it had no reason to send
//! must not stop the thread that serves everybody. So the kernel is told to refuse it (Linux 6.16), and
//! what an older kernel lets through is closed by one of a few threads that do nothing else.
//!
//! Invariant: at most `MAX_CLOSERS` threads and `MAX_QUEUED` descriptors wait. What comes beyond that is
//! never closed; the limit of open files bounds it.

use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::socket_type;
use rustix::net::{Shutdown, SocketType, shutdown};

use crate::scm::{self, Datagram};

/// Threads that close at a time.
const MAX_CLOSERS: usize = 4;
/// Descriptors that wait to be closed.
const MAX_QUEUED: usize = 256;
/// The most datagrams that are taken from a socket before it is closed: the send buffer of its other
/// end, 416 KiB at most by default, has room for fewer.
const MAX_UNREAD: usize = 1024;

#[derive(Debug)]
struct Yard {
    queue: VecDeque<OwnedFd>,
    closers: usize,
}

static YARD: Mutex<Yard> = Mutex::new(Yard {
    queue: VecDeque::new(),
    closers: 0,
});

fn yard() -> MutexGuard<'static, Yard> {
    // Nothing panics while it is held.
    YARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `fds` closed by another thread; gives whether there were any.
pub(crate) fn close(fds: Vec<OwnedFd>) -> bool {
    if fds.is_empty() {
        return false;
    }
    let mut yard = yard();
    for fd in fds {
        if yard.queue.len() < MAX_QUEUED {
            yard.queue.push_back(fd);
        } else {
            std::mem::forget(fd);
        }
    }
    if yard.closers < MAX_CLOSERS {
        let thread = std::thread::Builder::new().name("strays".to_owned());
        // Where there is no thread to be had, the next stray asks for one again.
        if thread.spawn(close_queued).is_ok() {
            yard.closers += 1;
        }
    }
    true
}

/// Closes until none waits.
fn close_queued() {
    loop {
        let next = {
            let mut yard = yard();
            let next = yard.queue.pop_front();
            if next.is_none() {
                yard.closers -= 1;
            }
            next
        };
        match next {
            Some(fd) => drop(fd),
            None => return,
        }
    }
}

/// A UNIX socket whose other end is hostile and may send no descriptors: the kernel refuses them where
/// it can. Where it cannot, those that nobody received are closed elsewhere when this is dropped.
#[derive(Debug)]
pub struct NoRights<S: AsFd> {
    /// There until it is dropped.
    socket: Option<S>,
    refused: bool,
}

impl<S: AsFd> NoRights<S> {
    /// Takes a socket, best before its other end is anybody's: what was sent already is not refused.
    #[must_use]
    pub fn new(socket: S) -> Self {
        let refused = scm::refuse_rights(socket.as_fd());
        Self {
            socket: Some(socket),
            refused,
        }
    }
}

impl<S: AsFd> NoRights<S> {
    fn socket(&self) -> &S {
        self.socket
            .as_ref()
            .expect("a socket is there until it is dropped")
    }

    /// Closes this copy of a socket that another process has by now, and leaves the connection as it is:
    /// where the kernel could not refuse descriptors, and that process may be gone already, elsewhere.
    pub fn hand_on(mut self) {
        if self.refused {
            return;
        }
        if let Ok(copy) = self.as_fd().try_clone_to_owned() {
            // This one first: it is not the last.
            self.refused = true;
            drop(self);
            close(vec![copy]);
        }
    }
}

impl<S: AsFd> Deref for NoRights<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.socket()
    }
}

impl<S: AsFd> AsFd for NoRights<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl<S: AsFd> Drop for NoRights<S> {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take().filter(|_| !self.refused) else {
            return;
        };
        // The last copy of the socket is closed elsewhere, and what nobody has read with it.
        match socket.as_fd().try_clone_to_owned() {
            Ok(copy) => {
                let _ = shutdown(&copy, Shutdown::Both);
                // This one first: the other thread may be done with the copy before this one goes on, and what is
                // closed here would be the last.
                drop(socket);
                close(vec![copy]);
            }
            Err(_) => take_unread(socket.as_fd()),
        }
    }
}

/// Takes from a socket that is about to be closed what nobody has read, where there is no descriptor for
/// a copy of it: the kernel would close the descriptors among it in this thread.
fn take_unread(socket: BorrowedFd<'_>) {
    // Nothing more is let in.
    let _ = shutdown(socket, Shutdown::Read);
    let stream = socket_type(socket) == Ok(SocketType::STREAM);
    for _ in 0..MAX_UNREAD {
        let Ok(datagram) = Datagram::receive_bare(socket, &mut [0; 512]) else {
            return;
        };
        // An empty datagram looks like the end, and more may be behind it.
        if !close(datagram.fds) && datagram.length == 0 && stream {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use rustix::io::Errno;

    use super::*;
    use crate::scm::ScmError;

    /// A socket whose last close takes the time it lingers, and the other end that never reads.
    fn lingering(seconds: u64) -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 65536]).is_ok() {}
        ours.set_nonblocking(false).unwrap();
        let linger = Some(Duration::from_secs(seconds));
        rustix::net::sockopt::set_socket_linger(&ours, linger).unwrap();
        (ours.into(), other)
    }

    fn quick(work: impl FnOnce()) {
        let begin = Instant::now();
        work();
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn the_kernel_refuses_descriptors_where_it_can() {
        let (left, right) = scm::pair().unwrap();
        let right = NoRights::new(right);
        let sent = scm::send(left.as_fd(), b"x", &[left.as_fd()]);
        if right.refused {
            assert!(matches!(sent, Err(ScmError::Os(Errno::PERM))), "{sent:?}");
        } else {
            sent.unwrap();
        }
        // The other way, and without descriptors, nothing changes.
        scm::send(right.as_fd(), b"y", &[right.as_fd()]).unwrap();
        scm::send(left.as_fd(), b"z", &[]).unwrap();
    }

    #[test]
    fn a_close_that_takes_long_does_not_hold_the_receiver_up() {
        let (left, right) = scm::pair().unwrap();
        let (stray, _other) = lingering(6);
        scm::send(left.as_fd(), b"x", &[stray.as_fd()]).unwrap();
        drop(stray);
        quick(|| {
            let received = scm::receive_bare(right.as_fd(), &mut [0; 16]).unwrap();
            assert_eq!(received, (1, true));
        });
    }

    #[test]
    fn strays_that_nobody_received_do_not_hold_up_who_closes_the_socket() {
        let (left, right) = scm::pair().unwrap();
        let (stray, _other) = lingering(6);
        scm::send(left.as_fd(), b"x", &[]).unwrap();
        scm::send(left.as_fd(), b"", &[]).unwrap();
        scm::send(left.as_fd(), b"y", &[stray.as_fd()]).unwrap();
        drop(stray);
        let socket = NoRights {
            socket: Some(right),
            refused: false,
        };
        quick(|| drop(socket));
        assert!(matches!(
            scm::send(left.as_fd(), b"x", &[]),
            Err(ScmError::Closed)
        ));
    }

    #[test]
    fn a_connection_that_was_handed_on_goes_on() {
        for refused in [false, true] {
            let (left, right) = scm::pair().unwrap();
            let other = right.try_clone().unwrap();
            let socket = NoRights {
                socket: Some(right),
                refused,
            };
            socket.hand_on();
            scm::send(left.as_fd(), b"x", &[]).unwrap();
            let received = scm::receive_bare(other.as_fd(), &mut [0; 16]).unwrap();
            assert_eq!(received, (1, false));
        }
    }

    #[test]
    fn more_than_a_message_may_carry_are_closed_too() {
        let (left, right) = scm::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let many = vec![writer.as_fd(); 200];
        let mut space = vec![std::mem::MaybeUninit::uninit(); 2048];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&many)));
        rustix::net::sendmsg(
            &left,
            &[std::io::IoSlice::new(b"x")],
            &mut control,
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        drop(many);
        drop(writer);
        let received = scm::receive_bare(right.as_fd(), &mut [0; 16]).unwrap();
        assert_eq!(received, (1, true));
        // The end comes once each is closed.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }
}
