//! Random work ends in what the vector says, in an image that qemu-img finds nothing wrong with.

use std::path::Path;

use super::checker::check;
use super::random::{Work, perform, work};
use super::support::{
    Dice, Made, arg, make, new_file, open, qemu_img, qemu_img_status, read, read_all, read_only,
    scratch, tight, write,
};
use crate::block::qcow2::{CreateOptions, Format, Options, create};
use crate::block::{Layout, SizeChange};

/// Longer with `REEVE_SOAK=1`.
fn rounds(short: u64) -> u64 {
    if std::env::var_os("REEVE_SOAK").is_some() {
        return short * 50;
    }
    short
}

/// Works on an image whose disk is `model` now, and compares it in the end.
fn exercise(path: &Path, backing: &[(&Path, Format)], model: &mut [u8], unit: u64, seed: u64) {
    let mut dice = Dice::new(seed);
    let size = model.len() as u64;
    for round in 0..rounds(2) {
        let options = if round % 2 == 0 {
            tight()
        } else {
            Options::default()
        };
        let mut disk = open(path, backing, options);
        for _ in 0..60 {
            let work = work(&mut dice, size, unit);
            perform(&mut disk, model, &work).unwrap();
        }
        assert!(read_all(&mut disk) == model, "before closing, seed {seed}");
        disk.close().unwrap();
        drop(disk);
        let (status, said) = qemu_img_status(&["check", "-f", "qcow2", arg(path)]);
        assert_eq!(status, Some(0), "seed {seed}: {said}");
    }
    let raw = path.with_extension("model");
    std::fs::write(&raw, &model).unwrap();
    qemu_img(&[
        "compare",
        "-q",
        "-f",
        "raw",
        "-F",
        "qcow2",
        arg(&raw),
        arg(path),
    ]);
}

#[test]
fn a_disk_of_each_cluster_size_and_refcount_width_holds_what_was_written() {
    for (seed, options) in [
        "cluster_size=512",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=512,compat=0.10",
        "cluster_size=4096,refcount_bits=1",
        "cluster_size=4096,refcount_bits=4",
        "cluster_size=65536",
        "cluster_size=65536,compat=0.10",
        "cluster_size=65536,preallocation=metadata",
        "cluster_size=2M,refcount_bits=32",
    ]
    .into_iter()
    .enumerate()
    {
        let size = if options.contains("2M") {
            9 << 20
        } else {
            (1 << 20) + 1536
        };
        let unit = if options.contains("=512") { 512 } else { 4096 };
        let made = make(size, options);
        let mut model = vec![0; size as usize];
        exercise(&made.path, &[], &mut model, unit, seed as u64);
    }
}

#[test]
fn a_disk_over_a_backing_file_holds_what_was_written() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    let mut model = Dice::new(77).bytes(800 << 10);
    model[100_000..300_000].fill(0);
    std::fs::write(&raw, &model).unwrap();
    let compressed = directory.path().join("compressed");
    qemu_img(&[
        "convert",
        "-q",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        arg(&raw),
        arg(&compressed),
    ]);
    model.resize(1 << 20, 0);
    for (seed, (base, format, options)) in [
        (&raw, "raw", "cluster_size=65536"),
        (&compressed, "qcow2", "cluster_size=4096"),
        (&compressed, "qcow2", "compat=0.10"),
    ]
    .into_iter()
    .enumerate()
    {
        let options = format!("{options},backing_file={},backing_fmt={format}", arg(base));
        let made = make(1 << 20, &options);
        let format = if format == "raw" {
            Format::Raw
        } else {
            Format::Qcow2
        };
        let before = std::fs::read(base).unwrap();
        exercise(
            &made.path,
            &[(base, format)],
            &mut model.clone(),
            4096,
            100 + seed as u64,
        );
        assert!(
            before == std::fs::read(base).unwrap(),
            "backing file changed"
        );
    }
}

#[test]
fn compressed_clusters_become_ordinary_when_they_are_written() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    let mut model: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 4096) as u8).collect();
    std::fs::write(&raw, &model).unwrap();
    for (seed, cluster) in [4096, 65536].into_iter().enumerate() {
        let image = directory.path().join("image");
        let options = format!("cluster_size={cluster}");
        qemu_img(&[
            "convert",
            "-q",
            "-c",
            "-O",
            "qcow2",
            "-o",
            &options,
            "-f",
            "raw",
            arg(&raw),
            arg(&image),
        ]);
        exercise(&image, &[], &mut model.clone(), 4096, 200 + seed as u64);
    }
    model.clear();
}

#[test]
fn a_snapshot_keeps_what_it_had_while_the_disk_is_written() {
    for (seed, options) in ["cluster_size=4096", "cluster_size=512", "compat=0.10"]
        .into_iter()
        .enumerate()
    {
        let Made { directory, path } = make(1 << 20, options);
        let mut model = vec![0; 1 << 20];
        exercise(&path, &[], &mut model, 4096, 300 + seed as u64);
        qemu_img(&["snapshot", "-c", "then", arg(&path)]);
        let then = model.clone();
        exercise(&path, &[], &mut model, 4096, 400 + seed as u64);
        let old = directory.path().join("old");
        qemu_img(&[
            "convert",
            "-q",
            "-f",
            "qcow2",
            "-O",
            "raw",
            "-l",
            "then",
            arg(&path),
            arg(&old),
        ]);
        assert!(std::fs::read(&old).unwrap() == then, "{options}");
        qemu_img(&["snapshot", "-d", "then", arg(&path)]);
        qemu_img(&["check", "-q", arg(&path)]);
        exercise(&path, &[], &mut model, 4096, 500 + seed as u64);
    }
}

#[test]
fn a_new_image_is_what_qemu_img_takes_for_one() {
    let directory = scratch();
    for (number, (size, cluster_bits)) in [
        (0, 16),
        (1 << 20, 9),
        (100 << 20, 9),
        (1 << 40, 16),
        (3 << 30, 21),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(format!("image{number}"));
        let options = CreateOptions {
            size,
            cluster_bits,
            backing: None,
        };
        create(new_file(&path), &options).unwrap();
        qemu_img(&["check", "-q", "-f", "qcow2", arg(&path)]);
        let info = qemu_img(&["info", "--output=json", arg(&path)]);
        assert!(
            info.contains(&format!("\"virtual-size\": {size},")),
            "{info}"
        );
        if size == 1 << 20 {
            exercise(&path, &[], &mut vec![0; 1 << 20], 4096, 600);
        }
    }
    let path = directory.path().join("over");
    let base = directory.path().join("image1");
    let options = CreateOptions {
        size: 1 << 20,
        cluster_bits: 12,
        backing: Some((arg(&base), "qcow2")),
    };
    create(new_file(&path), &options).unwrap();
    let mut disk = open(&base, &[], read_only());
    exercise(
        &path,
        &[(&base, Format::Qcow2)],
        &mut read_all(&mut disk),
        4096,
        601,
    );
}

#[test]
fn what_a_disk_has_outgrown_is_free_on_the_file_at_once() {
    let Made {
        directory: _kept,
        path,
    } = make(300_032, "cluster_size=512");
    let mut disk = open(&path, &[], tight());
    write(&mut disk, 0, &[3; 4096]).unwrap();
    for size in [900_096, 20 << 20] {
        disk.resize(SizeChange::grow(size)).unwrap();
        // As a process leaves it that is killed.
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(check(&bytes), Ok(0), "{size}");
    }
}

#[test]
fn a_disk_that_grows_reads_as_zero_behind_its_old_end() {
    let directory = scratch();
    let raw = directory.path().join("raw");
    let base = Dice::new(9).bytes(1 << 20);
    std::fs::write(&raw, &base).unwrap();
    for (options, size) in [
        (
            format!(
                "cluster_size=512,backing_file={},backing_fmt=raw",
                arg(&raw)
            ),
            300_032,
        ),
        (
            format!("backing_file={},backing_fmt=raw", arg(&raw)),
            300_032,
        ),
        ("cluster_size=512".to_owned(), 300_032),
        ("compat=0.10".to_owned(), 300_032),
        ("cluster_size=4096".to_owned(), 0),
    ] {
        let Made {
            directory: _kept,
            path,
        } = make(size, &options);
        let backed = options.contains("backing");
        let backing: &[(&Path, Format)] = if backed { &[(&raw, Format::Raw)] } else { &[] };
        let mut model = if backed {
            base[..size as usize].to_vec()
        } else {
            vec![0; size as usize]
        };
        let mut disk = open(&path, backing, tight());
        if size != 0 {
            write(&mut disk, size - 1024, &[3; 1024]).unwrap();
            model[size as usize - 1024..].fill(3);
        }
        for size in [300_544, 900_096, 20 << 20] {
            disk.resize(SizeChange::grow(size)).unwrap();
            assert_eq!(disk.size(), size);
            model.resize(size as usize, 0);
            assert!(read_all(&mut disk) == model, "{options} {size}");
            write(&mut disk, size - 512, &[5; 512]).unwrap();
            model[size as usize - 512..].fill(5);
        }
        let cut = SizeChange {
            to: Some(4096),
            shrink: true,
        };
        let error = disk.resize(cut).unwrap_err().to_string();
        assert!(error.contains("qemu-img resize --shrink"), "{error}");
        assert!(disk.limit(4096).is_err());
        assert_eq!(disk.size(), 20 << 20);
        disk.close().unwrap();
        drop(disk);
        exercise(&path, backing, &mut model, 4096, 700);
    }
}

#[test]
fn what_is_discarded_gives_its_room_back_and_is_used_again() {
    let made = make(64 << 20, "cluster_size=65536");
    let mut disk = open(&made.path, &[], Options::default());
    let full = Dice::new(1).bytes(8 << 20);
    for _ in 0..6 {
        write(&mut disk, 0, &full).unwrap();
        disk.flush().unwrap();
        disk.discard(0, 8 << 20).unwrap();
        disk.flush().unwrap();
    }
    disk.close().unwrap();
    let stat = std::fs::metadata(&made.path).unwrap();
    assert!(stat.len() < 12 << 20, "{}", stat.len());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&stat);
    assert!(blocks * 512 < 2 << 20, "{blocks}");
    qemu_img(&["check", "-q", arg(&made.path)]);
}

#[test]
fn a_guest_that_never_flushes_makes_the_file_no_longer_than_two_disks() {
    let made = make(8 << 20, "cluster_size=65536");
    let mut disk = open(&made.path, &[], Options::default());
    let full = Dice::new(1).bytes(8 << 20);
    for round in 0..20 {
        write(&mut disk, 0, &full).unwrap();
        match round % 2 {
            0 => disk.discard(0, 8 << 20).unwrap(),
            _ => disk.write_zeroes(0, 8 << 20, true).unwrap(),
        }
    }
    assert!(read_all(&mut disk).iter().all(|byte| *byte == 0));
    let long = std::fs::metadata(&made.path).unwrap().len();
    assert!(long < 18 << 20, "{long}");
    // A flush gives the room back, and there is no limit any more.
    disk.flush().unwrap();
    write(&mut disk, 0, &full).unwrap();
    disk.discard(0, 8 << 20).unwrap();
    disk.close().unwrap();
    assert_eq!(std::fs::metadata(&made.path).unwrap().len(), long);
    qemu_img(&["check", "-q", arg(&made.path)]);
}

#[test]
fn a_large_write_is_one_run() {
    let made = make(64 << 20, "cluster_size=65536");
    let mut disk = open(&made.path, &[], Options::default());
    let crate::block::Extent::Data { len, .. } = disk.map_write(0, 4 << 20).unwrap() else {
        panic!("not mapped");
    };
    assert_eq!(len, 4 << 20);
    let crate::block::Extent::Data { len, .. } = disk.map_read(0, 64 << 20).unwrap() else {
        panic!("not mapped");
    };
    assert_eq!(len, 4 << 20);
}

#[test]
fn a_write_under_way_never_lands_in_a_cluster_that_was_discarded_and_reused() {
    let made = make(1 << 20, "cluster_size=65536");
    let mut disk = open(&made.path, &[], Options::default());
    let mapped = disk.map_write(0, 65536).unwrap();
    disk.discard(0, 65536).unwrap();
    for cluster in 1..8 {
        assert_ne!(disk.map_write(cluster * 65536, 65536).unwrap(), mapped);
    }
    disk.flush().unwrap();
    // Nothing is under way any more.
    assert_eq!(disk.map_write(8 * 65536, 65536).unwrap(), mapped);
}

#[test]
fn an_image_opened_for_reading_only_is_not_written() {
    let made = make(1 << 20, "cluster_size=65536");
    let before = std::fs::read(&made.path).unwrap();
    let mut disk = open(&made.path, &[], read_only());
    let error = disk.map_write(0, 512).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(disk.discard(0, 65536).is_err());
    assert!(disk.write_zeroes(0, 512, false).is_err());
    assert!(disk.resize(SizeChange::grow(2 << 20)).is_err());
    disk.flush().unwrap();
    disk.close().unwrap();
    assert!(before == std::fs::read(&made.path).unwrap());
    assert!(read(&mut disk, 0, 512).unwrap() == [0; 512]);
    let mut model = vec![0; 1 << 20];
    let mut disk = open(&made.path, &[], Options::default());
    perform(&mut disk, &mut model, &Work::Flush).unwrap();
}
