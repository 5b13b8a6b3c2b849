//! Files that an earlier supervisor did not finish, removed when the directory is there in which they were made.
//!
//! A mark names a directory by its path. What is at the path now may be another directory, as the empty one over
//! which a file system is mounted later: that the file is not in there says nothing, and the mark is kept.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::host::{Host, inode};
use crate::store::Unfinished;

/// Removes what can be found of all that was left.
pub(super) fn clean_all(host: &Host) {
    let mut targets: Vec<_> = host
        .leftovers()
        .iter()
        .map(|it| it.of.target.clone())
        .collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        match host.allowed().open_pool(&target) {
            Ok(directory) => clean(host, &target, directory.as_fd()),
            // It is looked for again when a pool with that directory is started or refreshed.
            Err(error) => tracing::warn!(%error, "an unfinished volume is not looked for yet"),
        }
    }
}

/// Removes what was left in one directory, if it is the one in which it was made.
pub(super) fn clean(host: &Host, target: &Path, directory: BorrowedFd<'_>) {
    for mark in host.leftovers() {
        let Unfinished {
            target: of,
            name,
            directory: made_in,
        } = &mark.of;
        if of != target {
            continue;
        }
        if host.is_ended() {
            return;
        }
        let gone = match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {
                tracing::info!(
                    target = %target.display(),
                    name,
                    "removed a volume that an earlier supervisor did not finish"
                );
                true
            }
            Err(Errno::NOENT) => made_in.is_none() || inode(directory) == *made_in,
            Err(errno) => {
                tracing::warn!(%errno, name, "an unfinished volume cannot be removed yet");
                false
            }
        };
        if gone {
            host.forget_leftover(&mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use reeve_ipc::model::UNFINISHED_PREFIX;

    use super::*;
    use crate::pool::tests::Stage;

    #[test]
    fn a_mark_outlives_a_directory_that_is_not_the_one_in_which_the_file_was_made() {
        let stage = Stage::new();
        let target = stage.directory("images");
        let open = || OwnedFd::from(std::fs::File::open(&target).unwrap());
        let name = format!("{UNFINISHED_PREFIX}1");
        let of = Unfinished {
            target: target.clone(),
            name: name.clone(),
            directory: inode(open().as_fd()),
        };
        stage.host.store.unfinished(of).unwrap();
        std::fs::write(target.join(&name), "half").unwrap();
        let aside = stage.directory("x").with_file_name("aside");
        std::fs::rename(&target, &aside).unwrap();
        std::fs::create_dir(&target).unwrap();
        let left = stage.reload();
        assert_eq!(left.len(), 1);
        stage.host.left(left);
        // The file system is not mounted.
        clean_all(&stage.host);
        clean(&stage.host, &target, open().as_fd());
        assert_eq!(stage.reload().len(), 1, "it is still looked for");
        std::fs::remove_dir(&target).unwrap();
        std::fs::rename(&aside, &target).unwrap();
        clean(&stage.host, &target, open().as_fd());
        assert!(!target.join(&name).exists());
        assert!(stage.reload().is_empty() && stage.host.leftovers().is_empty());
        // A file that is gone from its own directory is looked for no more.
        let of = Unfinished {
            target: target.clone(),
            name,
            directory: inode(open().as_fd()),
        };
        stage.host.store.unfinished(of).unwrap();
        stage.host.left(stage.reload());
        clean_all(&stage.host);
        assert!(stage.reload().is_empty());
    }
}
