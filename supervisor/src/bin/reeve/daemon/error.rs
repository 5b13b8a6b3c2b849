//! Why a command failed: a line for people, a code for programs.

use std::path::{Path, PathBuf};

use reeve_ipc::api::blocking::{CallError, ConnectError};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::judge::GreetingError;
use serde_json::{Value, json};

use super::file;

/// The exit code of what failed.
const FAILURE: u8 = 1;
/// The exit code of a closed standard output, as a shell has it for SIGPIPE.
const UNREAD: u8 = 141;

/// Why a command failed: one line, and the exit code that goes with it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no daemon, or it did not let us in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The daemon refused, or is gone.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The daemon is gone, and where it was is known.
    #[error(
        "the supervisor at {socket} closed the connection{reason}: 'reeve status' tells whether it \
         is back, 'journalctl -u reeved' why it went",
        socket = .socket.display()
    )]
    Ended {
        /// Where it listened.
        socket: PathBuf,
        /// What the socket said, in brackets; empty where it said nothing.
        reason: String,
    },
    /// It ended among several objects.
    #[error("{error}; {done}")]
    Midway {
        /// What ended it.
        error: Box<CommandError>,
        /// Which were done, and which were not.
        done: String,
    },
    /// A file of a definition, read or written.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The definition is not what it was when it was read.
    #[error("{0}")]
    Changed(String),
    /// Anything of this process' own.
    #[error("{0}")]
    Own(String),
    /// One of several objects, after the connection had ended.
    #[error("not tried")]
    NotTried,
    /// Some of several objects; each was told of already.
    #[error("{failed} of {all} failed")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
    /// With more on the same line.
    #[error("{error}; {more}")]
    And {
        /// What it was.
        error: Box<CommandError>,
        /// What else its reader must know.
        more: String,
    },
    /// Standard output was closed: whoever read it has had enough.
    #[error("standard output is closed")]
    Unread,
}

impl CommandError {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unread => UNREAD,
            Self::Usage(_) => crate::USAGE,
            _ => FAILURE,
        }
    }

    pub(super) fn own(what: &str) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_owned();
        move |error| Self::Own(format!("{what}: {error}"))
    }

    /// Whether the daemon refused with this code.
    pub(super) fn is_refused_as(&self, code: ApiErrorCode) -> bool {
        matches!(self, Self::Call(CallError::Refused(error)) if error.code == code)
    }

    /// The same, with the socket in it where only the socket is to blame.
    pub(super) fn at(self, socket: &Path) -> Self {
        let ended = |reason| Self::Ended {
            socket: socket.to_owned(),
            reason,
        };
        match self {
            Self::Call(CallError::Closed) => ended(String::new()),
            Self::Call(CallError::Socket(error)) => ended(format!(" ({error})")),
            Self::Midway { error, done } => Self::Midway {
                error: Box::new(error.at(socket)),
                done,
            },
            Self::And { error, more } => Self::And {
                error: Box::new(error.at(socket)),
                more,
            },
            other => other,
        }
    }

    /// What kind of failure, for programs: the daemon's own code, or one of ours. All are in
    /// `reeve --help`, and none is ever given another meaning.
    fn code(&self) -> Value {
        match self {
            Self::Call(CallError::Refused(error))
            | Self::Connect(ConnectError::Greeting(GreetingError::Refused(error))) => {
                json!(error.code)
            }
            Self::Connect(ConnectError::Nobody(_)) => json!("no-supervisor"),
            Self::Call(CallError::Deadline(..)) => json!(ApiErrorCode::Timeout),
            Self::Call(CallError::Codec(_)) => json!(ApiErrorCode::InvalidArgument),
            Self::Call(CallError::Protocol(_)) => json!("protocol"),
            Self::Connect(ConnectError::Greeting(_)) => json!("protocol"),
            Self::Connect(_) | Self::Call(_) | Self::Ended { .. } => json!("connection"),
            Self::Midway { error, .. } | Self::And { error, .. } => error.code(),
            Self::File(_) => json!("file"),
            Self::Usage(_) => json!("usage"),
            Self::Changed(_) => json!("changed"),
            Self::Own(_) | Self::Unread => json!("local"),
            Self::NotTried => json!("not-tried"),
            Self::Some { .. } => json!("some-failed"),
        }
    }

    /// As a program reads it.
    pub(super) fn json(&self) -> Value {
        json!({ "code": self.code(), "message": self.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::api::error::ApiError;

    use super::*;

    #[test]
    fn every_code_is_in_the_help() {
        use ApiErrorCode as C;
        let help = crate::args::AFTER_HELP;
        let refusals = [
            C::NoDomain,
            C::DomainExists,
            C::WrongState,
            C::Busy,
            C::InvalidArgument,
            C::AccessDenied,
            C::PathRefused,
            C::Timeout,
            C::Worker,
            C::Host,
            C::Storage,
            C::Unsupported,
            C::ShuttingDown,
            C::Cancelled,
            C::NoDevice,
            C::NoPool,
            C::PoolExists,
            C::NoVolume,
            C::VolumeExists,
            C::InUse,
            C::NoSpace,
            C::NoNetwork,
            C::NetworkExists,
            C::NoPort,
            C::NoNwfilter,
            C::NwfilterExists,
        ]
        .map(|code| CommandError::Call(ApiError::new(code, "m").into()));
        let socket = || PathBuf::from("/s");
        let own = [
            ConnectError::Nobody(socket()).into(),
            ConnectError::Silent(socket()).into(),
            CommandError::Call(CallError::Closed).at(&socket()),
            CallError::Protocol(String::new()).into(),
            CommandError::Usage(String::new()),
            CommandError::Changed(String::new()),
            CommandError::Own(String::new()),
            CommandError::NotTried,
            CommandError::Some { failed: 1, all: 2 },
            file::FileError::TooLarge(socket()).into(),
        ];
        for error in refusals.iter().chain(&own) {
            let value = error.json();
            let code = value["code"].as_str().unwrap();
            let words = help.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-');
            assert!(words.into_iter().any(|word| word == code), "{code}");
        }
        assert_eq!(refusals[0].json()["code"], "no-domain");
    }
}
