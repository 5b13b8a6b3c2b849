//! Both ends of a session.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_ipc::api::call::{AnswerBody, CallBody, Subscribed};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::{
    Cursor, DomainEvent, Event, EventKind, NetworkEvent, NetworkEventKind, PoolEvent, PoolEventKind,
};
use reeve_ipc::api::message::{CallId, FromClient, ToClient};
use reeve_ipc::api::{API, Access};
use reeve_ipc::changes::{ChangeCount, Changes};
use reeve_ipc::model::{DomainName, DomainUuid, Network, Pool};
use reeve_ipc::{BuildId, MAX_MESSAGE_BYTES, codec, scm};

use crate::calls::testing::uuid_of;
use crate::session::{Rights, SessionError, serve};
use crate::wire::call::Call;
use crate::wire::error::ErrorBody;
use crate::wire::frame::{self, Assembler, Header, Kind, Program, Status};
use crate::wire::types::connect::ConnectOpen;
use crate::wire::types::device::DomainOpenConsole;
use crate::wire::types::handles::Domain;
use crate::wire::xdr::{Encode, decode};

/// How long anything may take in a test.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a script says of a call.
pub(super) enum Act {
    Answer(AnswerBody),
    Fds(AnswerBody, Vec<OwnedFd>),
    Fail(ApiErrorCode, &'static str),
    /// No answer until somebody gives one.
    Hold,
    /// The supervisor ends.
    Die,
}

type Script = Box<dyn FnMut(&Supervisor, &CallBody) -> Act + Send>;

/// Serves a client whose socket that is, with a supervisor that follows the script.
pub(super) fn serve_both(
    client: OwnedFd,
    script: impl FnMut(&Supervisor, &CallBody) -> Act + Send + 'static,
) -> (Supervisor, JoinHandle<Result<(), SessionError>>) {
    serve_with(client, Access::ReadWrite, Box::new(script))
}

fn serve_with(
    client: OwnedFd,
    access: Access,
    script: Script,
) -> (Supervisor, JoinHandle<Result<(), SessionError>>) {
    let (api, other) = scm::pair().unwrap();
    let client = UnixStream::from(client);
    client.set_nonblocking(true).unwrap();
    let supervisor = Supervisor {
        socket: Arc::new(other),
        held: Arc::default(),
        seen: Arc::default(),
        number: Arc::default(),
        changes: Arc::new(ChangeCount::new().unwrap()),
        stands: Arc::default(),
    };
    let changes = Changes::of(supervisor.changes.file()).unwrap();
    let peer = supervisor.clone();
    std::thread::spawn(move || peer.run(script));
    let session = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(serve(client.into(), api, Rights { access }, changes))
    });
    (supervisor, session)
}

/// The supervisor's end.
#[derive(Clone)]
pub(super) struct Supervisor {
    socket: Arc<OwnedFd>,
    /// Calls that were held, in order.
    pub(super) held: Arc<Mutex<Vec<(CallId, CallBody)>>>,
    /// Every call, in order.
    pub(super) seen: Arc<Mutex<Vec<CallBody>>>,
    number: Arc<Mutex<u64>>,
    pub(super) changes: Arc<ChangeCount>,
    /// Whether what it says stands until [`Self::changes`] are raised; else each call may be answered otherwise.
    pub(super) stands: Arc<AtomicBool>,
}

impl Supervisor {
    fn send(&self, message: &ToClient, fds: &[OwnedFd]) {
        let bytes = codec::encode(message).unwrap();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            match scm::send(self.socket.as_fd(), &bytes, &fds) {
                Err(scm::ScmError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
                // The session has ended.
                _ => return,
            }
        }
    }

    pub(super) fn answer(&self, id: CallId, result: Result<AnswerBody, ApiError>) {
        self.send(&ToClient::Reply { id, result }, &[]);
    }

    /// Something happened to the domain of that name.
    pub(super) fn event(&self, name: &str, kind: EventKind) {
        self.event_of(DomainUuid(uuid_of(name)), name.parse().unwrap(), kind);
    }

    /// As [`Self::event`], of any UUID.
    pub(super) fn event_of(&self, uuid: DomainUuid, name: DomainName, kind: EventKind) {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let cursor = Cursor {
            epoch: 1,
            number: *number,
        };
        let event = Event::Domain(DomainEvent {
            time_ms: 0,
            uuid,
            name,
            kind,
        });
        self.send(&ToClient::Event { cursor, event }, &[]);
    }

    /// Something happened to a storage pool.
    pub(super) fn pool_event(&self, pool: &Pool, kind: PoolEventKind) {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let cursor = Cursor {
            epoch: 1,
            number: *number,
        };
        let event = Event::Pool(PoolEvent {
            time_ms: 0,
            uuid: pool.uuid,
            name: pool.name.clone(),
            kind,
        });
        self.send(&ToClient::Event { cursor, event }, &[]);
    }

    /// Something happened to a virtual network.
    pub(super) fn network_event(&self, network: &Network, kind: NetworkEventKind) {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let cursor = Cursor {
            epoch: 1,
            number: *number,
        };
        let event = Event::Network(NetworkEvent {
            time_ms: 0,
            uuid: network.uuid,
            name: network.name.clone(),
            kind,
        });
        self.send(&ToClient::Event { cursor, event }, &[]);
    }

    /// So many events are lost on their way.
    pub(super) fn skip(&self, events: u64) {
        *self.number.lock().unwrap() += events;
    }

    /// Waits until so many calls are held.
    pub(super) fn holds(&self, count: usize) {
        eventually(|| self.held.lock().unwrap().len() >= count);
    }

    fn run(self, mut script: Script) {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        loop {
            wait(self.socket.as_fd());
            let length = match scm::receive(self.socket.as_fd(), &mut buffer) {
                Ok((length, _)) => length,
                Err(scm::ScmError::WouldBlock) => continue,
                Err(_) => return,
            };
            match codec::decode(&buffer[..length]).unwrap() {
                FromClient::Hello { .. } => {
                    let welcome = ToClient::Welcome {
                        api: API,
                        build: BuildId::this(),
                        access: Access::ReadWrite,
                    };
                    self.send(&welcome, &[]);
                }
                FromClient::Call { id, body } => {
                    self.seen.lock().unwrap().push(body.clone());
                    if !self.stands.load(Ordering::SeqCst) {
                        self.changes.raise();
                    }
                    if let CallBody::EventsSubscribe(_) = body {
                        let cursor = Cursor {
                            epoch: 1,
                            number: *self.number.lock().unwrap(),
                        };
                        let subscribed = Subscribed {
                            cursor,
                            lost: false,
                        };
                        self.answer(id, Ok(AnswerBody::EventsSubscribe(subscribed)));
                        continue;
                    }
                    match script(&self, &body) {
                        Act::Answer(answer) => self.answer(id, Ok(answer)),
                        Act::Fds(answer, fds) => {
                            let result = Ok(answer);
                            self.send(&ToClient::Reply { id, result }, &fds);
                        }
                        Act::Fail(code, message) => {
                            self.answer(id, Err(ApiError::new(code, message)));
                        }
                        Act::Hold => self.held.lock().unwrap().push((id, body)),
                        Act::Die => {
                            rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both)
                                .unwrap();
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn wait(socket: BorrowedFd<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], None);
}

/// Waits until it is so.
pub(super) fn eventually(mut is: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "it is not so in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A packet as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Got {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// An error as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) domain: i32,
    pub(super) message: String,
}

impl Got {
    pub(super) fn error(&self) -> Said {
        assert_eq!(self.header.status, Status::Error, "{self:?}");
        let error: ErrorBody = decode(&self.payload).unwrap();
        Said {
            code: error.code,
            domain: error.origin,
            message: error.message.unwrap_or_default(),
        }
    }

    pub(super) fn reply<C: Call>(&self) -> C::Reply {
        assert_eq!(self.header.kind, Kind::Reply, "{self:?}");
        if self.header.status == Status::Error {
            panic!("{:?}", self.error());
        }
        assert_eq!(self.header.procedure, C::NUMBER);
        decode(&self.payload).unwrap()
    }
}

/// The client's end.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    assembler: Assembler,
    serial: u32,
    pub(super) supervisor: Supervisor,
    session: Option<JoinHandle<Result<(), SessionError>>>,
}

impl Client {
    /// A session that is not open yet, with those rights.
    pub(super) fn with(
        access: Access,
        script: impl FnMut(&CallBody) -> Act + Send + 'static,
    ) -> Self {
        let mut script = script;
        Self::start(access, Box::new(move |_, call| script(call)))
    }

    /// A session that is open, whose script has the supervisor at hand.
    pub(super) fn open_with(
        script: impl FnMut(&Supervisor, &CallBody) -> Act + Send + 'static,
    ) -> Self {
        let mut client = Self::start(Access::ReadWrite, Box::new(script));
        client.open_by("qemu:///system", 0);
        client
    }

    fn start(access: Access, script: Script) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (supervisor, session) = serve_with(theirs.into(), access, script);
        Self {
            socket,
            assembler: Assembler::default(),
            serial: 0,
            supervisor,
            session: Some(session),
        }
    }

    /// A session that is open, by `qemu:///system`.
    pub(super) fn open(script: impl FnMut(&CallBody) -> Act + Send + 'static) -> Self {
        let mut client = Self::with(Access::ReadWrite, script);
        client.open_by("qemu:///system", 0);
        client
    }

    pub(super) fn open_by(&mut self, uri: &str, flags: u32) {
        let open = ConnectOpen {
            name: Some(uri.to_owned()),
            flags,
        };
        self.ask(&open);
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends a call; its serial.
    pub(super) fn send<C: Call>(&mut self, call: &C) -> u32 {
        let serial = self.serial;
        self.serial += 1;
        let mut packet = Vec::new();
        frame::call(&mut packet, serial, call).unwrap();
        self.write(&packet);
        serial
    }

    /// Sends a call of any number with any arguments; its serial.
    pub(super) fn send_raw(
        &mut self,
        program: u32,
        version: u32,
        procedure: i32,
        payload: &[u8],
    ) -> u32 {
        let serial = self.serial;
        self.serial += 1;
        self.packet(program, version, procedure, 0, serial, 0, payload);
        serial
    }

    #[expect(clippy::too_many_arguments, reason = "the words of a header")]
    pub(super) fn packet(
        &mut self,
        program: u32,
        version: u32,
        procedure: i32,
        kind: u32,
        serial: u32,
        status: u32,
        payload: &[u8],
    ) {
        let length = 28 + u32::try_from(payload.len()).unwrap();
        let words = [
            length,
            program,
            version,
            procedure.cast_unsigned(),
            kind,
            serial,
            status,
        ];
        let mut packet: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        packet.extend_from_slice(payload);
        self.write(&packet);
    }

    /// A packet of a stream, to the procedure of a console.
    pub(super) fn stream(&mut self, serial: u32, status: u32, data: &[u8]) {
        self.stream_of::<DomainOpenConsole>(serial, status, data);
    }

    /// A packet of a stream, to the procedure that opened it.
    pub(super) fn stream_of<C: Call>(&mut self, serial: u32, status: u32, data: &[u8]) {
        let number = C::NUMBER;
        self.packet(Program::Remote.number(), 1, number, 3, serial, status, data);
    }

    /// The next packet; `None` when the connection has ended.
    pub(super) fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(packet) = self.assembler.take().unwrap() {
                return Some(Got {
                    header: packet.header,
                    payload: packet.payload.to_vec(),
                });
            }
            let mut bytes = [0; 65536];
            match self.socket.read(&mut bytes).unwrap() {
                0 => return None,
                length => self.assembler.push(&bytes[..length]),
            }
        }
    }

    /// The answer to the call of that serial, which is to come next.
    pub(super) fn answer(&mut self, serial: u32) -> Got {
        let got = self.next().expect("the connection has ended");
        assert_eq!(got.header.serial, serial, "{got:?}");
        got
    }

    /// Calls, and waits for the reply.
    pub(super) fn ask<C: Call>(&mut self, call: &C) -> C::Reply {
        let serial = self.send(call);
        self.answer(serial).reply::<C>()
    }

    /// Calls, and waits for the error.
    pub(super) fn refused<C: Call>(&mut self, call: &C) -> Said {
        let serial = self.send(call);
        self.answer(serial).error()
    }

    /// Nothing comes for a while.
    pub(super) fn silence(&mut self, milliseconds: u64) {
        let wait = Duration::from_millis(milliseconds);
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut byte = [0];
        let read = self.socket.read(&mut byte);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(read.is_err(), "something came: {read:?}");
        assert_eq!(self.assembler.pending(), 0);
    }

    /// How the session ended.
    pub(super) fn end(&mut self) -> Result<(), SessionError> {
        self.session.take().unwrap().join().unwrap()
    }
}

/// Bytes of a value.
pub(super) fn bytes<T: Encode>(value: &T) -> Vec<u8> {
    crate::wire::xdr::encode(value).unwrap()
}

/// The handle of the domain of that name.
pub(super) fn handle(name: &str, id: i32) -> Domain {
    Domain {
        name: name.to_owned(),
        uuid: *uuid_of(name).as_bytes(),
        id,
    }
}
