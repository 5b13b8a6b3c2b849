//! A session: lines as they are typed, and below a line what is known to differ.
//!
//! ```text
//! # A comment.
//! [suspend and resume]                  begins a session; each starts without a domain
//! rules: ids                            how answers are made comparable, beside what always is
//! not test: it has no such thing        not run there; below a line: that line is not
//! define {web}                          a line for virsh, with a document's path
//! %await web shut off                   see `Verb`
//! suspend web
//!   ~ qemu bug: its answer is another   a difference that is listed, from one peer or several
//!   ~ test, qemu to-come                ... with a reason of the list's
//! ```

use anyhow::{Context as _, Result, bail, ensure};

use super::Server;
use super::normal::Rule;

/// What is done by one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// virsh does it.
    Run,
    /// `%ro LINE`: virsh does it, on a connection that only looks.
    ReadOnly,
    /// `%edit EXPRESSION | LINE`: virsh does it, with an editor that applies sed's expression.
    Edit(String),
    /// `%await DOMAIN STATE`: waits for a state, as `domstate --reason` prints it or begins.
    Await,
    /// `%events`: what `virsh event --all` has printed since the last time.
    Events,
    /// `%console DOMAIN WORD`: types a word in `virsh console`, waits until it is given back, and leaves.
    Console,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Step {
    /// Where it is in its file.
    pub line: usize,
    pub verb: Verb,
    /// What is to be done, with placeholders.
    pub text: String,
    /// Where it is not run, and why.
    pub not_run: Vec<(Server, String)>,
    /// The differences that are listed: from whom, and the name of a reason or the reason itself.
    pub marks: Vec<(Server, String)>,
}

impl Step {
    /// The command of virsh that it is about, if any.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        match self.verb {
            Verb::Run | Verb::ReadOnly | Verb::Edit(_) => self.text.split_whitespace().next(),
            Verb::Await => None,
            Verb::Events => Some("event"),
            Verb::Console => Some("console"),
        }
    }

    /// Why a server is not asked, if it is not.
    #[must_use]
    pub fn why_not(&self, server: Server) -> Option<&str> {
        let found = self.not_run.iter().find(|(other, _)| *other == server);
        found.map(|(_, why)| why.as_str())
    }
}

/// One session.
#[derive(Debug, Clone)]
pub struct Session {
    pub file: String,
    pub title: String,
    pub rules: Vec<Rule>,
    pub steps: Vec<Step>,
}

/// The sessions of a file.
///
/// # Errors
/// A line that is none; it is named.
pub fn parse(file: &str, text: &str) -> Result<Vec<Session>> {
    let mut sessions: Vec<Session> = Vec::new();
    // Where sessions as a whole are not run.
    let mut absent: Vec<(Server, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            let title = title.strip_suffix(']').context("no ] at the end")?;
            absent.clear();
            sessions.push(Session {
                file: file.to_owned(),
                title: title.to_owned(),
                rules: Vec::new(),
                steps: Vec::new(),
            });
            continue;
        }
        let session = sessions.last_mut();
        let session = session.with_context(|| format!("{file}:{number}: no session yet"))?;
        read(session, &mut absent, number, line)
            .with_context(|| format!("{file}:{number}: {line}"))?;
    }
    Ok(sessions)
}

fn read(
    session: &mut Session,
    absent: &mut Vec<(Server, String)>,
    number: usize,
    line: &str,
) -> Result<()> {
    if let Some(names) = line.strip_prefix("rules:") {
        ensure!(session.steps.is_empty(), "rules come first");
        session.rules = names.split(',').map(Rule::named).collect::<Result<_>>()?;
    } else if let Some(rest) = line.strip_prefix("not ") {
        let (names, why) = rest.split_once(": ").context("no reason")?;
        let whom = peers(names)?;
        let to = match session.steps.last_mut() {
            Some(step) => &mut step.not_run,
            None => absent,
        };
        to.extend(whom.into_iter().map(|peer| (peer, why.to_owned())));
    } else if let Some(rest) = line.strip_prefix("~ ") {
        let step = session.steps.last_mut().context("no line to differ")?;
        // The names end where a word does that no comma follows.
        let end = rest
            .match_indices(' ')
            .find(|(at, _)| !rest[..*at].ends_with(','))
            .map(|(at, _)| at)
            .context("no reason")?;
        let reason = rest[end..].trim().to_owned();
        for peer in peers(&rest[..end])? {
            ensure!(
                step.marks.iter().all(|(other, _)| *other != peer),
                "{} is named twice",
                peer.name()
            );
            step.marks.push((peer, reason.clone()));
        }
    } else {
        let (verb, text) = verb(line)?;
        session.steps.push(Step {
            line: number,
            verb,
            text: text.to_owned(),
            not_run: absent.clone(),
            marks: Vec::new(),
        });
    }
    Ok(())
}

fn verb(line: &str) -> Result<(Verb, &str)> {
    let Some(rest) = line.strip_prefix('%') else {
        return Ok((Verb::Run, line));
    };
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok(match name {
        "ro" => (Verb::ReadOnly, rest),
        "edit" => {
            let (expression, rest) = rest.split_once(" | ").context("no line after |")?;
            (Verb::Edit(expression.to_owned()), rest)
        }
        "await" => (Verb::Await, rest),
        "events" => (Verb::Events, rest),
        "console" => (Verb::Console, rest),
        _ => bail!("there is no %{name}"),
    })
}

fn peers(names: &str) -> Result<Vec<Server>> {
    let each = names.split(',').map(|name| {
        let name = name.trim();
        let found = Server::PEERS.into_iter().find(|peer| peer.name() == name);
        found.with_context(|| format!("there is no peer '{name}'"))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::{Verb, parse};
    use crate::conformance::Server;

    #[test]
    fn a_session_is_read_with_what_is_known_of_it() {
        let text = "# A comment.\n[first]\nrules: ids\nnot test: why\ndefine {web}\n  ~ qemu a-name\n\
                    [second]\n%ro start web\n  not qemu: there is none\n  ~ test bug: x, y\n\
                    %edit s/a b/c/ | edit web\n%events\n";
        let sessions = parse("life", text).unwrap();
        let [first, second] = &sessions[..] else {
            panic!("{sessions:?}");
        };
        let step = &first.steps[0];
        assert_eq!((first.rules.len(), step.line), (1, 5));
        assert_eq!(step.command(), Some("define"));
        assert_eq!(step.why_not(Server::Test), Some("why"));
        assert_eq!(step.marks, [(Server::Qemu, "a-name".to_owned())]);
        let step = &second.steps[0];
        assert_eq!(step.verb, Verb::ReadOnly);
        assert_eq!(step.why_not(Server::Test), None);
        assert_eq!(step.why_not(Server::Qemu), Some("there is none"));
        assert_eq!(step.marks, [(Server::Test, "bug: x, y".to_owned())]);
        assert_eq!(second.steps[1].verb, Verb::Edit("s/a b/c/".to_owned()));
        assert_eq!(second.steps[2].command(), Some("event"));
    }

    #[test]
    fn what_is_no_session_is_refused() {
        for text in [
            "define {web}",
            "[a]\n~ qemu x",
            "[a]\nlist\n~ nobody x",
            "[a]\nlist\n~ qemu",
            "[a]\n%nothing",
            "[a]\nlist\n~ qemu a\n~ test, qemu b",
            "[a]\nlist\nrules: ids",
            "[a]\nrules: nothing",
        ] {
            assert!(parse("x", text).is_err(), "{text}");
        }
    }
}
