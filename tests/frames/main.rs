//! What a hostile guest's program does on its network, and no shell's command can: sends frames as they are given, and
//! says whose frames it hears. Tests put it into their guests.
//!
//! ```text
//! reeve-test-frames send INTERFACE HEX TIMES
//! reeve-test-frames hear INTERFACE FILE        "hearing"; once there is the file, each source that was heard, and "end"
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["send", interface, frame, times] => send(interface, &bytes(frame)?, times.parse()?),
        ["hear", interface, file] => {
            let mut out = std::io::stdout();
            let socket = packets(interface)?;
            writeln!(out, "hearing")?;
            for source in hear(socket, Path::new(file))? {
                writeln!(out, "{source}")?;
            }
            Ok(writeln!(out, "end")?)
        }
        _ => bail!("send INTERFACE HEX TIMES, or hear INTERFACE FILE"),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn send(interface: &str, frame: &[u8], times: u32) -> Result<()> {
    let mut file = File::from(packets(interface)?);
    for _ in 0..times {
        file.write_all(frame).context("a frame is not sent")?;
    }
    Ok(())
}

/// The addresses from which frames came until there was a file of that name.
fn hear(socket: OwnedFd, until: &Path) -> Result<BTreeSet<String>> {
    let mut file = File::from(socket);
    let mut sources = BTreeSet::new();
    let mut buffer = [0; 2048];
    loop {
        // Looked for first: what came before it is heard.
        let ends = until.exists();
        match file.read(&mut buffer) {
            Ok(length) if length >= 14 => {
                let source: Vec<String> = buffer[6..12]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                sources.insert(source.join(":"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && ends => return Ok(sources),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A socket of all frames of an interface (packet(7)).
fn packets(interface: &str) -> Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        NonZeroU32::new(protocol.into()).map(Protocol::from_raw),
    )
    .context("no packet socket")?;
    let index = name_to_index(&socket, interface).context("there is no such interface")?;
    bind_to(&socket, protocol, index).context("the interface is not to be had")?;
    Ok(socket)
}

/// Has a packet socket be one of that interface.
#[expect(unsafe_code, reason = "rustix has no address of packet sockets")]
fn bind_to(socket: &OwnedFd, protocol: u16, index: u32) -> Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of_val(&address))?;
    // SAFETY: the address is of the length that is said, and the kernel only reads it.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}
