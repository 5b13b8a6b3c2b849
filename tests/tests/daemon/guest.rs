//! What the built-in guest says on its console. A guest that is still booting hears neither its console
//! nor its button, and a console's past tells of an earlier boot too.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::DomainConsole;
use reeve_tests::daemon::named;

/// How long a guest may take to say something.
const SOON: Duration = Duration::from_secs(10);

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

/// Reads on until `text` came.
pub fn expect(stream: &mut UnixStream, text: &str) -> Result<()> {
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while !said.contains(text) {
        let length = stream
            .read(&mut buffer)
            .with_context(|| format!("said: {said}"))?;
        ensure!(length > 0, "the console ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
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
    let answers = |console: &mut UnixStream, buffer: &mut [u8]| {
        console.set_nonblocking(false)?;
        console.set_read_timeout(Some(Duration::from_millis(20)))?;
        // What it said before, of another life perhaps.
        while console.read(buffer).is_ok_and(|length| length > 0) {}
        console.write_all(b"?")?;
        let length = console.read(buffer)?;
        Ok::<_, std::io::Error>(buffer[..length].contains(&b'?'))
    };
    while Instant::now() < deadline {
        if answers(&mut console, &mut buffer).is_ok_and(|echoed| echoed) {
            break;
        }
    }
    Ok(())
}
