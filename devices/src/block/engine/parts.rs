//! Parts: the transfers that requests are cut up into, each until its last byte.

use std::io;
use std::sync::atomic::Ordering;

use super::{Engine, Transport, inconsistent};

/// How often a part is tried again that the kernel asks to try again.
const RETRIES: u8 = 8;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) request: u16,
    pub(super) work: Work,
    pub(super) file: usize,
    pub(super) offset: u64,
    /// Bytes of the request before it.
    pub(super) skip: u64,
    pub(super) len: u64,
    pub(super) retries: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Work {
    #[default]
    Read,
    Write,
    Sync,
}

/// Whether the kernel only wants to be asked again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

impl Engine {
    /// Begins a part, and does it too as far as that needs no waiting.
    pub(super) fn begin_part(&mut self, index: u16, part: Part) {
        if let Some(place) = self.parts.get_mut(usize::from(index)) {
            *place = part;
        }
        self.drive(index);
    }

    pub(super) fn drive(&mut self, index: u16) {
        while let Some(result) = self.try_part(index) {
            if self.note(index, result) {
                return;
            }
        }
    }

    /// A part of which the kernel has done something: goes on with it, unless that was all.
    pub(super) fn settle(&mut self, index: u16, result: io::Result<u64>) {
        if !self.note(index, result) {
            self.drive(index);
        }
    }

    /// Takes what the kernel has done; false if that was nothing.
    pub(super) fn settle_all(&mut self) -> bool {
        let mut any = false;
        while let Some((index, result)) = match &mut self.transport {
            Transport::Uring(ring) => ring.reap(),
            Transport::Blocking(_) => None,
        } {
            self.settle(index, result);
            any = true;
        }
        any
    }

    /// Has what is left of a part moved: the result, or `None` if it will come.
    pub(super) fn try_part(&mut self, index: u16) -> Option<io::Result<u64>> {
        let Part {
            request,
            work,
            file,
            offset,
            skip,
            len,
            ..
        } = *self.parts.get(usize::from(index))?;
        let (Some(fd), Some(guest), Some(request)) = (
            self.layout.0.file(file),
            &self.guest,
            self.requests.get(usize::from(request)),
        ) else {
            return Some(Err(inconsistent()));
        };
        let (ram, run, write) = (&guest.ram, request.run(skip, len), work == Work::Write);
        if work != Work::Sync && !self.bounce.direct().allows(ram, run, offset) {
            return Some(if write {
                self.bounce.write(fd, ram, run, offset)
            } else {
                self.bounce.read(fd, ram, run, offset)
            });
        }
        match &mut self.transport {
            Transport::Blocking(_) if work == Work::Sync => Some(Err(inconsistent())),
            Transport::Blocking(blocking) => Some(blocking.transfer(write, fd, ram, run, offset)),
            Transport::Uring(ring) => match work {
                Work::Sync => ring.sync(index, fd),
                Work::Read | Work::Write => ring.transfer(index, write, fd, run, offset),
            }
            .err()
            .map(Err),
        }
    }

    /// Notes what became of a part's last attempt; true if it is at its end.
    pub(super) fn note(&mut self, index: u16, result: io::Result<u64>) -> bool {
        let Some(part) = self.parts.get_mut(usize::from(index)) else {
            return true;
        };
        let (request, work) = (part.request, part.work);
        let outcome = match (work, result) {
            (_, Err(error)) if is_passing(&error) && part.retries < RETRIES => {
                part.retries += 1;
                return false;
            }
            (_, Err(error)) => Err(error),
            (Work::Sync, Ok(_)) => Ok(()),
            (Work::Write, Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            (Work::Write, Ok(moved)) if moved >= part.len => Ok(()),
            (Work::Read | Work::Write, Ok(moved)) => {
                let moved = moved.min(part.len);
                let (skip, len) = (part.skip, part.len);
                part.skip += moved;
                part.offset += moved;
                part.len -= moved;
                let place = self.requests.get(usize::from(request));
                if let (Work::Read, Some(guest), Some(request)) = (work, &self.guest, place) {
                    request.run(skip, moved).mark_written(&guest.ram);
                    // Behind the end of the file.
                    if moved == 0 {
                        request.run(skip, len).zero(&guest.ram);
                    }
                }
                if moved > 0 && moved < len {
                    return false;
                }
                Ok(())
            }
        };
        if let (Work::Sync, Err(error)) = (work, &outcome) {
            self.note_failed_sync(error);
        }
        self.free_parts.push(index);
        if let Some(request) = self.requests.get_mut(usize::from(request)) {
            request.parts = request.parts.saturating_sub(1);
        }
        if let Err(error) = outcome {
            self.fail(request, error);
        }
        self.advance(request, false);
        true
    }

    /// Making a plain file durable has failed.
    pub(super) fn note_failed_sync(&self, error: &io::Error) {
        // One that was not begun has lost nothing.
        if !self.cache.is_direct() && !is_passing(error) {
            self.common.flush_failed.store(true, Ordering::Relaxed);
        }
    }
}
