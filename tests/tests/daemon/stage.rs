//! An instance whose workers do what their domains' names say, and what a client asks of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainDestroy, DomainGet, DomainPause, DomainReset, DomainResume,
    DomainShutdown, DomainStart, DomainStatsGet, StartOptions,
};
use reeve_ipc::api::view::DomainDetails;
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};
use reeve_tests::domain::unique_name;

use super::{define, start};

/// How long any call may take that waits for one answer of a worker.
pub const CALL: Duration = Duration::from_secs(20);
/// The same for a start or a reset.
pub const LONG_CALL: Duration = Duration::from_secs(50);
/// What a line may have at most.
const MAX_LINE: usize = 2048;

/// An instance whose workers do what their domains' names say, and one domain that behaves.
pub struct Stage {
    pub daemon: Daemon,
    pub connection: Connection,
    pub good: Domain,
    /// Every domain there was.
    pub all: Vec<Domain>,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let mut daemon = Daemon::prepare()?;
        daemon.set_worker("reeve-hostile-worker")?;
        daemon.spawn()?;
        let mut connection = daemon.connect()?;
        let good = built_in(&unique_name("good"), "");
        define(&mut connection, &good)?;
        start(&mut connection, good.name.as_str())?;
        Ok(Self {
            daemon,
            connection,
            all: vec![good.clone()],
            good,
        })
    }

    /// Defines a domain whose worker does this.
    pub fn define(&mut self, behaviour: &str) -> Result<String> {
        self.define_as(behaviour, |_| ())
    }

    pub fn define_as(&mut self, behaviour: &str, change: impl Fn(&mut Domain)) -> Result<String> {
        let mut domain = built_in(&unique_name(behaviour), "");
        change(&mut domain);
        define(&mut self.connection, &domain)?;
        let name = domain.name.to_string();
        self.all.push(domain);
        Ok(name)
    }

    pub fn details(&mut self, name: &str) -> Result<DomainDetails> {
        let domain = named(name);
        Ok(self.connection.call(DomainGet { domain })?)
    }

    /// Starts a domain so that this may be asked of it.
    pub fn start_for(&mut self, asked: Asked, name: &str) -> Result<()> {
        let call = DomainStart {
            domain: named(name),
            options: StartOptions {
                paused: matches!(asked, Asked::Resume),
                auto_destroy: false,
            },
        };
        self.connection.call_within(call, LONG_CALL)?;
        Ok(())
    }

    /// Waits until a domain is off and its worker gone; how it stands then.
    pub fn wait_until_off(&mut self, name: &str) -> Result<DomainDetails> {
        let off = |details: Option<&DomainDetails>| {
            details.is_some_and(|details| {
                !details.summary.state.is_active() && !details.summary.reaping
            })
        };
        wait_for(&mut self.connection, &named(name), off)?.context("it is not there")
    }

    pub fn destroy(&mut self, name: &str) -> Result<()> {
        let begin = Instant::now();
        let domain = named(name);
        self.connection.call(DomainDestroy { domain })?;
        let took = begin.elapsed();
        ensure!(took < Duration::from_secs(4), "destroyed in {took:?}");
        self.wait_until_off(name).map(drop)
    }

    /// Whether the domain that behaves is served as ever; then it, and every other, is ended.
    pub fn end(mut self) -> Result<()> {
        let good = self.good.name.to_string();
        let begin = Instant::now();
        let domain = || named(&good);
        self.connection.call(DomainPause { domain: domain() })?;
        self.connection.call(DomainResume { domain: domain() })?;
        self.connection.call(DomainStatsGet { domain: domain() })?;
        let took = begin.elapsed();
        ensure!(took < Duration::from_secs(4), "the good one took {took:?}");
        ensure!(!self.details(&good)?.summary.unresponsive);
        drop(self.connection);
        super::world::end_everything(&self.daemon, &self.all)
    }
}

/// Asserts that an error is one line that a terminal may get, about this domain.
pub fn assert_one_line(error: &CallError, name: &str) -> Result<String> {
    let line = error.refused().context("no answer")?.message.clone();
    assert_printable(&line)?;
    ensure!(line.contains(name), "not about {name}: {line}");
    Ok(line)
}

pub fn assert_printable(line: &str) -> Result<()> {
    ensure!(!line.chars().any(char::is_control), "{line:?}");
    ensure!(line.len() <= MAX_LINE, "{} bytes", line.len());
    Ok(())
}

pub fn call_start(connection: &mut Connection, name: &str) -> Result<(), CallError> {
    let call = DomainStart {
        domain: named(name),
        options: StartOptions::default(),
    };
    connection.call_within(call, LONG_CALL).map(drop)
}

/// What a client may ask of a running domain's worker.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    Pause,
    /// Of a domain that was started paused.
    Resume,
    Shutdown,
    Reset,
    Stats,
    Console,
}

impl Asked {
    pub const ALL: [Self; 6] = [
        Self::Pause,
        Self::Resume,
        Self::Shutdown,
        Self::Reset,
        Self::Stats,
        Self::Console,
    ];

    pub fn ask(self, connection: &mut Connection, name: &str) -> Result<(), CallError> {
        let domain = named(name);
        match self {
            Self::Pause => connection.call_within(DomainPause { domain }, LONG_CALL),
            Self::Resume => connection.call_within(DomainResume { domain }, LONG_CALL),
            Self::Shutdown => connection.call_within(
                DomainShutdown {
                    domain,
                    destroy_after_ms: None,
                    for_host: false,
                },
                LONG_CALL,
            ),
            Self::Reset => connection.call_within(DomainReset { domain }, LONG_CALL),
            Self::Stats => connection
                .call_within(DomainStatsGet { domain }, LONG_CALL)
                .map(drop),
            Self::Console => connection
                .call_within(
                    DomainConsole {
                        domain,
                        input: true,
                    },
                    LONG_CALL,
                )
                .map(drop),
        }
    }
}
