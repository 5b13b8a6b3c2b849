//! The worker's end of a connection, played by a test, and the supervisor's end it talks to.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use reeve_ipc::client::{CallError, Closed, Incoming, WorkerClient};
use reeve_ipc::codec::{decode, encode};
use reeve_ipc::event::Event;
use reeve_ipc::message::{FromWorker, JailFacts, RequestId, ToWorker};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::{Operation, Query, ReplyBody, Status};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{BuildId, MAX_MESSAGE_BYTES, PROTOCOL};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Long enough for anything that is going to happen at all.
pub const SOON: Duration = Duration::from_secs(10);

/// The worker's end, and what the supervisor holds of the other one.
pub struct Fake {
    pub socket: OwnedFd,
    pub client: WorkerClient,
    pub incoming: Receiver<Incoming>,
}

impl Fake {
    /// A connection on which only the supervisor has spoken.
    pub async fn silent() -> Self {
        let (ours, socket) = scm::pair().unwrap();
        let (client, incoming) = WorkerClient::start(ours, "web").await.unwrap();
        let fake = Self {
            socket,
            client,
            incoming,
        };
        let (welcome, _) = fake.receive().await;
        assert_eq!(
            welcome,
            ToWorker::Welcome {
                protocol: PROTOCOL,
                build: BuildId::this(),
                domain: "web".to_owned(),
            }
        );
        fake
    }

    /// A connection whose worker has said hello.
    pub async fn greeted() -> Self {
        let mut fake = Self::silent().await;
        fake.say(&hello());
        assert!(matches!(
            fake.incoming().await,
            Incoming::Hello(JailFacts { landlock_abi: 7 })
        ));
        fake
    }

    pub fn say(&self, message: &FromWorker) {
        self.say_bytes(&encode(message).unwrap());
    }

    pub fn say_bytes(&self, bytes: &[u8]) {
        scm::send(self.socket.as_fd(), bytes, &[]).unwrap();
    }

    /// As [`Self::say`], once the socket has room.
    pub async fn say_when_ready(&self, message: &FromWorker) {
        let bytes = encode(message).unwrap();
        while let Err(error) = scm::send(self.socket.as_fd(), &bytes, &[]) {
            assert!(matches!(error, ScmError::WouldBlock), "{error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn answer(&self, id: RequestId, body: ReplyBody) {
        self.say(&FromWorker::Reply {
            id,
            result: Ok(body),
        });
    }

    pub async fn receive(&self) -> (ToWorker, Vec<OwnedFd>) {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        for _ in 0..10_000 {
            match scm::receive(self.socket.as_fd(), &mut buffer) {
                Ok((length, fds)) => return (decode(&buffer[..length]).unwrap(), fds),
                Err(ScmError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the supervisor says nothing");
    }

    /// The id of the next request, which must be `operation`.
    pub async fn asked(&self, operation: Operation) -> RequestId {
        match self.receive().await.0 {
            ToWorker::Request { id, body } => {
                assert_eq!(body.operation(), operation);
                id
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn incoming(&mut self) -> Incoming {
        timeout(SOON, self.incoming.recv()).await.unwrap().unwrap()
    }

    /// How the connection ended; nothing may follow that.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Incoming::Closed(closed) = self.incoming().await {
                assert!(self.incoming.recv().await.is_none());
                return closed;
            }
        }
    }

    /// Asserts that the connection ended by a violation whose reason contains `reason`, and that
    /// calls fail from then on.
    pub async fn violated(&mut self, reason: &str) {
        match self.closed().await {
            Closed::Violation(text) => assert!(text.contains(reason), "{text}"),
            other @ Closed::ByWorker => panic!("{other:?}"),
        }
        let error = self.client.call(Query {}, SOON).await.unwrap_err();
        assert!(matches!(error, CallError::Closed("query")), "{error}");
    }
}

pub fn hello() -> FromWorker {
    FromWorker::Hello {
        protocol: PROTOCOL,
        build: BuildId::this(),
        jail: JailFacts { landlock_abi: 7 },
    }
}

pub fn event(number: u64) -> FromWorker {
    FromWorker::Event {
        number,
        event: Event::GuestPoweredOff,
    }
}

pub fn status() -> Status {
    Status {
        phase: Phase::Running,
        last_event: 0,
        resets: 0,
        console_dropped_bytes: 0,
        console_clients: 0,
        log_dropped: 0,
    }
}
