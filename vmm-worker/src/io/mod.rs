//! The I/O thread: everything that moves guest bytes between the machine and the host, apart from
//! the vCPUs' own register accesses.
//!
//! Here that is the console and the legacy devices' timers; virtio devices have threads of their own
//! ([`device`]). It reads no message of the
//! supervisor: the control thread hands it what it needs through [`IoThread`].
//!
//! While a machine is saved, or not yet gone on with, the thread *holds*: no input is taken from a
//! client, and no timer looked at, so that the devices stand. Output goes on, unless the clients were
//! given to another worker meanwhile: then they get theirs from there.

mod console;
pub mod device;
mod waker;

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_devices::clock::TimedDevice;
use reeve_devices::console::{ConsoleReader, ConsoleRing};
use reeve_devices::legacy::serial::Serial;
use reeve_devices::shared::{Shared, lock};
use reeve_sandbox::seccomp::{Role, enter_role};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::console::Clients;
pub use self::console::{ClientCopy, MAX_PENDING_INPUT};
pub use self::waker::Waker;

/// Room for the deepest call of the loop, with much to spare; untouched pages cost nothing.
const STACK_BYTES: usize = 256 << 10;

/// What the loop serves.
pub struct Served {
    /// The guest's output.
    pub ring: Arc<ConsoleRing>,
    /// Where its input goes.
    pub serial: Shared<Serial>,
    /// Devices with something to do at a given time.
    pub timed: Vec<Shared<dyn TimedDevice>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("timed", &self.timed.len())
            .finish_non_exhaustive()
    }
}

enum Command {
    Attach {
        stream: OwnedFd,
        input: bool,
        reader: ConsoleReader,
    },
    /// Holds, and tells the input that no client has any more and the guest has not yet.
    Hold(SyncSender<Vec<u8>>),
    /// Leaves the clients to another worker until it is released, and tells who they are.
    Give(SyncSender<Vec<ClientCopy>>),
    Release,
    /// Input of that kind, of another machine.
    Input(Vec<u8>),
    Quit,
}

/// What both sides see.
struct Mailbox {
    commands: Mutex<Vec<Command>>,
    clients: std::sync::atomic::AtomicU32,
    waker: Arc<Waker>,
}

/// The control thread's handle on the I/O thread.
pub struct IoThread {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoThread").finish_non_exhaustive()
    }
}

impl IoThread {
    /// Starts the thread; `waker` is what the devices wake it by. If it is `held` it holds from the
    /// start.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start(served: Served, waker: Arc<Waker>, held: bool) -> std::io::Result<Self> {
        let mailbox = Arc::new(Mailbox {
            commands: Mutex::new(Vec::new()),
            clients: std::sync::atomic::AtomicU32::new(0),
            waker,
        });
        let theirs = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new()
            .name("io".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                crate::failure::or_exit(
                    enter_role(Role::Io),
                    "cannot close the filter of the I/O thread",
                );
                run(&served, &theirs, held);
            })?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    /// Gives the console another client, which reads by `reader`. The stream is made non-blocking here: a client that does
    /// not read must not hold up the others.
    ///
    /// # Errors
    /// It is no stream that can be.
    pub fn attach(
        &self,
        stream: OwnedFd,
        input: bool,
        reader: ConsoleReader,
    ) -> rustix::io::Result<()> {
        rustix::io::ioctl_fionbio(&stream, true)?;
        self.send(Command::Attach {
            stream,
            input,
            reader,
        });
        Ok(())
    }

    /// Makes the thread hold. Gives what it had read of clients' input and found no room for in the
    /// serial port; it keeps that too, for [`release`](Self::release).
    #[must_use]
    pub fn hold(&self) -> Vec<u8> {
        let (give, take) = sync_channel(1);
        self.send(Command::Hold(give));
        // Nobody answers only when the thread has ended, and then there is no input.
        take.recv().unwrap_or_default()
    }

    /// Makes the thread, which holds, leave its clients to another worker: they get nothing from it, not
    /// even at its end, until [`release`](Self::release).
    #[must_use]
    pub fn give_clients(&self) -> Vec<ClientCopy> {
        let (give, take) = sync_channel(1);
        self.send(Command::Give(give));
        take.recv().unwrap_or_default()
    }

    /// Lets it go on.
    pub fn release(&self) {
        self.send(Command::Release);
    }

    /// Gives the guest input that was held when it was saved, before any other.
    pub fn give_input(&self, input: Vec<u8>) {
        self.send(Command::Input(input));
    }

    /// Clients on the console.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.mailbox
            .clients
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Tells the thread to end once every client has the output there is, or takes no more of it.
    pub fn order_quit(&self) {
        self.send(Command::Quit);
    }

    /// As [`Self::order_quit`], and waits for it.
    pub fn quit(&mut self) {
        self.order_quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) {
        self.mailbox
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        self.mailbox.waker.wake_thread();
    }
}

fn run(served: &Served, mailbox: &Mailbox, mut held: bool) {
    let mut clients = Clients::new(Arc::clone(&served.serial));
    let mut given = false;
    loop {
        #[cfg(feature = "attack-points")]
        crate::attack::strike(Role::Io);
        mailbox.waker.drain();
        let commands = std::mem::take(
            &mut *mailbox
                .commands
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for command in commands {
            match command {
                Command::Attach {
                    stream,
                    input,
                    reader,
                } => clients.attach(stream, input, reader),
                Command::Hold(give) => {
                    held = true;
                    // Whoever asked waits for it, and takes one.
                    let _ = give.send(clients.pending_input());
                }
                Command::Give(give) => {
                    given = true;
                    let _ = give.send(clients.copies());
                }
                Command::Release => (held, given) = (false, false),
                Command::Input(input) => clients.give_input(input),
                Command::Quit => {
                    if !given {
                        clients.finish();
                    }
                    return;
                }
            }
        }
        if !held {
            for device in &served.timed {
                lock(device).tick();
            }
        }
        if !given {
            clients.serve(!held);
        }
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX);
        mailbox
            .clients
            .store(count, std::sync::atomic::Ordering::Relaxed);

        let timed = served.timed.iter().filter(|_| !held);
        let next = timed.filter_map(|device| lock(device).next_event()).min();
        let mut fds = vec![PollFd::new(mailbox.waker.as_ref(), PollFlags::IN)];
        fds.extend(clients.poll_fds(!held).filter(|_| !given));
        crate::failure::or_exit(
            wait(&mut fds, next),
            "the I/O thread cannot wait for its descriptors",
        );
        let hung_up: Vec<bool> = fds.iter().skip(1).map(hung_up).collect();
        clients.mark_hung_up(&hung_up);
    }
}

/// Whether nobody holds the other end. Told even where nothing was asked for, and for ever: such a
/// client must go, or the loop never sleeps again.
fn hung_up(fd: &PollFd<'_>) -> bool {
    fd.revents()
        .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> rustix::io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
