//! Starts the processes that read and write disk images for storage pools, and hears what they answer.
//!
//! One is the worker's program in a mode of its own (`vmm-worker/src/images`), in the jail of a worker, with a
//! uid of its own. It is asked one task after another and holds the files of one task at a time; what it
//! says is believed of these files only. It dies with the thread that started it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::api::storage::VolumeFormat;
use reeve_ipc::image::{
    BackingNote, IMAGE_WORKER, ImageFacts, ImageTask, MAX_PROBED, TASK_FD, TASK_LOG_FD, TaskAnswer,
};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{MAX_MESSAGE_BYTES, codec};
use reeve_sandbox::seccomp::denial::Denial;
use reeve_sandbox::{Command, OnParentDeath, Resource, Rlimit, spawn};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use super::identity::{Identities, Level};
use super::image_reader::{Process, first_of, one_line, read_only, wait};
use super::reason;
use crate::domain::plan::{BackingReader, ReadError};

/// How long the first bytes of [`MAX_PROBED`] images may take to be read.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// Memory of its own that it may have: L1 and refcount tables of a chain, and what it moves.
const MEMORY_BYTES: u64 = 512 << 20;

const fn rlimits(file_bytes: u64) -> [Rlimit; 5] {
    [
        Rlimit {
            resource: Resource::Core,
            value: 0,
        },
        Rlimit {
            resource: Resource::FileSize,
            value: file_bytes,
        },
        Rlimit {
            resource: Resource::Descriptors,
            value: 128,
        },
        Rlimit {
            resource: Resource::MessageQueues,
            value: 0,
        },
        Rlimit {
            resource: Resource::Memory,
            value: MEMORY_BYTES,
        },
    ]
}

/// Reads, and writes no file whatever it is handed.
const READS: &[Rlimit] = &rlimits(0);
/// Writes what it is handed.
const WRITES: &[Rlimit] = &rlimits(u64::MAX);

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Looking at images.
    Read,
    /// Writing them.
    Write,
}

/// Why a task was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The file system, or the format: the number where there is one, and words.
    #[error("{words}")]
    Refused {
        /// The number.
        errno: Option<Errno>,
        /// One line.
        words: String,
    },
    /// The process could not be started, died, or said what it should not.
    #[error("the process that handles the image {0}")]
    Process(String),
    /// It took too long.
    #[error("the image was not read within {0} s; look for a network file system that is down")]
    Slow(u64),
}

/// Starts processes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageWorkers {
    program: Arc<OwnedFd>,
    identities: Identities,
}

impl ImageWorkers {
    /// With the executable of the worker, and where its processes' uids come from.
    #[must_use]
    pub fn new(program: OwnedFd, identities: Identities) -> Self {
        Self {
            program: Arc::new(program),
            identities,
        }
    }

    /// Starts one, which dies with the calling thread at the latest.
    ///
    /// # Errors
    /// [`TaskError::Process`].
    pub fn start(&self, purpose: Purpose) -> Result<ImageWorker, TaskError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            TaskError::Process(format!("cannot be started: {what}: {error}"))
        };
        let identity = self.identities.claim();
        let identity = identity.map_err(|error| failed("its uid", &error))?;
        let who = match identity.level {
            Level::System => reeve_sandbox::Identity::Block {
                uid: identity.uid,
                gid: identity.gid,
            },
            Level::User => reeve_sandbox::Identity::Caller,
        };
        let os = |what| move |errno: Errno| failed(what, &reason(errno));
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(os("/dev/null"))?;
        let pair = || {
            let kind = SocketType::SEQPACKET;
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        };
        let (socket, theirs) = pair().map_err(os("its socket"))?;
        let (log, their_log) = pair().map_err(os("its socket"))?;
        let child = spawn(Command {
            exe: self.program.as_fd(),
            argv: &[IMAGE_WORKER],
            null: null.as_fd(),
            fds: vec![(theirs, TASK_FD), (their_log, TASK_LOG_FD)],
            identity: who,
            rlimits: match purpose {
                Purpose::Read => READS,
                Purpose::Write => WRITES,
            },
            memory_policy: None,
            cgroup: None,
            on_parent_death: OnParentDeath::Die,
        });
        let child = child.map_err(|error| failed("its sandbox", &error))?;
        Ok(ImageWorker {
            _process: Process::new(child, identity),
            socket: Arc::new(socket),
            log,
        })
    }
}

/// A process. Killed when it is dropped, whatever it does.
#[derive(Debug)]
pub struct ImageWorker {
    _process: Process,
    socket: Arc<OwnedFd>,
    /// What its sandbox says when it dies of it; open, so that saying it does not fail.
    log: OwnedFd,
}

impl ImageWorker {
    /// What its answers come by: whoever shuts that down ends each wait for one.
    pub(crate) const fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Has one task done, with the files that it names; until `deadline`, or as long as it takes.
    ///
    /// # Errors
    /// [`TaskError`]; after all but [`TaskError::Refused`] the process is of no use.
    pub fn perform(
        &self,
        task: &ImageTask,
        files: &[BorrowedFd<'_>],
        deadline: Option<Duration>,
    ) -> Result<(), TaskError> {
        outcome(self.ask(task, files, deadline)?)
    }

    /// Begins a task, with the files that it names.
    ///
    /// # Errors
    /// [`TaskError`]; the process is of no use then.
    pub fn begin(&self, task: &ImageTask, files: &[BorrowedFd<'_>]) -> Result<(), TaskError> {
        let bytes = codec::encode(task).map_err(|error| process(&error))?;
        scm::send(self.socket.as_fd(), &bytes, files).map_err(|_| process(&self.end()))
    }

    /// Waits until a task that was begun is done, or `ended` is closed at the other end.
    ///
    /// # Errors
    /// As of [`Self::perform`]; that it was to end is [`TaskError::Process`].
    pub fn attend(&self, ended: BorrowedFd<'_>) -> Result<(), TaskError> {
        match first_of(self.socket.as_fd(), ended) {
            Ok(false) => outcome(self.hear()?),
            Ok(true) => Err(TaskError::Process("was to end".to_owned())),
            Err(errno) => Err(process(&reason(errno))),
        }
    }

    /// Looks at images, [`MAX_PROBED`] at most, which are open to be read only.
    ///
    /// # Errors
    /// As of [`Self::perform`].
    pub fn probe(&self, images: &[OwnedFd]) -> Result<Vec<ImageFacts>, TaskError> {
        debug_assert!(images.len() <= MAX_PROBED);
        let files: Vec<BorrowedFd<'_>> = images.iter().map(AsFd::as_fd).collect();
        match self.ask(&ImageTask::Probe, &files, Some(PROBE_DEADLINE))? {
            TaskAnswer::Probed(facts) if facts.len() == images.len() => {
                Ok(facts.into_iter().map(printable).collect())
            }
            TaskAnswer::Failed { words, .. } => Err(TaskError::Process(format!(
                "cannot close its sandbox: {}",
                one_line(&words)
            ))),
            _ => Err(wrong()),
        }
    }

    /// How it ended: what its sandbox said, if that was why.
    fn end(&self) -> String {
        let mut bytes = [0; 256];
        let flags = RecvFlags::DONTWAIT;
        let said = rustix::net::recv(&self.log, &mut bytes, flags);
        let said = said.ok().and_then(|(_, length)| bytes.get(..length));
        match said.and_then(|bytes| Denial::decode(bytes).ok()) {
            Some(denial) => {
                tracing::error!(%denial, "a process that handles images was ended by its sandbox");
                format!("was ended by its sandbox: {denial}")
            }
            None => "died".to_owned(),
        }
    }

    fn ask(
        &self,
        task: &ImageTask,
        files: &[BorrowedFd<'_>],
        deadline: Option<Duration>,
    ) -> Result<TaskAnswer, TaskError> {
        self.begin(task, files)?;
        if let Some(deadline) = deadline {
            let heard = wait(self.socket.as_fd(), Instant::now() + deadline);
            if !heard.map_err(|errno| process(&reason(errno)))? {
                return Err(TaskError::Slow(deadline.as_secs()));
            }
        }
        self.hear()
    }

    fn hear(&self) -> Result<TaskAnswer, TaskError> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let received = scm::receive_waiting(self.socket.as_fd(), &mut buffer);
        let (length, strays) = received.map_err(|error| match error {
            ScmError::Closed => process(&self.end()),
            error => process(&error),
        })?;
        let answer = codec::decode::<TaskAnswer>(buffer.get(..length).unwrap_or_default()).ok();
        answer
            .filter(|answer| answer.is_bounded() && strays.is_empty())
            .ok_or_else(wrong)
    }
}

impl BackingReader for ImageWorker {
    fn backing(&self, image: BorrowedFd<'_>) -> Result<Option<BackingNote>, ReadError> {
        let image = read_only(image).map_err(|errno| ReadError::Process(reason(errno)))?;
        let facts = self.probe(&[image]).map_err(|error| match error {
            TaskError::Slow(seconds) => ReadError::Slow(seconds),
            error => ReadError::Process(error.to_string()),
        })?;
        match facts.into_iter().next() {
            Some(facts) if facts.unreadable.is_some() => {
                Err(ReadError::Image(facts.unreadable.unwrap_or_default()))
            }
            Some(facts) if facts.format == VolumeFormat::Qcow2 => Ok(facts.backing),
            _ => Err(ReadError::Image("it is no qcow2 image".to_owned())),
        }
    }
}

fn process(why: &dyn std::fmt::Display) -> TaskError {
    TaskError::Process(why.to_string())
}

fn outcome(answer: TaskAnswer) -> Result<(), TaskError> {
    match answer {
        TaskAnswer::Done => Ok(()),
        TaskAnswer::Failed { errno, words } => Err(TaskError::Refused {
            errno: errno
                .filter(|number| (1..4096).contains(number))
                .map(Errno::from_raw_os_error),
            words: one_line(&words),
        }),
        TaskAnswer::Probed(_) => Err(wrong()),
    }
}

fn wrong() -> TaskError {
    TaskError::Process("said what it should not".to_owned())
}

/// A name is printed as a line, whatever an image has in it.
fn printable(facts: ImageFacts) -> ImageFacts {
    ImageFacts {
        unreadable: facts.unreadable.as_deref().map(one_line),
        ..facts
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::image::MAX_WORDS_BYTES;

    use super::*;

    /// A process that is this test's to play, with its end of the socket.
    fn played() -> (ImageWorker, OwnedFd, OwnedFd) {
        let pair = || {
            let kind = SocketType::SEQPACKET;
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
        };
        let (socket, theirs) = pair();
        let (log, their_log) = pair();
        let worker = ImageWorker {
            _process: Process::played(),
            socket: Arc::new(socket),
            log,
        };
        (worker, theirs, their_log)
    }

    fn says(worker: &ImageWorker, theirs: &OwnedFd, bytes: &[u8]) -> Result<(), TaskError> {
        scm::send(theirs.as_fd(), bytes, &[]).unwrap();
        worker.perform(&ImageTask::Wipe, &[], Some(Duration::from_secs(5)))
    }

    fn answer(answer: &TaskAnswer) -> Vec<u8> {
        codec::encode(answer).unwrap()
    }

    #[test]
    fn an_answer_is_heard_and_words_are_one_line() {
        let (worker, theirs, _log) = played();
        assert_eq!(says(&worker, &theirs, &answer(&TaskAnswer::Done)), Ok(()));
        for (errno, known) in [
            (28, Some(Errno::NOSPC)),
            (0, None),
            (-1, None),
            (5000, None),
        ] {
            let failed = TaskAnswer::Failed {
                errno: Some(errno),
                words: "full\nroot:".to_owned(),
            };
            let refused = TaskError::Refused {
                errno: known,
                words: "full\\nroot:".to_owned(),
            };
            assert_eq!(says(&worker, &theirs, &answer(&failed)), Err(refused));
        }
    }

    #[test]
    fn what_is_no_answer_and_a_death_are_told_in_words() {
        let long = TaskAnswer::Failed {
            errno: None,
            words: "w".repeat(MAX_WORDS_BYTES + 1),
        };
        let probed = TaskAnswer::Probed(Vec::new());
        for bytes in [b"\xff\xff".to_vec(), answer(&long), answer(&probed)] {
            let (worker, theirs, _log) = played();
            assert_eq!(says(&worker, &theirs, &bytes), Err(wrong()));
        }
        let (worker, theirs, log) = played();
        drop((theirs, log));
        let dead = worker.perform(&ImageTask::Wipe, &[], None).unwrap_err();
        assert_eq!(dead.to_string(), "the process that handles the image died");
        let (worker, _theirs, _log) = played();
        let slow = worker.perform(&ImageTask::Wipe, &[], Some(Duration::from_millis(10)));
        assert_eq!(slow, Err(TaskError::Slow(0)));
        // Facts of another number of images than were shown.
        let (worker, theirs, _log) = played();
        let facts = ImageFacts::of(VolumeFormat::Raw);
        let two = TaskAnswer::Probed(vec![facts.clone(), facts]);
        scm::send(theirs.as_fd(), &answer(&two), &[]).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap().into();
        assert_eq!(worker.probe(&[file]), Err(wrong()));
    }
}
