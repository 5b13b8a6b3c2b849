//! Clients that come and go, without a guest.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use reeve_devices::console::{ConsoleRing, ConsoleSink};
use reeve_devices::irq::IrqLine;
use reeve_devices::shared::{NoWake, share};

use super::*;

struct Console {
    ring: Arc<ConsoleRing>,
    clients: Clients,
}

fn console() -> Console {
    let ring = Arc::new(ConsoleRing::new(64 << 10, Arc::new(NoWake)));
    let serial = share(Serial::new(
        IrqLine::disconnected(),
        Arc::clone(&ring) as Arc<dyn ConsoleSink>,
        Arc::new(NoWake),
    ));
    let clients = Clients::new(serial);
    Console { ring, clients }
}

impl Console {
    fn client(&mut self, input: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.clients
            .attach(theirs.into(), input, self.ring.reader());
        self.clients.serve(true);
        ours
    }

    /// One turn of the thread's loop that may wait no longer than an instant; how many descriptors
    /// ended the wait.
    fn turn(&mut self) -> usize {
        let mut fds: Vec<_> = self.clients.poll_fds(true).collect();
        super::super::wait(&mut fds, Some(Duration::from_millis(1))).unwrap();
        let ready = fds.iter().filter(|fd| !fd.revents().is_empty()).count();
        let hung_up: Vec<bool> = fds.iter().map(super::super::hung_up).collect();
        self.clients.mark_hung_up(&hung_up);
        self.clients.serve(true);
        ready
    }
}

#[test]
fn a_client_that_only_reads_is_dropped_when_it_closes() {
    let mut console = console();
    let stays = console.client(false);
    let goes = console.client(false);
    assert_eq!((console.turn(), console.clients.len()), (0, 2));
    drop(goes);
    assert_eq!((console.turn(), console.clients.len()), (1, 1));
    assert_eq!(console.turn(), 0, "nothing wakes the thread for ever");
    drop(stays);
}

#[test]
fn input_that_a_client_left_behind_does_not_keep_the_thread_awake() {
    let mut console = console();
    let mut client = console.client(true);
    // More than the port takes while no guest reads it.
    client.write_all(&[b'x'; 2 * CHUNK]).unwrap();
    drop(client);
    for _ in 0..4 {
        console.turn();
    }
    assert_eq!(console.turn(), 0);
    assert_eq!(console.clients.len(), 1, "its input waits for the guest");
}

#[test]
fn a_client_that_sends_no_more_still_reads() {
    let mut console = console();
    let mut client = console.client(true);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    console.turn();
    console.ring.push(b"still there");
    console.turn();
    let mut text = [0; 11];
    client.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still there");
}
