//! Reeve beside libvirtd, command by command of the real client: see `reeve_tests::conformance`.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_tests::conformance::{self, List};
use reeve_tests::leftovers::Snapshot;

/// The kernel ends what was in libvirtd's namespace, on its own time.
const SOON: Duration = Duration::from_secs(10);

/// Neither libvirtd nor a QEMU of its, nor a directory of theirs.
fn nothing_is_left(before: &Snapshot) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let mut left = before.new_since();
        // Other tests' are theirs.
        left.retain(|thing| thing.contains(conformance::DIRECTORIES));
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_difference_from_libvirtd_is_listed() -> Result<()> {
    let list = List::read()?;
    let before = Snapshot::take();
    let comparison = conformance::run(&list)?;
    nothing_is_left(&before)?;
    // For `make conformance`, which shows it.
    if let Some(path) = std::env::var_os("REEVE_CONFORMANCE_DIFFERENCES") {
        std::fs::write(path, &comparison.differences)?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", comparison.markdown)?;
    let problems = &comparison.problems;
    ensure!(
        problems.is_empty(),
        "{} not as listed:\n\n{}",
        problems.len(),
        problems.join("\n")
    );
    // The table of some files is not the document.
    if std::env::var_os("REEVE_CONFORMANCE_ONLY").is_some() {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/libvirt-conformance.md");
    if std::env::var_os("REEVE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &comparison.markdown)?;
    }
    ensure!(
        std::fs::read_to_string(&path).unwrap_or_default() == comparison.markdown,
        "{} is not what the list says: REEVE_WRITE_DOCS=1 make conformance",
        path.display()
    );
    Ok(())
}
