//! The list as it lies in its directory, and what must be in it: every command of the client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::data;
use super::session::{Session, parse};
use crate::tool::output;

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is meant, or comes with what is not built yet by plan.
    Intended,
    /// Reeve is wrong.
    Bug,
}

/// Why a difference is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    pub kind: Kind,
    pub text: String,
}

/// The list.
#[derive(Debug)]
pub struct List {
    /// In the order of their files.
    pub sessions: Vec<Session>,
    /// By their names.
    pub reasons: BTreeMap<String, Reason>,
    /// Commands without a session, and why.
    pub without: BTreeMap<String, String>,
    /// The client's commands, as it groups them: the group, and the command.
    pub commands: Vec<(String, String)>,
}

impl List {
    /// Reads it, and what commands there are.
    ///
    /// # Errors
    /// Something in it is not as it must be; what is named.
    pub fn read() -> Result<List> {
        let directory = data();
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory.join("sessions"))? {
            paths.push(entry?.path());
        }
        paths.sort();
        let only = std::env::var("REEVE_CONFORMANCE_ONLY").unwrap_or_default();
        let mut sessions = Vec::new();
        for path in paths {
            let name = path.file_stem().context("no name")?.to_string_lossy();
            if only.is_empty() || only.split(',').any(|part| part == name) {
                sessions.extend(parse(&name, &fs::read_to_string(&path)?)?);
            }
        }
        let reasons = pairs(&directory.join("reasons"))?
            .into_iter()
            .map(|(name, text)| Ok((name, reason(&text)?)))
            .collect::<Result<_>>()?;
        let list = List {
            sessions,
            reasons,
            without: pairs(&directory.join("without"))?,
            commands: commands()?,
        };
        if only.is_empty() {
            list.check()?;
        }
        Ok(list)
    }

    /// What a mark says.
    ///
    /// # Errors
    /// It names no reason.
    pub fn reason(&self, mark: &str) -> Result<Reason> {
        match self.reasons.get(mark) {
            Some(reason) => Ok(reason.clone()),
            None => reason(mark),
        }
    }

    fn check(&self) -> Result<()> {
        let steps = || self.sessions.iter().flat_map(|session| &session.steps);
        let covered: BTreeSet<&str> = steps().filter_map(|step| step.command()).collect();
        let known: BTreeSet<&str> = self.commands.iter().map(|(_, c)| c.as_str()).collect();
        let mut wrong = Vec::new();
        for command in &known {
            match (covered.contains(command), self.without.get(*command)) {
                (false, None) => wrong.push(format!("{command}: neither a session nor a reason")),
                (true, Some(_)) => {
                    wrong.push(format!("{command}: a session, and a reason why not"))
                }
                _ => {}
            }
        }
        for command in self.without.keys() {
            if !known.contains(command.as_str()) {
                wrong.push(format!("{command}: the client has no such command"));
            }
        }
        let used: BTreeSet<&str> = steps()
            .flat_map(|step| step.marks.iter().map(|(_, reason)| reason.as_str()))
            .collect();
        for name in self.reasons.keys() {
            if !used.contains(name.as_str()) {
                wrong.push(format!("reason '{name}': no difference has it"));
            }
        }
        for session in &self.sessions {
            for step in &session.steps {
                for (_, mark) in &step.marks {
                    if let Err(error) = self.reason(mark) {
                        wrong.push(format!("{}:{}: {error}", session.file, step.line));
                    }
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

fn reason(text: &str) -> Result<Reason> {
    let (kind, text) = text
        .split_once(": ")
        .with_context(|| format!("'{text}' is no reason's name, and begins with no kind"))?;
    let kind = match kind {
        "intended" => Kind::Intended,
        "bug" => Kind::Bug,
        _ => bail!("'{kind}' is neither 'intended' nor 'bug'"),
    };
    Ok(Reason {
        kind,
        text: text.to_owned(),
    })
}

/// Lines `name = text`.
fn pairs(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for line in fs::read_to_string(path)?.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, text) = line
            .split_once(" = ")
            .with_context(|| format!("{}: {line}", path.display()))?;
        let before = found.insert(name.trim().to_owned(), text.trim().to_owned());
        ensure!(before.is_none(), "{}: {name} twice", path.display());
    }
    Ok(found)
}

/// What the client's own help names.
fn commands() -> Result<Vec<(String, String)>> {
    let help = output(Command::new("virsh").arg("help").env("LC_ALL", "C"))
        .context("install libvirt-clients")?;
    let mut commands = Vec::new();
    let mut group = String::new();
    for line in help.lines() {
        if let Some((name, _)) = line.trim().split_once(" (help keyword") {
            name.clone_into(&mut group);
        } else if let Some(rest) = line.strip_prefix("    ") {
            if let Some(command) = rest.split_whitespace().next() {
                commands.push((group.clone(), command.to_owned()));
            }
        }
    }
    ensure!(commands.len() > 200, "virsh help: {help}");
    Ok(commands)
}
