//! A client that sends anything, in any pieces, while the picture changes and now and then something is sent to it.
#![no_main]

use std::time::{Duration, Instant};

use reeve_display::auth::{Attempts, Password, Security};
use reeve_display::canvas::Canvas;
use reeve_display::client::{Client, Event, Service};
use reeve_display::message::{self, MAX_BYTES, Stage};
use reeve_display::{NoInput, Screen, Size};

/// More than may wait for a client: the mark, and a rectangle and a refusal behind it.
const MOST: usize = (64 << 10) + (20 << 10);

/// Stripes.
struct Picture {
    size: Option<Size>,
    phase: u32,
}

impl Screen for Picture {
    fn look(&mut self) -> Option<Size> {
        self.size
    }

    fn read_line(&mut self, line: u16, pixels: &mut [u32]) {
        for (x, pixel) in (0_u32..).zip(pixels) {
            *pixel = (x * self.phase + u32::from(line)) & 0xff_ffff;
        }
    }
}

/// What is taken from a part of it has a length that is there, and is taken from all of it as well.
fn parse(bytes: &[u8]) {
    for stage in [
        Stage::Version,
        Stage::Security,
        Stage::Response,
        Stage::Init,
        Stage::Running,
    ] {
        let all = message::parse(stage, bytes);
        let half = message::parse(stage, &bytes[..bytes.len() / 2]);
        if let Ok(Some((_, len))) = all {
            assert!(0 < len && len <= bytes.len().min(MAX_BYTES));
        }
        if half != Ok(None) {
            assert_eq!(all, half);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parse(bytes);
    let Some((options, mut rest)) = bytes.split_first() else {
        return;
    };
    let secret = Password::new(b"secret").expect("a password");
    let security = match options & 1 {
        0 => Security::None,
        _ => Security::Password(secret),
    };
    let (mut client, mut canvas, mut attempts) =
        (Client::new(), Canvas::default(), Attempts::default());
    let mut picture = Picture {
        size: Size::new(100, 70),
        phase: 1,
    };
    let mut now = Instant::now();
    if options & 2 != 0 {
        // Past the questions, where most of it is.
        client.take(b"RFB 003.008\n\x01\x01");
    }
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        if *step < 0xc0 {
            let len = (1 + usize::from(*step)).min(rest.len()).min(client.room());
            let (now_sent, later) = rest.split_at(len);
            client.take(now_sent);
            rest = later;
        } else {
            match step & 7 {
                0 => picture.size = None,
                1 | 2 => picture.size = Size::new(u16::from(step & 0x38) * 5 + 1, 130),
                3 => now += Duration::from_secs(1),
                _ => picture.phase += 1,
            }
        }
        let mut service = Service {
            security: &security,
            attempts: &mut attempts,
            input: &NoInput,
            now,
        };
        loop {
            match client.next_event(&mut service) {
                Ok(None) => break,
                Ok(Some(Event::Entering { .. })) => {
                    assert!(options & 1 == 0, "nobody knows the password");
                    canvas.refresh(&mut picture);
                    client.admit(canvas.size(), "name");
                }
                Ok(Some(_)) => assert!(client.is_running()),
                Err(_) => {
                    client.leave(&NoInput);
                    return;
                }
            }
        }
        if client.wants() {
            canvas.refresh(&mut picture);
            client.offer(&canvas);
        }
        client.fill(&canvas);
        assert!(client.output().len() <= MOST);
        let sent = client.output().len() / 2 + usize::from(step & 1);
        client.note_sent(sent.min(client.output().len()));
    }
    client.leave(&NoInput);
});
