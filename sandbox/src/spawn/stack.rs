//! Stacks for the child and its helper, which run in the supervisor's memory for a moment.
//!
//! The helper may outlive [`super::spawn`]'s return by some hundred microseconds, so its stack must
//! stay mapped until the kernel says that it is gone: it clears [`Shared::helper_tid`] then
//! (`CLONE_CHILD_CLEARTID`). Stacks are kept for the next spawn and never unmapped.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 4096;
const CHILD: usize = 16 * PAGE;
const HELPER: usize = 8 * PAGE;
/// guard | helper's stack | guard | child's stack | what both and the parent share
const TOTAL: usize = PAGE + HELPER + PAGE + CHILD + PAGE;

/// Words that the parent, the child and the helper exchange. 1 in a tid: not yet gone.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// 0 once the child has executed its program or died (`CLONE_CHILD_CLEARTID`).
    pub(super) child_tid: AtomicU32,
    /// 0 once the helper has died (`CLONE_CHILD_CLEARTID`).
    pub(super) helper_tid: AtomicU32,
    /// 1 once the identity is mapped.
    pub(super) mapped: AtomicU32,
    /// 1 once all steps but the last are done: a death from here on is the program's.
    pub(super) executing: AtomicU32,
    /// 1 + the step that failed in the child, 0 for none.
    pub(super) failed: AtomicU32,
    /// Its error number.
    pub(super) errno: AtomicU32,
}

/// A pair of stacks with their shared page.
#[derive(Debug)]
pub(super) struct Stacks(NonNull<u8>);

#[expect(
    unsafe_code,
    reason = "states that the mapping may move between threads"
)]
// SAFETY: the mapping belongs to this value alone (and, while one runs, to its child and helper);
// it is not tied to a thread.
unsafe impl Send for Stacks {}

static IDLE: Mutex<Vec<Stacks>> = Mutex::new(Vec::new());

impl Stacks {
    /// Stacks that nobody runs on.
    pub(super) fn take() -> Result<Self, Errno> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let free = idle
            .iter()
            .position(|s| s.shared().helper_tid.load(Ordering::Acquire) == 0);
        match free {
            Some(index) => Ok(idle.swap_remove(index)),
            None => Self::map(),
        }
    }

    /// Gives them back. The child must be gone from its stack; the helper may still run.
    pub(super) fn give_back(self) {
        IDLE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self);
    }

    #[expect(unsafe_code, reason = "maps stacks with guard pages")]
    fn map() -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                TOTAL,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }?;
        for guard in [0, PAGE + HELPER] {
            let at = base.wrapping_byte_add(guard);
            // SAFETY: a page of the mapping just made, which nothing uses yet.
            let guarded = unsafe { mprotect(at, PAGE, MprotectFlags::empty()) };
            if let Err(errno) = guarded {
                // SAFETY: the whole mapping just made, which nothing refers to.
                let _ = unsafe { munmap(base, TOTAL) };
                return Err(errno);
            }
        }
        NonNull::new(base.cast::<u8>())
            .map(Self)
            .ok_or(Errno::NOMEM)
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(offset)
    }

    /// The child's stack: lowest address and size.
    pub(super) fn child(&self) -> (u64, u64) {
        (self.at(2 * PAGE + HELPER).addr() as u64, CHILD as u64)
    }

    /// The helper's stack: lowest address and size.
    pub(super) fn helper(&self) -> (u64, u64) {
        (self.at(PAGE).addr() as u64, HELPER as u64)
    }

    /// The words shared with the child and the helper.
    #[expect(
        unsafe_code,
        reason = "the shared words live at the end of the mapping"
    )]
    pub(super) fn shared(&self) -> &Shared {
        let shared = self.at(TOTAL - PAGE).cast::<c_void>().cast::<Shared>();
        // SAFETY: inside the mapping, page-aligned, zeroed by the kernel (valid for atomics), used
        // as `Shared` only, and mapped for as long as the process lives.
        unsafe { &*shared }
    }
}
