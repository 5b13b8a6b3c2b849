//! Our own lines, written by a thread of their own.
//!
//! Standard error may be a pipe that nobody reads: nothing that ends a guest may wait for it. Lines
//! that find no room are dropped; at the end there is a moment to get the last ones out.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::fd::BorrowedFd;
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const QUEUE: usize = 256;

enum Item {
    Line(Vec<u8>),
    Result(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

static ITEMS: OnceLock<SyncSender<Item>> = OnceLock::new();

/// Starts the thread, and our log on top of it.
///
/// # Errors
/// No thread can be made.
pub fn start(verbose: u8) -> io::Result<()> {
    let (sender, receiver) = sync_channel(QUEUE);
    thread::Builder::new()
        .name("messages".to_owned())
        .spawn(move || write_all(&receiver))?;
    // Called once; a second thread would only have nothing to write.
    let _ = ITEMS.set(sender);
    let level = match verbose {
        // The report says how the guest and its worker ended, once.
        0 => "warn,reeved::domain::worker=off,reeve_worker=off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("REEVE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines)
        .without_time()
        .with_ansi(false)
        .try_init();
    Ok(())
}

fn write_all(items: &Receiver<Item>) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => drop(write_fd(rustix::stdio::stderr(), &line)),
            Item::Result(line) => drop(write_fd(rustix::stdio::stdout(), &line)),
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

/// Writes everything, however long it takes, to a descriptor that may be non-blocking.
///
/// # Errors
/// The reader has gone, or the medium is full.
pub fn write_fd(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn push(item: Item) {
    if let Some(items) = ITEMS.get() {
        let _ = items.try_send(item);
    }
}

/// Says one line on standard error.
pub fn say(text: &str) {
    push(Item::Line(format!("reeve: {text}\n").into_bytes()));
}

/// Puts the result on standard output.
pub fn result(line: String) {
    push(Item::Result(line.into_bytes()));
}

/// Waits until everything so far is written.
pub async fn flushed() {
    let (done, written) = oneshot::channel();
    push(Item::Flush(done));
    let _ = written.await;
}

#[derive(Debug)]
struct Lines;

/// Collects one event's line.
#[derive(Debug)]
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line(Vec::with_capacity(128))
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        push(Item::Line(std::mem::take(&mut self.0)));
    }
}
