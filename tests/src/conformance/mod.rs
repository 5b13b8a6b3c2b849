//! The conformance list: one scripted session per command of virsh, run with the real client against Reeve, and
//! against Debian's libvirtd with its test driver and its QEMU driver where they can run the same.
//!
//! ```text
//! tests/conformance/sessions/*.session   what is typed, and which differences are known      session.rs
//! tests/conformance/documents/*.xml      what the lines name, made fit for each server       documents.rs
//! tests/conformance/reasons              why a difference is there, by a name                list.rs
//! tests/conformance/without              commands without a session, and why                 list.rs
//!
//!   sessions ──► Reeve, test driver, QEMU driver, each in a thread of its own                host.rs
//!            ──► exit code, output, order of events, made comparable by named rules          normal.rs
//!            ──► same, a difference that is listed, or a failure                             compare.rs
//!            ──► docs/libvirt-conformance.md                                                 table.rs
//! ```
//!
//! `REEVE_CONFORMANCE_ONLY=life,tune` runs the sessions of those files alone, and
//! `REEVE_CONFORMANCE_DIFFERENCES=PATH` writes every difference there, listed or not, with both answers.
//!
//! Nothing here knows what a right answer is: the peers do, and the list says where Reeve differs.

mod compare;
mod console;
mod documents;
mod events;
mod host;
mod libvirtd;
mod list;
mod normal;
mod session;
mod table;

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, ensure};

pub use self::compare::Comparison;
use self::host::{Answers, Host};
pub use self::list::List;
use self::session::Session;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// This tree's `reeved`.
    Reeve,
    /// libvirtd's driver without machines.
    Test,
    /// libvirtd's driver for QEMU.
    Qemu,
}

impl Server {
    /// Those that Reeve is compared with.
    pub const PEERS: [Server; 2] = [Server::Test, Server::Qemu];

    /// Its name in sessions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Server::Reeve => "reeve",
            Server::Test => "test",
            Server::Qemu => "qemu",
        }
    }
}

/// How the name of a server's directory begins, which everything that it starts has on its command line.
pub const DIRECTORIES: &str = "reeve-conf-";

/// The directory of the list.
#[must_use]
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// Runs every session against every server.
///
/// # Errors
/// A server does not start, or the client is not the one that the list is for.
pub fn run(list: &List) -> Result<Comparison> {
    let version = crate::tool::output(std::process::Command::new("virsh").arg("--version"))
        .context("install libvirt-clients")?;
    ensure!(
        version.trim().starts_with("9.0."),
        "the list is for virsh 9.0, and this is {version}"
    );
    let sessions = &list.sessions;
    // QEMU takes longest, much of it waiting: two libvirtds share the sessions.
    let [reeve, test, qemu] = thread::scope(|scope| {
        [(Server::Reeve, 1), (Server::Test, 1), (Server::Qemu, 2)]
            .map(|(server, parts)| {
                (0..parts)
                    .map(|part| scope.spawn(move || play(server, sessions, part, parts)))
                    .collect::<Vec<_>>()
            })
            .map(|runs| {
                runs.into_iter()
                    .map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
                    .collect::<Result<Vec<_>>>()
            })
    });
    let peers = [joined(test?), joined(qemu?)];
    Ok(Comparison::new(list, &joined(reeve?), &peers))
}

/// The answers to every session, of parts each of which has every n-th.
fn joined(parts: Vec<Vec<Answers>>) -> Vec<Answers> {
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    let mut next = 0;
    while let Some(answers) = parts.get_mut(next).and_then(Iterator::next) {
        all.push(answers);
        next = (next + 1) % parts.len();
    }
    all
}

/// Every `parts`-th session from number `part` on against one server, one after the other.
fn play(server: Server, sessions: &[Session], part: usize, parts: usize) -> Result<Vec<Answers>> {
    let mut host = Host::start(server).with_context(|| server.name())?;
    let mut answers = Vec::new();
    for session in sessions.iter().skip(part).step_by(parts) {
        let run = host.play(session);
        answers.push(run.with_context(|| format!("{}: {}", server.name(), session.title))?);
    }
    Ok(answers)
}
