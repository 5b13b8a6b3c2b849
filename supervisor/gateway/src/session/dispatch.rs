//! What becomes of a packet: answered at once, given to a stream, or made a call of.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use reeve_ipc::api::Access;
use reeve_ipc::model::{DomainUuid, NetworkUuid, PoolUuid};
use uuid::Uuid;

use super::callbacks::{Callback, Objects};
use super::run::{Session, Standing};
use super::streams::Answer;
use crate::calls::failure::{Code, Failure, Origin};
use crate::calls::storage::Transfer;
use crate::calls::{self, Context, connect};
use crate::wire::call::Call;
use crate::wire::frame::{self, Header, Kind, Packet, Program, VERSION};
use crate::wire::types::{connect as wire, device, event, storage};
use crate::wire::xdr::Encode;

/// Keepalive: are you there?
pub(super) const PING: i32 = 1;
/// Keepalive: I am.
const PONG: i32 = 2;

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Done {
    header: Header,
    held: usize,
    result: Result<Ended, Failure>,
}

/// What it ended in.
#[derive(Debug)]
enum Ended {
    /// A reply, as a packet.
    Reply(Vec<u8>),
    /// The connection is open.
    Opened(Context),
    /// What a callback was registered for is being watched.
    Watched(Callback),
    /// A console's or a channel's, for a stream.
    Console(OwnedFd),
    /// A file, for a stream that brings its bytes, and whether holes pass.
    Upload(Transfer, bool),
    /// A file, for a stream that is sent its bytes, and whether holes pass.
    Download(Transfer, bool),
}

impl Session {
    /// Takes a packet.
    pub(super) fn packet(&mut self, packet: Packet<'_>) {
        let Packet {
            header, payload, ..
        } = packet;
        match header.kind {
            Kind::Message if header.program == Program::Keepalive.number() => {
                if header.procedure == PING {
                    self.send(|out| frame::keepalive(out, PONG));
                }
            }
            Kind::Call | Kind::CallWithFds => match self.call(header, payload) {
                Ok(()) => {}
                Err(failure) => self.fail(header, &failure),
            },
            Kind::Stream => {
                let answer = self.streams.take(header, payload);
                self.stream(answer);
            }
            Kind::StreamHole => {
                let answer = self.streams.take_hole(header, payload);
                self.stream(answer);
            }
            // Nothing that a client says.
            Kind::Message | Kind::Reply | Kind::ReplyWithFds => {}
        }
    }

    fn fail(&mut self, header: Header, failure: &Failure) {
        self.send(|out| frame::failure(out, header, &failure.body()));
    }

    fn answer<R: Encode>(&mut self, header: Header, reply: &R) {
        self.send(|out| frame::reply(out, header, reply));
    }

    /// Sends what a stream has to say.
    pub(super) fn stream(&mut self, answer: Answer) {
        match answer {
            Answer::Nothing => {}
            Answer::Data(header, data) => {
                self.send(|out| frame::stream_data(out, header, &data));
            }
            Answer::Hole(header, length) => {
                self.send(|out| frame::stream_hole(out, header, length));
            }
            Answer::Over(header) => self.send(|out| frame::stream_end(out, header)),
            Answer::Failed(header, failure) => {
                let header = Header {
                    kind: Kind::Stream,
                    ..header
                };
                self.fail(header, &failure);
            }
        }
    }

    /// Answers a call, or has it answered.
    fn call(&mut self, header: Header, payload: &[u8]) -> Result<(), Failure> {
        let program = Program::from_number(header.program);
        let served = matches!(
            program,
            Some(Program::Remote | Program::Qemu | Program::Lxc)
        );
        if !served || header.version != VERSION {
            return Err(Failure::unknown_program(header.program, header.version));
        }
        if program == Some(Program::Remote) && self.before_open(header, payload)? {
            return Ok(());
        }
        calls::procedure(header)?;
        let Some(context) = self.context.clone() else {
            return Err(Failure::not_open());
        };
        calls::permit(header, context.read_only)?;
        if program == Some(Program::Remote) && self.of_connection(&context, header, payload)? {
            return Ok(());
        }
        let call = calls::begin(&context, header, payload)?;
        self.spawn(header, payload.len(), async move {
            Ok(Ended::Reply(call.await?))
        });
        Ok(())
    }

    fn spawn(
        &mut self,
        header: Header,
        held: usize,
        call: impl Future<Output = Result<Ended, Failure>> + Send + 'static,
    ) {
        self.held += held;
        self.calls.spawn(async move {
            Done {
                header,
                held,
                result: call.await,
            }
        });
    }

    /// Calls that are answered whether the connection is open or not; whether this was one.
    fn before_open(&mut self, header: Header, payload: &[u8]) -> Result<bool, Failure> {
        match header.procedure {
            wire::AuthList::NUMBER => self.answer(header, &connect::authentications()),
            wire::AuthSaslInit::NUMBER
            | wire::AuthSaslStart::NUMBER
            | wire::AuthSaslStep::NUMBER
            | wire::AuthPolkit::NUMBER => {
                let why = "none is asked for";
                return Err(Failure::of(Origin::Rpc, Code::AuthFailed, why));
            }
            wire::ConnectSupportsFeature::NUMBER => {
                let call: wire::ConnectSupportsFeature = calls::arguments(payload)?;
                if call.feature == connect::KEEPALIVE {
                    self.keepalive.arm(Instant::now());
                } else if self.context.is_none() {
                    // Refused as every other call.
                    return Ok(false);
                }
                let supported = i32::from(connect::supports(call.feature));
                self.answer(header, &supported);
            }
            wire::ConnectOpen::NUMBER => {
                let call: wire::ConnectOpen = calls::arguments(payload)?;
                if self.context.is_some() {
                    let why = "connection already open";
                    return Err(Failure::of(Origin::Rpc, Code::InternalError, why));
                }
                let read_only = self.rights.access == Access::ReadOnly;
                let changes = Arc::clone(&self.changes);
                let opening = connect::open(self.api.clone(), changes, call, read_only);
                self.standing = Standing::Opening;
                self.spawn(header, payload.len(), async move {
                    Ok(Ended::Opened(opening.await?))
                });
            }
            wire::ConnectClose::NUMBER => {
                self.calls.abort_all();
                self.answer(header, &());
                self.standing = Standing::Leaving;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Calls that are about the connection itself; whether this was one.
    fn of_connection(
        &mut self,
        context: &Arc<Context>,
        header: Header,
        payload: &[u8],
    ) -> Result<bool, Failure> {
        match header.procedure {
            wire::ConnectRegisterCloseCallback::NUMBER => {
                self.callbacks.register_close()?;
                self.answer(header, &());
            }
            wire::ConnectUnregisterCloseCallback::NUMBER => {
                self.callbacks.deregister_close()?;
                self.answer(header, &());
            }
            event::ConnectDomainEventCallbackRegisterAny::NUMBER => {
                let call: event::ConnectDomainEventCallbackRegisterAny = calls::arguments(payload)?;
                let filter = call.domain.map(|domain| Uuid::from_bytes(domain.uuid));
                let filter = filter.map(DomainUuid);
                self.watch(header, Callback::of_domains(call.event, filter)?)?;
            }
            event::ConnectDomainEventCallbackDeregisterAny::NUMBER => {
                let call: event::ConnectDomainEventCallbackDeregisterAny =
                    calls::arguments(payload)?;
                self.callbacks.deregister(Objects::Domains, call.callback)?;
                self.answer(header, &());
            }
            event::ConnectNetworkEventRegisterAny::NUMBER => {
                let call: event::ConnectNetworkEventRegisterAny = calls::arguments(payload)?;
                let filter = call.network.map(|network| Uuid::from_bytes(network.uuid));
                let filter = filter.map(NetworkUuid);
                self.watch(header, Callback::of_networks(call.event, filter)?)?;
            }
            event::ConnectNetworkEventDeregisterAny::NUMBER => {
                let call: event::ConnectNetworkEventDeregisterAny = calls::arguments(payload)?;
                self.callbacks
                    .deregister(Objects::Networks, call.callback)?;
                self.answer(header, &());
            }
            event::ConnectStoragePoolEventRegisterAny::NUMBER => {
                let call: event::ConnectStoragePoolEventRegisterAny = calls::arguments(payload)?;
                let filter = call.pool.map(|pool| Uuid::from_bytes(pool.uuid));
                let filter = filter.map(PoolUuid);
                self.watch(header, Callback::of_pools(call.event, filter)?)?;
            }
            event::ConnectStoragePoolEventDeregisterAny::NUMBER => {
                let call: event::ConnectStoragePoolEventDeregisterAny = calls::arguments(payload)?;
                self.callbacks.deregister(Objects::Pools, call.callback)?;
                self.answer(header, &());
            }
            storage::StorageVolUpload::NUMBER => {
                let call: storage::StorageVolUpload = calls::arguments(payload)?;
                self.streams.check(header)?;
                let holes = call.flags & calls::storage::HOLES != 0;
                let opening = calls::storage::upload(Arc::clone(context), call);
                self.spawn(header, payload.len(), async move {
                    Ok(Ended::Upload(opening.await?, holes))
                });
            }
            storage::StorageVolDownload::NUMBER => {
                let call: storage::StorageVolDownload = calls::arguments(payload)?;
                self.streams.check(header)?;
                let holes = call.flags & calls::storage::HOLES != 0;
                let opening = calls::storage::download(Arc::clone(context), call);
                self.spawn(header, payload.len(), async move {
                    Ok(Ended::Download(opening.await?, holes))
                });
            }
            device::DomainOpenConsole::NUMBER => {
                let call: device::DomainOpenConsole = calls::arguments(payload)?;
                self.streams.check(header)?;
                let opening = calls::console::open(Arc::clone(context), call);
                self.spawn(header, payload.len(), async move {
                    Ok(Ended::Console(opening.await?))
                });
            }
            device::DomainOpenChannel::NUMBER => {
                let call: device::DomainOpenChannel = calls::arguments(payload)?;
                self.streams.check(header)?;
                let opening = calls::agent::open_channel(Arc::clone(context), call);
                self.spawn(header, payload.len(), async move {
                    Ok(Ended::Console(opening.await?))
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Registers a callback, once what it is for is watched.
    fn watch(&mut self, header: Header, callback: Callback) -> Result<(), Failure> {
        self.callbacks.check()?;
        let watching = self.watch.begin(callback.needs_details());
        self.spawn(header, 0, async move {
            watching.await?;
            Ok(Ended::Watched(callback))
        });
        Ok(())
    }

    /// Sends what a call ended in.
    pub(super) fn done(&mut self, done: Done) {
        let Done {
            header,
            held,
            result,
        } = done;
        self.held = self.held.saturating_sub(held);
        if self.standing == Standing::Leaving {
            return;
        }
        let ended = match result {
            Ok(ended) => self.finish(header, ended),
            Err(failure) => {
                if self.standing == Standing::Opening {
                    self.standing = Standing::New;
                }
                Err(failure)
            }
        };
        if let Err(failure) = ended {
            self.fail(header, &failure);
        }
    }

    fn finish(&mut self, header: Header, ended: Ended) -> Result<(), Failure> {
        match ended {
            Ended::Reply(packet) => self.outbox.push(packet, Instant::now()),
            Ended::Opened(context) => {
                self.context = Some(Arc::new(context));
                if self.standing == Standing::Opening {
                    self.standing = Standing::Open;
                }
                self.answer(header, &());
            }
            Ended::Watched(callback) => {
                let number = self.callbacks.register(callback)?;
                self.answer(header, &number);
            }
            Ended::Console(fd) => {
                self.streams.check(header)?;
                self.answer(header, &());
                if let Err(failure) = self.streams.open_console(header, fd) {
                    self.stream(Answer::Failed(header, failure));
                }
            }
            Ended::Upload(file, holes) => {
                self.streams.check(header)?;
                self.answer(header, &());
                self.streams.open_upload(header, file, holes);
            }
            Ended::Download(file, holes) => {
                self.streams.check(header)?;
                self.answer(header, &());
                self.streams.open_download(header, file, holes);
            }
        }
        Ok(())
    }
}
