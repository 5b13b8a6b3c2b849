//! A file system that does not answer.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::model::{BootSource, KernelBoot};
use reeved::domain::driver::StartFailureKind;
use reeved::domain::plan::{ImageAccess, PathError, PathPolicy};
use reeved::domain::worker::KvmDriver;
use reeved::host::worker_binary::WorkerBinary;
use reeved::host::{Host, sockets};

use super::{Place, driver, worker_binary};

/// A file system that takes its time.
#[derive(Debug)]
struct Slow(Duration);

impl PathPolicy for Slow {
    fn open_read(&self, _: &str, _: &Path) -> Result<OwnedFd, PathError> {
        std::thread::sleep(self.0);
        Err(PathError::Forbidden("it took its time".to_owned()))
    }

    fn open_image(&self, what: &str, path: &Path, _: ImageAccess) -> Result<OwnedFd, PathError> {
        self.open_read(what, path)
    }

    fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        self.open_read(what, path)
    }

    fn place(&self, what: &str, path: &Path) -> Result<sockets::Place, PathError> {
        self.open_read(what, path).map(|directory| sockets::Place {
            directory,
            name: OsString::new(),
        })
    }
}

#[tokio::test]
async fn a_file_system_that_does_not_answer_holds_up_nobody_else() {
    let host = Host::with_worker(WorkerBinary::at(&worker_binary()).unwrap()).unwrap();
    let slow = KvmDriver::new(Arc::new(host), Arc::new(Slow(Duration::from_secs(8))));
    let mut place = Place::new("mode=hold");
    place.domain.boot = BootSource::Kernel(KernelBoot {
        kernel: "/kernel".into(),
        initrd: None,
        command_line: String::new(),
    });
    let begin = Instant::now();
    let mut start = std::pin::pin!(place.start(&slow));
    // Both on this thread: the second is done while the first waits.
    let other = Place::new("mode=hold");
    let quick = driver();
    tokio::select! {
        failed = &mut start => panic!("{failed:?}"),
        running = other.start(&quick) => {
            assert!(begin.elapsed() < Duration::from_secs(7));
            running.unwrap().instance.kill();
        }
    }
    let failure = start.await.unwrap_err();
    assert_eq!(failure.kind, StartFailureKind::Path);
    assert!(failure.message.ends_with("it took its time"), "{failure}");
}
