//! Frames between a descriptor and guest memory: one `readv` or `writev`, without a copy in between.
//!
//! Short frames are better copied and moved in one piece ([`SHORT_FRAME`]), which is done elsewhere and without
//! what is here: the kernel takes longer over a list of addresses than a processor over a few cache lines.
//!
//! The kernel accesses guest memory as any user memory, while the guest may be changing it; no Rust
//! reference to it is made. That, and the arrays of addresses, are all the unsafe code there is.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// The most bytes of a frame that is copied: four cache lines.
pub(super) const SHORT_FRAME: usize = 256;

/// The most entries of one call (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;

/// Addresses and lengths for one call. On the stack, and not initialised beyond what is used: most
/// frames need few of them.
struct Vectors<'a> {
    entries: [MaybeUninit<libc::iovec>; MAX_VECTORS],
    used: usize,
    bytes: usize,
    memory: std::marker::PhantomData<&'a mut [u8]>,
}

impl<'a> Vectors<'a> {
    fn new() -> Self {
        Self {
            entries: [const { MaybeUninit::uninit() }; MAX_VECTORS],
            used: 0,
            bytes: 0,
            memory: std::marker::PhantomData,
        }
    }

    /// False if there is no entry left.
    fn push(&mut self, address: *mut u8, len: usize) -> bool {
        let Some(entry) = self.entries.get_mut(self.used) else {
            return false;
        };
        entry.write(libc::iovec {
            iov_base: address.cast(),
            iov_len: len,
        });
        self.used += 1;
        self.bytes += len;
        true
    }

    fn push_guest(&mut self, slice: &VolatileSlice<'a, ()>) -> bool {
        self.push(slice.ptr_guard_mut().as_ptr(), slice.len())
    }

    fn address(&self) -> *const libc::iovec {
        self.entries.as_ptr().cast()
    }

    fn count(&self) -> libc::c_int {
        // At most MAX_VECTORS.
        libc::c_int::try_from(self.used).unwrap_or(0)
    }
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes in all.
    pub(super) bytes: usize,
    /// Room there was in guest memory; bytes beyond the head and this are in the spill.
    pub(super) room: usize,
}

/// Reads one frame: first into `head`, then into `guest` as far as one call can, then into `spill`.
///
/// # Errors
/// The kernel's, `WouldBlock` among them.
pub(super) fn read<'a>(
    fd: BorrowedFd<'_>,
    head: &'a mut [u8],
    guest: impl Iterator<Item = VolatileSlice<'a, ()>>,
    spill: &'a mut [u8],
) -> io::Result<Received> {
    let head_len = head.len();
    let mut vectors = Vectors::<'a>::new();
    vectors.push(head.as_mut_ptr(), head_len);
    for slice in guest {
        if vectors.used + 1 == MAX_VECTORS {
            break;
        }
        vectors.push_guest(&slice);
    }
    let room = vectors.bytes - head_len;
    vectors.push(spill.as_mut_ptr(), spill.len());
    let bytes = retry(|| {
        #[expect(unsafe_code, reason = "the kernel writes guest memory")]
        // SAFETY: the first `count` entries are initialised. Each names memory that may be written for
        // 'a: `head` and `spill` are borrowed mutably, and a volatile slice is memory mapped for 'a
        // to which no reference exists.
        unsafe {
            libc::readv(fd.as_raw_fd(), vectors.address(), vectors.count())
        }
    })?;
    Ok(Received { bytes, room })
}

/// Writes one frame: `head`, then what is in `guest`.
///
/// # Errors
/// The kernel's, `WouldBlock` among them; `InvalidInput` for more pieces than one call takes.
pub(super) fn write<'a>(
    fd: BorrowedFd<'_>,
    head: &'a [u8],
    guest: impl Iterator<Item = VolatileSlice<'a, ()>>,
) -> io::Result<usize> {
    let mut vectors = Vectors::<'a>::new();
    // Only ever read from: `writev` takes the same type of entry.
    vectors.push(head.as_ptr().cast_mut(), head.len());
    for slice in guest {
        if !vectors.push_guest(&slice) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    retry(|| {
        #[expect(unsafe_code, reason = "the kernel reads guest memory")]
        // SAFETY: the first `count` entries are initialised. Each names memory that may be read for
        // 'a, and `writev` does not write to it.
        unsafe {
            libc::writev(fd.as_raw_fd(), vectors.address(), vectors.count())
        }
    })
}

fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        if let Ok(bytes) = usize::try_from(call()) {
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::memory::testing::ram;
    use crate::virtio::chain::{Span, slices};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a socket pair")
    }

    #[test]
    fn a_frame_goes_from_pieces_of_guest_memory_into_others_and_what_is_left_into_the_spill() {
        let (a, b) = pair();
        let ram = ram(0x1000);
        ram.write(0x100, b"abc").expect("in RAM");
        ram.write(0x200, b"defgh").expect("in RAM");
        let from = [(0x100, 3), (0x200, 5)].map(|(address, len)| Span { address, len });
        let sent = write(a.as_fd(), b"HH", slices(&ram, &from, 0, 8)).expect("room");
        assert_eq!(sent, 10);

        let into = [(0x300, 2), (0x400, 3)].map(|(address, len)| Span { address, len });
        let (mut head, mut spill) = ([0; 2], [0; 16]);
        let received =
            read(b.as_fd(), &mut head, slices(&ram, &into, 0, 99), &mut spill).expect("a frame");
        assert_eq!(received, Received { bytes: 10, room: 5 });
        assert_eq!((&head, &spill[..4]), (b"HH", b"fgh\0".as_slice()));
        let mut data = [0; 3];
        ram.read(0x400, &mut data).expect("in RAM");
        assert_eq!(&data, b"cde");
    }

    #[test]
    fn more_pieces_than_one_call_takes_are_refused_for_sending_and_spilled_for_receiving() {
        let (a, b) = pair();
        let ram = ram(0x1000);
        let many = [Span { address: 0, len: 1 }; 1100];
        let refused = write(a.as_fd(), b"H", slices(&ram, &many, 0, 1100)).expect_err("too many");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);

        rustix::io::write(&a, &[7; 1200]).expect("room");
        let (mut head, mut spill) = ([0; 1], [0; 1200]);
        let received = read(
            b.as_fd(),
            &mut head,
            slices(&ram, &many, 0, 1100),
            &mut spill,
        );
        let received = received.expect("a frame");
        assert_eq!(
            received,
            Received {
                bytes: 1200,
                room: MAX_VECTORS - 2
            }
        );
        let spilled = 1200 - 1 - received.room;
        assert!(spill[..spilled].iter().all(|byte| *byte == 7) && spill[spilled] == 0);
    }

    #[test]
    fn nothing_to_read_is_no_error_of_another_kind() {
        let (_a, b) = pair();
        let (mut head, mut spill) = ([0; 1], [0; 1]);
        let error = read(b.as_fd(), &mut head, std::iter::empty(), &mut spill).expect_err("empty");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
