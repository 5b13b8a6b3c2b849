//! A real `virsh` that keeps pools and volumes of a real `reeved`: command by command, as an administrator types
//! them.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reeve_tests::libvirt::{Libvirt, complains, shows};

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with an active pool `images`, and its directory.
fn with_pool() -> Result<(Libvirt, PathBuf)> {
    let host = Libvirt::start()?;
    let images = host.files().join("images");
    host.virsh(&format!(
        "pool-define-as images dir --target {}",
        images.display()
    ))?;
    host.virsh("pool-build images")?;
    host.virsh("pool-start images")?;
    Ok((host, images))
}

#[test]
fn a_pool_lives_as_its_administrator_types() -> Result<()> {
    let mut host = Libvirt::start()?;
    let images = host.files().join("images");
    let target = images.display().to_string();
    ensure!(host.virsh("pool-list --all")?.is_empty());
    host.virsh(&format!("pool-define-as images dir --target {target}"))?;
    shows(&host, "pool-list --all", "images inactive no")?;
    let defined = host.virsh("pool-dumpxml images --inactive")?;
    // There is no directory yet.
    host.refused("pool-start images")?;
    host.virsh("pool-build images")?;
    ensure!(images.is_dir());
    host.virsh("pool-start images")?;
    complains(&host, "pool-start images", "active")?;
    host.virsh("pool-autostart images")?;
    shows(&host, "pool-list --autostart", "images active yes")?;
    shows(
        &host,
        "pool-info images",
        "State: running Persistent: yes Autostart: yes Capacity:",
    )?;
    let details = host.virsh("pool-list --all --details")?;
    ensure!(details.starts_with("images running yes yes "), "{details}");
    ensure!(!details.contains(" 0.00 "), "{details}");
    let live = host.virsh("pool-dumpxml images")?;
    ensure!(live.contains(&format!("<path>{target}</path>")), "{live}");
    ensure!(live.contains("<owner>"), "{live}");
    ensure!(host.virsh("pool-dumpxml images --inactive")? == defined);
    // What is dumped defines the same again.
    let file = host.outside().join("pool.xml");
    fs::write(&file, &defined)?;
    host.virsh(&format!("pool-define {}", file.display()))?;
    ensure!(host.virsh("pool-dumpxml images --inactive")? == defined);
    let uuid = host.virsh("pool-uuid images")?;
    ensure!(host.virsh(&format!("pool-name {uuid}"))? == "images");

    // It is found again by a daemon that was not asked to end.
    host.daemon.kill()?;
    host.daemon.spawn()?;
    shows(&host, "pool-list --all", "images active yes")?;

    fs::write(images.join("came.raw"), [7; 4096])?;
    host.virsh("pool-refresh images")?;
    shows(&host, "vol-list images", "came.raw")?;
    host.virsh("pool-destroy images")?;
    complains(&host, "pool-destroy images", "not active")?;
    complains(&host, "vol-list images", "not active")?;
    host.refused("pool-delete images")?;
    fs::remove_file(images.join("came.raw"))?;
    host.virsh("pool-delete images")?;
    ensure!(!images.exists());
    host.virsh("pool-autostart images --disable")?;
    host.virsh("pool-undefine images")?;
    complains(&host, "pool-info images", "failed to get pool 'images'")?;

    // One that is not kept is gone when it is stopped.
    host.virsh(&format!(
        "pool-create-as short dir --target {target} --build"
    ))?;
    shows(&host, "pool-list --transient", "short active no")?;
    complains(&host, "pool-autostart short", "error")?;
    host.virsh("pool-destroy short")?;
    ensure!(host.virsh("pool-list --all")?.is_empty());
    Ok(())
}

#[test]
fn volumes_are_made_looked_at_changed_and_deleted() -> Result<()> {
    let (host, images) = with_pool()?;
    let path = |name: &str| images.join(name).display().to_string();
    host.virsh("vol-create-as images plain.raw 3M --format raw")?;
    host.virsh("vol-create-as images thin.raw 1G --format raw --allocation 0")?;
    host.virsh("vol-create-as images own.qcow2 1G --format qcow2")?;
    host.virsh(
        "vol-create-as images over.qcow2 2G --format qcow2 --backing-vol own.qcow2 --backing-vol-format qcow2",
    )?;
    complains(
        &host,
        "vol-create-as images plain.raw 1M",
        "storage volume 'plain.raw' exists already",
    )?;
    let plain = fs::metadata(images.join("plain.raw"))?;
    ensure!(plain.len() == 3 << 20 && plain.blocks() * 512 >= 3 << 20);
    ensure!(fs::metadata(images.join("thin.raw"))?.blocks() == 0);
    shows(
        &host,
        "vol-info own.qcow2 images",
        "Type: file Capacity: 1.00 GiB",
    )?;
    shows(
        &host,
        "vol-info thin.raw images --bytes --physical",
        "Physical: 1073741824 bytes",
    )?;
    shows(
        &host,
        "vol-info thin.raw images --bytes",
        "Allocation: 0 bytes",
    )?;
    let over = host.virsh("vol-dumpxml over.qcow2 --pool images")?;
    for part in [
        "<format type='qcow2'/>",
        "<compat>1.1</compat>",
        "<clusterSize unit='B'>65536</clusterSize>",
        &format!(
            "<backingStore> <path>{}</path> <format type='qcow2'/>",
            path("own.qcow2")
        ),
    ] {
        ensure!(over.contains(part), "{part}: {over}");
    }
    let listed = host.virsh("vol-list images --details")?;
    for part in [
        format!("over.qcow2 {} file 2.00 GiB", path("over.qcow2")),
        format!("thin.raw {} file 1.00 GiB 0.00 B", path("thin.raw")),
    ] {
        ensure!(listed.contains(&part), "{part}: {listed}");
    }
    ensure!(host.virsh("vol-path own.qcow2 --pool images")? == path("own.qcow2"));
    ensure!(host.virsh("vol-key own.qcow2 --pool images")? == path("own.qcow2"));
    ensure!(host.virsh(&format!("vol-pool {}", path("own.qcow2")))? == "images");
    ensure!(host.virsh(&format!("vol-name {}", path("own.qcow2")))? == "own.qcow2");

    host.virsh("vol-resize own.qcow2 2G --pool images")?;
    host.virsh("vol-resize thin.raw 512M --pool images --delta")?;
    shows(&host, "vol-info own.qcow2 images", "Capacity: 2.00 GiB")?;
    ensure!(fs::metadata(images.join("thin.raw"))?.len() == 1536 << 20);
    complains(&host, "vol-resize thin.raw 1M --pool images", "shrink")?;
    host.virsh("vol-resize thin.raw 1M --pool images --shrink")?;
    ensure!(fs::metadata(images.join("thin.raw"))?.len() == 1 << 20);

    fs::File::options()
        .write(true)
        .open(images.join("plain.raw"))?
        .write_all_at(&[7; 1 << 20], 1 << 20)?;
    host.virsh("vol-clone plain.raw copy.raw --pool images")?;
    ensure!(fs::read(images.join("copy.raw"))? == fs::read(images.join("plain.raw"))?);
    let document = host.outside().join("volume.xml");
    let text = "<volume><name>made.qcow2</name><capacity unit='MiB'>8</capacity>\
                <target><format type='qcow2'/></target></volume>";
    fs::write(&document, text)?;
    host.virsh(&format!(
        "vol-create-from images {} plain.raw --inputpool images",
        document.display()
    ))?;
    shows(&host, "vol-info made.qcow2 images", "Capacity: 8.00 MiB")?;
    host.virsh("vol-wipe plain.raw --pool images")?;
    ensure!(
        fs::read(images.join("plain.raw"))?
            .iter()
            .all(|byte| *byte == 0)
    );
    complains(
        &host,
        "vol-wipe copy.raw --pool images --algorithm nnsa",
        "not supported",
    )?;
    for name in ["over.qcow2", "own.qcow2", "made.qcow2", "copy.raw"] {
        host.virsh(&format!("vol-delete {name} --pool images"))?;
        ensure!(!images.join(name).exists());
    }
    complains(
        &host,
        "vol-info copy.raw images",
        "failed to get vol 'copy.raw'",
    )?;
    complains(&host, "vol-create-as images ../out.raw 1M", "error")?;
    ensure!(!host.files().join("out.raw").exists());
    Ok(())
}

#[test]
fn a_volume_is_uploaded_and_downloaded_byte_by_byte() -> Result<()> {
    let (host, images) = with_pool()?;
    let size = 64_usize << 20;
    let bytes: Vec<u8> = (0..size)
        .map(|place| u8::try_from((place >> 9) % 251).unwrap_or_default())
        .collect();
    let file = host.outside().join("file");
    let back = host.outside().join("back");
    fs::write(&file, &bytes)?;
    let [file, back] = [file, back].map(|path| path.display().to_string());
    host.virsh(&format!("vol-create-as images a.raw {size} --allocation 0"))?;
    host.virsh(&format!("vol-upload a.raw {file} --pool images"))?;
    ensure!(fs::read(images.join("a.raw"))? == bytes);
    host.virsh(&format!("vol-download a.raw {back} --pool images"))?;
    ensure!(fs::read(&back)? == bytes);
    host.virsh(&format!(
        "vol-download a.raw {back} --pool images --offset 1000000 --length 500000"
    ))?;
    ensure!(fs::read(&back)? == bytes[1_000_000..1_500_000]);

    // One with holes comes back with holes.
    let sparse = fs::File::create(&file)?;
    sparse.set_len(u64::try_from(size)?)?;
    sparse.write_all_at(b"something", 40 << 20)?;
    host.virsh(&format!("vol-upload a.raw {file} --pool images --sparse"))?;
    ensure!(fs::read(images.join("a.raw"))? == fs::read(&file)?);
    ensure!(fs::metadata(images.join("a.raw"))?.blocks() * 512 < 4 << 20);
    host.virsh(&format!("vol-download a.raw {back} --pool images --sparse"))?;
    ensure!(fs::read(&back)? == fs::read(&file)?);
    ensure!(fs::metadata(&back)?.blocks() * 512 < 4 << 20);
    complains(
        &host,
        &format!("vol-download none.raw {back} --pool images"),
        "failed to get vol 'none.raw'",
    )?;

    // Images are uploaded into volumes that are made for them, however small those were.
    host.virsh("vol-create-as images small.qcow2 1M --format qcow2")?;
    host.virsh(&format!("vol-upload small.qcow2 {file} --pool images"))?;
    ensure!(fs::metadata(images.join("small.qcow2"))?.len() == u64::try_from(size)?);
    Ok(())
}

#[test]
fn what_happens_to_pools_is_told_in_its_order() -> Result<()> {
    let host = Libvirt::start()?;
    let events = ["pool-event", "--event", "lifecycle", "--loop"];
    let listening = host.listen(&events)?;
    let deadline = Instant::now() + PATIENCE;
    // It has asked for them when the first is heard.
    let mut first = None;
    for number in 0.. {
        let target = host.files().join(format!("call{number}"));
        let target = target.display();
        host.virsh(&format!(
            "pool-define-as call{number} dir --target {target}"
        ))?;
        first = listening.next(Duration::from_millis(200));
        if first.is_some() || Instant::now() > deadline {
            break;
        }
    }
    ensure!(first.is_some(), "no event is heard");
    let target = host.files().join("images");
    let target = target.display();
    host.virsh(&format!("pool-define-as images dir --target {target}"))?;
    for command in ["build", "start", "destroy", "delete", "undefine"] {
        host.virsh(&format!("pool-{command} images"))?;
    }
    let about = "event 'lifecycle' for storage pool images: ";
    for wanted in [
        "Defined",
        "Created",
        "Started",
        "Stopped",
        "Deleted",
        "Undefined",
    ] {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = listening.next(left) else {
                bail!("'{wanted}' is not told");
            };
            if line == format!("{about}{wanted}") {
                break;
            }
            ensure!(
                !line.starts_with(about),
                "{line}, where {wanted} was to come"
            );
        }
    }
    Ok(())
}

#[test]
fn a_refresh_is_told_of() -> Result<()> {
    let (host, _) = with_pool()?;
    let listening = host.listen(&["pool-event", "images", "--event", "refresh", "--loop"])?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        host.virsh("pool-refresh images")?;
        if let Some(line) = listening.next(Duration::from_millis(200)) {
            ensure!(line == "event 'refresh' for storage pool images", "{line}");
            return Ok(());
        }
    }
    bail!("no refresh is heard")
}

#[test]
fn who_only_looks_changes_nothing() -> Result<()> {
    let (host, images) = with_pool()?;
    host.virsh("vol-create-as images a.raw 1M")?;
    for line in [
        "-r pool-list --all --details",
        "-r pool-dumpxml images",
        "-r vol-list images --details",
        "-r vol-info a.raw images",
    ] {
        ensure!(!host.virsh(line)?.is_empty(), "{line}");
    }
    let out = host.outside().join("out");
    for line in [
        "-r pool-destroy images",
        "-r pool-refresh images",
        "-r pool-undefine images",
        "-r vol-delete a.raw --pool images",
        "-r vol-create-as images b.raw 1M",
        &format!("-r vol-download a.raw {} --pool images", out.display()),
    ] {
        complains(&host, line, "read only access prevents")?;
    }
    ensure!(images.join("a.raw").exists());
    shows(&host, "pool-list", "images active no")
}

#[test]
fn pools_and_volumes_that_cannot_be_are_refused_by_what_is_wrong() -> Result<()> {
    let host = Libvirt::start()?;
    let outside = host.outside().join("elsewhere");
    let outside = outside.display();
    complains(
        &host,
        &format!("pool-create-as far dir --target {outside} --build"),
        "allowed_directories",
    )?;
    complains(
        &host,
        "pool-define-as far netfs --source-host a --source-path /a --target /b",
        "'netfs' is not provided; there is dir",
    )?;
    complains(&host, "find-storage-pool-sources-as dir", "not supported")?;
    shows(
        &host,
        "pool-capabilities",
        "<pool type='dir' supported='yes'>",
    )?;
    Ok(())
}

#[test]
fn a_domain_goes_with_all_its_storage() -> Result<()> {
    let (host, images) = with_pool()?;
    host.virsh("vol-create-as images a.qcow2 16M --format qcow2")?;
    host.virsh("vol-create-as images b.raw 16M --format raw")?;
    let first = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk>",
        images.join("a.qcow2").display()
    );
    // By its name in its pool: what is kept is its path.
    let second = "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>\
                  <source pool='images' volume='b.raw'/><target dev='vdb' bus='virtio'/></disk>";
    let document = format!(
        "<domain type='kvm'><name>web</name>\
           <metadata><reeve:domain xmlns:reeve='urn:x-reeve:domain:1'>\
             <reeve:boot source='built-in'/></reeve:domain></metadata>\
           <memory unit='MiB'>64</memory><vcpu>1</vcpu>\
           <os><type arch='x86_64'>hvm</type><cmdline>mode=echo</cmdline></os>\
           <devices>{first}{second}</devices></domain>"
    );
    let file = host.outside().join("web.xml");
    fs::write(&file, document)?;
    host.virsh("pool-destroy images")?;
    complains(&host, &format!("define {}", file.display()), "not active")?;
    host.virsh("pool-start images")?;
    host.virsh(&format!("define {}", file.display()))?;
    let listed = host.virsh("domblklist web")?;
    let [a, b] = ["a.qcow2", "b.raw"].map(|name| images.join(name).display().to_string());
    ensure!(listed == format!("vda {a} vdb {b}"), "{listed}");
    host.virsh("start web")?;
    // What a machine uses is not taken from it.
    complains(&host, "vol-delete a.qcow2 --pool images", "use")?;
    ensure!(images.join("a.qcow2").exists());
    host.virsh("destroy web")?;
    let deadline = Instant::now() + PATIENCE;
    while host.virsh("domstate web")? != "shut off" {
        ensure!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.virsh("undefine web --remove-all-storage")?;
    ensure!(host.virsh("list --all")?.is_empty());
    ensure!(host.virsh("vol-list images")?.is_empty());
    let left = fs::read_dir(&images)?.next();
    ensure!(left.is_none(), "{left:?}");
    let pool = host.virsh("pool-info images").context("the pool is gone")?;
    ensure!(pool.contains("State: running"));
    Ok(())
}
