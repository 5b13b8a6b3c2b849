//! A domain's logs, followed over their rotation.

use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainLog, LogKind};
use reeve_ipc::api::error::ApiErrorCode;
use rustix::stdio::stdout;
use serde_json::json;

use super::args::LogsArgs;
use super::{CommandError, Output};
use crate::messages::write_fd;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How many looks may find no file: one is moved away before the next is made.
const LOOKS_WITHOUT: u32 = 20;
/// The longest line that is kept together; what a guest writes need not have lines.
const MAX_LINE: usize = 64 << 10;

pub(super) fn logs(
    connection: &mut Connection,
    out: Output,
    args: &LogsArgs,
) -> Result<(), CommandError> {
    let mut file = open(connection, args)?;
    let mut sink = Sink::new(out.json);
    let mut without = 0;
    loop {
        sink.take_all(&mut file)?;
        if !args.follow {
            return sink.end();
        }
        std::thread::sleep(LOOK);
        // Where no rotated ones are kept the same file is emptied, and begins anew.
        let position = file.stream_position().map_err(failed())?;
        if metadata(&file)?.len() < position {
            file.seek(SeekFrom::Start(0)).map_err(failed())?;
            continue;
        }
        let next = open(connection, args);
        // Whatever became of it, what was added to the file we have comes first.
        match next {
            Ok(next) if is_same(&file, &next)? => without = 0,
            Ok(next) => {
                without = 0;
                sink.take_all(&mut file)?;
                file = next;
            }
            Err(error) if error.is_refused_as(ApiErrorCode::Host) && without < LOOKS_WITHOUT => {
                without += 1;
            }
            Err(error) => {
                sink.take_all(&mut file)?;
                sink.end()?;
                return Err(error);
            }
        }
    }
}

/// Where it goes: as it is, or each line as an object.
struct Sink {
    json: bool,
    /// The beginning of a line whose end has not come, where lines matter.
    begun: Vec<u8>,
}

impl Sink {
    const fn new(json: bool) -> Self {
        let begun = Vec::new();
        Self { json, begun }
    }

    /// Everything up to the file's end.
    fn take_all(&mut self, file: &mut File) -> Result<(), CommandError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = file.read(&mut buffer).map_err(failed())?;
            let bytes = buffer.get(..length).unwrap_or_default();
            match (bytes, self.json) {
                ([], _) => return Ok(()),
                (bytes, false) => write(bytes)?,
                (bytes, true) => write(self.objects(bytes).as_bytes())?,
            }
        }
    }

    fn objects(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() >= MAX_LINE {
                text.push_str(&object(&self.begun));
                self.begun.clear();
            }
        }
        text
    }

    /// A last line need not have an end.
    fn end(&mut self) -> Result<(), CommandError> {
        match std::mem::take(&mut self.begun).as_slice() {
            [] => Ok(()),
            line => write(object(line).as_bytes()),
        }
    }
}

fn object(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = String::from_utf8_lossy(line);
    format!("{}\n", json!({ "line": line }))
}

fn write(bytes: &[u8]) -> Result<(), CommandError> {
    write_fd(stdout(), bytes).map_err(|_| CommandError::Unread)
}

fn failed() -> impl FnOnce(std::io::Error) -> CommandError {
    CommandError::own("cannot read the log")
}

fn open(connection: &mut Connection, args: &LogsArgs) -> Result<File, CommandError> {
    let log = if args.console {
        LogKind::Console
    } else {
        LogKind::Domain
    };
    let call = DomainLog {
        domain: args.domain.clone(),
        log,
    };
    let (_, mut fds) = connection.call_with_fds(call)?;
    fds.pop()
        .map(File::from)
        .ok_or_else(|| CommandError::Own("the daemon sent no log".to_owned()))
}

fn metadata(file: &File) -> Result<Metadata, CommandError> {
    file.metadata().map_err(failed())
}

fn is_same(one: &File, other: &File) -> Result<bool, CommandError> {
    let (one, other) = (metadata(one)?, metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
