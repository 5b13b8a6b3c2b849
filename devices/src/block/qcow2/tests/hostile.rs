//! Images that lie: no panic, no write over metadata, bounded time and memory.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::random::{perform, work};
use super::support::{
    Dice, Memory, apply, arg, descriptor, make, open, qemu_img, read, read_all, read_only, scratch,
    tight, write,
};
use crate::block::qcow2::create::create_in;
use crate::block::qcow2::image::Found;
use crate::block::qcow2::{
    Compression, CreateOptions, Format, Options, Qcow2, Qcow2Error, compressed, read_header,
};
use crate::block::{Extent, Layout, SizeChange};

const CLUSTER: u64 = 4096;
/// Where things are in [`image`].
const REFCOUNT_TABLE: u64 = CLUSTER;
const REFCOUNT_BLOCK: u64 = 2 * CLUSTER;
const L1: u64 = 3 * CLUSTER;
const L2: u64 = 4 * CLUSTER;

/// A disk of 200 KiB, the first half of which is written.
fn image() -> Vec<u8> {
    let memory = Memory::default();
    let options = CreateOptions {
        size: 200 << 10,
        cluster_bits: 12,
        backing: None,
    };
    create_in(&memory, &options, crate::block::qcow2::Form::default()).unwrap();
    let mut disk = Qcow2::open_storage(memory.clone(), Vec::new(), tight()).unwrap();
    write(&mut disk, 0, &Dice::new(1).bytes(100 << 10)).unwrap();
    disk.write_zeroes(8192, 8192, false).unwrap();
    disk.flush().unwrap();
    memory.bytes()
}

fn changed(at: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = image();
    apply(&mut bytes, &super::support::Op::Write(at, value.to_vec()));
    bytes
}

fn open_bytes(bytes: Vec<u8>, options: Options) -> Result<(Qcow2<Memory>, Memory), Qcow2Error> {
    let memory = Memory::new(bytes);
    Ok((
        Qcow2::open_storage(memory.clone(), Vec::new(), options)?,
        memory,
    ))
}

fn refusal(at: u64, value: &[u8], options: Options) -> String {
    open_bytes(changed(at, value), options)
        .map(drop)
        .unwrap_err()
        .to_string()
}

#[test]
fn an_entry_that_refers_to_metadata_is_never_written_through() {
    const COPIED: u64 = 1 << 63;
    for (target, what) in [
        (L1, "L1 table"),
        (REFCOUNT_TABLE, "refcount table"),
        (REFCOUNT_BLOCK, "refcount block"),
        (L2, "L2 table"),
        (1 << 30, "nothing"),
    ] {
        for flags in [COPIED, 0, COPIED | 1, 1] {
            let bytes = changed(L2, &(target | flags).to_be_bytes());
            for operation in 0..3 {
                let (mut disk, memory) = open_bytes(bytes.clone(), Options::default()).unwrap();
                let result = match operation {
                    0 => disk.map_write(0, 512).map(drop),
                    1 => disk.discard(0, CLUSTER),
                    _ => disk.write_zeroes(0, CLUSTER, true),
                };
                assert_eq!(
                    result.unwrap_err().kind(),
                    std::io::ErrorKind::InvalidData,
                    "{what} {flags:#x} {operation}"
                );
                let after = memory.bytes();
                assert_eq!(after[79], 2, "not marked corrupt: {what}");
                assert!(
                    after[CLUSTER as usize..] == bytes[CLUSTER as usize..],
                    "{what}"
                );
                assert!(disk.map_write(64 << 10, 512).is_err(), "still written");
                assert!(disk.flush().is_err());
                read(&mut disk, 32 << 10, 32 << 10).unwrap();
                let error = open_bytes(after, Options::default()).unwrap_err();
                assert!(matches!(error, Qcow2Error::Corrupt));
            }
        }
    }
    // Offset 0 is no offset, so the header can only be named by a compressed cluster.
    let (mut disk, _) = open_bytes(changed(L2, &(1_u64 << 62).to_be_bytes()), tight()).unwrap();
    assert!(disk.map_write(0, CLUSTER).is_err());
}

#[test]
fn metadata_that_its_refcounts_call_free_is_not_allocated() {
    for (cluster, what) in [(1, "refcount table"), (2, "block"), (3, "L1"), (4, "L2")] {
        let bytes = changed(REFCOUNT_BLOCK + cluster * 2, &[0, 0]);
        let (mut disk, memory) = open_bytes(bytes.clone(), Options::default()).unwrap();
        assert!(disk.map_write(150 << 10, 512).is_err(), "{what}");
        let after = memory.bytes();
        assert!(
            after[CLUSTER as usize..] == bytes[CLUSTER as usize..],
            "{what}"
        );
    }
}

#[test]
fn a_refcount_of_zero_for_what_is_freed_ends_writing() {
    let bytes = changed(REFCOUNT_BLOCK + 5 * 2, &[0, 0]);
    let (mut disk, memory) = open_bytes(bytes, Options::default()).unwrap();
    disk.discard(0, CLUSTER).unwrap();
    assert!(disk.flush().is_err());
    assert!(disk.map_write(0, 512).is_err());
    assert_eq!(memory.state().bytes[79], 2);
}

#[test]
fn tables_that_overlap_are_refused() {
    let l2_at = |offset: u64| (offset | 1 << 63).to_be_bytes();
    let same = "overlap";
    for offset in [L1, REFCOUNT_TABLE, REFCOUNT_BLOCK] {
        assert!(refusal(L1, &l2_at(offset), tight()).contains(same));
        // Only read, such a table is garbage like any other.
        open_bytes(changed(L1, &l2_at(offset)), read_only()).unwrap();
    }
    let table = [REFCOUNT_BLOCK.to_be_bytes(), REFCOUNT_BLOCK.to_be_bytes()].concat();
    assert!(refusal(REFCOUNT_TABLE, &table, tight()).contains(same));
    assert!(refusal(40, &REFCOUNT_TABLE.to_be_bytes(), tight()).contains(same));
    assert!(refusal(48, &L1.to_be_bytes(), tight()).contains(same));
}

#[test]
fn what_cannot_be_read_or_written_is_refused_with_the_reason() {
    for (at, value, options, reason) in [
        (0, &b"QFI\0"[..], read_only(), "no qcow2 magic"),
        (7, &[4], read_only(), "version"),
        (23, &[8], read_only(), "clusters of an impossible size"),
        (23, &[22], read_only(), "clusters of an impossible size"),
        (24, &[0x80], read_only(), "impossible size"),
        (24, &[0x00, 0x01], read_only(), "too short"),
        (35, &[1], read_only(), "encryption"),
        (36, &[0, 0x50, 0, 0], read_only(), "longer than 32 MiB"),
        (36, &[0, 0x10, 0, 0], read_only(), "outside the file"),
        (40, &[0x7f], read_only(), "outside the file"),
        (47, &[1], read_only(), "outside the file"),
        (48, &[0x7f], tight(), "outside the file"),
        (56, &[0, 0, 0, 0], tight(), "impossible length"),
        (56, &[0, 0, 0x40, 0], tight(), "impossible length"),
        (60, &[0, 2, 0, 0], tight(), "snapshots"),
        (63, &[1], tight(), "snapshot table"),
        (79, &[1], tight(), "qemu-img check -r all"),
        (79, &[2], tight(), "qemu-img check -r all"),
        (79, &[4], read_only(), "external data file"),
        (79, &[8], read_only(), "compression type"),
        (79, &[16], read_only(), "extended L2"),
        (
            72,
            &[1],
            read_only(),
            "unknown incompatible features 0x100000000000000",
        ),
        (99, &[7], read_only(), "impossible width"),
        (103, &[100], read_only(), "impossible length"),
        (102, &[0x20], read_only(), "impossible length"),
        (REFCOUNT_TABLE, &[0x7f], tight(), "outside the file"),
        (REFCOUNT_TABLE + 7, &[2], tight(), "outside the file"),
        (L1, &[0x80, 0x7f], tight(), "L2 table is outside"),
    ] {
        let refusal = refusal(at, value, options);
        assert!(refusal.contains(reason), "{at} {value:?}: {refusal}");
    }
    // Dirty and corrupt images are read all the same.
    for bit in [1, 2] {
        open_bytes(changed(79, &[bit]), read_only()).unwrap();
    }
}

#[test]
fn features_that_describe_an_image_as_it_is_are_cleared_by_the_first_write() {
    let (mut disk, memory) = open_bytes(changed(88, &[0xff; 8]), tight()).unwrap();
    read_all(&mut disk);
    assert_eq!(memory.state().bytes[88..96], [0xff; 8]);
    disk.map_write(0, 512).unwrap();
    assert_eq!(memory.state().bytes[88..96], [0; 8]);
}

#[test]
fn a_chain_is_what_the_headers_say() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    qemu_img(&["create", "-q", "-f", "raw", arg(&path("raw")), "1M"]);
    for (name, base) in [("one", "raw"), ("two", "one")] {
        let format = if base == "raw" { "raw" } else { "qcow2" };
        let options = format!("backing_file={},backing_fmt={format}", arg(&path(base)));
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &options,
            arg(&path(name)),
        ]);
    }
    let attempt = |chain: &[(&str, Format)]| {
        let chain = chain
            .iter()
            .map(|(name, format)| (descriptor(&path(name)), *format));
        Qcow2::open(descriptor(&path("two")), chain.collect(), tight())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let (raw, one, two) = (
        ("raw", Format::Raw),
        ("one", Format::Qcow2),
        ("two", Format::Qcow2),
    );
    attempt(&[one, raw]).unwrap();
    // An image may be stated to be raw: then its own backing file is none of anybody's business.
    attempt(&[("one", Format::Raw)]).unwrap();
    assert!(attempt(&[]).unwrap_err().contains("lacks"));
    assert!(attempt(&[one]).unwrap_err().contains("lacks"));
    assert!(attempt(&[one, raw, raw]).unwrap_err().contains("no header"));
    assert!(attempt(&[two]).unwrap_err().contains("twice"));
    assert!(attempt(&[one, one]).unwrap_err().contains("twice"));
    assert!(
        attempt(&[("raw", Format::Qcow2)])
            .unwrap_err()
            .contains("magic")
    );
    assert!(attempt(&[one; 64]).unwrap_err().contains("64"));
}

#[test]
fn broken_compressed_data_is_an_error_of_its_cluster_alone() {
    for compression in ["zlib", "zstd"] {
        let directory = scratch();
        let raw = directory.path().join("raw");
        std::fs::write(&raw, vec![5; 256 << 10]).unwrap();
        let image = directory.path().join("image");
        let options = format!("compression_type={compression}");
        qemu_img(&[
            "convert",
            "-q",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            &options,
            arg(&raw),
            arg(&image),
        ]);
        let mut disk = open(&image, &[], read_only());
        let (Found::Compressed { offset, .. }, _) = disk.top.lookup(0, 512).unwrap() else {
            panic!("not compressed");
        };
        let mut bytes = std::fs::read(&image).unwrap();
        bytes[offset as usize..offset as usize + 8].fill(0xff);
        let (mut disk, _) = open_bytes(bytes, Options::default()).unwrap();
        let error = disk.map_read(0, 512).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(disk.map_write(0, 512).is_err());
        assert_eq!(read(&mut disk, 65536, 512).unwrap(), [5; 512]);
        // Written wholly, it is not needed any more.
        write(&mut disk, 0, &[6; 65536]).unwrap();
        assert_eq!(read(&mut disk, 0, 512).unwrap(), [6; 512]);
    }
}

/// Every byte of a valid frame, changed, is an error or other data, and nothing else.
#[test]
fn compressed_data_with_any_byte_changed_is_an_error_or_other_data() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    let words = [
        "disk ", "image ", "cluster ", "of ", "the ", "a ", "table\n",
    ];
    let mut dice = Dice::new(2);
    let text: String = (0..8000)
        .map(|_| words[dice.below(7) as usize])
        .collect::<String>();
    std::fs::write(&raw, &text.as_bytes()[..32 << 10]).unwrap();
    for (name, compression) in [("zlib", Compression::Zlib), ("zstd", Compression::Zstd)] {
        let image = directory.path().join(name);
        let options = format!("compression_type={name},cluster_size=32768");
        qemu_img(&[
            "convert",
            "-q",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            &options,
            arg(&raw),
            arg(&image),
        ]);
        let mut disk = open(&image, &[], read_only());
        let (Found::Compressed { offset, len, .. }, _) = disk.top.lookup(0, 512).unwrap() else {
            panic!("not compressed");
        };
        let bytes = std::fs::read(&image).unwrap();
        let frame = &bytes[offset as usize..bytes.len().min((offset + len) as usize)];
        let whole = compressed::decompress(compression, frame, 32 << 10).unwrap();
        assert!(*whole == text.as_bytes()[..32 << 10]);
        for _ in 0..400 {
            let mut frame = frame.to_vec();
            for _ in 0..1 + dice.below(3) {
                let at = dice.below(frame.len().min(600) as u64) as usize;
                frame[at] = dice.next() as u8;
            }
            let _ = compressed::decompress(compression, &frame, 32 << 10);
            frame.truncate(dice.below(frame.len() as u64) as usize);
            let _ = compressed::decompress(compression, &frame, 32 << 10);
        }
    }
}

#[test]
fn a_block_that_repeats_itself_beyond_the_cluster_fills_the_cluster_alone() {
    // A frame with a window of 100 MiB and more, and blocks that are one byte 128 Ki times.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff];
    for _ in 0..1000 {
        let header = ((128 << 10) << 3 | 1 << 1) as u32;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(9);
    }
    let cluster = compressed::decompress(Compression::Zstd, &frame, 64 << 10).unwrap();
    assert!(*cluster == [9; 64 << 10]);
}

#[test]
fn a_file_full_of_nothing_free_does_not_hold_up_a_write() {
    // A refcount table of 8 MiB, sparse, behind it blocks that say that nothing is free.
    let directory = scratch();
    let path = directory.path().join("image");
    let mut bytes = changed(56, &(2048_u32).to_be_bytes());
    let table = 1_u64 << 20;
    bytes[48..56].copy_from_slice(&table.to_be_bytes());
    let first_block = table + (8 << 20);
    let blocks = 150_u64;
    bytes.resize(first_block as usize, 0);
    for block in 0..blocks {
        let at = (table + block * 8) as usize;
        bytes[at..at + 8].copy_from_slice(&(first_block + block * CLUSTER).to_be_bytes());
    }
    bytes.resize(bytes.len() + (blocks * CLUSTER) as usize, 1);
    std::fs::write(&path, bytes).unwrap();
    let mut disk = open(&path, &[], Options::default());
    let error = disk.map_write(150 << 10, 512).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    // The search goes on where it ended.
    assert!((0..3).any(|_| disk.map_write(150 << 10, 512).is_ok()));
}

#[test]
fn a_request_that_is_not_on_the_disk_is_an_error() {
    let (mut disk, _) = open_bytes(image(), tight()).unwrap();
    for (offset, len) in [
        (200 << 10, 512),
        (u64::MAX, 512),
        (0, 0),
        (1 << 63, 1 << 63),
    ] {
        assert!(disk.map_read(offset, len).is_err());
        assert!(disk.map_write(offset, len).is_err());
        assert!(disk.discard(offset, len).is_err());
        assert!(disk.write_zeroes(offset, len, true).is_err());
    }
    // One that begins there is cut.
    let Extent::Zero { len } = disk.map_read(199 << 10, u64::MAX).unwrap() else {
        panic!("not zero");
    };
    assert_eq!(len, 1024);
    assert!(disk.resize(SizeChange::grow(u64::MAX)).is_err());
    assert!(disk.resize(SizeChange::grow(1 << 62)).is_err());
    assert_eq!(disk.size(), 200 << 10);
}

#[test]
fn a_file_that_ends_inside_its_last_cluster_is_read_and_written_to_its_end() {
    let made = make(1 << 20, "cluster_size=65536");
    let mut disk = open(&made.path, &[], Options::default());
    write(&mut disk, 0, &[1; 65536]).unwrap();
    disk.close().unwrap();
    drop(disk);
    let end = {
        let mut disk = open(&made.path, &[], read_only());
        let Extent::Data { offset, .. } = disk.map_read(0, 512).unwrap() else {
            panic!("not there");
        };
        offset
    };
    let file = std::fs::File::options()
        .write(true)
        .open(&made.path)
        .unwrap();
    file.set_len(end + 1000).unwrap();
    let mut disk = open(&made.path, &[], Options::default());
    let mut expected = vec![0; 65536];
    expected[..1000].fill(1);
    assert!(read(&mut disk, 0, 65536).unwrap() == expected);
    write(&mut disk, 65536 - 512, &[2; 512]).unwrap();
    expected[65536 - 512..].fill(2);
    assert!(read(&mut disk, 0, 65536).unwrap() == expected);
    disk.close().unwrap();
    qemu_img(&["check", "-q", arg(&made.path)]);
}

#[test]
fn a_cluster_that_nobody_else_uses_is_written_in_place_whatever_its_flag_says() {
    let entry = |number: u64, copied: u64| (copied << 63 | (number * CLUSTER)).to_be_bytes();
    let (mut disk, memory) = open_bytes(changed(L2, &entry(5, 0)), tight()).unwrap();
    let place = disk.map_read(0, CLUSTER).unwrap();
    assert_eq!(
        disk.map_write(512, 512).unwrap(),
        Extent::Data {
            file: 0,
            offset: 5 * CLUSTER + 512,
            len: 512
        }
    );
    disk.flush().unwrap();
    assert_eq!(disk.map_read(0, CLUSTER).unwrap(), place);
    let bytes = memory.bytes();
    assert_eq!(bytes[L2 as usize..L2 as usize + 8], entry(5, 1));
    assert_eq!(super::checker::check(&bytes), Ok(0));
}

#[test]
fn a_raw_file_that_looks_like_an_image_is_raw_if_it_is_stated_to_be() {
    let directory = scratch();
    let inner = directory.path().join("inner");
    qemu_img(&["create", "-q", "-f", "qcow2", arg(&inner), "1M"]);
    let options = format!("backing_file={},backing_fmt=raw", arg(&inner));
    let made = make(1 << 20, &options);
    let chain: &[(&Path, Format)] = &[(&inner, Format::Raw)];
    let mut disk = open(&made.path, chain, read_only());
    let bytes = read(&mut disk, 0, 512).unwrap();
    assert!(bytes == std::fs::read(&inner).unwrap()[..512]);
}

/// What is done to an image before it is opened.
#[derive(Debug, Clone)]
enum Lie {
    Header(u64, Vec<u8>),
    Table(u64, u64),
    Anywhere(u64, Vec<u8>),
    Cut(u64),
}

fn lies() -> impl Strategy<Value = Lie> {
    let interesting = prop_oneof![
        Just(0_u64),
        Just(u64::MAX),
        Just(1 << 63),
        Just(1 << 62),
        any::<u64>(),
        (0..64_u64, any::<bool>(), 0..4_u64).prop_map(|(cluster, copied, low)| {
            (cluster * CLUSTER) | (u64::from(copied) << 63) | low
        }),
    ];
    prop_oneof![
        (0..120_u64, prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, b)| Lie::Header(at, b)),
        (0..4 * CLUSTER / 8, interesting).prop_map(|(entry, value)| Lie::Table(entry, value)),
        (0..40 * CLUSTER, prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, b)| Lie::Anywhere(at, b)),
        (0..40 * CLUSTER).prop_map(Lie::Cut),
    ]
}

fn cases(short: u32) -> ProptestConfig {
    let soak = std::env::var_os("REEVE_SOAK").is_some();
    ProptestConfig {
        cases: if soak { short * 100 } else { short },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn an_image_that_lies_is_an_error_at_worst(
        lies in prop::collection::vec(lies(), 1..6),
        seed in any::<u64>(),
    ) {
        let mut bytes = image();
        for lie in lies {
            let op = match lie {
                Lie::Header(at, value) | Lie::Anywhere(at, value) => {
                    super::support::Op::Write(at, value)
                }
                Lie::Table(entry, value) => {
                    super::support::Op::Write(CLUSTER + entry * 8, value.to_be_bytes().to_vec())
                }
                Lie::Cut(len) => super::support::Op::Length(len),
            };
            apply(&mut bytes, &op);
        }
        let magic = bytes.get(..8).map(<[u8]>::to_vec);
        let start = Instant::now();
        if let Ok((mut disk, memory)) = open_bytes(bytes, tight()) {
            let mut dice = Dice::new(seed);
            let size = disk.size().min(1 << 20);
            let mut model = vec![0; size as usize];
            for _ in 0..20 {
                if size > 0 {
                    let piece = work(&mut dice, size, CLUSTER);
                    // What is on such a disk is anything; a discard is not compared.
                    if !matches!(piece, super::random::Work::Discard(..)) {
                        let _ = perform(&mut disk, &mut model, &piece);
                    }
                    let at = dice.below(size / 512) * 512;
                    let _ = disk.discard(at, CLUSTER);
                    let _ = read(&mut disk, at, 512);
                }
            }
            let _ = disk.resize(SizeChange::grow(size + 4096));
            let _ = disk.flush();
            let _ = disk.close();
            prop_assert_eq!(memory.state().bytes.get(..8).map(<[u8]>::to_vec), magic);
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_header_of_any_bytes_is_read_or_refused(
        at in 0..200_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut header = image();
        header.truncate(70_000);
        header[at..at + bytes.len()].copy_from_slice(&bytes);
        let file = rustix::fs::memfd_create("header", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, &header, 0).unwrap();
        if let Ok(facts) = read_header(file.as_fd()) {
            prop_assert!((9..=21).contains(&facts.cluster_bits));
            prop_assert!(facts.backing_file.is_none_or(|name| name.len() <= 1023));
        }
    }
}
