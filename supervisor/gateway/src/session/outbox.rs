//! What waits to be sent to the client: bounded, in order, and with a limit to the client's leisure. Pure.
//!
//! Answers to calls always find a place, since there are only so many calls in flight. What can wait at its
//! origin is not taken while more than [`ROOM`] bytes are here; of that, events and what a console says not while
//! there is half as much, so that no console keeps a client's further calls out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

/// Bytes beyond which nothing is taken that can wait elsewhere.
pub(super) const ROOM: usize = 512 << 10;
/// Bytes beyond which the client is given up: more than all answers that can be owed to it.
pub(super) const MOST: usize = 128 << 20;
/// How long a client may take nothing while there is something for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Packets that one system call takes.
const BATCH: usize = 32;

/// Packets that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    packets: VecDeque<Vec<u8>>,
    /// Bytes of the first that are sent.
    sent: usize,
    /// Bytes that are not.
    bytes: usize,
    /// When the client last took something, or there was nothing for it.
    moved: Option<Instant>,
}

impl Outbox {
    /// Puts a packet behind the others.
    pub(super) fn push(&mut self, packet: Vec<u8>, now: Instant) {
        if self.packets.is_empty() {
            self.moved = Some(now);
        }
        self.bytes += packet.len();
        self.packets.push_back(packet);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether there is a place for what can wait elsewhere.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < ROOM
    }

    /// Whether there is a place for events and for what a stream says.
    pub(super) const fn has_room_for_news(&self) -> bool {
        self.bytes < ROOM / 2
    }

    /// Whether the client is owed more than it may be.
    pub(super) const fn is_overfull(&self) -> bool {
        self.bytes > MOST
    }

    /// When the client is given up, if it takes nothing until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let moved = self.moved.filter(|_| !self.is_empty())?;
        Some(moved + PATIENCE)
    }

    /// Sends what there is with `write` until that has no room.
    ///
    /// # Errors
    /// `write`'s own, but for [`io::ErrorKind::WouldBlock`].
    pub(super) fn flush(
        &mut self,
        now: Instant,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.packets.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut count = 0;
            for (slice, packet) in slices.iter_mut().zip(&self.packets) {
                let from = if count == 0 { self.sent } else { 0 };
                *slice = IoSlice::new(packet.get(from..).unwrap_or_default());
                count += 1;
            }
            match write(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.took(length, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn took(&mut self, mut length: usize, now: Instant) {
        self.moved = Some(now);
        self.bytes = self.bytes.saturating_sub(length);
        while let Some(first) = self.packets.front() {
            let left = first.len().saturating_sub(self.sent);
            if length < left {
                self.sent += length;
                return;
            }
            length -= left;
            self.sent = 0;
            self.packets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes a call, until it has so many.
    fn drain(outbox: &mut Outbox, a_call: usize, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        let result = outbox.flush(Instant::now(), |slices| {
            let room = a_call.min(most - taken.len());
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let part = all.get(..room.min(all.len())).unwrap();
            taken.extend_from_slice(part);
            Ok(part.len())
        });
        result.unwrap();
        taken
    }

    #[test]
    fn bytes_leave_in_order_however_few_are_taken_at_a_time() {
        for a_call in 1..20 {
            let mut outbox = Outbox::default();
            let packets = [&b"first"[..], b"the second", b"3"];
            for packet in packets {
                outbox.push(packet.to_vec(), Instant::now());
            }
            let begun = drain(&mut outbox, a_call, 7);
            let rest = drain(&mut outbox, a_call, 1000);
            assert_eq!([begun, rest].concat(), packets.concat());
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn there_is_no_room_until_the_client_has_taken_enough() {
        let mut outbox = Outbox::default();
        outbox.push(vec![0; ROOM], Instant::now());
        assert!(!outbox.has_room());
        drain(&mut outbox, 1, 1);
        assert!(outbox.has_room());
        outbox.push(vec![0; MOST], Instant::now());
        assert!(!outbox.has_room());
        assert!(outbox.is_overfull());
    }

    #[test]
    fn a_client_is_waited_for_from_when_it_last_took_something() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        assert_eq!(outbox.deadline(), None);
        outbox.push(vec![1, 2], start);
        outbox.push(vec![3], start + Duration::from_secs(20));
        assert_eq!(outbox.deadline(), Some(start + PATIENCE));
        let later = start + Duration::from_secs(29);
        let mut once = Some(1);
        let taken = outbox.flush(later, |_| {
            once.take().ok_or(io::ErrorKind::WouldBlock.into())
        });
        taken.unwrap();
        assert_eq!(outbox.deadline(), Some(later + PATIENCE));
        drain(&mut outbox, 10, 10);
        assert_eq!(outbox.deadline(), None);
    }

    #[test]
    fn a_write_that_fails_is_an_error() {
        let mut outbox = Outbox::default();
        outbox.push(vec![1], Instant::now());
        let result = outbox.flush(Instant::now(), |_| Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
