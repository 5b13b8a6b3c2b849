use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::NoInput;
use crate::testing::Picture;

struct Rig {
    server: Server,
    listener: UnixListener,
    /// Nobody says stop.
    stop: (UnixStream, UnixStream),
    picture: Picture,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(sharing: SharePolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("vnc")).unwrap();
        let picture = Picture::new(640, 480);
        let config = Config {
            name: "a guest".to_owned(),
            security: Security::None,
            sharing,
        };
        let server = Server::new(
            listener.try_clone().unwrap().into(),
            config,
            Box::new(picture.screen()),
            Arc::new(NoInput),
        );
        Self {
            server: server.unwrap(),
            listener,
            stop: UnixStream::pair().unwrap(),
            picture,
            _folder: folder,
        }
    }

    fn turn(&mut self) {
        assert!(self.server.turn(&self.stop.0).unwrap());
    }

    fn connect(&mut self) -> UnixStream {
        let address = self.listener.local_addr().unwrap();
        let client = UnixStream::connect(address.as_pathname().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let before = self
            .server
            .connections
            .last()
            .map(|one| one.socket.as_fd().as_raw());
        while self
            .server
            .connections
            .last()
            .map(|one| one.socket.as_fd().as_raw())
            == before
        {
            self.turn();
        }
        client
    }

    /// Reads as many bytes as `buffer` has room for, or to the end; how many.
    fn read(&mut self, client: &mut UnixStream, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            match client.read(&mut buffer[done..]) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("{error}"),
            }
        }
        done
    }

    /// One that is past all questions, unless it is closed.
    fn viewer(&mut self, shared: bool) -> Option<UnixStream> {
        let mut client = self.connect();
        client.write_all(b"RFB 003.008\n\x01").unwrap();
        client.write_all(&[shared.into()]).unwrap();
        let mut bytes = [0; 12 + 2 + 4 + 24 + 7];
        let len = self.read(&mut client, &mut bytes);
        (len == bytes.len()).then_some(client)
    }
}

trait AsRaw {
    fn as_raw(&self) -> i32;
}

impl AsRaw for std::os::fd::BorrowedFd<'_> {
    fn as_raw(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.as_raw_fd()
    }
}

const ALL: [u8; 10] = [3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_another() {
    let mut rig = Rig::new(SharePolicy::default());
    let mut slow = rig.viewer(true).unwrap();
    for _ in 0..100 {
        // More than any socket takes.
        slow.write_all(&ALL).unwrap();
    }
    let mut other = rig.viewer(true).unwrap();
    let mut update = vec![0; 4 + 80 * 12 + 640 * 480 * 4];
    for round in 0..3 {
        rig.picture.set(0, 0, round);
        other.write_all(&ALL).unwrap();
        assert_eq!(rig.read(&mut other, &mut update), update.len());
        assert_eq!(update[16], u8::try_from(round).unwrap());
        let waiting = rig.server.connections[0].client.output().len();
        assert!(waiting < 200_000, "{waiting}");
    }
    assert_eq!(rig.server.clients(), 2);
    // It is given time, and then closed.
    let late = rig.server.connections[0].progress + PATIENCE;
    rig.server.bury(late);
    assert_eq!(rig.server.clients(), 1);
}

#[test]
fn who_is_not_past_the_questions_makes_room() {
    let mut rig = Rig::new(SharePolicy::default());
    let mut viewer = rig.viewer(true).unwrap();
    let mut mute = rig.connect();
    let _others: Vec<_> = (0..MAX_CLIENTS).map(|_| rig.connect()).collect();
    assert_eq!(rig.server.clients(), MAX_CLIENTS);
    let mut greeting = [0; 13];
    assert_eq!(rig.read(&mut mute, &mut greeting), 12, "it is closed");
    viewer.write_all(&ALL).unwrap();
    assert_eq!(rig.read(&mut viewer, &mut [0; 100]), 100);
    // Those that say nothing are closed after a while, the viewer is not.
    rig.server.bury(Instant::now() + PATIENCE + PATIENCE);
    assert!(rig.server.clients() <= 1);
}

#[test]
fn clients_share_as_the_policy_says() {
    let mut rig = Rig::new(SharePolicy::AllowExclusive);
    let mut first = rig.viewer(true).unwrap();
    let alone = rig.viewer(false).unwrap();
    assert_eq!(rig.read(&mut first, &mut [0]), 0, "the others are closed");
    assert!(rig.viewer(true).is_none(), "one is alone");
    drop(alone);
    assert!(rig.viewer(true).is_some());
    let mut rig = Rig::new(SharePolicy::ForceShared);
    let _first = rig.viewer(true).unwrap();
    assert!(rig.viewer(false).is_none());
    assert!(rig.viewer(true).is_some());
    let mut rig = Rig::new(SharePolicy::Ignore);
    let _both = (rig.viewer(false).unwrap(), rig.viewer(false).unwrap());
    rig.turn_all();
    assert_eq!(rig.server.clients(), 2);
}

#[test]
fn the_screen_is_looked_at_only_while_somebody_waits_for_it() {
    let mut rig = Rig::new(SharePolicy::default());
    let mut viewer = rig.viewer(true).unwrap();
    let quiet = rig.server.next_event(Instant::now());
    assert_eq!(quiet, None, "nobody has asked");
    viewer.write_all(&ALL).unwrap();
    let mut update = vec![0; 4 + 80 * 12 + 640 * 480 * 4];
    assert_eq!(rig.read(&mut viewer, &mut update), update.len());
    let changes = [3, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    viewer.write_all(&changes).unwrap();
    rig.turn();
    let next = rig.server.next_event(Instant::now()).unwrap();
    assert!(next >= rig.server.last_look + MIN_LOOK);
    for _ in 0..10 {
        rig.server.look(rig.server.last_look + MAX_LOOK);
    }
    assert_eq!(
        rig.server.interval, MAX_LOOK,
        "nothing has changed for long"
    );
    viewer.write_all(&[5, 0, 0, 0, 0, 0]).unwrap();
    rig.turn();
    assert!(
        rig.server.interval < MAX_LOOK,
        "somebody has done something"
    );
    drop(viewer);
    while rig.server.clients() > 0 {
        rig.turn();
    }
    assert!(!rig.server.canvas.is_filled(), "its memory is given back");
}

#[test]
fn nonsense_ends_a_connection_and_stop_ends_the_server() {
    let mut rig = Rig::new(SharePolicy::default());
    let mut client = rig.connect();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rig.read(&mut client, &mut [0; 100]), 12);
    assert_eq!(rig.server.clients(), 0);
    (&rig.stop.1).write_all(b"x").unwrap();
    assert!(!rig.server.turn(&rig.stop.0).unwrap());
}

impl Rig {
    /// Some turns, each of which has something to do or does not wait for long.
    fn turn_all(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(50);
        while self
            .server
            .next_event(Instant::now())
            .is_some_and(|due| due < deadline)
        {
            self.turn();
        }
    }
}
