//! Waiting for descriptors: epoll, with a slot and a token where epoll has one number.
//!
//! A device thread owns one [`Reactor`] and gives each worker on it a [`Sources`] of its own, so that
//! a worker's tokens are its own business and what it registers dies with it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
    /// Either.
    Both,
    /// Nothing but that the other end is gone, which is always told.
    Hangup,
    /// Something has come that can be read. Told once, and again when more comes, whether the first was
    /// read meanwhile or not: nobody has to take the signals of an [`Event`](crate::event::Event).
    Arrival,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Self::Hangup => epoll::EventFlags::empty(),
            Self::Arrival => epoll::EventFlags::IN | epoll::EventFlags::ET,
        }
    }
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub slot: u32,
    /// Which of them.
    pub token: u32,
    /// Nobody holds its other end. Told for ever, so that such a descriptor must be removed.
    pub hung_up: bool,
}

/// The most events of one wait.
const BATCH: usize = 32;

/// An epoll instance.
#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    /// One that waits for nothing. Made before the thread's filter closes.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// The sources of `slot`.
    #[must_use]
    pub fn sources(&self, slot: u32) -> Sources<'_> {
        Sources {
            epoll: &self.epoll,
            slot,
        }
    }

    /// Waits until something is ready or `timeout` has passed, and appends what is to `ready`.
    ///
    /// # Errors
    /// The kernel's; not `EINTR`, after which nothing is ready.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> rustix::io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut room = [const { MaybeUninit::uninit() }; BATCH];
        let events = match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        ready.extend(events.iter().map(|event| {
            let data = event.data.u64();
            let flags = event.flags;
            Ready {
                slot: (data >> 32) as u32,
                token: (data & 0xffff_ffff) as u32,
                hung_up: flags.intersects(gone),
            }
        }));
        Ok(())
    }
}

/// Where one worker says what it waits for.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    epoll: &'a OwnedFd,
    slot: u32,
}

impl Sources<'_> {
    fn data(&self, token: u32) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.slot) << 32 | u64::from(token))
    }

    /// Waits for `fd`; told as `token`, for as long as it is so where `interest` does not say once. Closing it ends that.
    ///
    /// # Errors
    /// The kernel's: it is waited for already, cannot be, or there are too many.
    pub fn add(&self, fd: impl AsFd, token: u32, interest: Interest) -> rustix::io::Result<()> {
        epoll::add(self.epoll, fd, self.data(token), interest.flags())
    }

    /// Waits for something else of a descriptor added before.
    ///
    /// # Errors
    /// It was not.
    pub fn modify(&self, fd: impl AsFd, token: u32, interest: Interest) -> rustix::io::Result<()> {
        epoll::modify(self.epoll, fd, self.data(token), interest.flags())
    }

    /// Waits for it no longer.
    ///
    /// # Errors
    /// It was not added.
    pub fn remove(&self, fd: impl AsFd) -> rustix::io::Result<()> {
        epoll::delete(self.epoll, fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn told(reactor: &Reactor) -> Vec<u32> {
        let mut ready = Vec::new();
        reactor
            .wait(Some(Duration::ZERO), &mut ready)
            .expect("epoll works");
        ready.iter().map(|ready| ready.token).collect()
    }

    #[test]
    fn an_arrival_is_told_once_and_the_next_one_whether_it_was_taken_or_not() {
        let reactor = Reactor::new().expect("an epoll instance");
        let (event, lasting) = (Event::new().expect("an event"), Event::new().expect("one"));
        event.signal();
        let sources = reactor.sources(1);
        sources
            .add(&event, 7, Interest::Arrival)
            .expect("can be waited for");
        assert_eq!(told(&reactor), [7], "what came before it was waited for");
        assert!(told(&reactor).is_empty());
        event.signal();
        event.signal();
        assert_eq!(told(&reactor), [7]);
        assert!(told(&reactor).is_empty());
        sources
            .add(&lasting, 8, Interest::Read)
            .expect("can be waited for");
        lasting.signal();
        assert_eq!((told(&reactor), told(&reactor)), (vec![8], vec![8]));
        // Asked for anew, it is told of what is there.
        sources
            .modify(&event, 7, Interest::Arrival)
            .expect("was added");
        lasting.take();
        assert_eq!(told(&reactor), [7]);
    }
}
