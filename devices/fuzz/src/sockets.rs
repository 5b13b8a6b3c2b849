//! A listening socket, and the clients that come to it.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::input::Input;

/// The most clients at once.
const CLIENTS: usize = 6;

/// The clients' side.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    clients: Vec<UnixStream>,
}

impl Listening {
    /// A socket that listens under a name of its own, and who knows the name.
    pub fn new() -> (Self, UnixListener) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("reeve-fuzz-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a free name");
        let ours = Self {
            address,
            clients: Vec::new(),
        };
        (ours, listener)
    }

    /// A client comes, says something, listens, or goes.
    pub fn act(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let count = self.clients.len();
        let client = self.clients.get_mut(usize::from(what >> 3) % count.max(1));
        match (what & 7, client) {
            (0, _) if count < CLIENTS => {
                // Refused when the listener is gone.
                if let Ok(client) = UnixStream::connect_addr(&self.address) {
                    client.set_nonblocking(true).expect("a socket");
                    self.clients.push(client);
                }
            }
            (1 | 2, Some(client)) => {
                let number = u32::from(input.u8());
                let _ = client.write(format!("CONNECT {number}\n").as_bytes());
            }
            (3 | 4, Some(client)) => {
                let _ = client.write(input.short());
            }
            (5 | 6, Some(client)) => drop(client.read(&mut [0; 3000])),
            (7, Some(_)) => drop(self.clients.swap_remove(usize::from(what >> 3) % count)),
            _ => {}
        }
    }
}
