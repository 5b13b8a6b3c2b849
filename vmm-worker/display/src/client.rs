//! One client: what it is at, what it has seen, and what is to be sent to it. It has no socket.
//!
//! ```text
//!  version ─► security type ─► answer ─► shared? ─► running: requests ─► one update at a time
//!       └──────────── one wrong thing: it is told why, and closed ───────────┘
//! ```
//! An update says first how many rectangles it has; they are encoded when there is room for them, so that what waits for
//! a client that is slow is 64 KiB and one rectangle, and is what is to be seen then, not what was.

use std::collections::VecDeque;
use std::time::Instant;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::auth::{Attempts, CHALLENGE_BYTES, Security};
use crate::canvas::{Area, Canvas, tiles};
use crate::encoding::{Encoder, append_header};
use crate::message::{
    self, Encodings, MAX_BYTES, Message, ProtocolError, Stage, Version, number, parse,
};
use crate::pixel::PixelFormat;
use crate::{InputSink, Pointer, Size, keys};

/// No further rectangle is encoded while so much waits.
const HIGH_WATER: usize = 64 << 10;

/// Security types and results (7.1.2, 7.1.3).
const SECURITY_NONE: u8 = 1;
const SECURITY_VNC: u8 = 2;
const RESULT_OK: u32 = 0;
const RESULT_FAILED: u32 = 1;
const GREETING: &[u8; 12] = b"RFB 003.008\n";
const FRAMEBUFFER_UPDATE: u8 = 0;

/// Buttons of a pointer that are buttons; the others are the wheel's.
const BUTTONS: u8 = 0b111;

/// What a client is served with.
#[derive(Debug)]
pub struct Service<'a> {
    /// What it has to show.
    pub security: &'a Security,
    /// Who counts wrong passwords.
    pub attempts: &'a mut Attempts,
    /// Where its keys and its pointer go.
    pub input: &'a dyn InputSink,
    /// The time.
    pub now: Instant,
}

/// What whoever serves it has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It may come in, and wants to: [`Client::admit`].
    Entering {
        /// Others may stay.
        shared: bool,
    },
    /// It waits for something to see.
    Waiting {
        /// Even for what it has seen already.
        at_once: bool,
    },
    /// Somebody has done something.
    Input,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// It does not speak the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A security type that it may not choose.
    #[error("a client chooses security type {0}, which was not offered")]
    Security(u8),
    /// No challenge can be made.
    #[error("the kernel gives no random bytes")]
    Random,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    stage: Stage,
    version: Version,
    challenge: [u8; CHALLENGE_BYTES],
    input: Vec<u8>,
    /// Bytes of a text to be dropped.
    discard: u32,
    output: Vec<u8>,
    /// How much of it is on its way.
    sent: usize,
    /// Nothing more is taken, and it is closed when all has been sent.
    closing: bool,
    running: bool,
    format: PixelFormat,
    /// From the next update on.
    next_format: PixelFormat,
    encodings: Encodings,
    /// It is to be told that its extended keys are understood.
    tell_extended: bool,
    /// The picture's size as it knows it.
    size: Size,
    /// The size of what it was last sent a part of.
    canvas_size: Size,
    /// For each tile of `size`, when what was sent of it had changed.
    seen: Vec<u64>,
    request: Option<Area>,
    /// Tiles of an update that has begun.
    update: VecDeque<(usize, Area)>,
    encoder: Encoder,
    pixels: Vec<u32>,
    pointer: u8,
    position: (u16, u16),
    /// Keys that are down, by their number.
    pressed: Vec<u16>,
}

/// More keys than anybody has fingers, of one client.
const MAX_PRESSED: usize = 32;

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// One that has just connected.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Version,
            version: Version::V3,
            challenge: [0; CHALLENGE_BYTES],
            input: Vec::new(),
            discard: 0,
            output: GREETING.to_vec(),
            sent: 0,
            closing: false,
            running: false,
            format: PixelFormat::OFFERED,
            next_format: PixelFormat::OFFERED,
            encodings: Encodings::default(),
            tell_extended: false,
            size: Size::BLANK,
            canvas_size: Size::BLANK,
            seen: Vec::new(),
            request: None,
            update: VecDeque::new(),
            encoder: Encoder::new(),
            pixels: Vec::new(),
            pointer: 0,
            position: (0, 0),
            pressed: Vec::new(),
        }
    }

    /// Whether it is past all questions.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether it is to be closed now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closing && self.output().is_empty()
    }

    /// How many bytes may be given to [`take`](Self::take).
    #[must_use]
    pub fn room(&self) -> usize {
        if self.closing {
            return 0;
        }
        MAX_BYTES.saturating_sub(self.input.len())
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// Whether there is something to send, or will be when there is room for it.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output().is_empty() || !self.update.is_empty()
    }

    /// So much of it was.
    pub fn note_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        if self.sent >= self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Takes what it has sent, at most [`room`](Self::room) bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    /// Does what the next messages say, until whoever serves it has to know something or there is none.
    ///
    /// # Errors
    /// [`Ending`]: the connection is to be closed.
    pub fn next_event(&mut self, service: &mut Service<'_>) -> Result<Option<Event>, Ending> {
        loop {
            let waiting = u32::try_from(self.input.len()).unwrap_or(u32::MAX);
            let dropped = self.discard.min(waiting);
            self.discard -= dropped;
            self.input.drain(..usize::try_from(dropped).unwrap_or(0));
            if self.closing {
                self.input.clear();
                return Ok(None);
            }
            let Some((message, len)) = parse(self.stage, &self.input)? else {
                return Ok(None);
            };
            self.input.drain(..len);
            if let Some(event) = self.obey(message, service)? {
                return Ok(Some(event));
            }
        }
    }

    fn obey(
        &mut self,
        message: Message,
        service: &mut Service<'_>,
    ) -> Result<Option<Event>, Ending> {
        match message {
            Message::Version(version) => {
                self.version = version;
                self.offer_security(service)?;
            }
            Message::Security(kind) => self.begin(kind, service.security)?,
            Message::Response(response) => self.check(&response, service),
            Message::Init { shared } => return Ok(Some(Event::Entering { shared })),
            Message::SetPixelFormat(format) => {
                self.next_format = format;
                if self.update.is_empty() {
                    self.format = format;
                }
            }
            Message::SetEncodings(encodings) => {
                let new = encodings.extended_keys && !self.encodings.extended_keys;
                self.tell_extended = encodings.extended_keys && (new || self.tell_extended);
                self.encodings = encodings;
            }
            Message::UpdateRequest { incremental, area } => {
                return Ok(Some(self.note_request(incremental, area)));
            }
            Message::Key {
                pressed,
                keysym,
                scan_code,
            } => {
                if let Some(code) = keys::key(keysym, scan_code) {
                    self.note_key(code, pressed, service.input);
                    return Ok(Some(Event::Input));
                }
            }
            Message::Pointer { buttons, x, y } => {
                self.note_pointer(buttons, x, y, service.input);
                return Ok(Some(Event::Input));
            }
            Message::CutText(len) => self.discard = len,
        }
        Ok(None)
    }

    fn offer_security(&mut self, service: &mut Service<'_>) -> Result<(), Ending> {
        let kind = match service.security {
            Security::None => SECURITY_NONE,
            Security::Password(_) => SECURITY_VNC,
        };
        let oldest = self.version == Version::V3;
        if kind == SECURITY_VNC && !service.attempts.may_try(service.now) {
            match oldest {
                true => self.output.extend(0_u32.to_be_bytes()),
                false => self.output.push(0),
            }
            self.append_text("too many wrong passwords: try again later");
            self.closing = true;
        } else if oldest {
            self.output.extend(u32::from(kind).to_be_bytes());
            self.begin(kind, service.security)?;
        } else {
            self.output.extend([1, kind]);
            self.stage = Stage::Security;
        }
        Ok(())
    }

    /// Begins what the security type wants.
    fn begin(&mut self, kind: u8, security: &Security) -> Result<(), Ending> {
        match (kind, security) {
            (SECURITY_NONE, Security::None) => {
                if self.version == Version::V8 {
                    self.output.extend(RESULT_OK.to_be_bytes());
                }
                self.stage = Stage::Init;
            }
            (SECURITY_VNC, Security::Password(_)) => {
                let got = getrandom(&mut self.challenge, GetRandomFlags::empty());
                if got != Ok(CHALLENGE_BYTES) {
                    return Err(Ending::Random);
                }
                self.output.extend(self.challenge);
                self.stage = Stage::Response;
            }
            _ => return Err(Ending::Security(kind)),
        }
        Ok(())
    }

    fn check(&mut self, response: &[u8; CHALLENGE_BYTES], service: &mut Service<'_>) {
        // Asked again: others may have guessed since it was offered.
        let may = service.attempts.may_try(service.now);
        let right = match service.security {
            Security::Password(password) => password.accepts(&self.challenge, response),
            Security::None => false,
        };
        if may && right {
            self.output.extend(RESULT_OK.to_be_bytes());
            self.stage = Stage::Init;
            return;
        }
        if !right {
            service.attempts.note_wrong(service.now);
            tracing::info!("a VNC client had a wrong password");
        }
        self.output.extend(RESULT_FAILED.to_be_bytes());
        if self.version == Version::V8 {
            self.append_text("the password is wrong");
        }
        self.closing = true;
    }

    fn append_text(&mut self, text: &str) {
        let len = u32::try_from(text.len()).unwrap_or(0);
        self.output.extend(len.to_be_bytes());
        self.output.extend(text.as_bytes());
    }

    /// Lets it in: it is told the picture's size and what it is of, printable text of at most some hundred bytes.
    pub fn admit(&mut self, size: Size, name: &str) {
        self.resize(size);
        self.canvas_size = size;
        for field in [size.width, size.height] {
            self.output.extend(field.to_be_bytes());
        }
        self.output.extend(PixelFormat::OFFERED.wire());
        self.append_text(name);
        self.stage = Stage::Running;
        self.running = true;
    }

    /// It knows the picture's size as this one now, and has seen none of it.
    fn resize(&mut self, size: Size) {
        self.size = size;
        self.seen = vec![0; tiles(size).count()];
    }

    fn note_request(&mut self, incremental: bool, area: Area) -> Event {
        if !incremental {
            for (seen, tile) in self.seen.iter_mut().zip(tiles(self.size)) {
                if tile.meets(&area) {
                    *seen = 0;
                }
            }
            // What of an update has been sent is wanted again, too: it comes with the next.
        }
        let wanted = match self.request {
            Some(before) => around(&before, &area),
            None => area,
        };
        self.request = Some(wanted);
        Event::Waiting {
            at_once: !incremental,
        }
    }

    fn note_key(&mut self, code: u16, pressed: bool, input: &dyn InputSink) {
        let place = self.pressed.iter().position(|held| *held == code);
        match (pressed, place) {
            // The guest repeats by itself.
            (true, Some(_)) | (false, None) => return,
            (true, None) if self.pressed.len() == MAX_PRESSED => return,
            (true, None) => self.pressed.push(code),
            (false, Some(place)) => {
                self.pressed.swap_remove(place);
            }
        }
        input.key(code, pressed);
    }

    fn note_pointer(&mut self, buttons: u8, x: u16, y: u16, input: &dyn InputSink) {
        let scale = |place: u16, length: u16| {
            let last = u32::from(length.saturating_sub(1)).max(1);
            let place = u32::from(place).min(last);
            u16::try_from(place * u32::from(Pointer::MAX) / last).unwrap_or(Pointer::MAX)
        };
        self.position = (scale(x, self.size.width), scale(y, self.size.height));
        let new = buttons & !self.pointer;
        let step = |forth: u8, back: u8| {
            let is = |bit: u8| i8::from(new >> bit & 1 != 0);
            is(forth) - is(back)
        };
        let (wheel, horizontal) = (step(3, 4), step(6, 5));
        self.pointer = buttons;
        input.pointer(Pointer {
            x: self.position.0,
            y: self.position.1,
            buttons: buttons & BUTTONS,
            wheel,
            horizontal,
        });
    }

    /// It is gone: what it holds down goes up.
    pub fn leave(&mut self, input: &dyn InputSink) {
        for code in self.pressed.drain(..) {
            input.key(code, false);
        }
        if self.pointer & BUTTONS != 0 {
            let (x, y) = self.position;
            input.pointer(Pointer {
                x,
                y,
                ..Pointer::default()
            });
        }
    }

    /// Whether it waits for something new, and has taken all that was sent before.
    #[must_use]
    pub fn wants(&self) -> bool {
        self.running && !self.closing && self.request.is_some() && !self.has_output()
    }

    /// Begins an update with what it has not seen of `canvas`, if it wants one and there is anything.
    pub fn offer(&mut self, canvas: &Canvas) {
        let Some(area) = self.request.filter(|_| self.wants()) else {
            return;
        };
        if canvas.size() != self.canvas_size {
            self.canvas_size = canvas.size();
            self.seen.fill(0);
        }
        if self.encodings.desktop_size && canvas.size() != self.size {
            let whole = canvas.size();
            self.begin_update(1);
            self.append_pseudo(whole, number::DESKTOP_SIZE);
            self.resize(whole);
            self.request = None;
            return;
        }
        let unseen = tiles(self.size).zip(&self.seen).enumerate();
        let unseen = unseen.filter_map(|(number, (tile, seen))| {
            let new = *seen < canvas.changed(tile.x, tile.y);
            (new && tile.meets(&area)).then_some((number, tile))
        });
        self.update.extend(unseen);
        let told = std::mem::take(&mut self.tell_extended);
        let count = self.update.len() + usize::from(told);
        if count == 0 {
            return;
        }
        self.begin_update(u16::try_from(count).unwrap_or(u16::MAX));
        if told {
            self.append_pseudo(self.size, number::EXTENDED_KEY);
        }
        self.format = self.next_format;
        self.request = None;
    }

    /// A picture of [`Size::MAX`] in both directions has 4096 tiles.
    fn begin_update(&mut self, rectangles: u16) {
        self.output.extend([FRAMEBUFFER_UPDATE, 0]);
        self.output.extend(rectangles.to_be_bytes());
    }

    fn append_pseudo(&mut self, size: Size, encoding: i32) {
        let area = Area {
            x: 0,
            y: 0,
            width: size.width,
            height: size.height,
        };
        append_header(&area, encoding, &mut self.output);
    }

    /// Encodes rectangles of its update, as long as there is room.
    pub fn fill(&mut self, canvas: &Canvas) {
        while self.output().len() < HIGH_WATER {
            let Some((number, area)) = self.update.pop_front() else {
                break;
            };
            canvas.copy(&area, &mut self.pixels);
            let encoding: message::Encoding = self.encodings.rectangles;
            let (format, pixels) = (&self.format, &self.pixels);
            self.encoder
                .append(encoding, format, &area, pixels, &mut self.output);
            if let Some(seen) = self.seen.get_mut(number) {
                *seen = canvas.changed(area.x, area.y);
            }
            if self.update.is_empty() {
                self.format = self.next_format;
            }
        }
        // What was sent is dropped only when all was: not while it is much.
        if self.sent > HIGH_WATER {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// The least area with both in it.
fn around(one: &Area, other: &Area) -> Area {
    let span = |start: u16, length: u16, other: u16, other_length: u16| {
        let end = u32::from(start) + u32::from(length);
        let other_end = u32::from(other) + u32::from(other_length);
        let first = start.min(other);
        let length = end.max(other_end) - u32::from(first);
        (first, u16::try_from(length).unwrap_or(u16::MAX))
    };
    let (x, width) = span(one.x, one.width, other.x, other.width);
    let (y, height) = span(one.y, one.height, other.y, other.height);
    Area {
        x,
        y,
        width,
        height,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
