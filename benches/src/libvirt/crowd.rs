//! Fifteen clients beside the one that is timed: most behave, three do not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::raw::Raw;

/// Clients that ask now and then.
const QUIET: usize = 12;
/// How long each of them rests.
const REST: Duration = Duration::from_millis(20);
/// Calls of the one that floods that are under way at once.
const FLOOD: usize = 20;
/// Calls of the client that reads nothing: as many as its socket takes.
const UNREAD: usize = 1000;
/// Time for all of them to be at work.
const SETTLE: Duration = Duration::from_millis(300);

/// They are connected and at work.
#[derive(Debug)]
pub struct Crowd {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<anyhow::Result<()>>>,
    _hung: Raw,
}

impl Crowd {
    /// Lets them in; `name` is a domain that runs and says much.
    ///
    /// # Errors
    /// One is refused.
    pub fn gather(socket: &Path, name: &'static str) -> anyhow::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut hung = Raw::open(socket)?;
        hung.open_console(name)?;
        hung.ask(name, UNREAD)?;
        let mut clients = Vec::new();
        for _ in 0..QUIET {
            let (raw, over) = (Raw::open(socket)?, Arc::clone(&over));
            clients.push(thread::spawn(move || ask_now_and_then(raw, name, &over)));
        }
        let (raw, still) = (Raw::open(socket)?, Arc::clone(&over));
        clients.push(thread::spawn(move || flood(raw, name, &still)));
        let (path, still) = (socket.to_owned(), Arc::clone(&over));
        clients.push(thread::spawn(move || leave_and_return(&path, name, &still)));
        thread::sleep(SETTLE);
        Ok(Self {
            over,
            clients,
            _hung: hung,
        })
    }

    /// Has them all go.
    ///
    /// # Errors
    /// One of them was not served to its end.
    pub fn leave(self) -> anyhow::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            let ended = client.join().map_err(|_| anyhow!("a client panicked"))?;
            ended.context("one of the crowd")?;
        }
        Ok(())
    }
}

fn ask_now_and_then(mut raw: Raw, name: &str, over: &AtomicBool) -> anyhow::Result<()> {
    while !over.load(Ordering::Relaxed) {
        raw.ask(name, 1)?;
        raw.receive()?;
        thread::sleep(REST);
    }
    Ok(())
}

/// One call more for each that is answered.
fn flood(mut raw: Raw, name: &str, over: &AtomicBool) -> anyhow::Result<()> {
    raw.ask(name, FLOOD)?;
    while !over.load(Ordering::Relaxed) {
        raw.receive()?;
        raw.ask(name, 1)?;
    }
    Ok(())
}

/// Is gone before it is answered, as a client that is killed.
fn leave_and_return(socket: &Path, name: &str, over: &AtomicBool) -> anyhow::Result<()> {
    while !over.load(Ordering::Relaxed) {
        let mut raw = Raw::open(socket)?;
        raw.ask(name, FLOOD)?;
        drop(raw);
        thread::sleep(REST);
    }
    Ok(())
}
