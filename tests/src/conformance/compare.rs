//! What answers come to beside the list: nothing, or what is to be put right in Reeve or in the list.

use std::fmt::Write as _;

use super::host::Answers;
use super::list::List;
use super::session::{Session, Step};
use super::{Server, table};

/// Words in an answer that say that the server has failed its client: never listed.
const BROKEN: &[&str] = &[
    "End of file while reading",
    "Cannot recv data",
    "client socket is closed",
    "but the cause is unknown",
    "exit 124",
];

/// What came of it.
#[derive(Debug)]
pub struct Comparison {
    /// The document.
    pub markdown: String,
    /// What is not as the list says.
    pub problems: Vec<String>,
    /// Every difference, with both answers.
    pub differences: String,
}

impl Comparison {
    pub(super) fn new(list: &List, reeve: &[Answers], peers: &[Vec<Answers>; 2]) -> Comparison {
        let mut comparison = Comparison {
            markdown: table::markdown(list),
            problems: Vec::new(),
            differences: String::new(),
        };
        for (index, session) in list.sessions.iter().enumerate() {
            for (at, step) in session.steps.iter().enumerate() {
                let own = answer(reeve, index, at);
                for (peer, answers) in Server::PEERS.into_iter().zip(peers) {
                    let theirs = answer(answers, index, at);
                    comparison.step(session, step, peer, own, theirs);
                }
                if let Some(words) = own.filter(|own| BROKEN.iter().any(|b| own.contains(b))) {
                    let place = place(session, step);
                    comparison.problems.push(format!("{place}: {words}"));
                }
            }
        }
        comparison
    }

    fn step(
        &mut self,
        session: &Session,
        step: &Step,
        peer: Server,
        own: Option<&str>,
        theirs: Option<&str>,
    ) {
        let mark = step.marks.iter().find(|(other, _)| *other == peer);
        let place = place(session, step);
        let (Some(own), Some(theirs)) = (own, theirs) else {
            if mark.is_some() {
                let problem = format!("{place}: not run with {}, and listed", peer.name());
                self.problems.push(problem);
            }
            return;
        };
        let differs = own != theirs;
        if differs {
            let shown = shown(&place, peer, own, theirs, mark.map(|(_, why)| why.as_str()));
            self.differences += &shown;
            if mark.is_none() {
                self.problems.push(shown);
            }
        } else if let Some((_, why)) = mark {
            let problem = format!(
                "{place}: as {}, and listed as another ({why}):\n{own}",
                peer.name()
            );
            self.problems.push(problem);
        }
    }
}

fn answer(answers: &[Answers], session: usize, step: usize) -> Option<&str> {
    answers.get(session)?.get(step)?.as_deref()
}

fn place(session: &Session, step: &Step) -> String {
    format!("{}.session:{}: {}", session.file, step.line, step.text)
}

fn shown(place: &str, peer: Server, own: &str, theirs: &str, mark: Option<&str>) -> String {
    let mut text = format!("{place}: {}\n", mark.unwrap_or("not listed"));
    for (who, answer) in [(Server::Reeve, own), (peer, theirs)] {
        for line in answer.lines() {
            let _ = writeln!(text, "  {:5} | {line}", who.name());
        }
        if answer.is_empty() {
            let _ = writeln!(text, "  {:5} |", who.name());
        }
    }
    text
}
