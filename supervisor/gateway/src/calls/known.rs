//! What the supervisor has said of domains, for as long as it stands.
//!
//! Clients ask again and again what has not changed: each call names its domain, and bindings look it up before
//! each. While the supervisor shows nothing else ([`Changes`]) what it said before is the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::call::DomainRef;
use reeve_ipc::api::view::DomainDetails;
use reeve_ipc::changes::Changes;

/// Answers that are kept, each of a message's size at most; the oldest goes first.
const MOST: usize = 16;

/// Answers of one connection.
#[derive(Debug)]
pub(super) struct Known {
    changes: Arc<Changes>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// The number of changes they stand for.
    of: u64,
    domains: VecDeque<(DomainRef, DomainDetails)>,
}

impl Known {
    pub(super) fn new(changes: Arc<Changes>) -> Self {
        Self {
            changes,
            answers: Mutex::default(),
        }
    }

    /// The number to keep an answer with that is asked for next.
    pub(super) fn now(&self) -> u64 {
        self.changes.number()
    }

    /// What is known of a domain.
    pub(super) fn domain(&self, domain: &DomainRef) -> Option<DomainDetails> {
        let now = self.now();
        let answers = self.answers();
        let mut domains = answers.domains.iter().filter(|_| answers.of == now);
        let (_, details) = domains.find(|(known, _)| known == domain)?;
        Some(details.clone())
    }

    /// Keeps an answer, asked for once the number had been `asked`.
    pub(super) fn keep(&self, asked: u64, domain: DomainRef, details: &DomainDetails) {
        let mut answers = self.answers();
        if asked < answers.of {
            return;
        }
        if asked > answers.of {
            answers.of = asked;
            answers.domains.clear();
        }
        answers.domains.truncate(MOST - 1);
        answers.domains.push_front((domain, details.clone()));
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // Nothing panics while it is held.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
