//! Stacks for the child and its helpers, which run in the supervisor's memory for a moment.
//!
//! The helpers may outlive [`super::spawn`]'s return by some hundred microseconds, so their stacks
//! must stay mapped until the kernel says that they are gone: it clears [`Shared::helper_tids`] then
//! (`CLONE_CHILD_CLEARTID`). Stacks are kept for the next spawn and never unmapped.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// One makes the network namespace, one the empty root.
pub(super) const HELPERS: usize = 2;

const PAGE: usize = 4096;
const CHILD: usize = 16 * PAGE;
const HELPER: usize = 8 * PAGE;
/// Distance of the helpers' stacks, each with a guard below.
const STEP: usize = PAGE + HELPER;
/// (guard | helper's stack) for each | guard | child's stack | what all of them and the parent share
const TOTAL: usize = HELPERS * STEP + PAGE + CHILD + PAGE;

/// Words that the parent, the child and the helpers exchange. 1 in a tid: not yet gone.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// 0 once the child has executed its program or died (`CLONE_CHILD_CLEARTID`).
    pub(super) child_tid: AtomicU32,
    /// 0 once the helper has died, or when none was started (`CLONE_CHILD_CLEARTID`).
    pub(super) helper_tids: [AtomicU32; HELPERS],
    /// 1 once the identity is mapped.
    pub(super) mapped: AtomicU32,
    /// 1 once all steps but the last are done: a death from here on is the program's.
    pub(super) executing: AtomicU32,
    /// 1 + the step that failed in the child, 0 for none.
    pub(super) failed: AtomicU32,
    /// Its error number.
    pub(super) errno: AtomicI32,
}

impl Shared {
    /// As before a clone; the child counts as running.
    pub(super) fn reset(&self) {
        self.child_tid.store(1, Ordering::Relaxed);
        for word in [&self.mapped, &self.executing, &self.failed] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The stacks of one spawn, with their shared page.
#[derive(Debug)]
pub(super) struct Stacks(NonNull<u8>);

#[expect(
    unsafe_code,
    reason = "states that the mapping may move between threads"
)]
// SAFETY: the mapping belongs to this value alone (and, while they run, to its child and helpers);
// it is not tied to a thread.
unsafe impl Send for Stacks {}

static IDLE: Mutex<Vec<Stacks>> = Mutex::new(Vec::new());

impl Stacks {
    /// Stacks that nobody runs on.
    pub(super) fn take() -> Result<Self, Errno> {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |tid: &AtomicU32| tid.load(Ordering::Acquire) == 0;
        let free = idle
            .iter()
            .position(|stacks| stacks.shared().helper_tids.iter().all(gone));
        match free {
            Some(index) => Ok(idle.swap_remove(index)),
            None => Self::map(),
        }
    }

    /// Gives them back. The child must be gone from its stack; helpers may still run.
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
        for guard in [0, STEP, HELPERS * STEP] {
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
        (self.at(HELPERS * STEP + PAGE).addr() as u64, CHILD as u64)
    }

    /// The helpers' stacks: lowest address and size of each.
    pub(super) fn helpers(&self) -> [(u64, u64); HELPERS] {
        [0, 1].map(|index| (self.at(index * STEP + PAGE).addr() as u64, HELPER as u64))
    }

    /// The words shared with the child and the helpers.
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
