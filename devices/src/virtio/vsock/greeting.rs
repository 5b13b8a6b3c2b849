//! The first words of a client on the host: `CONNECT <port>\n`, which `OK <port>\n` answers once
//! the guest has accepted.
//!
//! Nothing behind the line is read, since it is for the guest.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// The longest line: the word, ten digits, and the end.
const MAX_LINE: usize = 20;

/// How far a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeted {
    /// It has not said all.
    Later,
    /// It wants this port of the guest.
    Port(u32),
    /// It is gone, or said something else.
    Wrong,
}

/// A client that has not said what it wants.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) stream: OwnedFd,
    /// When its time is up.
    pub(super) deadline: Instant,
    line: Vec<u8>,
}

impl Greeting {
    pub(super) fn new(stream: OwnedFd, deadline: Instant) -> Self {
        Self {
            stream,
            deadline,
            line: Vec::with_capacity(MAX_LINE),
        }
    }

    /// Reads on.
    pub(super) fn read(&mut self) -> Greeted {
        let mut bytes = [0; MAX_LINE];
        let left = MAX_LINE.saturating_sub(self.line.len());
        let peeked = match receive(&self.stream, &mut bytes, left, RecvFlags::PEEK) {
            Ok(0) => return Greeted::Wrong,
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Greeted::Later,
            Err(_) => return Greeted::Wrong,
        };
        let seen = bytes.get(..peeked).unwrap_or_default();
        let end = seen.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(peeked, |end| end + 1);
        let got = receive(&self.stream, &mut bytes, taken, RecvFlags::empty());
        if got != Ok(taken) {
            return Greeted::Wrong;
        }
        self.line
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if end.is_some() {
            return parse(&self.line).map_or(Greeted::Wrong, Greeted::Port);
        }
        if self.line.len() >= MAX_LINE {
            return Greeted::Wrong;
        }
        Greeted::Later
    }
}

fn receive(
    stream: &OwnedFd,
    bytes: &mut [u8],
    len: usize,
    flags: RecvFlags,
) -> rustix::io::Result<usize> {
    let buffer = bytes.get_mut(..len).unwrap_or_default();
    let (len, _) = recv(stream, buffer, flags | RecvFlags::DONTWAIT)?;
    Ok(len)
}

fn parse(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let port = line.strip_suffix('\n')?.strip_prefix("CONNECT ")?;
    // Digits only: the parser would take a sign too.
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn greeting() -> (Greeting, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        (Greeting::new(ours.into(), Instant::now()), theirs)
    }

    #[test]
    fn a_line_is_read_however_it_comes_and_nothing_behind_it() {
        let (mut greeting, mut client) = greeting();
        assert_eq!(greeting.read(), Greeted::Later);
        for byte in b"CONNECT 52" {
            client.write_all(&[*byte]).expect("room");
            assert_eq!(greeting.read(), Greeted::Later);
        }
        client.write_all(b"\nGET /\n").expect("room");
        assert_eq!(greeting.read(), Greeted::Port(52));
        let mut rest = [0; 6];
        let mut stream = UnixStream::from(greeting.stream);
        stream.read_exact(&mut rest).expect("it is still there");
        assert_eq!(&rest, b"GET /\n");
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "connect 1\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT x\n",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "CONNECT 1 \n",
            "CONNECT 000000000000000000000001",
            "\n",
        ] {
            let (mut greeting, mut client) = greeting();
            client.write_all(line.as_bytes()).expect("room");
            let greeted = greeting.read();
            // An empty number parses as none.
            assert_eq!(greeted, Greeted::Wrong, "{line:?}");
        }
        let (mut greeting, client) = greeting();
        drop(client);
        assert_eq!(greeting.read(), Greeted::Wrong);
    }
}
