//! Tasks as a supervisor gives them, judged by QEMU.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use reeve_ipc::api::storage::{OtherFormat, VolumeFormat};
use reeve_ipc::image::{ImageFacts, ImageTask, NewImage, TaskAnswer};
use reeve_ipc::model::{Qcow2Compat, Qcow2Options};
use reeve_ipc::spec::DiskFormat;

use super::perform;

fn open(path: &Path) -> OwnedFd {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap().into()
}

fn done(task: ImageTask, files: Vec<OwnedFd>) {
    assert_eq!(perform(task, files), TaskAnswer::Done);
}

fn facts(path: &Path) -> ImageFacts {
    let answer = perform(ImageTask::Probe, vec![open(path)]);
    let TaskAnswer::Probed(facts) = answer else {
        panic!("{answer:?}")
    };
    facts.into_iter().next().unwrap()
}

fn image(size: u64) -> NewImage {
    NewImage {
        size,
        options: Qcow2Options::default(),
        backing: None,
        preallocate: false,
        allocate: false,
    }
}

fn qemu(arguments: &[&str], path: &Path) -> String {
    let mut command = Command::new("qemu-img");
    let output = command.args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn check(path: &Path) {
    let said = qemu(&["check", "-f", "qcow2"], path);
    assert!(said.contains("No errors"), "{said}");
}

#[test]
fn an_image_is_made_as_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let forms = [
        (Qcow2Compat::V2, 64 << 10, false, false),
        (Qcow2Compat::V3, 64 << 10, true, false),
        (Qcow2Compat::V3, 512, false, false),
        (Qcow2Compat::V3, 2 << 20, false, true),
        (Qcow2Compat::V2, 64 << 10, false, true),
    ];
    for (number, (compat, cluster_bytes, lazy_refcounts, preallocate)) in
        forms.into_iter().enumerate()
    {
        let path = directory.path().join(number.to_string());
        let options = Qcow2Options {
            compat,
            cluster_bytes,
            lazy_refcounts,
        };
        let new = NewImage {
            options,
            preallocate,
            ..image(40 << 20)
        };
        done(ImageTask::Create(new), vec![open(&path)]);
        check(&path);
        let info = qemu(&["info", "-f", "qcow2"], &path);
        assert!(
            info.contains(&format!("compat: {}", compat.word())),
            "{info}"
        );
        assert!(
            info.contains(&format!("cluster_size: {cluster_bytes}")),
            "{info}"
        );
        if compat == Qcow2Compat::V3 {
            let lazy = format!("lazy refcounts: {lazy_refcounts}");
            assert!(info.contains(&lazy), "{info}");
        }
        let found = facts(&path);
        assert_eq!(found.qcow2, Some(options));
        assert_eq!(found.size, Some(40 << 20));
        if preallocate {
            let said = qemu(&["check", "-f", "qcow2"], &path);
            assert!(said.contains("= 100.00% allocated"), "{said}");
        }
    }
}

#[test]
fn what_is_written_comes_back_through_either_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let raw = path("raw");
    let mut bytes = vec![0_u8; (5 << 20) + 512];
    for (index, byte) in bytes.iter_mut().enumerate() {
        if index / 300_000 % 2 == 1 {
            *byte = u8::try_from(index % 251).unwrap();
        }
    }
    std::fs::write(&raw, &bytes).unwrap();
    let size = bytes.len() as u64;
    let convert = |to: Option<NewImage>, from| ImageTask::Convert {
        to,
        from,
        backing: Vec::new(),
        size,
        allocate: false,
    };
    let made = path("made");
    let task = convert(Some(image(size)), DiskFormat::Raw);
    done(task, vec![open(&made), open(&raw)]);
    check(&made);
    let said = qemu(
        &[
            "compare",
            "-f",
            "qcow2",
            "-F",
            "raw",
            made.to_str().unwrap(),
        ],
        &raw,
    );
    assert!(said.contains("identical"), "{said}");
    let back = path("back");
    let task = convert(None, DiskFormat::Qcow2);
    done(task, vec![open(&back), open(&made)]);
    assert!(std::fs::read(&back).unwrap() == bytes, "the same bytes");

    // One of QEMU's own, compressed, upon another.
    let compressed = path("compressed");
    let arguments = ["convert", "-c", "-O", "qcow2", raw.to_str().unwrap()];
    qemu(&arguments, &compressed);
    let top = path("top");
    let below = compressed.to_str().unwrap();
    qemu(
        &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below],
        &top,
    );
    let task = ImageTask::Convert {
        to: None,
        from: DiskFormat::Qcow2,
        backing: vec![DiskFormat::Qcow2],
        size,
        allocate: true,
    };
    let flat = path("flat");
    done(task, vec![open(&flat), open(&top), open(&compressed)]);
    assert!(std::fs::read(&flat).unwrap() == bytes, "the same bytes");

    let grown = ImageTask::Grow {
        size: 64 << 20,
        backing: vec![DiskFormat::Qcow2],
    };
    done(grown, vec![open(&top), open(&compressed)]);
    check(&top);
    assert_eq!(facts(&top).size, Some(64 << 20));
    done(ImageTask::Wipe, vec![open(&flat)]);
    assert!(std::fs::read(&flat).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn files_are_told_apart_as_qemu_made_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (name, format, size) in [
        ("vdi", VolumeFormat::Other(OtherFormat::Vdi), Some(8 << 20)),
        (
            "vmdk",
            VolumeFormat::Other(OtherFormat::Vmdk),
            Some(8 << 20),
        ),
        ("qed", VolumeFormat::Other(OtherFormat::Qed), Some(8 << 20)),
        (
            "qcow",
            VolumeFormat::Other(OtherFormat::Qcow),
            Some(8 << 20),
        ),
        ("qcow2", VolumeFormat::Qcow2, Some(8 << 20)),
        ("raw", VolumeFormat::Raw, None),
    ] {
        let path = path(name);
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", name])
            .arg(&path)
            .arg("8M")
            .status()
            .unwrap();
        assert!(made.success(), "{name}");
        let facts = facts(&path);
        assert_eq!((&facts.format, facts.size), (&format, size), "{name}");
        assert_eq!(facts.unreadable, None, "{name}");
    }
    let iso = path("iso");
    let mut bytes = vec![0; 40 << 10];
    bytes[32_769..32_774].copy_from_slice(b"CD001");
    std::fs::write(&iso, bytes).unwrap();
    assert_eq!(facts(&iso).format, VolumeFormat::Iso);
    std::fs::write(path("cut"), b"QFI\xfb\0\0\0\x03").unwrap();
    let cut = facts(&path("cut"));
    assert_eq!(cut.format, VolumeFormat::Qcow2);
    assert!(cut.unreadable.unwrap().contains("cut off"));
    std::fs::write(path("empty"), b"").unwrap();
    assert_eq!(facts(&path("empty")), ImageFacts::of(VolumeFormat::Raw));
}

#[test]
fn a_task_without_its_files_is_an_error_and_no_end() {
    for task in [
        ImageTask::Copy,
        ImageTask::Wipe,
        ImageTask::Create(image(512)),
        ImageTask::Grow {
            size: 1,
            backing: Vec::new(),
        },
    ] {
        assert!(matches!(
            perform(task, Vec::new()),
            TaskAnswer::Failed { .. }
        ));
    }
}
