//! A machine's picture for people: a server of VNC (RFB 3.3, 3.7 and 3.8; RFC 6143) and screenshots.
//!
//! ```text
//!  Screen ──► canvas: a copy, and when each tile last changed ──► clients: what each has not seen yet ──► sockets
//!    ▲                                                                │
//!  video memory                              keys, pointer ──► InputSink ──► the guest's input devices
//! ```
//! [`server::Server`] is one thread's: it accepts on a listening socket that somebody else made, opens nothing, and
//! never waits for one client. What a stranger sends is taken apart in [`message`] alone.
//!
//! A crate of its own, as it knows neither devices nor the hypervisor, and nobody else needs what it is built on: it is
//! attacked by whoever reaches the socket, and is fuzzed and tested without a machine.
//!
//! # Bounds
//! At most [`server::MAX_CLIENTS`] connections. A client has a buffer for one message, one for what it has not taken yet
//! (some 100 KiB), the state of its compressor (some 300 KiB) and a number for each tile. The canvas is shared, at most
//! 64 MiB for the largest picture there may be, and gone with the last client. The screen is looked at only while
//! somebody waits for a change, at most 30 times a second and more seldom while nothing changes. Passwords that are
//! wrong are counted over all clients.
//!
//! # Decisions
//! 1. (2026-12) Our own server: `rustvncserver` (2.2) and Oxide's `rfb` (0.1) are the only ones that are kept, and both
//!    bring an asynchronous runtime into a thread whose filter knows every system call; the first has one author and
//!    encoders by the dozen, the other two encodings. What is needed here is some hundred lines of states.
//! 2. (2026-12) Encodings: raw and ZRLE, which every client of the last twenty years has. No Tight: half of it is JPEG.
//! 3. (2026-12) Changes are found by comparing with what was seen last: there is no other way to know them that costs
//!    the guest nothing, as KVM's log of dirty pages would have it fault on each page again.
//! 4. (2026-12) Security types: none and VNC's own password, which protects from nobody who can listen. TLS (VeNCrypt)
//!    comes later.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used)
)]

pub mod auth;
pub mod canvas;
pub mod client;
mod encoding;
pub mod keys;
pub mod message;
pub mod pixel;
pub mod screenshot;
pub mod server;

use std::fmt::Debug;

/// The size of a picture in pixels, each at least 1 and at most [`Size::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    width: u16,
    height: u16,
}

impl Size {
    /// The most pixels and the most lines.
    pub const MAX: u16 = 4096;
    /// What is shown, in black, while there is no picture.
    pub const BLANK: Self = Self {
        width: 640,
        height: 480,
    };

    /// That size, if it is one.
    #[must_use]
    pub fn new(width: u16, height: u16) -> Option<Self> {
        let one = 1..=Self::MAX;
        (one.contains(&width) && one.contains(&height)).then_some(Self { width, height })
    }

    /// Pixels of a line.
    #[must_use]
    pub fn width(self) -> u16 {
        self.width
    }

    /// Lines.
    #[must_use]
    pub fn height(self) -> u16 {
        self.height
    }
}

/// What there is to see. Its content changes at any time.
pub trait Screen: Send {
    /// Looks anew: the size of the picture, if there is one, by which lines are read until this is called again.
    fn look(&mut self) -> Option<Size>;

    /// Fills `pixels`, as long as the picture is wide, with that line, as 0x00RRGGBB.
    fn read_line(&mut self, line: u16, pixels: &mut [u32]);
}

/// Where the pointer is, and what of it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pointer {
    /// From the left, 0 to [`Pointer::MAX`].
    pub x: u16,
    /// From the top, 0 to [`Pointer::MAX`].
    pub y: u16,
    /// Buttons that are down: bit 0 is the left one, 1 the middle one, 2 the right one.
    pub buttons: u8,
    /// Steps of the wheel, upwards positive.
    pub wheel: i8,
    /// The same, to the right positive.
    pub horizontal: i8,
}

impl Pointer {
    /// The right and the lower edge.
    pub const MAX: u16 = 0x7fff;
}

/// Where people's input goes. Called on the server's thread, and does not wait.
pub trait InputSink: Debug + Send + Sync {
    /// A key, by its number in Linux' evdev, goes down or up.
    fn key(&self, code: u16, pressed: bool);

    /// The pointer.
    fn pointer(&self, pointer: Pointer);
}

/// Takes input and does nothing with it.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoInput;

impl InputSink for NoInput {
    fn key(&self, _code: u16, _pressed: bool) {}

    fn pointer(&self, _pointer: Pointer) {}
}

#[cfg(test)]
mod testing;
