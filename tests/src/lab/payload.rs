//! The disk with what changes at every build: the test binary itself and the products it drives.
//! Made once per set of binaries and shared by all tests that use them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::{Cache, Key};
use super::image;
use crate::reeve::bin_directory;

/// The products that go along when they have been built.
const PRODUCTS: &[&str] = &[
    "reeve",
    "reeve-worker",
    "reeved",
    "reeve-gateway",
    "reeve-test-frames",
];
/// The test binary's name on the payload disk.
pub const TEST: &str = "test";
/// What nobody asked for within these times is deleted: old builds, and what is kept per kernel
/// and QEMU.
const UNUSED: [(&str, Duration); 7] = [
    ("payload-", Duration::from_secs(60 * 60)),
    ("state-", Duration::from_secs(7 * 24 * 60 * 60)),
    ("assets-", Duration::from_secs(7 * 24 * 60 * 60)),
    ("guests-", Duration::from_secs(7 * 24 * 60 * 60)),
    ("debian-", Duration::from_secs(7 * 24 * 60 * 60)),
    ("clients-", Duration::from_secs(7 * 24 * 60 * 60)),
    ("tools-", Duration::from_secs(7 * 24 * 60 * 60)),
];

/// The image with this process's own binary and the products. `extra` is a directory whose files
/// go along, for trying things by hand.
pub fn image(cache: &Cache, extra: Option<&Path>) -> Result<PathBuf> {
    let mut files = vec![(TEST.to_owned(), std::env::current_exe()?)];
    let products = bin_directory()?;
    files.extend(
        PRODUCTS
            .iter()
            .map(|&name| (name.to_owned(), products.join(name)))
            .filter(|(_, path)| path.exists()),
    );
    for entry in extra
        .map(std::fs::read_dir)
        .transpose()?
        .into_iter()
        .flatten()
    {
        let entry = entry?;
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    let key = files
        .iter()
        .try_fold(Key::default(), |key, (_, path)| key.with_file(path))?;
    let entry = cache.entry(&format!("payload-{}", key.digits()), |directory| {
        for (prefix, age) in UNUSED {
            cache.retire(prefix, age)?;
        }
        let tree = directory.join("tree");
        std::fs::create_dir(&tree)?;
        for (name, path) in &files {
            place(path, &tree.join(name))?;
        }
        image::build(&tree, &directory.join("image"))?;
        std::fs::remove_dir_all(&tree)?;
        Ok(())
    })?;
    Ok(entry.join("image"))
}

/// A hard link where that works: mke2fs does not follow symbolic ones.
fn place(from: &Path, to: &Path) -> Result<()> {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}
