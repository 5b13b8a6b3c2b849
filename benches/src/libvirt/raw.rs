//! The least of libvirt's protocol that misbehaving takes: packets as they are on the wire.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::ensure;

use crate::contender::DEADLINE;

/// Program, version and kind of every call.
const PROGRAM: u32 = 0x2000_8086;
const VERSION: u32 = 1;
const CALL: u32 = 0;
const REPLY: u32 = 1;
/// Bytes of a packet ahead of its payload.
const HEAD: usize = 28;
/// The longest packet that is answered here.
const MAX_PACKET: usize = 1 << 20;

/// `REMOTE_PROC_CONNECT_OPEN`.
const OPEN: u32 = 1;
/// `REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME`.
const LOOKUP: u32 = 23;
/// `REMOTE_PROC_DOMAIN_OPEN_CONSOLE`.
const CONSOLE: u32 = 201;

/// A connection that is open.
#[derive(Debug)]
pub struct Raw {
    socket: UnixStream,
    serial: u32,
}

impl Raw {
    /// Connects and opens.
    ///
    /// # Errors
    /// It is refused.
    pub fn open(socket: &Path) -> anyhow::Result<Self> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let mut raw = Self { socket, serial: 0 };
        let mut arguments = Vec::new();
        put_number(&mut arguments, 1);
        put_text(&mut arguments, "qemu:///system")?;
        put_number(&mut arguments, 0);
        raw.send(OPEN, &arguments)?;
        raw.receive()?;
        Ok(raw)
    }

    /// Sends `count` calls for a domain in one go.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn ask(&mut self, name: &str, count: usize) -> anyhow::Result<()> {
        let mut arguments = Vec::new();
        put_text(&mut arguments, name)?;
        let mut packets = Vec::new();
        for _ in 0..count {
            self.put_packet(&mut packets, LOOKUP, &arguments)?;
        }
        Ok(self.socket.write_all(&packets)?)
    }

    /// Opens the console of a domain; what it says is not read.
    ///
    /// # Errors
    /// It is refused.
    pub fn open_console(&mut self, name: &str) -> anyhow::Result<()> {
        self.ask(name, 1)?;
        // The reply is a handle, and so is what a call begins with.
        let mut arguments = self.receive()?;
        put_number(&mut arguments, 0);
        put_number(&mut arguments, 0);
        self.send(CONSOLE, &arguments)?;
        self.receive().map(drop)
    }

    /// The payload of a reply that is no error.
    ///
    /// # Errors
    /// It is one, or does not come.
    pub fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut head = [0; HEAD];
        self.socket.read_exact(&mut head)?;
        let word = |index: usize| {
            let bytes = head.get(index * 4..index * 4 + 4);
            bytes.map_or(0, |bytes| {
                bytes
                    .iter()
                    .fold(0, |all, byte| all << 8 | u32::from(*byte))
            })
        };
        let length = usize::try_from(word(0))?;
        ensure!(
            (HEAD..MAX_PACKET).contains(&length),
            "a packet of {length} bytes"
        );
        ensure!(
            word(4) == REPLY && word(6) == 0,
            "no reply: kind {}, status {}",
            word(4),
            word(6)
        );
        let mut payload = vec![0; length - HEAD];
        self.socket.read_exact(&mut payload)?;
        Ok(payload)
    }

    fn send(&mut self, procedure: u32, arguments: &[u8]) -> anyhow::Result<()> {
        let mut packet = Vec::new();
        self.put_packet(&mut packet, procedure, arguments)?;
        Ok(self.socket.write_all(&packet)?)
    }

    fn put_packet(
        &mut self,
        out: &mut Vec<u8>,
        procedure: u32,
        arguments: &[u8],
    ) -> anyhow::Result<()> {
        put_number(out, u32::try_from(HEAD + arguments.len())?);
        for word in [PROGRAM, VERSION, procedure, CALL, self.serial, 0] {
            put_number(out, word);
        }
        out.extend(arguments);
        self.serial += 1;
        Ok(())
    }
}

fn put_number(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

/// A string is padded to words (RFC 4506 §4.11).
fn put_text(out: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    put_number(out, u32::try_from(text.len())?);
    out.extend(text.as_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(())
}
