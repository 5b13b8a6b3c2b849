//! What the built-in guest says on its console. A guest that is still booting hears neither its console
//! nor its button, and a console's past tells of an earlier boot too.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainResume, DomainStart, StartOptions, SupervisorInfoGet,
};
use reeve_ipc::api::event::{Cursor, DomainEvent};
use reeve_tests::daemon::named;

/// How long a guest may take to say something.
const SOON: Duration = Duration::from_secs(20);

/// Attaches to the console and reads until `text` came.
pub fn console(connection: &mut Connection, name: &str, text: &str) -> Result<UnixStream> {
    let (_, mut fds) = connection.call_with_fds(DomainConsole {
        domain: named(name),
        input: true,
    })?;
    let mut stream = UnixStream::from(fds.pop().context("no console came")?);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    expect(&mut stream, text)?;
    Ok(stream)
}

/// Starts a domain whose guest may end at any time, and is on its console before it runs.
pub fn start_heard(connection: &mut Connection, name: &str) -> Result<UnixStream> {
    let options = StartOptions {
        paused: true,
        auto_destroy: false,
    };
    let domain = named(name);
    connection.call(DomainStart { domain, options })?;
    let stream = console(connection, name, "")?;
    let domain = named(name);
    connection.call(DomainResume { domain })?;
    Ok(stream)
}

/// What has been told up to now of the domains that are subscribed to.
///
/// What was told when an answer came is sent no later than the answer after it.
pub fn told(connection: &mut Connection) -> Result<Vec<(Cursor, DomainEvent)>> {
    connection.call(SupervisorInfoGet {})?;
    connection.call(SupervisorInfoGet {})?;
    let mut told = Vec::new();
    while let Some((cursor, event)) = connection.next_event(Some(Duration::ZERO))? {
        told.extend(event.of_domain().map(|event| (cursor, event)));
    }
    Ok(told)
}

/// Reads on until `text` came, and nothing behind it: that is there for whoever expects it next.
pub fn expect(stream: &mut UnixStream, text: &str) -> Result<()> {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(text.as_bytes()) {
        let shown = |said: &[u8]| String::from_utf8_lossy(said).into_owned();
        let length = stream
            .read(&mut byte)
            .with_context(|| format!("{text}: said: {}", shown(&said)))?;
        ensure!(length > 0, "{text}: the console ended: {}", shown(&said));
        said.extend(byte);
    }
    Ok(())
}

/// Types until the guest echoes: it hears its button only once it runs.
pub fn wait_for_guest(connection: &mut Connection, name: &str) -> Result<(), CallError> {
    let call = DomainConsole {
        domain: named(name),
        input: true,
    };
    let (_, mut fds) = connection.call_with_fds(call)?;
    let Some(fd) = fds.pop() else { return Ok(()) };
    let mut console = UnixStream::from(fd);
    let deadline = Instant::now() + SOON;
    let mut buffer = [0; 4096];
    let answers = |console: &mut UnixStream, buffer: &mut [u8], patience| {
        console.set_nonblocking(false)?;
        console.set_read_timeout(Some(patience))?;
        // What it said before, of another life perhaps.
        while console.read(buffer).is_ok_and(|length| length > 0) {}
        console.write_all(b"?")?;
        let length = console.read(buffer)?;
        Ok::<_, std::io::Error>(buffer[..length].contains(&b'?'))
    };
    // A guest that boots answers none, and one on a busy host answers each late.
    let mut patience = Duration::from_millis(20);
    while Instant::now() < deadline {
        if answers(&mut console, &mut buffer, patience).is_ok_and(|echoed| echoed) {
            break;
        }
        patience = (patience * 5 / 4).min(Duration::from_secs(1));
    }
    Ok(())
}
