//! `reeve shutdown --host`: every domain, before the host goes down or the package is removed.
//!
//! Whoever calls it may wait for it without a limit of its own, so nothing here does: each call has a
//! deadline, a daemon that is gone or silent is connected to again, and all of it ends a little after
//! the guests' time is up. What runs is looked up anew each time, as domains may have been started
//! meanwhile.
//!
//! ```text
//!   list ──► none is left: done
//!    ▲  └──► before the guests' time is up: press those that were not pressed, with what is left of it
//!    │       after it: destroy what runs          after GRACE, too: give up and name what is left
//!    └── a moment later
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{DomainDestroy, DomainList, DomainRef, DomainShutdown};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::DomainSummary;
use reeve_ipc::model::DomainUuid;
use reeved::config::{Config, DEFAULT_PATH};
use reeved::logging::printable;
use serde_json::json;

use super::outcome::entry;
use super::{CommandError, Output, json as print_json, say};

/// How long after the guests' time what was destroyed may take to be gone.
const GRACE: Duration = Duration::from_secs(30);
/// How long a list may take; it waits for no worker.
const LIST: Duration = Duration::from_secs(5);
/// How long a press is waited for, ahead of the next domain's; one that comes later counts, too.
const PRESS: Duration = Duration::from_millis(500);
/// How long after a press that nobody confirmed the next follows.
const PRESS_AGAIN: Duration = Duration::from_secs(5);
/// How long a destroy is waited for; the daemon answers within 100 ms.
const DESTROY: Duration = Duration::from_secs(1);
/// How long to wait before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Shuts every domain down; `timeout` in seconds, else that of the configuration.
///
/// # Errors
/// There is no daemon, the caller may not, or domains are left, which are named.
pub(super) fn shutdown(
    socket: &Path,
    out: Output,
    timeout: Option<u32>,
) -> Result<(), CommandError> {
    let seconds = timeout.unwrap_or_else(|| {
        let config = Config::load_or_default(Path::new(DEFAULT_PATH)).unwrap_or_else(|error| {
            say(&format!("{error}; the default time-out holds"));
            Config::default()
        });
        config.host_shutdown_timeout_seconds
    });
    let guests = Duration::from_secs(u64::from(seconds));
    // Where nobody listens from the start there is nobody to wait for.
    let connection = Connection::open(socket, "reeve")?;
    let mut end = HostEnd::new(socket, out, guests, GRACE);
    end.connection = Some(connection);
    let result = end.run();
    end.tell(result)
}

struct HostEnd<'a> {
    socket: &'a Path,
    out: Output,
    connection: Option<Connection>,
    begin: Instant,
    /// When the guests' time is up.
    destroy_at: Instant,
    /// When this command's is.
    give_up_at: Instant,
    /// What was pressed over this connection, each with the number of its worker, as one that was
    /// started since has another; and when to press again what was not confirmed.
    pressed: BTreeMap<(DomainUuid, Option<u32>), Option<Instant>>,
    /// What was told of already.
    told: BTreeSet<DomainUuid>,
    /// Every domain that ran, by name.
    seen: BTreeMap<DomainUuid, String>,
    /// What was not off when last looked at; `None` before the first look.
    left: Option<BTreeSet<DomainUuid>>,
}

impl<'a> HostEnd<'a> {
    fn new(socket: &'a Path, out: Output, guests: Duration, grace: Duration) -> Self {
        let begin = Instant::now();
        Self {
            socket,
            out,
            connection: None,
            begin,
            destroy_at: begin + guests,
            give_up_at: begin + guests + grace,
            pressed: BTreeMap::new(),
            told: BTreeSet::new(),
            seen: BTreeMap::new(),
            left: None,
        }
    }

    fn run(&mut self) -> Result<(), CommandError> {
        loop {
            let lost = match self.round() {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                // It may be back, or answer, in a moment.
                Err(CommandError::Call(error)) if error.refused().is_none() => {
                    Some(CommandError::Call(error).at(self.socket))
                }
                Err(CommandError::Connect(error)) => Some(error.into()),
                Err(error) => return Err(error),
            };
            if Instant::now() >= self.give_up_at {
                return Err(self.given_up(lost));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// One look at what runs, and what follows from it; true where nothing does.
    fn round(&mut self) -> Result<bool, CommandError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // Another daemon, perhaps, which counts its workers anew.
                self.pressed.clear();
                Connection::open(self.socket, "reeve")?
            }
        };
        let mut running = running(&mut connection)?;
        // Those that do not answer use up nobody else's time.
        running.sort_by_key(|domain| domain.unresponsive);
        self.left = Some(running.iter().map(|domain| domain.uuid).collect());
        for domain in &running {
            let name = printable(domain.name.as_str()).to_string();
            self.seen.insert(domain.uuid, name);
        }
        for domain in running.iter().filter(|domain| domain.state.is_active()) {
            let now = Instant::now();
            if now >= self.give_up_at {
                break;
            }
            match self.destroy_at.checked_duration_since(now) {
                Some(left) if !left.is_zero() => self.press(&mut connection, domain, left)?,
                _ => destroy(&mut connection, domain)?,
            }
        }
        self.connection = Some(connection);
        Ok(running.is_empty())
    }

    fn press(
        &mut self,
        connection: &mut Connection,
        domain: &DomainSummary,
        left: Duration,
    ) -> Result<(), CommandError> {
        let which = (domain.uuid, domain.id);
        match self.pressed.get(&which) {
            Some(None) => return Ok(()),
            Some(Some(again)) if Instant::now() < *again => return Ok(()),
            _ => {}
        }
        let press = DomainShutdown {
            domain: DomainRef::Uuid(domain.uuid),
            destroy_after_ms: Some(u32::try_from(left.as_millis()).unwrap_or(u32::MAX)),
            for_host: true,
        };
        let again = Some(Instant::now() + PRESS_AGAIN);
        let again = match connection.call_within(press, PRESS) {
            Ok(()) => None,
            Err(CallError::Deadline(..)) => again,
            Err(CallError::Refused(error)) => match error.code {
                // It has ended meanwhile, or is busy: the next look tells.
                ApiErrorCode::NoDomain | ApiErrorCode::WrongState | ApiErrorCode::Busy => {
                    return Ok(());
                }
                ApiErrorCode::AccessDenied => return Err(CallError::Refused(error).into()),
                _ => {
                    let when = "it is asked again, and destroyed when the guests' time is up";
                    if self.told.insert(domain.uuid) {
                        self.out.notice(&format!("{error}; {when}"));
                    }
                    again
                }
            },
            Err(error) => return Err(error.into()),
        };
        self.pressed.insert(which, again);
        Ok(())
    }

    /// The error of whoever has waited long enough, `lost` being why the daemon was not heard.
    fn given_up(&self, lost: Option<CommandError>) -> CommandError {
        let after = format!("after {} s", self.begin.elapsed().as_secs());
        let names: Vec<String> = match &self.left {
            Some(left) => left.iter().map(|uuid| self.name(*uuid)).collect(),
            None => Vec::new(),
        };
        let what = match (&self.left, &lost) {
            (None, _) => format!("given up {after}, and what runs is not known"),
            (Some(_), Some(_)) => {
                let names = names.join(", ");
                format!("given up {after}, and these ran when last seen: {names}")
            }
            (Some(_), None) => format!("not off {after}: {}", names.join(", ")),
        };
        match lost {
            Some(error) => CommandError::And {
                error: Box::new(error),
                more: what,
            },
            None => CommandError::Own(what),
        }
    }

    fn name(&self, uuid: DomainUuid) -> String {
        match self.seen.get(&uuid) {
            Some(name) => format!("'{name}'"),
            None => uuid.to_string(),
        }
    }

    /// Tells programs what became of each; people are told of the failure only.
    fn tell(&self, result: Result<(), CommandError>) -> Result<(), CommandError> {
        if self.out.json {
            let entries: Vec<_> = self
                .seen
                .iter()
                .map(|(uuid, name)| {
                    let who = [
                        ("name".to_owned(), json!(name)),
                        ("uuid".to_owned(), json!(uuid)),
                    ];
                    let is_left = self.left.as_ref().is_some_and(|left| left.contains(uuid));
                    let error = CommandError::Own("not off".to_owned());
                    let error = Some(&error).filter(|_| result.is_err() && is_left);
                    entry(who.into_iter().collect(), None, error)
                })
                .collect();
            print_json(&entries)?;
        }
        result
    }
}

/// Every domain whose worker the kernel has not released.
fn running(connection: &mut Connection) -> Result<Vec<DomainSummary>, CommandError> {
    let mut running = Vec::new();
    let mut after = None;
    loop {
        let list = DomainList {
            after: after.take(),
            active_only: false,
        };
        let page = connection.call_within(list, LIST)?;
        after = page.domains.last().map(|last| last.name.clone());
        running.extend(
            page.domains
                .into_iter()
                .filter(|domain| domain.state.is_active() || domain.reaping),
        );
        if !page.more || after.is_none() {
            return Ok(running);
        }
    }
}

fn destroy(connection: &mut Connection, domain: &DomainSummary) -> Result<(), CommandError> {
    let domain = DomainRef::Uuid(domain.uuid);
    match connection.call_within(DomainDestroy { domain }, DESTROY) {
        Err(CallError::Refused(error)) if error.code == ApiErrorCode::AccessDenied => {
            Err(CallError::Refused(error).into())
        }
        // The next look tells.
        Ok(()) | Err(CallError::Refused(_) | CallError::Deadline(..)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    use super::*;

    #[test]
    fn a_daemon_that_says_nothing_is_given_up_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let flags = SocketFlags::CLOEXEC;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 8).unwrap();
        let begin = Instant::now();
        let out = Output { json: false };
        let grace = Duration::from_secs(1);
        let mut end = HostEnd::new(&path, out, Duration::ZERO, grace);
        let line = end.run().unwrap_err().to_string();
        assert!(line.contains("does not answer"), "{line}");
        assert!(line.contains("what runs is not known"), "{line}");
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{:?}",
            begin.elapsed()
        );
    }

    #[test]
    fn what_is_left_is_named() {
        let out = Output { json: false };
        let mut end = HostEnd::new(Path::new("/s"), out, Duration::ZERO, Duration::ZERO);
        let uuid = |number| DomainUuid(uuid::Uuid::from_u128(number));
        end.seen.insert(uuid(1), "web".to_owned());
        end.seen.insert(uuid(2), "db".to_owned());
        end.left = Some([uuid(1), uuid(2)].into_iter().collect());
        let line = end.given_up(None).to_string();
        assert_eq!(line, "not off after 0 s: 'web', 'db'");
        let line = end.given_up(Some(CallError::Closed.into())).to_string();
        assert!(line.ends_with("when last seen: 'web', 'db'"), "{line}");
    }
}
