//! What a guest reaches, what it does not, and how little it can have done.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::domain::plan::AnyPath;
use crate::host::paths::AllowedPaths;
use crate::host::sockets::DeviceSockets;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// A guest whose socket would be at `v` in a directory, and its worker's end.
struct Guest {
    files: TempDir,
    theirs: OwnedFd,
    acceptor: Acceptor,
}

/// An answer: its id, its verdict and what came with it.
type Answer = (u32, u32, Option<UnixStream>);

impl Guest {
    fn new() -> Self {
        Self::with(&Connectors::new())
    }

    fn with(connectors: &Connectors) -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("v");
        let (mut acceptor, theirs) = Acceptor::new(&AnyPath, "vsock", &path).unwrap();
        serve(&mut acceptor, connectors);
        Self {
            files,
            theirs,
            acceptor,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn listen(&self, port: u32) -> UnixListener {
        let listener = UnixListener::bind(self.path(&format!("v_{port}"))).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn say(&self, bytes: &[u8]) -> Result<(), ScmError> {
        scm::send(self.theirs.as_fd(), bytes, &[])
    }

    fn ask(&self, id: u32, port: u32) {
        self.say(&question(id, port)).unwrap();
    }

    /// The next answer; `None` once there will be none.
    async fn answer(&self) -> Option<Answer> {
        let begin = Instant::now();
        loop {
            let mut bytes = [0; 9];
            match scm::receive(self.theirs.as_fd(), &mut bytes) {
                Ok((8, mut streams)) => {
                    assert!(streams.len() < 2);
                    let number =
                        |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                    let stream = streams.pop().map(UnixStream::from);
                    return Some((number(0), number(4), stream));
                }
                Ok(other) => panic!("{other:?}"),
                Err(ScmError::WouldBlock) => {}
                Err(ScmError::Closed) => return None,
                Err(error) => panic!("{error}"),
            }
            assert!(begin.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn connects(&self, port: u32) -> UnixStream {
        self.ask(port, port);
        let answer = self.answer().await.unwrap();
        assert_eq!((answer.0, answer.1), (port, 1));
        answer.2.unwrap()
    }

    async fn is_refused(&self, port: u32) {
        self.ask(port, port);
        let answer = self.answer().await.unwrap();
        assert_eq!((answer.0, answer.1), (port, 0), "{answer:?}");
        assert!(answer.2.is_none());
    }
}

fn serve(acceptor: &mut Acceptor, connectors: &Connectors) {
    let name = "web".parse().unwrap();
    acceptor.serve(connectors, &name, DomainUuid(Uuid::from_u128(1)));
}

fn question(id: u32, port: u32) -> Vec<u8> {
    [id, port, 1000].map(u32::to_le_bytes).concat()
}

async fn accepted(listener: &UnixListener) -> UnixStream {
    let begin = Instant::now();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            return stream;
        }
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn accept_all(listener: &UnixListener) -> Vec<UnixStream> {
    std::iter::from_fn(|| listener.accept().ok())
        .map(|(stream, _)| stream)
        .collect()
}

/// A listener whose queue is full, and what fills it.
fn full(path: &Path) -> (OwnedFd, Vec<OwnedFd>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        || rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let listener = socket();
    let address = SocketAddrUnix::new(path).unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = socket();
        match rustix::net::connect(&client, &address) {
            Ok(()) => clients.push(client),
            Err(Errno::AGAIN) => return (listener, clients),
            Err(errno) => panic!("{errno}"),
        }
    }
}

#[tokio::test]
async fn a_guest_reaches_the_program_that_listens_beside_its_socket() {
    let guest = Guest::new();
    for port in [0, 80, u32::MAX] {
        let listener = guest.listen(port);
        let mut stream = guest.connects(port).await;
        let mut host = accepted(&listener).await;
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"question").unwrap();
        host.write_all(b"answered").unwrap();
        for end in [&mut stream, &mut host] {
            let mut bytes = [0; 8];
            end.read_exact(&mut bytes).unwrap();
        }
        drop(stream);
        assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_no_program_of_the_hosts_beside_it_is_refused() {
    let guest = Guest::new();
    guest.is_refused(1).await;
    drop(guest.listen(2));
    guest.is_refused(2).await;
    fs::write(guest.path("v_3"), "a file").unwrap();
    guest.is_refused(3).await;
    fs::create_dir(guest.path("v_4")).unwrap();
    guest.is_refused(4).await;
    let elsewhere = guest.path("elsewhere");
    let _listener = UnixListener::bind(&elsewhere).unwrap();
    symlink(&elsewhere, guest.path("v_5")).unwrap();
    guest.is_refused(5).await;
    // The number is written as people do.
    let _listener = UnixListener::bind(guest.path("v_06")).unwrap();
    guest.is_refused(6).await;
    let datagrams = std::os::unix::net::UnixDatagram::bind(guest.path("v_7")).unwrap();
    guest.is_refused(7).await;
    drop(datagrams);
    guest.listen(8);
    guest.listen(9);
    // And none of it has ended what there is.
    let listener = guest.listen(10);
    guest.connects(10).await;
    accepted(&listener).await;
}

#[tokio::test]
async fn another_guests_socket_is_refused_whoever_made_it() {
    let guest = Guest::new();
    let mut sockets = DeviceSockets::default();
    let other = sockets.listen(&AnyPath, "vsock", &guest.path("v_5"));
    let other = UnixListener::from(other.unwrap());
    UnixStream::connect(guest.path("v_5")).unwrap();
    accept_all(&other);
    guest.is_refused(5).await;
    assert_eq!(accept_all(&other).len(), 0);
}

#[tokio::test]
async fn the_directory_is_the_one_that_was_allowed_whatever_its_name_means_by_now() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name);
    fs::create_dir_all(at("allowed")).unwrap();
    fs::create_dir_all(at("other")).unwrap();
    let paths = AllowedPaths::new(vec![at("allowed")]);
    let refused = Acceptor::new(&paths, "vsock", &at("other/v")).unwrap_err();
    assert!(matches!(refused, SocketError::Forbidden(_)), "{refused}");
    let (mut acceptor, theirs) = Acceptor::new(&paths, "vsock", &at("allowed/v")).unwrap();
    serve(&mut acceptor, &Connectors::new());
    fs::rename(at("allowed"), at("moved")).unwrap();
    symlink("other", at("allowed")).unwrap();
    let _other = UnixListener::bind(at("other/v_1")).unwrap();
    let guest = Guest {
        files,
        theirs,
        acceptor,
    };
    guest.is_refused(1).await;
    let _moved = UnixListener::bind(guest.path("moved/v_1")).unwrap();
    guest.connects(1).await;
}

#[tokio::test]
async fn a_program_that_accepts_nobody_is_given_up_and_holds_up_no_other() {
    let guest = Guest::new();
    let (_listener, _clients) = full(&guest.path("v_1"));
    let listener = guest.listen(2);
    let begin = Instant::now();
    guest.ask(1, 1);
    guest.connects(2).await;
    assert!(begin.elapsed() < PATIENCE, "it was waited for");
    accepted(&listener).await;
    let answer = guest.answer().await.unwrap();
    assert_eq!((answer.0, answer.1), (1, 0));
    assert!(begin.elapsed() >= PATIENCE);
    assert!(begin.elapsed() < PATIENCE * 5);
}

#[tokio::test]
async fn a_program_that_comes_to_it_within_a_second_is_reached() {
    let guest = Guest::new();
    let (listener, clients) = full(&guest.path("v_1"));
    guest.ask(1, 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listener = UnixListener::from(listener);
    assert_eq!(accept_all(&listener).len(), clients.len());
    let answer = guest.answer().await.unwrap();
    assert_eq!((answer.0, answer.1), (1, 1));
}

#[tokio::test]
async fn a_flood_of_questions_is_answered_at_a_bounded_rate() {
    let guest = Guest::new();
    let listener = guest.listen(1);
    let begin = Instant::now();
    let (mut asked, mut answered, mut accepted) = (0_u32, 0_u32, 0);
    while begin.elapsed() < Duration::from_millis(700) {
        // As much as the socket holds, at any time.
        while guest.say(&question(asked, asked % 2)).is_ok() {
            asked += 1;
        }
        let mut bytes = [0; 9];
        while let Ok((_, streams)) = scm::receive(guest.theirs.as_fd(), &mut bytes) {
            answered += 1;
            drop(streams);
        }
        accepted += accept_all(&listener).len();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let most = f64::from(BURST) + f64::from(RATE) * elapsed + 2.0;
    assert!(f64::from(answered) <= most, "{answered} in {elapsed} s");
    assert!(answered > BURST, "{answered} in {elapsed} s");
    assert!(accepted >= answered as usize / 2 - 1);
    assert!(asked < 2000, "{asked} were taken");
}

#[tokio::test]
async fn for_a_worker_that_reads_no_answers_nothing_more_is_done() {
    let guest = Guest::new();
    let listener = guest.listen(1);
    for id in 0..100 {
        guest.ask(id, 1);
    }
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.extend(accept_all(&listener));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let made = streams.len();
    assert!((MAX_CALLS..=MAX_CALLS + 16).contains(&made), "{made}");
    // It goes on when the worker does.
    for _ in 0..100 {
        let answer = guest.answer().await.unwrap();
        assert_eq!(answer.1, 1);
        streams.extend(accept_all(&listener));
    }
}

#[tokio::test]
async fn nonsense_ends_it() {
    for bytes in [&[0; 1][..], &[0; 11], &[0; 13], &[0; 4000]] {
        let guest = Guest::new();
        guest.say(bytes).unwrap();
        assert!(guest.answer().await.is_none(), "{bytes:?}");
    }
    let guest = Guest::new();
    let (one, _two) = UnixStream::pair().unwrap();
    let sent = scm::send(guest.theirs.as_fd(), &question(1, 1), &[one.as_fd()]);
    match sent {
        // A kernel that can refuse descriptors has done so.
        Err(_) => guest.is_refused(1).await,
        Ok(()) => assert!(guest.answer().await.is_none()),
    }
}

#[tokio::test]
async fn it_ends_with_the_device_and_what_was_connected_goes_on() {
    let guest = Guest::new();
    let listener = guest.listen(1);
    let mut stream = guest.connects(1).await;
    let mut host = accepted(&listener).await;
    let Guest {
        files,
        theirs,
        acceptor,
    } = guest;
    drop(acceptor);
    let begin = Instant::now();
    while !matches!(
        scm::receive(theirs.as_fd(), &mut [0; 8]),
        Err(ScmError::Closed)
    ) {
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stream.write_all(b"x").unwrap();
    host.read_exact(&mut [0; 1]).unwrap();
    drop(files);

    let guest = Guest::new();
    drop(guest.theirs);
    let task = guest.acceptor.task.as_ref().unwrap();
    while !task.is_finished() {
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn guests_whose_file_systems_do_not_answer_take_no_more_than_their_threads() {
    let connectors = Connectors::new();
    let stuck = Arc::clone(&connectors.0).acquire_many_owned(16).await;
    let guest = Guest::with(&connectors);
    let listener = guest.listen(1);
    let begin = Instant::now();
    guest.is_refused(1).await;
    assert!(begin.elapsed() >= PATIENCE);
    drop(stuck);
    guest.connects(1).await;
    accepted(&listener).await;
}
