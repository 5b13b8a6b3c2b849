//! Clients that people have, of Debian's packages, against the server: what they save is what is on the screen.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_display::auth::{Password, Security};
use reeve_display::server::{Config, Server, SharePolicy};
use reeve_display::{InputSink, NoInput, Pointer, Screen, Size, screenshot};

const WIDTH: u16 = 800;
const HEIGHT: u16 = 600;

/// Something of everything: one colour, few colours, and all.
#[derive(Debug, Clone, Copy)]
struct Picture;

impl Screen for Picture {
    fn look(&mut self) -> Option<Size> {
        Size::new(WIDTH, HEIGHT)
    }

    fn read_line(&mut self, line: u16, pixels: &mut [u32]) {
        let y = u32::from(line);
        for (x, pixel) in (0_u32..).zip(pixels) {
            *pixel = match (x / 200, y / 200) {
                (0, _) => 0x00_3366,
                (1, 0) => (x / 8 + y / 8) % 2 * 0xff_ffff,
                (1, _) => (x / 16 + y / 16) % 7 * 0x2a_1507,
                _ => (x * 0x0101 + y * 0x01_0003) & 0xff_ffff,
            };
        }
    }
}

struct Serving {
    port: u16,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start(security: Security) -> Self {
        Self::with_input(security, Arc::new(NoInput))
    }

    fn with_input(security: Security, input: Arc<dyn InputSink>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = Config {
            name: "a guest".to_owned(),
            security,
            sharing: SharePolicy::default(),
        };
        let server = Server::new(listener.into(), config, Box::new(Picture), input);
        let server = server.expect("a server");
        let (stop, theirs) = UnixStream::pair().expect("a socket");
        let thread = std::thread::spawn(move || server.run(&theirs).expect("it serves"));
        Self {
            port,
            stop,
            thread: Some(thread),
        }
    }

    /// As clients name it: they count ports from 5900.
    fn display(&self) -> String {
        let number = i32::from(self.port) - 5900;
        format!("127.0.0.1:{number}")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.write_all(b"x").expect("it listens");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

/// Runs a client, for a minute at most.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["60", program])
        .args(arguments)
        .output()
        .expect("a client of Debian's: run tests/lab/install")
}

fn decode(file: &[u8]) -> (u32, u32, Vec<[u8; 3]>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("a picture");
    let samples = info.color_type.samples();
    let pixels = bytes[..info.buffer_size()].chunks(samples);
    let pixels = pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    (info.width, info.height, pixels.collect())
}

fn assert_is_the_screen(file: &[u8], output: &Output) {
    assert!(output.status.success(), "{output:?}");
    let expected = screenshot::png(&mut Picture).expect("a screenshot");
    assert!(decode(file) == decode(&expected), "the pictures differ");
}

#[test]
fn gtk_vnc_sees_each_pixel() {
    let serving = Serving::start(Security::None);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("capture.png");
    let name = path.to_str().expect("a name");
    let output = run("gvnccapture", &[&serving.display(), name]);
    let file = std::fs::read(&path).unwrap_or_default();
    assert_is_the_screen(&file, &output);
}

/// A client of the oldest version, which takes its password from a file.
#[test]
fn vncsnapshot_is_let_in_by_the_right_password_alone() {
    // DES of the password by a key that everybody knows, as `vncpasswd` writes it: "letmein" and "letmeout".
    const RIGHT: u64 = 0xc10a_f52a_403c_a6e4;
    const WRONG: u64 = 0xacfe_9a5f_208e_6c40;
    let password = Password::new(b"letmein").expect("a password");
    let serving = Serving::start(Security::Password(password));
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("password");
    let picture = folder.path().join("picture.jpg");
    let [secret_name, picture_name] =
        [&secret, &picture].map(|path| path.to_str().expect("a name"));
    let display = serving.display();
    let snap = |bytes: u64| {
        std::fs::write(&secret, bytes.to_be_bytes()).expect("a file");
        run(
            "vncsnapshot",
            &["-passwd", secret_name, &display, picture_name],
        )
    };
    let output = snap(WRONG);
    assert!(!output.status.success(), "{output:?}");
    assert!(!picture.exists(), "{output:?}");
    let output = snap(RIGHT);
    assert!(output.status.success(), "{output:?}");
    let file = std::fs::read(&picture).expect("a picture");
    // The frame header of a JPEG: its height and its width.
    let size = [HEIGHT.to_be_bytes(), WIDTH.to_be_bytes()].concat();
    let head = [&[0xff, 0xc0, 0, 17, 8][..], &size].concat();
    assert!(
        file.windows(head.len()).any(|bytes| bytes == head),
        "{output:?}"
    );
}

/// What a person did.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Key(u16, bool),
    Pointer(Pointer),
}

/// Takes notes of it.
#[derive(Debug, Default)]
struct Notes {
    acts: Mutex<Vec<Act>>,
    more: Condvar,
}

impl Notes {
    fn add(&self, act: Act) {
        self.acts.lock().expect("no panic").push(act);
        self.more.notify_all();
    }

    /// Waits until there are so many, for a minute at most.
    fn wait_for(&self, count: usize) {
        let acts = self.acts.lock().expect("no panic");
        let short = |acts: &mut Vec<Act>| acts.len() < count;
        let waited = self
            .more
            .wait_timeout_while(acts, Duration::from_secs(60), short);
        let (acts, timeout) = waited.expect("no panic");
        assert!(!timeout.timed_out(), "{acts:?}");
    }
}

impl InputSink for Notes {
    fn key(&self, code: u16, pressed: bool) {
        self.add(Act::Key(code, pressed));
    }

    fn pointer(&self, pointer: Pointer) {
        self.add(Act::Pointer(pointer));
    }
}

/// Types, by the library of the viewers that have a window.
const TYPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/type.py");

#[test]
fn what_is_typed_in_gtk_vnc_reaches_the_guest() {
    let notes = Arc::new(Notes::default());
    let password = Password::new(b"letmein").expect("a password");
    let serving = Serving::with_input(Security::Password(password), Arc::clone(&notes) as _);
    let port = serving.port.to_string();
    let output = run("/usr/bin/python3", &[TYPE, "127.0.0.1", &port, "letmeout"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, "refused: the password is wrong\n", "{output:?}");
    let mut client = Command::new("/usr/bin/python3")
        .args([TYPE, "127.0.0.1", &port, "letmein"])
        .spawn()
        .expect("python");
    notes.wait_for(3);
    client.kill().expect("it runs");
    client.wait().expect("it ends");
    // The button goes up when its client goes.
    notes.wait_for(4);
    let corner = |buttons| {
        Act::Pointer(Pointer {
            x: Pointer::MAX,
            y: Pointer::MAX,
            buttons,
            ..Pointer::default()
        })
    };
    let expected = [
        Act::Key(30, true),
        Act::Key(30, false),
        corner(1),
        corner(0),
    ];
    assert_eq!(*notes.acts.lock().expect("no panic"), expected);
}
