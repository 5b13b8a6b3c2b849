//! Those who were told which blocks are plugged and reach memory by that, and not by
//! [`GuestRam`](super::GuestRam): the host's kernel, where it serves queues. They are told anew at each change,
//! by whoever makes it, before a block that goes is taken away and after one that comes is there.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use crate::shared::lock;

/// One of them.
pub(crate) trait Follower: Debug + Send + Sync {
    /// Has it go by what is plugged now. When this returns it accesses nothing by what it was told before.
    ///
    /// Called on any thread, which holds no lock of a device.
    ///
    /// # Errors
    /// It goes by what it was told before.
    fn follow(&self) -> io::Result<()>;
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<Vec<Weak<dyn Follower>>>);

impl Followers {
    /// Adds one, which is told of nothing that was plugged before.
    pub(super) fn add(&self, follower: &Arc<dyn Follower>) {
        let mut all = lock(&self.0);
        // No more are kept than there are, and one.
        all.retain(|follower| follower.strong_count() > 0);
        all.push(Arc::downgrade(follower));
    }

    /// Tells each of them, whatever another says.
    ///
    /// # Errors
    /// That of one of them.
    pub(super) fn tell(&self) -> io::Result<()> {
        let all: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let told = all.iter().map(|follower| follower.follow());
        told.fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Counts {
        told: AtomicU32,
        refuses: AtomicBool,
    }

    impl Follower for Counts {
        fn follow(&self) -> io::Result<()> {
            self.told.fetch_add(1, Ordering::Relaxed);
            match self.refuses.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::OutOfMemory.into()),
                false => Ok(()),
            }
        }
    }

    #[test]
    fn each_is_told_whatever_another_says_and_none_that_is_gone() {
        let (first, second) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
        let followers = Followers::default();
        followers.add(&(Arc::clone(&first) as _));
        followers.add(&(Arc::clone(&second) as _));
        followers.tell().expect("nobody refuses");
        first.refuses.store(true, Ordering::Relaxed);
        assert!(followers.tell().is_err());
        let told = [&first, &second].map(|one| one.told.load(Ordering::Relaxed));
        assert_eq!(told, [2, 2]);
        drop(first);
        followers.tell().expect("who refuses is gone");
        for _ in 0..100 {
            followers.add(&(Arc::new(Counts::default()) as _));
        }
        assert!(lock(&followers.0).len() <= 2, "those that are gone");
    }
}
