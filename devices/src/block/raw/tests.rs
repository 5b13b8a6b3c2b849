//! Raw disks over files.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;

fn disk(size: u64) -> (File, Raw) {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(size).expect("a size");
    let other = file.try_clone().expect("a descriptor");
    let raw = Raw::new(other.into(), false, Direct::none()).expect("a disk");
    (file, raw)
}

#[test]
fn a_size_is_of_whole_sectors() {
    for (bytes, size) in [
        (0, 0),
        (1, 512),
        (512, 512),
        (513, 1024),
        (1 << 20, 1 << 20),
    ] {
        assert_eq!(disk(bytes).1.size(), size);
    }
}

#[test]
fn every_byte_is_where_it_is() {
    let (_, mut raw) = disk(1 << 20);
    let extent = Extent::Data {
        file: 0,
        offset: 1024,
        len: 5120,
    };
    assert_eq!(raw.map_read(1024, 5120).expect("there"), extent);
    assert_eq!(raw.map_write(1024, 5120).expect("there"), extent);
    assert!(raw.file(0).is_some());
    assert!(raw.file(1).is_none());
}

#[test]
fn zeroing_keeps_the_room_unless_it_may_be_given_back() {
    let (file, mut raw) = disk(1 << 20);
    for unmap in [false, true] {
        file.write_all_at(&[5; 1 << 20], 0).expect("written");
        file.sync_all().expect("allocated");
        let before = file.metadata().expect("there").blocks();
        raw.write_zeroes(4096, 512 << 10, unmap).expect("zeroed");
        let mut bytes = vec![1; 1 << 20];
        file.read_exact_at(&mut bytes, 0).expect("there");
        assert!(
            bytes[4096..4096 + (512 << 10)]
                .iter()
                .all(|byte| *byte == 0)
        );
        assert!(bytes[..4096].iter().all(|byte| *byte == 5));
        assert!(bytes[4096 + (512 << 10)..].iter().all(|byte| *byte == 5));
        let after = file.metadata().expect("there").blocks();
        assert_eq!(after < before, unmap, "{before} to {after} blocks");
    }
}

#[test]
fn zeroing_and_discarding_wait_while_a_block_is_read_and_written_back() {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&[5; 8192], 0).expect("written");
    let direct = Direct::new(512, 4096).expect("an alignment");
    let raw = Raw::new(
        file.try_clone().expect("a descriptor").into(),
        false,
        direct.clone(),
    )
    .expect("a disk");
    let byte = |at| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("there");
        byte[0]
    };
    for (at, zeroing) in [(512, true), (2048, false)] {
        let mut other = raw.try_clone().expect("a descriptor");
        let turn = direct.take_turn();
        assert!(turn.is_some());
        let thread = std::thread::spawn(move || {
            if zeroing {
                other.write_zeroes(at, 512, true).expect("zeroed");
            } else {
                other.discard(at, 512).expect("discarded");
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(byte(at), 5, "the block may be on its way back");
        drop(turn);
        thread.join().expect("it went on");
        assert_eq!(byte(at), 0);
    }
    assert!(Direct::none().take_turn().is_none());
}

#[test]
fn storage_that_cannot_zero_is_sent_zeroes() {
    // Files here all know how to zero, so that what is done without is called by itself.
    let (file, mut raw) = disk(1 << 20);
    file.write_all_at(&[5; 1 << 20], 0).expect("written");
    raw.zeroes
        .write_zeroes(raw.file.as_fd(), 1000, 300_000)
        .expect("zeroed");
    let mut bytes = vec![1; 1 << 20];
    file.read_exact_at(&mut bytes, 0).expect("there");
    assert!(bytes[1000..301_000].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[999], 5);
    assert_eq!(bytes[301_000], 5);
}

#[test]
fn a_read_only_disk_takes_no_change() {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(4096).expect("a size");
    let mut raw = Raw::new(file.into(), true, Direct::none()).expect("a disk");
    for result in [
        raw.map_write(0, 512).map(|_| ()),
        raw.discard(0, 512),
        raw.write_zeroes(0, 512, false),
    ] {
        let error = result.expect_err("read-only");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
    raw.flush().expect("nothing to flush");
}

#[test]
fn a_disk_grows_when_its_file_did() {
    let (file, mut raw) = disk(4096);
    file.set_len(8192).expect("grown");
    let looked_at = SizeChange {
        to: None,
        shrink: false,
    };
    raw.resize(looked_at).expect("grown");
    assert_eq!(raw.size(), 8192);
    assert_eq!(raw.try_clone().expect("a clone").size(), 8192);
    file.set_len(4096).expect("shrunk");
    raw.resize(looked_at).expect_err("half of it is gone");
    assert_eq!(raw.size(), 8192);
}

#[test]
fn a_file_is_made_longer_and_shorter_with_its_disk() {
    let (file, mut raw) = disk(4096);
    raw.resize(SizeChange::grow(8192)).expect("grown");
    assert_eq!(file.metadata().expect("there").len(), 8192);
    // What somebody else added to it is not the disk's to cut off.
    file.set_len(16_384).expect("grown");
    raw.resize(SizeChange::grow(12_288))
        .expect_err("it has more");
    let cut = SizeChange {
        to: Some(2048),
        shrink: true,
    };
    raw.resize(cut).expect("shrunk");
    assert_eq!(raw.size(), 2048);
    assert_eq!(file.metadata().expect("there").len(), 2048);
}

#[test]
fn a_file_of_a_disk_that_is_only_read_keeps_its_length() {
    let (file, _) = disk(4096);
    let mut raw = Raw::new(
        file.try_clone().expect("a descriptor").into(),
        true,
        Direct::none(),
    )
    .expect("a disk");
    let error = raw.resize(SizeChange::grow(8192)).expect_err("read-only");
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    raw.limit(512).expect_err("read-only");
    assert_eq!(
        (raw.size(), file.metadata().expect("there").len()),
        (4096, 4096)
    );
}
