//! The spawner: a thread whose filter is wide enough for the threads that are made once the machine stands.
//!
//! A thread inherits its maker's filter, and filters only tighten: the control thread, whose own is
//! narrow, could make no vCPU thread and no disk's any more. So those are made here, on the control
//! thread's word. The spawner reads no guest memory and no message: what it runs is handed to it as code of
//! ours with descriptors that are open already.
//!
//! Whoever has taken another thread over can have this one run what he likes, so its filter is closed as
//! well, when the machine has been built: no VM and no ring of io_uring is made after that.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use reeve_sandbox::seccomp::{Role, enter_role};

/// Starting threads and building a device's rings takes little; untouched pages cost nothing.
const STACK_BYTES: usize = 256 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// The control thread's handle on it. Ends it when dropped.
pub struct Spawner {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// The spawner has ended, which only the end of the process brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spawner thread has ended")]
pub struct SpawnerGone;

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
        })
    }

    /// Runs `last` there, the last thing that needs the filter it was started under, and closes its own.
    /// Jobs that come later find that done. Does not wait.
    ///
    /// # Errors
    /// [`SpawnerGone`].
    pub fn close(&self, last: impl FnOnce() + Send + 'static) -> Result<(), SpawnerGone> {
        let job: Job = Box::new(move || {
            last();
            crate::failure::or_exit(
                enter_role(Role::Spawner),
                "cannot close the filter of the spawner",
            );
            #[cfg(feature = "attack-points")]
            crate::attack::strike(Role::Spawner);
        });
        let jobs = self.jobs.as_ref().ok_or(SpawnerGone)?;
        jobs.send(job).map_err(|_| SpawnerGone)
    }

    /// Runs `job` there and waits for what it gives.
    ///
    /// # Errors
    /// [`SpawnerGone`].
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SpawnerGone> {
        let (give, take) = sync_channel(1);
        let job: Job = Box::new(move || {
            // Whoever asked waits for it, and takes one.
            let _ = give.send(job());
        });
        let jobs = self.jobs.as_ref().ok_or(SpawnerGone)?;
        jobs.send(job).map_err(|_| SpawnerGone)?;
        take.recv().map_err(|_| SpawnerGone)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // Its wait ends with the last sender.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
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

    #[test]
    fn jobs_run_on_one_other_thread_and_give_their_results_back() {
        let spawner = Spawner::start().expect("a thread");
        let there = || std::thread::current().name().map(str::to_owned);
        assert_eq!(spawner.run(there), Ok(Some("spawner".to_owned())));
        assert_eq!(spawner.run(|| 6 * 7), Ok(42));
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
