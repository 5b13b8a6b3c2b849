//! A small file system in memory, of a test's own: the tests that need one run as root.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

#[expect(
    unsafe_code,
    reason = "rustix leaves it to the caller what becomes of its descriptors"
)]
fn own_mounts() {
    // SAFETY: only mounts are unshared, no descriptors: none becomes another thread's.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .expect("these tests run as root");
}

/// Runs `test` on a thread that has mounts of its own, with a small file system in memory on `at`.
pub(crate) fn on_small_disk(at: &Path, size: &str, test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            own_mounts();
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )
            .unwrap();
            fs::create_dir_all(at).unwrap();
            let options = std::ffi::CString::new(format!("size={size},mode=700")).unwrap();
            mount(
                "tmpfs",
                at,
                "tmpfs",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .unwrap();
            test();
        });
        thread.join().unwrap();
    });
}
