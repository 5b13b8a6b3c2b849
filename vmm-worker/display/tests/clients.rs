//! Clients that people have, of Debian's packages, against the server: what they save is what is on the screen.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use reeve_display::auth::{Password, Security};
use reeve_display::server::{Config, Server, SharePolicy};
use reeve_display::{NoInput, Screen, Size, screenshot};

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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = Config {
            name: "a guest".to_owned(),
            security,
            sharing: SharePolicy::default(),
        };
        let input = Arc::new(NoInput);
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

/// Runs a client, for a minute at most. When it has said `question`, it is told `answer`.
fn run(program: &str, arguments: &[&str], question: &str, answer: &str) -> Output {
    let mut child = Command::new("timeout")
        .args(["60", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a client of Debian's: run tests/lab/install");
    let mut said = Vec::new();
    let mut output = child.stdout.take().expect("a pipe");
    let mut byte = [0];
    while !said.ends_with(question.as_bytes()) && output.read(&mut byte).expect("output") > 0 {
        said.extend(byte);
    }
    let mut input = child.stdin.take().expect("a pipe");
    // It may have ended without reading it.
    let _ = input.write_all(answer.as_bytes());
    drop(input);
    output.read_to_end(&mut said).expect("output");
    let mut ended = child.wait_with_output().expect("it ends");
    ended.stdout = said;
    ended
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
    let output = run("gvnccapture", &[&serving.display(), name], "", "");
    let file = std::fs::read(&path).unwrap_or_default();
    assert_is_the_screen(&file, &output);
}

/// It asks on a terminal.
#[test]
fn gtk_vnc_is_let_in_by_the_right_password_alone() {
    let password = Password::new(b"letmein").expect("a password");
    let serving = Serving::start(Security::Password(password));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("capture.png");
    let command = format!("gvnccapture {} {}", serving.display(), path.display());
    let terminal = ["-qec", &command, "/dev/null"];
    let ask = |answer| run("script", &terminal, "Password: ", answer);
    let output = ask("letmeout\n");
    assert!(!output.status.success(), "{output:?}");
    assert!(!path.exists(), "{output:?}");
    let output = ask("letmein\n");
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
            "",
            "",
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
