//! A volume whose bytes come from a client, or go to one.
//!
//! ```text
//!   client ◄── one end of a stream ──► image worker, with the file and its locks
//!                                            │ task, answer
//!   connection ── ends ──► Hold ── ended ──► thread of the stream, which kills the worker
//!   pool ── is stopped ──►
//! ```
//!
//! A client never has the file. What it may do with it is what the process does that has: write so many bytes from
//! there on, or read them; no lock is its to give up, and with its connection, or with the pool, all of that ends
//! whatever it keeps: the socket between them is shut down, also where the process waits for a file system and cannot
//! be killed. The thread moves no byte: it waits for the process, and is there for as long, as the process dies with
//! it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::api::call::VolumeStream;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::image::ImageTask;
use reeve_ipc::model::{MAX_VOLUME_BYTES, Pool, PoolUuid, VolumeName};
use reeve_ipc::scm;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::host::{Held, Host};
use super::lanes::Place;
use crate::domain::actor::SessionId;
use crate::host::image_lock::ImageUse;
use crate::host::image_worker::{ImageWorker, Purpose};

/// How long a client's send may wait for a file that takes nothing, before it fails with `EAGAIN`.
const SEND: Duration = Duration::from_secs(60);

/// What keeps a stream: it ends when this does.
#[derive(Debug)]
struct Hold {
    of: PoolUuid,
    /// The end of a pipe that is written to by nobody: closed, it wakes the thread.
    open: Mutex<Option<OwnedFd>>,
}

impl Hold {
    fn open(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        // Nothing panics while it is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.open().take();
    }

    fn has_ended(&self) -> bool {
        self.open().is_none()
    }
}

/// What whoever asked for a stream keeps; dropped, it ends the stream.
#[derive(Debug)]
pub struct Ending(Arc<Hold>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The streams of all pools.
#[derive(Debug, Default)]
pub(super) struct Streams {
    under_way: Mutex<Vec<Arc<Hold>>>,
}

impl Streams {
    fn under_way(&self) -> MutexGuard<'_, Vec<Arc<Hold>>> {
        // Nothing panics while it is held.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, of: PoolUuid, open: OwnedFd) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            of,
            open: Mutex::new(Some(open)),
        });
        let mut under_way = self.under_way();
        under_way.retain(|hold| !hold.has_ended());
        under_way.push(Arc::clone(&hold));
        hold
    }

    /// Ends those of a pool.
    pub(super) fn end(&self, of: PoolUuid) {
        self.under_way().retain(|hold| {
            if hold.of == of {
                hold.end();
            }
            !hold.has_ended()
        });
    }
}

/// The streams that each connection asked for.
#[derive(Debug, Default)]
pub struct SessionStreams(Mutex<HashMap<SessionId, Vec<Ending>>>);

impl SessionStreams {
    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Ending>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a stream end with a connection, if not before.
    pub fn keep(&self, session: SessionId, ending: Ending) {
        let mut all = self.all();
        let own = all.entry(session).or_default();
        own.retain(|ending| !ending.0.has_ended());
        own.push(ending);
    }

    /// A connection has ended.
    pub fn end(&self, session: SessionId) {
        self.all().remove(&session);
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// It sends the bytes.
    pub(super) write: bool,
    /// From this byte on.
    pub(super) offset: u64,
    /// So many; 0 for all.
    pub(super) length: u64,
}

/// A stream that has begun.
#[derive(Debug)]
pub struct Begun {
    /// What passes on it.
    pub stream: VolumeStream,
    /// The client's end.
    pub client: OwnedFd,
    /// Ends it.
    pub ending: Ending,
}

/// The supervisor's side of a stream that has begun.
struct UnderWay {
    worker: ImageWorker,
    /// Another descriptor of the process' end.
    process: OwnedFd,
    ended: OwnedFd,
    hold: Arc<Hold>,
    directory: OwnedFd,
    write: bool,
    place: Place,
}

/// Opens a volume's file and has a process send it, or write it. The process is the calling thread's, which
/// goes on with [`UnderWay::attend`].
fn begin(
    host: &Host,
    pool: &Pool,
    name: &VolumeName,
    wanted: Wanted,
    (ending, ended): (Ending, OwnedFd),
    place: Place,
) -> Result<(Begun, UnderWay), ApiError> {
    let held = Held { pool, name };
    let invalid = |why: &str| held.error(ApiErrorCode::InvalidArgument, why);
    let os = |errno: Errno| held.os("hand over", errno);
    let Wanted {
        write,
        offset,
        length,
    } = wanted;
    let directory = host.directory(pool)?;
    let used = write.then_some(ImageUse::Write);
    let file = held.open(directory.as_fd(), write, used)?;
    let most = match write {
        true => MAX_VOLUME_BYTES,
        false => {
            let stat = rustix::fs::fstat(&file).map_err(|errno| held.os("look at", errno))?;
            u64::try_from(stat.st_size).unwrap_or(0)
        }
    };
    let left = most
        .checked_sub(offset)
        .ok_or_else(|| invalid("it does not reach as far as the offset"))?;
    let length = match length {
        0 => left,
        length if write && length > left => {
            return Err(invalid("no file has so many bytes"));
        }
        length => length.min(left),
    };
    let (client, process) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(os)?;
    // A client with one thread hears of nothing else while it sends.
    set_socket_timeout(&client, Timeout::Send, Some(SEND)).map_err(os)?;
    // Neither can hand the other a descriptor, where the kernel can see to it.
    scm::refuse_rights(client.as_fd());
    scm::refuse_rights(process.as_fd());
    let (purpose, task) = match write {
        true => (Purpose::Write, ImageTask::Receive { offset, length }),
        false => (Purpose::Read, ImageTask::Send { offset, length }),
    };
    let worker = host.worker(purpose);
    let begun = worker.and_then(|worker| {
        worker.begin(&task, &[file.as_fd(), process.as_fd()])?;
        Ok(worker)
    });
    let worker = begun.map_err(|error| held.task(&error))?;
    let under_way = UnderWay {
        worker,
        process,
        ended,
        hold: Arc::clone(&ending.0),
        directory,
        write,
        place,
    };
    let begun = Begun {
        stream: VolumeStream { offset, length },
        client,
        ending,
    };
    Ok((begun, under_way))
}

/// Begins a stream, on a thread of its own which is there until it has ended; tells how it began, and that a volume
/// was written, with its directory.
pub(super) fn start(
    host: Arc<Host>,
    pool: Pool,
    name: VolumeName,
    wanted: Wanted,
    begun: impl FnOnce(Result<Begun, ApiError>) + Send + 'static,
    written: impl FnOnce(OwnedFd) + Send + 'static,
) {
    let refused = Held {
        pool: &pool,
        name: &name,
    };
    let Some(place) = host.lanes.stream(pool.uuid) else {
        let why = "as many volumes as may be are uploaded and downloaded already; try again later";
        return begun(Err(refused.error(ApiErrorCode::Busy, why)));
    };
    // Known from now on: a pool that is stopped before it has begun ends it all the same.
    let (ended, open) = match pipe_with(PipeFlags::CLOEXEC) {
        Ok(ends) => ends,
        Err(errno) => return begun(Err(refused.os("hand over", errno))),
    };
    let ending = Ending(host.streams.keep(pool.uuid, open));
    let thread = std::thread::Builder::new().name("volume-stream".to_owned());
    // Without it nothing is told, and what would have told it is dropped.
    let started = thread.spawn(move || {
        #[cfg(test)]
        host.lanes.hung.pass(pool.uuid);
        let under_way = match begin(&host, &pool, &name, wanted, (ending, ended), place) {
            Ok((stream, under_way)) => {
                begun(Ok(stream));
                under_way
            }
            Err(error) => return begun(Err(error)),
        };
        if let Some(directory) = under_way.attend(&name) {
            written(directory);
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for a stream of a volume could be started");
    }
}

impl UnderWay {
    /// Waits until it has ended, or is to end; the directory of a volume that was written.
    fn attend(self, name: &VolumeName) -> Option<OwnedFd> {
        let Self {
            worker,
            process,
            ended,
            hold,
            directory,
            write,
            place,
        } = self;
        // Its client hears how it went from the process itself.
        if let Err(error) = worker.attend(ended.as_fd()) {
            tracing::debug!(volume = name.as_str(), %error, "a stream ended early");
        }
        // Its client hears no more, and waits for nothing, though the process may not end yet. What was said is heard.
        let _ = shutdown(&process, Shutdown::Both);
        drop(process);
        // Killed, if it has not ended.
        drop(worker);
        hold.end();
        drop(place);
        write.then_some(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::image_reader::first_of;

    fn hold(streams: &Streams, of: PoolUuid) -> (Arc<Hold>, OwnedFd) {
        let (ended, open) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (streams.keep(of, open), ended)
    }

    fn pool(number: u128) -> PoolUuid {
        PoolUuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_stream_ends_with_its_connection_and_with_its_pool() {
        let streams = Streams::default();
        let sessions = SessionStreams::default();
        let (quiet, _other) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (first, first_ended) = hold(&streams, pool(1));
        let (second, second_ended) = hold(&streams, pool(1));
        let (third, _third_ended) = hold(&streams, pool(2));
        sessions.keep(SessionId(1), Ending(Arc::clone(&first)));
        sessions.keep(SessionId(2), Ending(Arc::clone(&second)));
        sessions.keep(SessionId(2), Ending(Arc::clone(&third)));
        sessions.end(SessionId(1));
        assert!(first_of(quiet.as_fd(), first_ended.as_fd()).unwrap());
        assert!(first.has_ended() && !second.has_ended());
        streams.end(pool(1));
        assert!(first_of(quiet.as_fd(), second_ended.as_fd()).unwrap());
        assert!(!third.has_ended());
        assert_eq!(streams.under_way().len(), 1);
        // What has ended is not kept.
        let (fourth, _ended) = hold(&streams, pool(2));
        sessions.keep(SessionId(2), Ending(fourth));
        assert_eq!(sessions.all().get(&SessionId(2)).map(Vec::len), Some(2));
    }
}
