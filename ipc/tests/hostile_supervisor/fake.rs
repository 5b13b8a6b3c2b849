//! A supervisor that says what a test has it say: one thread, one connection after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;

use reeve_ipc::BuildId;
use reeve_ipc::api::event::{Cursor, DomainEvent, Event, EventKind};
use reeve_ipc::api::message::{CallId, FromClient, ToClient};
use reeve_ipc::api::{API, Access};
use reeve_ipc::model::DomainUuid;
use reeve_ipc::{codec, local, scm};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::net::SocketFlags;
use tempfile::TempDir;
use uuid::Uuid;

/// A socket and whoever listens on it.
pub struct Fake {
    directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

/// One connection, as the supervisor sees it.
pub struct Seat(OwnedFd);

impl Fake {
    /// Listens, and has `script` serve one connection; it is closed when that returns.
    pub fn serve(script: impl FnOnce(&Seat) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = local::listen(&path, Mode::from_raw_mode(0o600), 8).unwrap();
        let thread = std::thread::spawn(move || {
            poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap();
            let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
            script(&Seat(socket));
        });
        Self {
            directory,
            thread: Some(thread),
        }
    }

    /// As [`Self::serve`], with the greeting already exchanged.
    pub fn greeted(script: impl FnOnce(&Seat) + Send + 'static) -> Self {
        Self::serve(move |seat| {
            seat.hear();
            seat.say(&ToClient::Welcome {
                api: API,
                build: BuildId::this(),
                access: Access::ReadWrite,
            });
            script(seat);
        })
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// Waits for the script's end; its panics are the test's.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Seat {
    pub fn hear(&self) -> FromClient {
        let mut buffer = vec![0; reeve_ipc::MAX_MESSAGE_BYTES];
        let (length, _) = scm::receive_waiting(self.0.as_fd(), &mut buffer).unwrap();
        codec::decode(&buffer[..length]).unwrap()
    }

    /// The id of the next call.
    pub fn call(&self) -> CallId {
        match self.hear() {
            FromClient::Call { id, .. } => id,
            hello @ FromClient::Hello { .. } => panic!("{hello:?}"),
        }
    }

    pub fn say(&self, message: &ToClient) {
        self.bytes(&codec::encode(message).unwrap(), &[]);
    }

    /// Sends bytes, waiting for room.
    pub fn bytes(&self, bytes: &[u8], fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            match scm::send(self.0.as_fd(), bytes, &fds) {
                Ok(()) | Err(scm::ScmError::Closed) => return,
                Err(scm::ScmError::WouldBlock) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until the client has closed its end.
    pub fn until_closed(&self) {
        let mut buffer = vec![0; reeve_ipc::MAX_MESSAGE_BYTES];
        while scm::receive_waiting(self.0.as_fd(), &mut buffer).is_ok() {}
    }
}

/// An event with this number.
pub fn event(number: u64) -> ToClient {
    ToClient::Event {
        cursor: Cursor { epoch: 1, number },
        event: Event::Domain(DomainEvent {
            time_ms: 0,
            uuid: DomainUuid(Uuid::nil()),
            name: "web".parse().unwrap(),
            kind: EventKind::Reset,
        }),
    }
}
