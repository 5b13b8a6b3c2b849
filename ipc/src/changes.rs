//! How often what the supervisor shows has changed: one number, on a page of its own that it shares with its
//! gateways, which can read it and nothing else.
//!
//! ```text
//!   supervisor                                             reeve-gateway
//!   ──────────                                             ─────────────
//!   shows another state of a domain, raises the number
//!   answers, and tells of it        ──────────────────────►  a client hears of it, and asks again:
//!                                                            the number is another, so the supervisor is asked
//! ```
//!
//! An answer that was asked for after the number was read stands for as long as the number does: a gateway gives it
//! again without waking the supervisor, and nobody who heard of a change is ever given what was before it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The page's size in bytes.
const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The number, for the one process that raises it.
#[derive(Debug)]
pub struct ChangeCount {
    page: Page,
    file: OwnedFd,
}

impl ChangeCount {
    /// None yet. Whoever else is given [`Self::file`] can read the number, and neither write it nor take the page
    /// away.
    ///
    /// # Errors
    /// There is no memory for it, or the kernel is older than Linux 5.1.
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("changes", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, PAGE.get() as u64)?;
        let page = Page::map(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        // The mapping that is there can be written still.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self { page, file })
    }

    /// What is shown is another from now on; called once it is, and before anybody is told.
    pub fn raise(&self) {
        self.page.number().fetch_add(1, Ordering::Release);
    }

    /// For [`Changes::of`] in another process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The number, for whoever reads it.
#[derive(Debug)]
pub struct Changes {
    page: Page,
}

impl Changes {
    /// The number of a [`ChangeCount`], whose file that is; the file is not needed any more.
    ///
    /// # Errors
    /// It is no such file.
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let page = Page::map(file, ProtFlags::READ)?;
        Ok(Self { page })
    }

    /// The number now. It never falls.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.page.number().load(Ordering::Acquire)
    }
}

/// A mapping of the page.
#[derive(Debug)]
struct Page(NonNull<u64>);

impl Page {
    #[expect(unsafe_code, reason = "maps a descriptor")]
    fn map(file: BorrowedFd<'_>, access: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice, which disturbs no other.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE.get(),
                access,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        NonNull::new(mapped.cast())
            .map(Self)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Written only where the page was mapped to be written: [`Changes`] loads.
    #[expect(unsafe_code, reason = "the number is in memory shared with others")]
    fn number(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as `self`, its begin is aligned, and its file is sealed against
        // shrinking; every access to the number, in any process, is by an atomic of this size, and loads from memory
        // that cannot be written are sound at that size.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr()) }
    }
}

impl Drop for Page {
    #[expect(unsafe_code, reason = "ends its own mapping")]
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody borrows it any more.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), PAGE.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

#[expect(
    unsafe_code,
    reason = "a pointer to shared memory, accessed atomically"
)]
// SAFETY: the mapping is the process', and only accessed through an atomic.
unsafe impl Send for Page {}
#[expect(
    unsafe_code,
    reason = "a pointer to shared memory, accessed atomically"
)]
// SAFETY: as above.
unsafe impl Sync for Page {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_whoever_has_the_page() {
        let count = ChangeCount::new().unwrap();
        let changes = Changes::of(count.file()).unwrap();
        let before = changes.number();
        count.raise();
        assert_eq!(changes.number(), before + 1);
    }

    #[test]
    fn whoever_was_given_the_page_can_only_read_it() {
        let count = ChangeCount::new().unwrap();
        let given = count.file().try_clone_to_owned().unwrap();
        let writable = Page::map(given.as_fd(), ProtFlags::READ | ProtFlags::WRITE);
        assert!(writable.is_err());
        assert!(rustix::io::pwrite(&given, b"other", 0).is_err());
        assert!(ftruncate(&given, 0).is_err());
        assert!(fcntl_add_seals(&given, SealFlags::WRITE).is_err());
        let mut changes = Changes::of(given.as_fd()).unwrap();
        let mapped = changes.page.0.as_ptr().cast();
        #[expect(unsafe_code, reason = "tries what must fail")]
        // SAFETY: a mapping of the test's own, of exactly that size.
        let made_writable = unsafe {
            rustix::mm::mprotect(
                mapped,
                PAGE.get(),
                rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
            )
        };
        assert!(made_writable.is_err());
        changes = Changes::of(count.file()).unwrap();
        assert_eq!(changes.number(), 0);
    }
}
