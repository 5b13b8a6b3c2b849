//! The io_uring of one engine, restricted to what a disk needs.
//!
//! A ring would walk around the thread's system call filter, so it is told which operations it may
//! be asked for (read, write, fsync), then enabled, and can be registered with nothing more. It is
//! made before the filters close, since afterwards none can be made: with the device, or kept in
//! reserve for one that is attached later.
//!
//! Guest memory stays mapped until the kernel is done with it: the ring holds the RAM from the first
//! transfer until nothing is in flight, and dropping a ring waits for that too.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};

use super::reserve::RingReserve;
use super::run::Run;
use super::vectored::{Vectors, file_offset};
use crate::event::Event;
use crate::memory::GuestRam;

/// Transfers in flight on one ring, at most.
pub(super) const DEPTH: u16 = 128;
/// Time until the kernel is asked again, when it had no room for a submission.
const PAUSE: Duration = Duration::from_millis(1);

/// A ring, and what is in flight on it.
pub struct Ring {
    ring: IoUring,
    event: Event,
    ram: Option<GuestRam>,
    /// By transfer: its list of memory, and whether it is in flight.
    transfers: Vec<Transfer>,
    in_flight: usize,
    /// Where it goes when its disk does.
    pub(super) home: Option<Arc<RingReserve>>,
}

#[derive(Debug, Default)]
struct Transfer {
    vectors: Vectors,
    in_flight: bool,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("event", &self.event)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring of its own event, restricted and enabled. About 20 KiB of kernel memory.
    ///
    /// # Errors
    /// The host has io_uring disabled or is too old for restrictions (Linux 5.10): then disks do
    /// without.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_r_disabled()
            .build(DEPTH.into())?;
        // The lists of memory are copied at submission, and completions are never dropped.
        if !ring.params().is_feature_submit_stable() || !ring.params().is_feature_nodrop() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let event = Event::new()?;
        ring.submitter()
            .register_eventfd(event.as_fd().as_raw_fd())?;
        ring.submitter().register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Fsync::CODE),
        ])?;
        ring.submitter().register_enable_rings()?;
        Ok(Self {
            ring,
            event,
            ram: None,
            transfers: (0..DEPTH).map(|_| Transfer::default()).collect(),
            in_flight: 0,
            home: None,
        })
    }

    /// Signalled when transfers have completed.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Serves a guest with this RAM from now on, once all before is done.
    pub(super) fn attach(&mut self, ram: GuestRam) {
        self.drain();
        self.ram = Some(ram);
    }

    /// Forgets the guest, once all is done.
    pub(super) fn detach(&mut self) {
        self.drain();
        self.ram = None;
    }

    /// To where it came from, as new, once all is done; or away.
    pub(super) fn give_back(mut self) {
        let Some(home) = self.home.take() else {
            return;
        };
        self.detach();
        self.transfers.fill_with(Transfer::default);
        self.signal_completions(true);
        self.event.take();
        home.put(self);
    }

    /// Whether the event is signalled for what completes. Off while completions are looked for anyway.
    pub(super) fn signal_completions(&mut self, on: bool) {
        let queue = self.ring.completion();
        if on {
            queue.enable_eventfd();
            // The kernel shows a completion, then looks at this; the caller does the opposite.
            fence(Ordering::SeqCst);
        } else {
            queue.disable_eventfd();
        }
    }

    /// Prepares transfer `index`, to move bytes from or to byte `offset` of `fd`, once. `fd` stays
    /// open and the same until the next [`submit`](Self::submit).
    ///
    /// # Errors
    /// No such offset; that transfer is in flight.
    pub(super) fn transfer(
        &mut self,
        index: u16,
        write: bool,
        fd: BorrowedFd<'_>,
        run: Run<'_>,
        offset: u64,
    ) -> io::Result<()> {
        file_offset(offset)?;
        let (Some(ram), Some(transfer)) = (&self.ram, self.transfers.get_mut(usize::from(index)))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if transfer.in_flight {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let vectors = &mut transfer.vectors;
        vectors.list(ram, run)?;
        let fd = types::Fd(fd.as_raw_fd());
        let (list, len) = (vectors.as_ptr(), vectors.len().into());
        let entry = if write {
            opcode::Writev::new(fd, list, len).offset(offset).build()
        } else {
            opcode::Readv::new(fd, list, len).offset(offset).build()
        };
        self.push(index, entry)
    }

    /// Prepares transfer `index`, to make what was written to `fd` durable. `fd` as for
    /// [`transfer`](Self::transfer).
    ///
    /// # Errors
    /// That transfer is in flight.
    pub(super) fn sync(&mut self, index: u16, fd: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::Fsync::new(types::Fd(fd.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.push(index, entry)
    }

    #[expect(unsafe_code, reason = "the kernel is given lists of guest memory")]
    fn push(&mut self, index: u16, entry: squeue::Entry) -> io::Result<()> {
        let transfer = self
            .transfers
            .get_mut(usize::from(index))
            .filter(|transfer| !transfer.in_flight)
            .ok_or(io::ErrorKind::ResourceBusy)?;
        let entry = entry.user_data(index.into());
        // SAFETY: the list of memory is the transfer's own and stays as it is while `in_flight` is
        // set, that is until its completion is reaped; the memory it names is that of `ram`, which
        // `attach`, `detach` and `drop` let go only when nothing is in flight.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // As many entries as transfers: there is room.
        pushed.map_err(|_| io::ErrorKind::ResourceBusy)?;
        transfer.in_flight = true;
        self.in_flight += 1;
        Ok(())
    }

    /// Hands the kernel what was prepared. False if it has no room now, and should be asked again.
    pub(super) fn submit(&mut self) -> bool {
        if self.ring.submission().is_empty() {
            return true;
        }
        match self.ring.submit() {
            Ok(_) => self.ring.submission().is_empty(),
            Err(error) => {
                if !is_passing(&error) {
                    tracing::error!(%error, "submitting disk transfers failed");
                }
                false
            }
        }
    }

    /// A transfer that has completed since the last call: which, and how many bytes it moved.
    pub(super) fn reap(&mut self) -> Option<(u16, io::Result<u64>)> {
        loop {
            let entry = self.ring.completion().next()?;
            let Ok(index) = u16::try_from(entry.user_data()) else {
                continue;
            };
            let Some(transfer) = self.transfers.get_mut(usize::from(index)) else {
                continue;
            };
            if !std::mem::take(&mut transfer.in_flight) {
                continue;
            }
            self.in_flight -= 1;
            let result = entry.result();
            return Some((
                index,
                u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
            ));
        }
    }

    /// Waits until something has completed, if anything is in flight.
    pub(super) fn wait(&mut self) {
        if self.in_flight == 0 || !self.ring.completion().is_empty() {
            return;
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if !is_passing(&error) {
                    tracing::error!(%error, "waiting for disk transfers failed");
                }
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Waits until nothing is in flight.
    fn drain(&mut self) {
        while self.in_flight > 0 {
            self.wait();
            while self.reap().is_some() {}
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The memory goes with this value.
        self.drain();
    }
}

/// Whether the kernel only wants to be asked again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_does_nothing_but_what_a_disk_needs() {
        let Ok(mut ring) = Ring::new() else {
            return;
        };
        ring.push(0, opcode::Nop::new().build()).expect("room");
        assert!(ring.submit());
        ring.wait();
        let (index, result) = ring.reap().expect("a completion");
        assert_eq!(index, 0);
        assert_eq!(
            result.expect_err("not allowed").raw_os_error(),
            Some(libc::EACCES)
        );
        let refused = ring.ring.submitter().register_files_sparse(1);
        assert_eq!(
            refused.expect_err("not allowed").raw_os_error(),
            Some(libc::EACCES)
        );
    }
}
