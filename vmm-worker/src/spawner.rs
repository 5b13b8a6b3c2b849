//! The spawner: a thread that keeps the filter a machine is built under, for what is built later.
//!
//! A thread inherits its maker's filter, and filters only tighten: the control thread, whose own is
//! narrow, could make no vCPU thread and no disk's ring any more. So those are made here, on the control
//! thread's word. The spawner reads no guest memory, no message and no image: what it runs is handed to
//! it as code of ours with descriptors that are open already.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

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
    /// Starts it, under the filter of the calling thread.
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
}
