//! The database of Open vSwitch, spoken to as RFC 7047 has it: JSON-RPC over a UNIX stream socket, one transaction a
//! connection. Whatever is on the other end, each is bounded in time and size.
//!
//! ## Decisions
//!
//! 1. 2026-11: our own few lines rather than `ovs-vsctl`, which libvirt runs: no program is executed for what a
//!    definition says, its bytes are values and never arguments, and what went wrong comes back in words of the
//!    database's own.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use super::super::reason;

/// How long what is asked for at once may take all together, as libvirt has it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer that is asked for here has: some thousand ports with their tags.
const ANSWER_BYTES: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// The database.
const NAME: &str = "Open_vSwitch";

/// Why the database did not do it. Part of a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// Nobody listens.
    #[error("its database is not to be had: {}; is openvswitch-switch running?", reason(*.0))]
    Connect(Errno),
    /// It listens and says nothing.
    #[error("its database has not answered in {} s", PATIENCE.as_secs())]
    Silent,
    /// The connection broke.
    #[error("its database has gone: {}", reason(*.0))]
    Gone(Errno),
    /// What it says is not what the protocol has.
    #[error("its database says what the protocol does not have")]
    Protocol,
    /// It refused.
    #[error("its database refuses: {0}")]
    Refused(String),
}

/// Has the database do `operations` together or not at all, and gives what came of each.
///
/// # Errors
/// [`DatabaseError`]. After [`DatabaseError::Silent`] and [`DatabaseError::Gone`] they may be done.
pub(super) fn transact(
    path: &Path,
    operations: Vec<Value>,
    deadline: Instant,
) -> Result<Vec<Value>, DatabaseError> {
    let count = operations.len();
    let mut parameters = vec![Value::from(NAME)];
    parameters.extend(operations);
    let request = json!({ "method": "transact", "params": parameters, "id": 1 });
    let mut stream = connect(path, deadline)?;
    say(&mut stream, request.to_string().as_bytes(), deadline)?;
    let answer = hear(&mut stream, deadline)?;
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        return Err(DatabaseError::Refused(words(error)));
    }
    let Some(Value::Array(results)) = answer.get("result") else {
        return Err(DatabaseError::Protocol);
    };
    // One that fails has an error in its place, and those behind it nothing; that of all together is one more.
    let failed = results.iter().find_map(|result| result.get("error"));
    if let Some(error) = failed {
        let details = results.iter().find_map(|result| result.get("details"));
        let details = details.map_or_else(String::new, |details| format!(": {}", words(details)));
        return Err(DatabaseError::Refused(words(error) + &details));
    }
    if results.len() != count {
        return Err(DatabaseError::Protocol);
    }
    Ok(results.clone())
}

/// What it says, in one short line.
fn words(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let text = text.chars().filter(|c| !c.is_control());
    text.take(200).collect()
}

fn gone(error: &std::io::Error) -> DatabaseError {
    DatabaseError::Gone(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn connect(path: &Path, deadline: Instant) -> Result<UnixStream, DatabaseError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, flags, None);
    let socket = socket.map_err(DatabaseError::Connect)?;
    let address = SocketAddrUnix::new(path).map_err(DatabaseError::Connect)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::INTR) => {}
            // As many wait for it as may; nothing tells when that is over.
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Errno::AGAIN) => return Err(DatabaseError::Silent),
            Err(errno) => return Err(DatabaseError::Connect(errno)),
        }
    }
}

/// Waits until a stream can be used again.
fn wait(stream: &UnixStream, flags: PollFlags, deadline: Instant) -> Result<(), DatabaseError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| DatabaseError::Silent)?;
    match poll(&mut [PollFd::new(stream, flags)], Some(&left)) {
        Ok(0) => Err(DatabaseError::Silent),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(DatabaseError::Gone(errno)),
    }
}

fn say(stream: &mut UnixStream, mut rest: &[u8], deadline: Instant) -> Result<(), DatabaseError> {
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(DatabaseError::Gone(Errno::PIPE)),
            Ok(length) => rest = rest.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(stream, PollFlags::OUT, deadline)?;
            }
            Err(error) => return Err(gone(&error)),
        }
    }
    Ok(())
}

/// The answer; what else it says meanwhile, as whether this end is there, is for clients that stay.
fn hear(stream: &mut UnixStream, deadline: Instant) -> Result<Value, DatabaseError> {
    let mut heard = Vec::new();
    loop {
        let length = heard.len();
        heard.resize(length + CHUNK, 0);
        let room = heard.get_mut(length..).unwrap_or_default();
        let read = stream.read(room);
        heard.truncate(length + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(DatabaseError::Gone(Errno::CONNRESET)),
            Ok(_) if heard.len() > ANSWER_BYTES => return Err(DatabaseError::Protocol),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(stream, PollFlags::IN, deadline)?;
                continue;
            }
            Err(error) => return Err(gone(&error)),
        }
        if Instant::now() > deadline {
            return Err(DatabaseError::Silent);
        }
        // A value may end anywhere: one that is not whole yet is read from its beginning again.
        for value in serde_json::Deserializer::from_slice(&heard).into_iter::<Value>() {
            match value {
                Ok(value) if value.get("id") == Some(&Value::from(1)) => return Ok(value),
                Ok(_) => {}
                Err(error) if error.is_eof() => break,
                Err(_) => return Err(DatabaseError::Protocol),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    /// A database that answers one request with these bytes, or with none for as long as it is asked.
    fn database(answer: Option<&'static [u8]>) -> (tempfile::TempDir, JoinHandle<String>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("db.sock")).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).unwrap();
            asked.truncate(length);
            match answer {
                Some(answer) => stream.write_all(answer).unwrap(),
                None => drop(stream.read(&mut [0; 1])),
            }
            String::from_utf8(asked).unwrap()
        });
        (directory, serving)
    }

    fn ask(answer: Option<&'static [u8]>) -> Result<Vec<Value>, DatabaseError> {
        let (directory, serving) = database(answer);
        let operation = json!({ "op": "select", "table": "Bridge", "where": [] });
        let deadline = Instant::now() + Duration::from_millis(500);
        let done = transact(&directory.path().join("db.sock"), vec![operation], deadline);
        let asked = serving.join().unwrap();
        assert!(asked.contains("\"Open_vSwitch\""), "{asked}");
        done
    }

    #[test]
    fn an_answer_is_found_among_what_else_is_said() {
        let said = b"{\"id\":\"echo\",\"method\":\"echo\",\"params\":[]}{\"id\":1,\"error\":null,\"result\":[{\"rows\":[]}]}";
        assert_eq!(ask(Some(said)), Ok(vec![json!({ "rows": [] })]));
    }

    #[test]
    fn what_it_refuses_is_said_in_its_words() {
        let said = b"{\"id\":1,\"error\":null,\"result\":[null,{\"error\":\"timed out\",\"details\":\"\\\"wait\\\" timed \
                     out\"}]}";
        let DatabaseError::Refused(why) = ask(Some(said)).unwrap_err() else {
            panic!("it is not refused");
        };
        assert_eq!(why, "timed out: \"wait\" timed out");
        let said = b"{\"id\":1,\"error\":{\"error\":\"unknown database\"},\"result\":null}";
        assert!(matches!(ask(Some(said)), Err(DatabaseError::Refused(_))));
    }

    #[test]
    fn what_is_no_answer_ends_it() {
        for said in [
            &b"nonsense"[..],
            b"{\"id\":1,\"error\":null,\"result\":7}",
            b"{\"id\":1,\"error\":null,\"result\":[]}",
        ] {
            assert_eq!(ask(Some(said)), Err(DatabaseError::Protocol));
        }
        // It ends in the middle of it.
        let error = ask(Some(b"{\"id\":1,\"err")).unwrap_err();
        assert!(matches!(error, DatabaseError::Gone(_)), "{error}");
        let nobody = transact(
            Path::new("/nonexistent/db.sock"),
            Vec::new(),
            Instant::now(),
        );
        assert_eq!(nobody, Err(DatabaseError::Connect(Errno::NOENT)));
    }

    #[test]
    fn one_that_is_silent_is_not_waited_for_without_end() {
        assert_eq!(ask(None), Err(DatabaseError::Silent));
    }
}
