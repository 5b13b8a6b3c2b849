//! The disk with what changes at every build: the test binary itself and the products it drives.
//! Made once per set of binaries and shared by all tests that use them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::{Cache, Key};
use super::image;
use crate::reeve::bin_directory;

/// The products that go along when they have been built.
const PRODUCTS: &[&str] = &["reeve", "reeve-worker", "reeved", "reeve-gateway"];
/// The test binary's name on the payload disk.
pub const TEST: &str = "test";
/// Images of builds that nobody used for this long are deleted.
const UNUSED: Duration = Duration::from_secs(20 * 60);

/// The image for this test binary.
pub fn image(cache: &Cache) -> Result<PathBuf> {
    let mut files = vec![(TEST, std::env::current_exe()?)];
    let products = bin_directory()?;
    files.extend(
        PRODUCTS
            .iter()
            .map(|&name| (name, products.join(name)))
            .filter(|(_, path)| path.exists()),
    );
    let key = files
        .iter()
        .try_fold(Key::default(), |key, (_, path)| key.with_file(path))?;
    cache.retire("payload-", UNUSED)?;
    let entry = cache.entry(&format!("payload-{}", key.digits()), |directory| {
        let tree = directory.join("tree");
        std::fs::create_dir(&tree)?;
        for (name, path) in &files {
            place(path, &tree.join(name))?;
        }
        image::build(&tree, &directory.join("image"))?;
        std::fs::remove_dir_all(&tree)?;
        Ok(())
    })?;
    Cache::touch(&entry)?;
    Ok(entry.join("image"))
}

/// A hard link where that works: mke2fs does not follow symbolic ones.
fn place(from: &Path, to: &Path) -> Result<()> {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}
