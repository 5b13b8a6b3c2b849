//! The spawner: a thread whose filter is wide enough for the threads that are made once the machine stands.
//!
//! A thread inherits its maker's filter, and filters only tighten: the control thread, whose own is
//! narrow, could make no vCPU thread and no disk's any more. So those are made here, on the control
//! thread's word. The spawner reads no guest memory and no message: what it runs is handed to it as code of
//! ours with descriptors that are open already.
//!
//! Whoever has taken another thread over can have this one run what he likes, so its filter is closed as
//! well, when the machine has been built: no VM and no ring of io_uring is made after that.
//!
//! What reads a disk may be held up by its storage for as long as that likes. The control thread leaves
//! such a job behind after a while ([`Spawner::run_within`]) and answers its supervisor; until the job has
//! ended, and what it made is gone again, nothing else is made.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use reeve_devices::shared::lock;
use reeve_sandbox::seccomp::{Role, enter_role};

/// Starting threads and building a device's rings takes little; untouched pages cost nothing.
const STACK_BYTES: usize = 256 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// The control thread's handle on it. Ends it when dropped.
pub struct Spawner {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What a job has that nobody waits for any more, until it has ended.
    left_behind: Mutex<Weak<()>>,
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// Why a job was not done, or not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnerError {
    /// It has ended, which only the end of the process brings about.
    #[error("the spawner thread has ended")]
    Gone,
    /// The job has not ended in time. What it makes yet is dropped.
    #[error("its storage has not answered for {} s", .0.as_secs())]
    Slow(Duration),
    /// A job that was left behind has not ended; this one was not begun.
    #[error("the storage of a device that was to come before does not answer yet; try again later")]
    Busy,
}

impl Spawner {
    /// Starts it, under the filter of the calling thread until [`close`](Self::close).
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("spawner".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&waiting))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            left_behind: Mutex::default(),
        })
    }

    /// Runs `last` there, the last thing that needs the filter it was started under, and closes its own.
    /// Jobs that come later find that done. Does not wait.
    ///
    /// # Errors
    /// [`SpawnerError`].
    pub fn close(&self, last: impl FnOnce() + Send + 'static) -> Result<(), SpawnerError> {
        self.send(Box::new(move || {
            last();
            crate::failure::or_exit(
                enter_role(Role::Spawner),
                "cannot close the filter of the spawner",
            );
            #[cfg(feature = "attack-points")]
            crate::attack::strike(Role::Spawner);
        }))
    }

    /// That it has no job which was left behind.
    ///
    /// # Errors
    /// [`SpawnerError::Busy`].
    pub fn check_free(&self) -> Result<(), SpawnerError> {
        match lock(&self.left_behind).strong_count() {
            0 => Ok(()),
            _ => Err(SpawnerError::Busy),
        }
    }

    /// Runs `job` there, which waits for nothing outside of the process, and waits for what it gives.
    ///
    /// # Errors
    /// [`SpawnerError::Gone`], [`SpawnerError::Busy`].
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SpawnerError> {
        let (give, take) = sync_channel(1);
        self.send(Box::new(move || {
            // Whoever asked waits for it, and takes one.
            let _ = give.send(job());
        }))?;
        take.recv().map_err(|_| SpawnerError::Gone)
    }

    /// Runs `job` there and waits for what it gives, for `patience` at most. What comes later is dropped,
    /// there.
    ///
    /// # Errors
    /// [`SpawnerError`].
    pub fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SpawnerError> {
        // Without room: a result is given to whoever waits, or stays there.
        let (give, take) = sync_channel(0);
        let token = Arc::new(());
        let left_behind = Arc::downgrade(&token);
        self.send(Box::new(move || {
            let _token = token;
            drop(give.send(job()));
        }))?;
        take.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                *lock(&self.left_behind) = left_behind;
                SpawnerError::Slow(patience)
            }
            RecvTimeoutError::Disconnected => SpawnerError::Gone,
        })
    }

    fn send(&self, job: Job) -> Result<(), SpawnerError> {
        self.check_free()?;
        let jobs = self.jobs.as_ref().ok_or(SpawnerError::Gone)?;
        jobs.send(job).map_err(|_| SpawnerError::Gone)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // Its wait ends with the last sender.
        self.jobs = None;
        // The process ends without waiting for storage that does not answer.
        if let Some(thread) = self.thread.take().filter(|_| self.check_free().is_ok()) {
            let _ = thread.join();
        }
    }
}

fn serve(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn jobs_run_on_one_other_thread_and_give_their_results_back() {
        let spawner = Spawner::start().expect("a thread");
        let there = || std::thread::current().name().map(str::to_owned);
        assert_eq!(spawner.run(there), Ok(Some("spawner".to_owned())));
        assert_eq!(spawner.run(|| 6 * 7), Ok(42));
        assert_eq!(spawner.run_within(LONG, || 6 * 7), Ok(42));
        assert_eq!(spawner.run(|| 6 * 7), Ok(42));
    }

    /// Told where it is dropped.
    struct Made(SyncSender<Option<String>>);

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = self
                .0
                .send(std::thread::current().name().map(str::to_owned));
        }
    }

    #[test]
    fn a_job_that_storage_holds_up_is_left_behind_and_nothing_of_it_stays() {
        let spawner = Spawner::start().expect("a thread");
        let (answer, storage) = sync_channel::<()>(1);
        let (dropped, seen) = sync_channel(1);
        let patience = Duration::from_millis(50);
        let slow = spawner.run_within(patience, move || {
            let _ = storage.recv();
            Made(dropped)
        });
        assert_eq!(slow.err(), Some(SpawnerError::Slow(patience)));
        // Neither waits for it.
        assert_eq!(spawner.run(|| 6 * 7), Err(SpawnerError::Busy));
        assert_eq!(spawner.run_within(LONG, || 6 * 7), Err(SpawnerError::Busy));
        answer.send(()).expect("it waits");
        assert_eq!(seen.recv_timeout(LONG), Ok(Some("spawner".to_owned())));
        let deadline = std::time::Instant::now() + LONG;
        while spawner.check_free().is_err() {
            assert!(std::time::Instant::now() < deadline, "it stays busy");
            std::thread::yield_now();
        }
        assert_eq!(spawner.run(|| 6 * 7), Ok(42));
    }

    #[test]
    fn an_end_does_not_wait_for_storage() {
        let spawner = Spawner::start().expect("a thread");
        let (_answer, storage) = sync_channel::<()>(1);
        let slow = spawner.run_within(Duration::from_millis(50), move || storage.recv().is_ok());
        assert!(slow.is_err());
        drop(spawner);
    }

    #[test]
    fn a_closed_spawner_makes_threads_that_close_their_own() {
        rustix::thread::set_no_new_privs(true).expect("no new privileges");
        let spawner = Spawner::start().expect("a thread");
        spawner.close(|| {}).expect("it takes jobs");
        for role in [Role::Io, Role::Vcpu] {
            let started = spawner.run(move || {
                let thread = std::thread::Builder::new().name("made".to_owned());
                thread.spawn(move || enter_role(role).is_ok())
            });
            let thread = started.expect("it runs").expect("a thread");
            assert!(thread.join().expect("it ends"), "{role}");
        }
    }
}
