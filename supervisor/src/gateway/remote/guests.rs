//! Remote clients that are in, so that whoever may not be any more is put out when the configuration is read again.
//!
//! Each is in here before it is decided whether it may come, by what is in force then: a reload that comes before that is
//! what decides, and one that comes after finds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::api::Access;
use reeve_ipc::gateway::Chain;
use tokio::sync::Notify;

use super::credentials::Entry;

/// Who a client has proved to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Who {
    /// The name in its certificate, where it has to have one, and the certificate.
    pub(super) certificate: Option<(String, Chain)>,
    /// The user whose password it had, where it has to have one, and what the password was checked by.
    pub(super) user: Option<(String, Entry)>,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let certificate = self
            .certificate
            .as_ref()
            .map(|(name, _)| name.escape_debug());
        let user = self.user.as_ref().map(|(user, _)| user.escape_debug());
        match (certificate, user) {
            (Some(name), Some(user)) => write!(f, "{name}, user {user}"),
            (Some(name), None) => write!(f, "{name}"),
            (None, Some(user)) => write!(f, "user {user}"),
            (None, None) => f.write_str("nobody"),
        }
    }
}

#[derive(Debug)]
struct Inside {
    who: Who,
    /// What it may do, once that is decided.
    access: Option<Access>,
    out: Arc<Notify>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Guests {
    inside: Mutex<(u64, HashMap<u64, Inside>)>,
}

/// One of them; dropping it forgets it.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Arc<Guests>,
    number: u64,
    out: Arc<Notify>,
}

impl Guests {
    fn with<T>(&self, look: impl FnOnce(&mut (u64, HashMap<u64, Inside>)) -> T) -> T {
        // Nothing panics while it is held.
        look(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One who has proved to be that, and has no rights yet.
    pub(super) fn comes(self: &Arc<Self>, who: Who) -> Guest {
        let out = Arc::new(Notify::new());
        let number = self.with(|(last, inside)| {
            *last += 1;
            let one = Inside {
                who,
                access: None,
                out: Arc::clone(&out),
            };
            inside.insert(*last, one);
            *last
        });
        Guest {
            guests: Arc::clone(self),
            number,
            out,
        }
    }

    /// Those who have a certificate.
    pub(super) fn chains(&self) -> Vec<(u64, Chain)> {
        self.with(|(_, inside)| {
            let certificates = inside.iter().filter_map(|(number, one)| {
                let (_, chain) = one.who.certificate.as_ref()?;
                Some((*number, chain.clone()))
            });
            certificates.collect()
        })
    }

    /// Puts out those who may not do any more what they may, by what `may` says of them, and those of whose certificate
    /// `holds` says, by its number, that it does not. Gives how many. Whoever is not decided about yet will be by what
    /// is in force now.
    pub(super) fn review(
        &self,
        holds: impl Fn(u64) -> bool,
        may: impl Fn(&Who) -> Option<Access>,
    ) -> usize {
        self.with(|(_, inside)| {
            let mut out = 0;
            for (number, one) in inside.iter() {
                let Some(access) = one.access else {
                    continue;
                };
                let holds = one.who.certificate.is_none() || holds(*number);
                if !holds || may(&one.who).is_none_or(|may| may < access) {
                    one.out.notify_one();
                    out += 1;
                }
            }
            out
        })
    }
}

impl Guest {
    /// Decides what it may do: what `may` says. No review comes in between.
    pub(super) fn decide<E>(&self, may: impl FnOnce() -> Result<Access, E>) -> Result<Access, E> {
        self.guests.with(|(_, inside)| {
            let access = may()?;
            if let Some(one) = inside.get_mut(&self.number) {
                one.access = Some(access);
            }
            Ok(access)
        })
    }

    /// Comes when it is put out.
    pub(super) async fn put_out(&self) {
        self.out.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.with(|(_, inside)| inside.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Who {
        Who {
            certificate: Some((name.to_owned(), Chain(vec![name.as_bytes().to_vec()]))),
            user: None,
        }
    }

    #[tokio::test]
    async fn whoever_may_not_stay_is_put_out_and_nobody_else() {
        let guests = Arc::new(Guests::default());
        let [full, looks, gone, revoked, undecided] =
            ["full", "looks", "gone", "revoked", "undecided"].map(|name| guests.comes(who(name)));
        let decide = |one: &Guest, access| one.decide(|| Ok::<_, ()>(access)).unwrap();
        for one in [&full, &gone, &revoked] {
            decide(one, Access::ReadWrite);
        }
        decide(&looks, Access::ReadOnly);
        undecided.decide(|| Err(())).unwrap_err();
        let chains = guests.chains();
        assert_eq!(chains.len(), 5);
        let named = |name: &str| {
            let is = |(_, chain): &&(u64, Chain)| chain.0 == [name.as_bytes()];
            chains.iter().find(is).unwrap().0
        };
        let bad = [named("revoked"), named("undecided")];
        let may = |who: &Who| match who.to_string().as_str() {
            "gone" | "undecided" => None,
            _ => Some(Access::ReadWrite),
        };
        assert_eq!(guests.review(|number| !bad.contains(&number), may), 2);
        gone.put_out().await;
        revoked.put_out().await;
        // Whoever is held to looking now, and was not.
        assert_eq!(guests.review(|_| true, |_| Some(Access::ReadOnly)), 3);
        full.put_out().await;
        for one in [looks, undecided] {
            tokio::select! {
                biased;
                () = one.put_out() => panic!("it may stay"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop((full, gone, revoked));
        assert!(guests.chains().is_empty());
    }
}
