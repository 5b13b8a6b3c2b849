use std::time::Duration;

use miniz_oxide::DataFormat;
use miniz_oxide::inflate::stream::InflateState;

use super::*;
use crate::auth::Password;
use crate::testing::{Act, Notes, Picture, unpack_zrle};

struct Rig {
    client: Client,
    security: Security,
    attempts: Attempts,
    notes: Notes,
    now: Instant,
    canvas: Canvas,
    picture: Picture,
}

impl Rig {
    fn new(security: Security) -> Self {
        let mut rig = Self {
            client: Client::new(),
            security,
            attempts: Attempts::default(),
            notes: Notes::default(),
            now: Instant::now(),
            canvas: Canvas::default(),
            picture: Picture::new(100, 70),
        };
        assert_eq!(rig.output(), GREETING);
        rig
    }

    /// One that is past all questions.
    fn running() -> Self {
        let mut rig = Self::new(Security::None);
        rig.say(b"RFB 003.008\n").unwrap();
        rig.say(&[1]).unwrap();
        rig.enter();
        rig
    }

    fn say(&mut self, bytes: &[u8]) -> Result<Option<Event>, Ending> {
        let mut last = None;
        for part in bytes.chunks(self.client.room().max(1)) {
            self.client.take(part);
            let mut service = Service {
                security: &self.security,
                attempts: &mut self.attempts,
                input: &self.notes,
                now: self.now,
            };
            while let Some(event) = self.client.next_event(&mut service)? {
                last = Some(event);
            }
        }
        Ok(last)
    }

    fn enter(&mut self) {
        let event = self.say(&[1]).unwrap();
        assert_eq!(event, Some(Event::Entering { shared: true }));
        self.output();
        self.canvas.refresh(&mut self.picture.screen());
        self.client.admit(self.canvas.size(), "name");
        let output = self.output();
        assert_eq!(output[..4], [0, 100, 0, 70]);
        assert_eq!(output[20..], *b"\0\0\0\x04name");
    }

    fn output(&mut self) -> Vec<u8> {
        let output = self.client.output().to_vec();
        self.client.note_sent(output.len());
        output
    }

    fn request(&mut self, incremental: bool) {
        let mut request = vec![3, incremental.into(), 0, 0, 0, 0];
        request.extend([0xff; 4]);
        self.say(&request).unwrap();
    }

    /// Looks and gives all that is sent.
    fn update(&mut self) -> Vec<u8> {
        self.canvas.refresh(&mut self.picture.screen());
        self.client.offer(&self.canvas);
        let mut all = Vec::new();
        loop {
            self.client.fill(&self.canvas);
            assert!(self.client.output().len() < HIGH_WATER + 70_000);
            let part = self.output();
            if part.is_empty() {
                return all;
            }
            all.extend(part);
        }
    }

    fn encodings(&mut self, numbers: &[i32]) {
        let mut bytes = vec![2, 0, 0, u8::try_from(numbers.len()).unwrap()];
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        self.say(&bytes).unwrap();
    }
}

/// The rectangles of an update in raw pixels of four bytes.
fn rectangles(update: &[u8]) -> Vec<(Area, Vec<u32>)> {
    let word = |at: usize| u16::from_be_bytes(update[at..at + 2].try_into().unwrap());
    assert_eq!(update[..2], [0, 0]);
    let mut at = 4;
    let mut all = Vec::new();
    for _ in 0..word(2) {
        let area = Area {
            x: word(at),
            y: word(at + 2),
            width: word(at + 4),
            height: word(at + 6),
        };
        assert_eq!(update[at + 8..at + 12], [0; 4]);
        let len = usize::from(area.width) * usize::from(area.height) * 4;
        let pixels = update[at + 12..at + 12 + len].chunks(4);
        let pixels = pixels.map(|pixel| u32::from_le_bytes(pixel.try_into().unwrap()));
        all.push((area, pixels.collect()));
        at += 12 + len;
    }
    assert_eq!(at, update.len());
    all
}

fn password() -> Security {
    Security::Password(Password::new(b"secret").unwrap())
}

#[test]
fn each_version_is_asked_in_its_own_way() {
    let mut newest = Rig::new(Security::None);
    newest.say(b"RFB 003.008\n").unwrap();
    assert_eq!(newest.output(), [1, 1]);
    newest.say(&[1]).unwrap();
    assert_eq!(newest.output(), [0, 0, 0, 0]);
    newest.enter();
    let mut middle = Rig::new(Security::None);
    middle.say(b"RFB 003.007\n").unwrap();
    assert_eq!(middle.output(), [1, 1]);
    middle.say(&[1]).unwrap();
    assert_eq!(middle.output(), [0_u8; 0]);
    middle.enter();
    let mut oldest = Rig::new(Security::None);
    oldest.say(b"RFB 003.003\n").unwrap();
    assert_eq!(oldest.output(), [0, 0, 0, 1]);
    oldest.enter();
}

#[test]
fn a_right_password_lets_in_and_a_wrong_one_does_not() {
    for (version, told) in [("RFB 003.008\n", 8), ("RFB 003.003\n", 4)] {
        for right in [true, false] {
            let mut rig = Rig::new(password());
            rig.say(version.as_bytes()).unwrap();
            if told == 8 {
                assert_eq!(rig.output(), [1, 2]);
                rig.say(&[2]).unwrap();
            }
            let challenge = rig.output();
            let challenge: [u8; 16] = challenge[challenge.len() - 16..].try_into().unwrap();
            let mut answer = crate::auth::tests_support::answer(b"secret", &challenge);
            answer[0] ^= u8::from(!right);
            rig.say(&answer).unwrap();
            let output = rig.output();
            if right {
                assert_eq!(output, [0; 4]);
                rig.enter();
            } else {
                assert_eq!(output[..4], [0, 0, 0, 1]);
                assert_eq!(output.len() > 8, told == 8, "a reason");
                assert!(rig.client.is_over());
                assert!(rig.say(&[1]).unwrap().is_none(), "no way in");
            }
        }
    }
}

#[test]
fn nobody_comes_in_without_being_asked() {
    let mut rig = Rig::new(password());
    rig.say(b"RFB 003.008\n").unwrap();
    assert!(matches!(rig.say(&[1]), Err(Ending::Security(1))));
    let mut rig = Rig::new(Security::None);
    rig.say(b"RFB 003.008\n").unwrap();
    assert!(matches!(rig.say(&[2]), Err(Ending::Security(2))));
}

#[test]
fn after_many_wrong_passwords_none_is_taken() {
    let mut rig = Rig::new(password());
    let attempts = &mut rig.attempts;
    while attempts.may_try(rig.now) {
        attempts.note_wrong(rig.now);
    }
    rig.say(b"RFB 003.008\n").unwrap();
    let output = rig.output();
    assert_eq!(output[0], 0);
    assert!(String::from_utf8_lossy(&output).contains("too many wrong passwords"));
    assert!(rig.client.is_over());
    // One who was asked before the others had guessed.
    let mut rig = Rig::new(password());
    rig.say(b"RFB 003.008\n\x02").unwrap();
    let challenge: [u8; 16] = rig.output()[2..].try_into().unwrap();
    while rig.attempts.may_try(rig.now) {
        rig.attempts.note_wrong(rig.now);
    }
    let answer = crate::auth::tests_support::answer(b"secret", &challenge);
    rig.say(&answer).unwrap();
    assert_eq!(rig.output()[..4], [0, 0, 0, 1]);
    rig.now += Duration::from_secs(60);
    assert!(rig.attempts.may_try(rig.now));
}

#[test]
fn an_update_has_what_the_client_has_not_seen() {
    let mut rig = Rig::running();
    assert_eq!(rig.update(), [0_u8; 0], "nothing was asked for");
    rig.picture.set(99, 69, 5);
    rig.request(false);
    let all = rectangles(&rig.update());
    assert_eq!(all.len(), 4);
    assert_eq!(all[3].1.last(), Some(&5));
    rig.request(true);
    assert_eq!(rig.update(), [0_u8; 0], "nothing has changed");
    rig.picture.set(0, 0, 6);
    let some = rectangles(&rig.update());
    assert_eq!(some.len(), 1);
    assert_eq!((some[0].0.x, some[0].0.y, some[0].1[0]), (0, 0, 6));
    rig.picture.set(0, 0, 7);
    assert_eq!(rig.update(), [0_u8; 0], "a request has one answer");
    // Only of a part, and of all.
    rig.say(&[3, 1, 0, 64, 0, 0, 0, 1, 0, 1]).unwrap();
    assert_eq!(rig.update(), [0_u8; 0]);
    rig.request(true);
    assert_eq!(rectangles(&rig.update()).len(), 1);
}

#[test]
fn zrle_is_what_the_picture_is() {
    let mut rig = Rig::running();
    rig.encodings(&[16]);
    rig.picture.set(64, 0, 0x12_3456);
    rig.request(false);
    let update = rig.update();
    assert_eq!(update[..4], [0, 0, 0, 4]);
    let mut stream = InflateState::new(DataFormat::Zlib);
    let mut at = 4;
    for tile in tiles(rig.canvas.size()) {
        let len = u32::from_be_bytes(update[at + 12..at + 16].try_into().unwrap());
        let end = at + 16 + usize::try_from(len).unwrap();
        let pixels = unpack_zrle(&mut stream, &update[at + 16..end], tile.width, tile.height);
        let mut expected = Vec::new();
        rig.canvas.copy(&tile, &mut expected);
        assert_eq!(pixels, expected);
        at = end;
    }
    assert_eq!(at, update.len());
}

#[test]
fn another_size_is_told_to_who_understands_it() {
    let mut rig = Rig::running();
    rig.encodings(&[-223]);
    rig.request(false);
    rig.update();
    rig.picture.resize(64, 64);
    rig.request(true);
    let told = [0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 64, 0xff, 0xff, 0xff, 0x21];
    assert_eq!(rig.update(), told);
    rig.request(true);
    assert_eq!(rectangles(&rig.update()).len(), 1);
}

#[test]
fn who_does_not_understand_it_sees_what_there_is_of_it() {
    let mut rig = Rig::running();
    rig.request(false);
    rig.update();
    rig.picture.resize(70, 200);
    rig.picture.set(69, 0, 3);
    rig.request(true);
    let all = rectangles(&rig.update());
    assert_eq!(all.len(), 4);
    assert_eq!((all[1].0.width, all[1].1[5], all[1].1[6]), (36, 3, 0));
    rig.request(true);
    assert_eq!(rig.update(), [0_u8; 0]);
}

#[test]
fn a_size_that_changes_within_an_update_does_not_change_what_was_promised() {
    let mut rig = Rig::running();
    rig.picture.resize(640, 640);
    rig.canvas.refresh(&mut rig.picture.screen());
    rig.client.admit(rig.canvas.size(), "");
    rig.output();
    rig.request(false);
    rig.canvas.refresh(&mut rig.picture.screen());
    rig.client.offer(&rig.canvas);
    rig.client.fill(&rig.canvas);
    let mut all = rig.output();
    assert!(all.len() < 200_000, "not all at once");
    rig.picture.resize(1, 1);
    all.extend(rig.update());
    assert_eq!(rectangles(&all).len(), 100);
}

#[test]
fn a_format_counts_from_the_next_update_on() {
    let mut rig = Rig::running();
    let mut format = vec![0, 0, 0, 0];
    let eight = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0];
    format.extend(eight);
    rig.picture.resize(640, 64);
    rig.canvas.refresh(&mut rig.picture.screen());
    rig.client.admit(rig.canvas.size(), "");
    rig.output();
    rig.request(false);
    rig.client.offer(&rig.canvas);
    rig.client.fill(&rig.canvas);
    let mut first = rig.output();
    rig.say(&format).unwrap();
    first.extend(rig.update());
    assert_eq!(rectangles(&first).len(), 10);
    rig.request(false);
    assert_eq!(rig.update().len(), 4 + 10 * (12 + 64 * 64));
}

#[test]
fn keys_and_pointer_reach_the_guest_and_are_let_go_in_the_end() {
    let mut rig = Rig::running();
    rig.encodings(&[-258]);
    // Clients change their minds about the rest.
    rig.encodings(&[0, -258]);
    rig.request(true);
    let update = rig.update();
    assert_eq!(update[12..16], [0xff, 0xff, 0xfe, 0xfe], "{update:?}");
    let key = |down: u8, keysym: u8| [4, down, 0, 0, 0, 0, 0, keysym];
    rig.say(&key(1, b'a')).unwrap();
    rig.say(&key(1, b'a')).unwrap();
    rig.say(&key(1, 1)).unwrap();
    rig.say(&[255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x1d]).unwrap();
    rig.say(&key(0, b'a')).unwrap();
    rig.say(&key(0, b'a')).unwrap();
    let expected = [Act::Key(30, true), Act::Key(29, true), Act::Key(30, false)];
    assert_eq!(rig.notes.take(), expected);
    rig.say(&[5, 0b1001, 0, 99, 0, 0]).unwrap();
    rig.say(&[5, 0b0001, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let pointer = |y, buttons, wheel| {
        Act::Pointer(Pointer {
            x: Pointer::MAX,
            y,
            buttons,
            wheel,
            horizontal: 0,
        })
    };
    let expected = [pointer(0, 1, 1), pointer(Pointer::MAX, 1, 0)];
    assert_eq!(rig.notes.take(), expected);
    rig.client.leave(&rig.notes);
    let expected = [Act::Key(29, false), pointer(Pointer::MAX, 0, 0)];
    assert_eq!(rig.notes.take(), expected);
}

#[test]
fn a_copied_text_is_dropped() {
    let mut rig = Rig::running();
    let mut bytes = vec![6, 0, 0, 0, 0, 0, 0x10, 0];
    bytes.extend([4; 4096]);
    bytes.extend([4, 1, 0, 0, 0, 0, 0, b'a']);
    rig.say(&bytes).unwrap();
    assert_eq!(rig.notes.take(), [Act::Key(30, true)]);
}

#[test]
fn more_keys_than_fingers_are_not_held() {
    let mut rig = Rig::running();
    for keysym in b'!'..=b'~' {
        rig.say(&[4, 1, 0, 0, 0, 0, 0, keysym]).unwrap();
    }
    assert_eq!(rig.notes.take().len(), MAX_PRESSED);
}
