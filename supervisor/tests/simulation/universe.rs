//! Everything outside of the supervisor, in one place: time, disk, run directory, host, and what the
//! supervisor waits for.
//!
//! ```text
//!   shell, registry, recovery (the real ones) ── Clock, Storage, Driver, EventSink ──► Universe
//!        ▲                                                                               │
//!        └── what it waits for is a gate; the schedule opens one after the other ◄───────┘
//! ```
//!
//! A supervisor that dies is one whose doings change nothing any more: `dead` is set at a point, what
//! comes after it in the same breath has no effect, and then its runtime is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::disk::{Disk, RunDirectory, Work};
use crate::events::Books;
use crate::host::Host;
use crate::planted::Planted;
use crate::random::Random;

/// The way to the universe; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Universe>>);

/// What the supervisor waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    /// The disk.
    Disk(Work),
    /// A step of a start.
    Making,
    /// The answer of a worker.
    Call {
        pid: u32,
        request: u64,
        deadline_ms: u64,
    },
    /// A worker that is to be taken over, or what is left of one.
    Adoption { pid: Option<u32>, deadline_ms: u64 },
    /// A time.
    Timer(u64),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Good,
    Failed(String),
    Deadline,
    Gone,
}

#[derive(Debug)]
pub struct Gate {
    pub wait: Wait,
    /// `None` where nobody waits, because of a planted bug.
    pub tell: Option<oneshot::Sender<Fate>>,
}

#[derive(Debug)]
pub struct Universe {
    pub random: Random,
    pub now_ms: u64,
    pub dead: bool,
    /// Points that the supervisor passes before it dies at one.
    pub countdown: Option<usize>,
    pub gates: BTreeMap<u64, Gate>,
    pub disk: Disk,
    pub run: RunDirectory,
    pub host: Host,
    pub books: Books,
    pub planted: Option<Planted>,
    /// The first thing that can never be.
    pub broken: Option<String>,
    pub trace: Option<Vec<String>>,
    numbers: u64,
}

impl Shared {
    pub fn new(seed: u64, planted: Option<Planted>, traced: bool) -> Self {
        Self(Arc::new(Mutex::new(Universe {
            random: Random::new(seed),
            now_ms: 1_000_000,
            dead: false,
            countdown: None,
            gates: BTreeMap::new(),
            disk: Disk::default(),
            run: RunDirectory::default(),
            host: Host::default(),
            books: Books::default(),
            planted,
            broken: None,
            trace: traced.then(Vec::new),
            numbers: 0,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Universe> {
        self.0.lock().unwrap()
    }

    /// Waits until the schedule opens the gate; for good, if the supervisor dies before.
    pub async fn wait(&self, wait: Wait) -> Fate {
        let opened = self.lock().gate(wait);
        match opened.await {
            Ok(fate) => fate,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Universe {
    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn gate(&mut self, wait: Wait) -> oneshot::Receiver<Fate> {
        let (tell, opened) = oneshot::channel();
        let number = self.number();
        self.gates.insert(
            number,
            Gate {
                wait,
                tell: Some(tell),
            },
        );
        opened
    }

    /// A moment at which the supervisor may die.
    pub fn point(&mut self, what: &str) {
        match &mut self.countdown {
            _ if self.dead => {}
            None => {}
            Some(0) => {
                self.dead = true;
                self.countdown = None;
                self.note(|| format!("the supervisor dies {what}"));
            }
            Some(points) => *points -= 1,
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8} ms  {}", self.now_ms - 1_000_000, line()));
        }
    }

    pub fn broken(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }
}
