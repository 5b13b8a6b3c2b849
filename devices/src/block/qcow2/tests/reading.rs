//! Images that qemu-img made read as qemu-img reads them.

use std::path::Path;

use super::support::{
    Dice, arg, descriptor, make, open, qemu_img, read, read_all, read_only, scratch,
};
use crate::block::Layout;
use crate::block::qcow2::{Format, read_header};

/// A raw disk with data, zeroes and repetition in it.
fn source(path: &Path, size: usize, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut disk = vec![0; size];
    for _ in 0..size / 30_000 {
        let at = dice.below(size as u64) as usize;
        let len = (dice.below(50_000) as usize).min(size - at);
        if dice.below(3) == 0 {
            disk[at..at + len].copy_from_slice(&dice.bytes(len));
        } else {
            disk[at..at + len].fill(dice.below(255) as u8);
        }
    }
    std::fs::write(path, disk).unwrap();
}

fn convert(from: &Path, to: &Path, options: &[&str]) {
    let mut arguments = vec!["convert", "-q", "-O", "qcow2"];
    arguments.extend_from_slice(options);
    arguments.extend_from_slice(&[arg(from), arg(to)]);
    qemu_img(&arguments);
}

#[test]
fn images_of_every_cluster_size_read_as_what_they_were_made_of() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    source(&raw, 3 << 20, 1);
    let expected = std::fs::read(&raw).unwrap();
    for cluster_bits in [9, 12, 16, 21] {
        for (extra, compression) in [
            (&["-f", "raw"][..], ""),
            (&["-f", "raw", "-c"], ",compression_type=zlib"),
            (&["-f", "raw", "-c"], ",compression_type=zstd"),
        ] {
            let image = directory.path().join("image");
            let options = format!("cluster_size={}{compression}", 1 << cluster_bits);
            let mut arguments = extra.to_vec();
            arguments.extend_from_slice(&["-o", &options]);
            convert(&raw, &image, &arguments);
            let mut disk = open(&image, &[], read_only());
            assert!(read_all(&mut disk) == expected, "{options} {extra:?}");
        }
    }
}

/// Machine code and text, as disks have them: this program.
#[test]
fn a_program_that_was_compressed_reads_as_it_was() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let start = program.len() / 2;
    let part = &program[start..program.len().min(start + (2 << 20))];
    let part = &part[..part.len() - part.len() % 512];
    std::fs::write(&raw, part).unwrap();
    for options in [
        "compression_type=zstd,cluster_size=2M",
        "compression_type=zstd,cluster_size=64k",
        "compression_type=zlib,cluster_size=2M",
    ] {
        let image = directory.path().join("image");
        convert(&raw, &image, &["-f", "raw", "-c", "-o", options]);
        let mut disk = open(&image, &[], read_only());
        assert!(read_all(&mut disk) == part, "{options}");
    }
}

#[test]
fn the_older_version_and_every_refcount_width_are_read() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    source(&raw, 1 << 20, 2);
    let expected = std::fs::read(&raw).unwrap();
    for options in [
        "compat=0.10",
        "refcount_bits=1",
        "refcount_bits=2",
        "refcount_bits=8",
        "refcount_bits=64",
    ] {
        let image = directory.path().join("image");
        convert(&raw, &image, &["-o", options]);
        let mut disk = open(&image, &[], read_only());
        assert!(read_all(&mut disk) == expected, "{options}");
    }
}

#[test]
fn small_reads_of_compressed_clusters_get_the_right_part() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    source(&raw, 1 << 20, 3);
    let expected = std::fs::read(&raw).unwrap();
    let image = directory.path().join("image");
    convert(&raw, &image, &["-c"]);
    let mut disk = open(&image, &[], read_only());
    let mut dice = Dice::new(3);
    for _ in 0..300 {
        let at = dice.below(2040) * 512;
        let len = (1 + dice.below(8) as usize) * 512;
        let bytes = read(&mut disk, at, len).unwrap();
        assert!(bytes == expected[at as usize..at as usize + len]);
    }
}

#[test]
fn a_chain_of_images_of_different_sizes_reads_through() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    source(&path("raw"), (1 << 20) + 700, 4);
    convert(&path("raw"), &path("base"), &["-f", "raw", "-c"]);
    let base = format!("backing_file={},backing_fmt=qcow2", arg(&path("base")));
    let middle = path("middle");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &base,
        arg(&middle),
        "600k",
    ]);
    let mut disk = open(
        &middle,
        &[(&path("base"), Format::Qcow2)],
        Default::default(),
    );
    super::support::write(&mut disk, 70_144, &[7; 3000]).unwrap();
    disk.write_zeroes(200_192, 100_352, false).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let middle_name = format!(
        "backing_file={},backing_fmt=qcow2,cluster_size=4096",
        arg(&middle)
    );
    let top = path("top");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &middle_name,
        arg(&top),
        "2M",
    ]);
    let flat = path("flat");
    qemu_img(&[
        "convert",
        "-q",
        "-f",
        "qcow2",
        "-O",
        "raw",
        arg(&top),
        arg(&flat),
    ]);
    let chain: &[(&Path, Format)] = &[(&middle, Format::Qcow2), (&path("base"), Format::Qcow2)];
    let mut disk = open(&top, chain, read_only());
    assert!(read_all(&mut disk) == std::fs::read(&flat).unwrap());
}

#[test]
fn a_raw_backing_file_of_odd_length_reads_as_zero_behind_its_end() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    source(&raw, 100_000, 5);
    std::fs::write(&raw, Dice::new(5).bytes(100_001)).unwrap();
    let image = directory.path().join("image");
    let options = format!("backing_file={},backing_fmt=raw", arg(&raw));
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &options,
        arg(&image),
        "1M",
    ]);
    let mut disk = open(&image, &[(&raw, Format::Raw)], read_only());
    let bytes = read_all(&mut disk);
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes[..100_001] == std::fs::read(&raw).unwrap());
    assert!(bytes[100_001..].iter().all(|&byte| byte == 0));
}

#[test]
fn an_image_with_snapshots_reads_as_it_is_now() {
    let made = make(1 << 20, "cluster_size=4096");
    let mut disk = open(&made.path, &[], Default::default());
    super::support::write(&mut disk, 0, &[1; 40_000]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    qemu_img(&["snapshot", "-c", "then", arg(&made.path)]);
    let mut disk = open(&made.path, &[], read_only());
    assert!(
        read(&mut disk, 0, 40_000)
            .unwrap()
            .iter()
            .all(|&byte| byte == 1)
    );
}

#[test]
fn the_header_says_what_qemu_img_was_told() {
    let directory = scratch();
    let base = directory.path().join("base");
    qemu_img(&["create", "-q", "-f", "raw", arg(&base), "1M"]);
    let options = format!(
        "backing_file={},backing_fmt=raw,cluster_size=8192,refcount_bits=32,lazy_refcounts=on",
        arg(&base)
    );
    let made = make(5 << 20, &options);
    let facts = read_header(std::os::fd::AsFd::as_fd(&descriptor(&made.path))).unwrap();
    assert_eq!(facts.version, 3);
    assert_eq!(facts.virtual_size, 5 << 20);
    assert_eq!(facts.cluster_bits, 13);
    assert_eq!(facts.refcount_bits, 32);
    assert_eq!(facts.backing_file.as_deref(), Some(arg(&base)));
    assert_eq!(facts.backing_format.as_deref(), Some("raw"));
    assert!(facts.lazy_refcounts && !facts.dirty && !facts.corrupt && !facts.encrypted);
    assert!(made.directory.path().is_dir());
}
