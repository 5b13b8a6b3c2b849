//! Volumes that are made, changed and moved, judged by qemu-img.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{
    NewCapacity, VolumeClone, VolumeCreate, VolumeDelete, VolumeGet, VolumeList, VolumeRef,
    VolumeResize, VolumeWipe, WipeAlgorithm,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::storage::{VolumeFormat, VolumeKind};
use reeve_ipc::model::{Layer, NewVolume, Permissions, Qcow2Compat, Qcow2Options};
use reeve_ipc::spec::DiskFormat;

use super::streams::{fetch, put};
use super::{Stage, get, judged, named, qemu_img, refused, volume};

fn raw(name: &str, capacity: u64) -> NewVolume {
    NewVolume::raw(name.parse().unwrap(), capacity)
}

fn qcow2(name: &str, capacity: u64) -> NewVolume {
    NewVolume {
        format: DiskFormat::Qcow2,
        ..raw(name, capacity)
    }
}

fn create(volume: NewVolume) -> VolumeCreate {
    VolumeCreate {
        pool: named("images"),
        volume: Box::new(volume),
        preallocate_metadata: false,
    }
}

fn copy(volume: NewVolume, from: &str) -> VolumeClone {
    VolumeClone {
        pool: named("images"),
        volume: Box::new(volume),
        from: super::volume("images", from),
        preallocate_metadata: false,
        reflink: false,
        from_format: None,
    }
}

#[test]
fn volumes_are_made_as_they_are_asked_for() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let sparse = connection.call(create(raw("sparse", 1 << 30)))?;
    ensure!(
        (sparse.capacity, sparse.allocation) == (1 << 30, 0),
        "{sparse:?}"
    );
    ensure!(sparse.path == pool.target.join("sparse") && sparse.owner.mode == 0o600);
    let full = connection.call(create(NewVolume {
        allocation: Some(3 << 20),
        permissions: Permissions {
            mode: Some(0o640),
            owner: Some(1234),
            group: Some(5678),
        },
        ..raw("full", 8 << 20)
    }))?;
    ensure!(
        full.capacity == 8 << 20 && full.allocation >= 3 << 20,
        "{full:?}"
    );
    ensure!(full.allocation < 8 << 20, "{full:?}");
    let stat = std::fs::metadata(&full.path)?;
    ensure!((stat.mode() & 0o7777, stat.uid(), stat.gid()) == (0o640, 1234, 5678));
    ensure!(full.times.born.is_some() && full.times.modified.seconds > 1_600_000_000);

    for (number, options) in [
        Qcow2Options::default(),
        Qcow2Options {
            compat: Qcow2Compat::V2,
            ..Qcow2Options::default()
        },
        Qcow2Options {
            cluster_bytes: 2 << 20,
            lazy_refcounts: true,
            ..Qcow2Options::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("q{number}");
        let made = connection.call(create(NewVolume {
            qcow2: options,
            ..qcow2(&name, 10 << 30)
        }))?;
        ensure!(made.format == VolumeFormat::Qcow2 && made.qcow2 == Some(options));
        ensure!(made.capacity == 10 << 30 && made.allocation < 1 << 20);
        let said = judged(&made.path)?;
        ensure!(said["virtual-size"] == 10_u64 << 30, "{said}");
        let data = &said["format-specific"]["data"];
        ensure!(data["compat"] == options.compat.word(), "{said}");
        ensure!(said["cluster-size"] == options.cluster_bytes, "{said}");
    }

    // Upon another, which says how large it is; in words and in truth.
    let backing = Some(Layer {
        path: pool.target.join("q0"),
        format: DiskFormat::Qcow2,
    });
    let top = connection.call(create(NewVolume {
        capacity: None,
        backing: backing.clone(),
        ..qcow2("top", 0)
    }))?;
    ensure!(top.capacity == 10 << 30, "{top:?}");
    let named_as = top.backing.context("a backing file")?;
    ensure!(named_as.path.as_deref() == Some(&*pool.target.join("q0")));
    ensure!(named_as.format == Some(VolumeFormat::Qcow2));
    let said = judged(&top.path)?;
    ensure!(said["backing-filename-format"] == "qcow2", "{said}");

    let laid_out = connection.call(VolumeCreate {
        preallocate_metadata: true,
        ..create(qcow2("laid-out", 64 << 20))
    })?;
    ensure!(
        laid_out.allocation < 1 << 20 && laid_out.physical >= 64 << 20,
        "{laid_out:?}"
    );
    let said = qemu_img(&["check", "-f", "qcow2"], &laid_out.path)?;
    ensure!(said.contains("= 100.00% allocated"), "{said}");
    let allocated = connection.call(create(NewVolume {
        allocation: Some(16 << 20),
        ..qcow2("allocated", 16 << 20)
    }))?;
    ensure!(allocated.allocation >= 16 << 20, "{allocated:?}");
    judged(&allocated.path)?;

    ensure!(refused(connection.call(create(raw("full", 1)))) == ApiErrorCode::VolumeExists);
    let outside = Some(Layer {
        path: "/etc/hostname".into(),
        format: DiskFormat::Raw,
    });
    let outside = create(NewVolume {
        backing: outside,
        ..qcow2("outside", 1 << 20)
    });
    ensure!(refused(connection.call(outside)) == ApiErrorCode::PathRefused);
    let wrong = Some(Layer {
        path: pool.target.join("sparse"),
        format: DiskFormat::Qcow2,
    });
    let wrong = create(NewVolume {
        backing: wrong,
        ..qcow2("wrong", 1 << 20)
    });
    ensure!(refused(connection.call(wrong)) == ApiErrorCode::InvalidArgument);
    let over = VolumeCreate {
        preallocate_metadata: true,
        ..create(NewVolume {
            backing,
            ..qcow2("over", 1 << 20)
        })
    };
    ensure!(refused(connection.call(over)) == ApiErrorCode::InvalidArgument);
    let left: Vec<_> = std::fs::read_dir(&pool.target)?
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    ensure!(
        left.is_empty(),
        "nothing is left of what was not made: {left:?}"
    );
    Ok(())
}

#[test]
fn what_is_uploaded_is_downloaded_and_copied_through_either_format() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    connection.call(create(raw("disk", 6 << 20)))?;
    let mut bytes = vec![0_u8; 6 << 20];
    for (index, byte) in bytes.iter_mut().enumerate() {
        if index / 700_000 % 3 == 1 {
            *byte = u8::try_from(index % 251)?;
        }
    }
    let disk = || volume("images", "disk");
    put(&mut connection, disk(), 0, &bytes)?;
    put(&mut connection, disk(), 3, b"abcde")?;
    bytes[3..8].copy_from_slice(b"abcde");
    let delete = |name: &str| VolumeDelete {
        volume: volume("images", name),
        zeroed: false,
    };
    ensure!(fetch(&mut connection, disk(), 2, 0)? == bytes[2..]);
    ensure!(fetch(&mut connection, disk(), 3, 5)? == b"abcde");
    ensure!(
        fetch(&mut connection, disk(), 0, 7 << 20)? == bytes,
        "no more than there is"
    );

    // raw, qcow2, and back; with holes where there were holes.
    let copied = connection.call(copy(raw("copy", 0), "disk"))?;
    ensure!(std::fs::read(&copied.path)? == bytes);
    ensure!(copied.allocation <= get(&mut connection, "images", "disk")?.allocation + 4096);
    let larger = connection.call(copy(raw("larger", 10 << 20), "disk"))?;
    ensure!(larger.capacity == 10 << 20, "{larger:?}");
    ensure!(std::fs::read(&larger.path)?[..6 << 20] == bytes[..]);
    let converted = connection.call(copy(qcow2("converted", 0), "disk"))?;
    judged(&converted.path)?;
    let disk = pool.target.join("disk");
    let compare = ["compare", "-q", "-f", "qcow2", "-F", "raw"];
    let of = |path: &std::path::Path| -> Result<()> {
        let mut arguments = compare.to_vec();
        let path = path.to_str().context("a path")?;
        arguments.push(path);
        qemu_img(&arguments, &disk).map(drop)
    };
    of(&converted.path)?;
    let back = connection.call(copy(raw("back", 0), "converted"))?;
    ensure!(std::fs::read(&back.path)? == bytes);
    let doubled = connection.call(copy(qcow2("doubled", 20 << 20), "converted"))?;
    let said = judged(&doubled.path)?;
    ensure!(said["virtual-size"] == 20 << 20, "{said}");

    // Upon another, by a name that is relative: the copy in another pool has it all in itself.
    let below = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "converted",
    ];
    qemu_img(&below, &pool.target.join("relative"))?;
    let other = stage.pool("other");
    super::define(&mut connection, &other)?;
    let build = true;
    connection.call(reeve_ipc::api::call::PoolStart {
        pool: named("other"),
        build,
    })?;
    let flat = connection.call(VolumeClone {
        pool: named("other"),
        ..copy(qcow2("flat", 0), "relative")
    })?;
    ensure!(flat.backing.is_none(), "{flat:?}");
    judged(&flat.path)?;
    of(&flat.path)?;
    let beside = connection.call(copy(qcow2("beside", 0), "relative"))?;
    ensure!(beside.backing.context("the same")?.written == "converted");
    of(&beside.path)?;

    let none = connection.call(copy(raw("none", 0), "nothing"));
    ensure!(refused(none) == ApiErrorCode::NoVolume);
    for name in ["back", "copy", "larger"] {
        connection.call(delete(name))?;
        ensure!(!pool.target.join(name).exists());
    }
    let page = connection.call(VolumeList {
        pool: named("images"),
        after: Some("converted".parse()?),
    })?;
    let names: Vec<_> = page.volumes.iter().map(|it| it.name.as_str()).collect();
    ensure!(names == ["disk", "doubled", "relative"], "{names:?}");
    Ok(())
}

#[test]
fn volumes_are_resized_and_wiped() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let resize = |name: &str, capacity, allocate, shrink| VolumeResize {
        volume: volume("images", name),
        capacity,
        allocate,
        shrink,
        format: None,
    };
    use NewCapacity::{Less, More, To};
    connection.call(create(raw("disk", 1 << 20)))?;
    connection.call(resize("disk", To(3 << 20), false, false))?;
    connection.call(resize("disk", More(1 << 20), true, false))?;
    let disk = get(&mut connection, "images", "disk")?;
    ensure!(disk.capacity == 4 << 20, "{disk:?}");
    ensure!(
        (1 << 20..2 << 20).contains(&disk.allocation),
        "what it has more: {disk:?}"
    );
    let less = connection.call(resize("disk", To(5), false, false));
    ensure!(refused(less) == ApiErrorCode::InvalidArgument);
    connection.call(resize("disk", Less(3 << 20), false, true))?;
    ensure!(get(&mut connection, "images", "disk")?.capacity == 1 << 20);
    connection.call(resize("disk", Less(9 << 20), false, true))?;
    ensure!(
        get(&mut connection, "images", "disk")?.capacity == 0,
        "and no less"
    );

    connection.call(create(qcow2("image", 1 << 30)))?;
    connection.call(resize("image", More(1 << 30), false, false))?;
    let said = judged(&pool.target.join("image"))?;
    ensure!(said["virtual-size"] == 2_u64 << 30, "{said}");
    let less = connection.call(resize("image", To(1 << 30), false, true));
    ensure!(refused(less) == ApiErrorCode::Unsupported);

    std::fs::write(pool.target.join("secret"), vec![7; 100_000])?;
    let wipe = |algorithm| VolumeWipe {
        volume: volume("images", "secret"),
        algorithm,
    };
    // It is not known yet.
    get(&mut connection, "images", "secret")?;
    ensure!(refused(connection.call(wipe(WipeAlgorithm::Other))) == ApiErrorCode::Unsupported);
    connection.call(wipe(WipeAlgorithm::Zero))?;
    ensure!(std::fs::read(pool.target.join("secret"))? == vec![0; 100_000]);
    connection.call(VolumeDelete {
        volume: volume("images", "secret"),
        zeroed: true,
    })?;
    let gone = connection.call(VolumeGet {
        volume: VolumeRef::Path(pool.target.join("secret")),
    });
    ensure!(refused(gone) == ApiErrorCode::NoVolume);
    Ok(())
}

#[test]
fn files_are_told_apart_and_what_changes_is_seen() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let path = |name: &str| pool.target.join(name);
    for format in ["qcow2", "vmdk", "vdi", "qed"] {
        qemu_img(
            &["create", "-q", "-f", format, "-o", "size=8M"],
            &path(format),
        )?;
    }
    let mut iso = std::fs::File::create(path("iso"))?;
    iso.seek(SeekFrom::Start(32_769))?;
    iso.write_all(b"CD001 and more")?;
    std::fs::create_dir(path("directory"))?;
    std::fs::write(path("cut"), b"QFI\xfb\0\0\0\x03")?;
    connection.call(reeve_ipc::api::call::PoolRefresh {
        pool: named("images"),
    })?;
    for (name, word, capacity) in [
        ("qcow2", "qcow2", 8 << 20),
        ("vmdk", "vmdk", 8 << 20),
        ("vdi", "vdi", 8 << 20),
        ("qed", "qed", 8 << 20),
        ("iso", "iso", 32_783),
        ("cut", "qcow2", 8),
    ] {
        let volume = get(&mut connection, "images", name)?;
        ensure!(
            volume.format.word() == word && volume.capacity == capacity,
            "{volume:?}"
        );
        ensure!(volume.unreadable.is_some() == (name == "cut"), "{volume:?}");
    }
    let directory = get(&mut connection, "images", "directory")?;
    ensure!(directory.kind == VolumeKind::Directory);
    let mut delete = |name| {
        connection.call(VolumeDelete {
            volume: volume("images", name),
            zeroed: false,
        })
    };
    std::fs::write(path("directory/file"), "")?;
    ensure!(refused(delete("directory")) == ApiErrorCode::WrongState);
    std::fs::remove_file(path("directory/file"))?;
    delete("directory")?;
    ensure!(!path("directory").exists());
    // Without a refresh: a file that changes, and one that is new.
    qemu_img(&["resize", "-q", "-f", "qcow2"], &path("qcow2")).unwrap_err();
    let status = std::process::Command::new("qemu-img")
        .args(["resize", "-q", "-f", "qcow2"])
        .arg(path("qcow2"))
        .arg("16M")
        .status()?;
    ensure!(status.success());
    ensure!(get(&mut connection, "images", "qcow2")?.capacity == 16 << 20);
    std::fs::write(path("new"), [0; 512])?;
    let by_path = VolumeRef::Path(path("new"));
    ensure!(connection.call(VolumeGet { volume: by_path })?.capacity == 512);
    Ok(())
}

#[test]
fn a_volume_that_names_a_file_elsewhere_is_neither_flattened_nor_resized() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let victim = stage.allowed().join("victim");
    std::fs::write(&victim, vec![7; 1 << 20])?;
    // What a guest may write to its raw disk.
    let victim = victim.to_str().context("a path")?;
    let over = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", victim];
    qemu_img(&over, &pool.target.join("disk"))?;
    for flat in [raw("flat", 0), raw("flat", 2 << 20), qcow2("flat", 2 << 20)] {
        ensure!(refused(connection.call(copy(flat, "disk"))) == ApiErrorCode::PathRefused);
    }
    let resize = |name: &str| VolumeResize {
        volume: volume("images", name),
        capacity: NewCapacity::More(1 << 20),
        allocate: false,
        shrink: false,
        format: None,
    };
    ensure!(refused(connection.call(resize("disk"))) == ApiErrorCode::PathRefused);
    // Of the same format it is the same bytes, and nothing is opened.
    let same = connection.call(copy(qcow2("same", 0), "disk"))?;
    ensure!(std::fs::read(&same.path)? == std::fs::read(pool.target.join("disk"))?);
    let left: Vec<_> = std::fs::read_dir(&pool.target)?
        .map(|entry| entry.unwrap().file_name())
        .collect();
    ensure!(left.len() == 2, "{left:?}");
    // Whoever knows what it is says so.
    let stated = |name, from_format| VolumeClone {
        from_format: Some(from_format),
        ..copy(raw(name, 0), "disk")
    };
    let bytes = std::fs::read(pool.target.join("disk"))?;
    let same = connection.call(stated("bytes", DiskFormat::Raw))?;
    ensure!(std::fs::read(&same.path)? == bytes);
    let larger = VolumeResize {
        format: Some(DiskFormat::Raw),
        ..resize("disk")
    };
    connection.call(larger)?;
    let now = std::fs::read(pool.target.join("disk"))?;
    ensure!(now.len() == bytes.len() + (1 << 20) && now.starts_with(&bytes));
    let image = VolumeClone {
        from_format: Some(DiskFormat::Qcow2),
        ..copy(raw("image", 0), "victim")
    };
    std::fs::write(pool.target.join("victim"), [7; 4096])?;
    ensure!(refused(connection.call(image)) == ApiErrorCode::InvalidArgument);

    // A disk that its guest encrypted as a whole is copied and enlarged as the bytes that it is.
    let mut bytes = vec![9; 1 << 20];
    bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    std::fs::write(pool.target.join("secret"), &bytes)?;
    ensure!(get(&mut connection, "images", "secret")?.encrypted);
    let copied = connection.call(copy(raw("copied", 0), "secret"))?;
    ensure!(std::fs::read(&copied.path)? == bytes);
    connection.call(resize("secret"))?;
    ensure!(get(&mut connection, "images", "secret")?.physical == 2 << 20);
    Ok(())
}

#[test]
fn an_image_whose_data_is_in_another_file_is_not_copied() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let data = pool.target.join("data");
    let option = format!("data_file={},size=1M", data.display());
    qemu_img(
        &["create", "-q", "-f", "qcow2", "-o", &option],
        &pool.target.join("image"),
    )?;
    let image = get(&mut connection, "images", "image")?;
    ensure!(
        image.capacity == 1 << 20 && image.unreadable.is_some(),
        "{image:?}"
    );
    for volume in [qcow2("copy", 0), raw("copy", 0)] {
        ensure!(refused(connection.call(copy(volume, "image"))) == ApiErrorCode::Unsupported);
    }
    Ok(())
}
