//! Who is inside, by whichever door: the places there are, and what whoever has one may do.
//!
//! The native API's own socket and libvirt's front door let clients into the same places, so that the limits
//! are limits of both together, and number their sessions together.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use reeve_ipc::api::Access;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::socket::Socket;
use reeve_ipc::strays::NoRights;

use super::access::Peer;
use super::session::{Admitted, Session};
use super::{Serve, Shared};
use crate::domain::actor::SessionId;
use crate::logging::seldom::Seldom;

/// Places beyond the limit for those whom no flood of others' clients may keep out: root and the
/// supervisor's own user.
pub(crate) const RESERVE: usize = 8;

/// The user that clients of other hosts are counted as: no process has that uid (setresuid(2)).
const REMOTE: u32 = u32::MAX;

/// Of the places of clients of other hosts, those that only look leave one in so many to the others: whoever may only
/// look keeps no administrator out.
const OTHERS_SHARE: usize = 4;

/// Who is inside.
#[derive(Debug, Default)]
struct Inside {
    /// How many of each user.
    users: HashMap<u32, usize>,
    /// How many clients of other hosts only look.
    remote_readers: usize,
}

/// The places that are taken.
#[derive(Debug, Default)]
pub struct Doors {
    inside: Mutex<Inside>,
    /// How many there are, changed with what is above: each message of a client has it looked at.
    all: AtomicUsize,
    /// The number of the last session.
    last: AtomicU64,
    /// Clients that broke the form.
    pub(super) broken: Seldom,
}

impl Doors {
    fn with<T>(&self, look: impl FnOnce(&mut Inside) -> T) -> T {
        // Nothing panics while it is held.
        look(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether more than one client is inside.
    pub(super) fn are_shared(&self) -> bool {
        self.count() > 1
    }

    fn count(&self) -> u32 {
        u32::try_from(self.all.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }
}

/// One place inside, given back when it is dropped.
pub(crate) struct Place<S: Serve> {
    shared: Arc<Shared<S>>,
    uid: u32,
    is_remote_reader: bool,
}

impl<S: Serve> Drop for Place<S> {
    fn drop(&mut self) {
        let doors = &self.shared.doors;
        doors.with(|inside| {
            if self.is_remote_reader {
                inside.remote_readers = inside.remote_readers.saturating_sub(1);
            }
            if let Some(own) = inside.users.get_mut(&self.uid) {
                *own = own.saturating_sub(1);
                doors.all.fetch_sub(1, Ordering::Relaxed);
                if *own == 0 {
                    inside.users.remove(&self.uid);
                }
            }
        });
        self.shared.service.clients(doors.count());
    }
}

/// A client that was let in, with its place.
pub(crate) struct Entry<S: Serve> {
    admitted: Admitted,
    place: Place<S>,
}

impl<S: Serve> Entry<S> {
    /// Who it is.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.admitted.peer
    }

    /// What it may do.
    pub(crate) const fn access(&self) -> Access {
        self.admitted.access
    }

    /// Serves it on `socket`, the supervisor's end of a session, until that ends; gives the place. The other
    /// end has `hello` to say who it is.
    pub(crate) async fn attend(
        self,
        socket: NoRights<OwnedFd>,
        hello: Option<Duration>,
    ) -> Place<S> {
        let Self { admitted, place } = self;
        let id = admitted.id;
        let shared = Arc::clone(&place.shared);
        match Socket::new(socket) {
            Ok(socket) => {
                let session = Session::new(socket, admitted, Arc::clone(&shared));
                session.run(hello).await;
            }
            Err(error) => tracing::error!(%error, "a client cannot be served"),
        }
        Arc::clone(&shared.service).session_ended(id);
        place
    }
}

/// How many of the places of clients of other hosts those may have that only look.
const fn readers_share(places: usize) -> usize {
    if places == 1 {
        1
    } else {
        places - places.div_ceil(OTHERS_SHARE)
    }
}

/// Reads what a reload may change; nothing panics while it is changed.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Serve> Shared<S> {
    /// Lets `peer` in with what the policy gives it, but `most` at most.
    ///
    /// # Errors
    /// Why it is not let in, for it to be told.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer, most: Access) -> Result<Entry<S>, ApiError> {
        let policy = *read(&self.policy);
        let Some(access) = policy.access(&peer) else {
            let message = format!(
                "user {} may not use this supervisor; its administrator can add you to the group that may",
                peer.uid
            );
            return Err(ApiError::new(ApiErrorCode::AccessDenied, message));
        };
        let exempt = policy.is_exempt(&peer);
        self.place(peer, access.min(most), exempt)
    }

    /// Lets in a client of another host that has proved who it is. All of them together are one user.
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub(crate) fn admit_remote(self: &Arc<Self>, access: Access) -> Result<Entry<S>, ApiError> {
        let peer = Peer {
            pid: 0,
            uid: REMOTE,
            gid: REMOTE,
            groups: Vec::new(),
        };
        self.place(peer, access, false)
    }

    /// Takes a place, if there is one.
    fn place(
        self: &Arc<Self>,
        peer: Peer,
        access: Access,
        exempt: bool,
    ) -> Result<Entry<S>, ApiError> {
        let limits = *read(&self.limits);
        let is_remote_reader = peer.uid == REMOTE && access == Access::ReadOnly;
        let full = self.doors.with(|inside| {
            let own = inside.users.get(&peer.uid).copied().unwrap_or(0);
            let all = self.doors.all.load(Ordering::Relaxed);
            let reserve = if exempt { RESERVE } else { 0 };
            if all >= limits.clients.saturating_add(reserve) {
                return Some(format!("{all} clients are connected; try again later"));
            }
            if own >= limits.clients_per_user && !exempt {
                return Some(format!("{own} clients of yours are connected; close one"));
            }
            if is_remote_reader {
                let readers = inside.remote_readers;
                if readers >= readers_share(limits.clients_per_user) {
                    return Some(format!(
                        "{readers} remote clients that only look are connected"
                    ));
                }
                inside.remote_readers += 1;
            }
            *inside.users.entry(peer.uid).or_default() += 1;
            self.doors.all.fetch_add(1, Ordering::Relaxed);
            None
        });
        if let Some(message) = full {
            return Err(ApiError::new(ApiErrorCode::Busy, message));
        }
        let place = Place {
            shared: Arc::clone(self),
            uid: peer.uid,
            is_remote_reader,
        };
        self.service.clients(self.doors.count());
        let id = self.doors.last.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Entry {
            admitted: Admitted {
                id: SessionId(id),
                peer,
                access,
                calls_in_flight: limits.calls_in_flight,
            },
            place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_clients_that_only_look_leave_places_to_others() {
        for (places, readers) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (4, 3),
            (5, 3),
            (64, 48),
            (65_536, 49_152),
        ] {
            assert_eq!(readers_share(places), readers, "{places}");
        }
    }
}
