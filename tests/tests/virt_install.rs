//! Debian's `virt-install` and `virt-clone` make domains, their disks and the pools for those with a real `reeved`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_guest::mode::{Wait, block_verify};
use reeve_tests::libvirt::Libvirt;

/// How long a guest may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host, with a kernel file.
fn host() -> Result<(Libvirt, PathBuf)> {
    let host = Libvirt::start()?;
    // The built-in guest, as a file like any other.
    let kernel = host.files().join("kernel");
    fs::write(&kernel, reeve_guest::DRIVERS_IMAGE)?;
    Ok((host, kernel))
}

/// What each is called with.
fn install<'a>(name: &'a str, boot: &'a str, disk: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "--name",
        name,
        "--memory",
        "128",
        "--vcpus",
        "1",
        "--import",
        "--boot",
        boot,
        "--disk",
        disk,
        "--network",
        "none",
        "--noautoconsole",
    ];
    arguments.extend_from_slice(more);
    arguments
}

/// Nothing is known of what is in it.
const UNKNOWN: [&str; 4] = ["--osinfo", "detect=off,require=off", "--graphics", "none"];

fn ends(host: &Libvirt, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = host.virsh(&format!("domstate --reason {name}"))?;
        if state == "shut off (shutdown)" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it is {state}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_image_is_imported_and_its_guest_uses_it() -> Result<()> {
    let (host, kernel) = host()?;
    let images = host.files().join("images");
    fs::create_dir(&images)?;
    host.virsh(&format!(
        "pool-create-as first dir --target {}",
        images.display()
    ))?;
    host.virsh("vol-create-as first disk.qcow2 64M --format qcow2")?;
    host.virsh("pool-destroy first")?;
    let arguments = block_verify(7, 200, Wait::Interrupt);
    let boot = format!("kernel={},kernel_args=\"{arguments}\"", kernel.display());
    let image = images.join("disk.qcow2");
    let disk = format!("path={},format=qcow2,bus=virtio", image.display());
    // It makes a pool of the directory, and starts it with the host from then on.
    let said = host.run("virt-install", &install("web", &boot, &disk, &UNKNOWN))?;
    ensure!(said.contains("Domain creation completed"), "{said}");
    let pools = host.virsh("pool-list --all")?;
    ensure!(pools == "images active yes", "{pools}");
    ends(&host, "web")?;
    // The log is written beside, and may be behind.
    let path = host.daemon.state().join("log/web.console.log");
    let deadline = Instant::now() + PATIENCE;
    let said = || fs::read_to_string(&path).unwrap_or_default();
    while !said().contains("requests verified") {
        ensure!(Instant::now() < deadline, "{}", said());
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is kept.
    let listed = host.virsh("list --all")?;
    ensure!(listed == "- web shut off", "{listed}");
    let disks = host.virsh("domblklist web")?;
    ensure!(disks == format!("vda {}", image.display()), "{disks}");
    let used = host.virsh("vol-info disk.qcow2 images --bytes")?;
    ensure!(used.contains("Capacity: 67108864 bytes"), "{used}");
    Ok(())
}

#[test]
fn a_disk_is_made_for_an_operating_system_that_is_known_and_cloned_with_its_domain() -> Result<()> {
    let (host, kernel) = host()?;
    let images = host.files().join("images");
    fs::create_dir(&images)?;
    let image = images.join("web.qcow2");
    let boot = format!("kernel={},kernel_args=\"mode=echo\"", kernel.display());
    // One GiB, in a pool that it makes; on virtio, as Linux of that year has it.
    let disk = format!("path={},size=1", image.display());
    let known = ["--osinfo", "linux2022", "--noreboot"];
    host.run("virt-install", &install("web", &boot, &disk, &known))?;
    let info = host.virsh("vol-info web.qcow2 images --bytes")?;
    ensure!(info.contains("Capacity: 1073741824 bytes"), "{info}");
    let document = host.virsh("dumpxml web")?;
    let source = format!("<source file='{}'/>", image.display());
    for part in [&source[..], "bus='virtio'", "org.qemu.guest_agent.0"] {
        ensure!(document.contains(part), "{part}: {document}");
    }
    let cloned = host.run("virt-clone", &["--original", "web", "--auto-clone"])?;
    ensure!(cloned.contains("created successfully"), "{cloned}");
    let clone = images.join("web-clone.qcow2");
    ensure!(clone.exists());
    let disks = host.virsh("domblklist web-clone")?;
    ensure!(disks == format!("vda {}", clone.display()), "{disks}");
    ensure!(host.virsh("domuuid web")? != host.virsh("domuuid web-clone")?);
    host.virsh("start web-clone")?;
    host.virsh("destroy web-clone")?;
    host.virsh("start web")?;
    host.virsh("destroy web")?;
    host.virsh("undefine web-clone --remove-all-storage")?;
    ensure!(!clone.exists() && image.exists());
    Ok(())
}

#[test]
fn disks_are_made_in_a_pool_by_size_alone_and_above_another() -> Result<()> {
    let (host, kernel) = host()?;
    let images = host.files().join("images");
    let target = images.display();
    host.virsh(&format!(
        "pool-create-as default dir --target {target} --build"
    ))?;
    let boot = format!("kernel={}", kernel.display());
    let mut more = vec!["--noreboot"];
    more.extend_from_slice(&UNKNOWN);
    more.extend(["--disk", "size=1,pool=default,format=raw,bus=virtio"]);
    // In the pool of that name, since no other is said.
    let first = "size=1,bus=virtio";
    host.run("virt-install", &install("web", &boot, first, &more))?;
    let disks = host.virsh("domblklist web")?;
    ensure!(
        disks == format!("vda {target}/web.qcow2 vdb {target}/web.img"),
        "{disks}"
    );
    let above = format!(
        "path={target}/above.qcow2,backing_store={target}/web.img,backing_format=raw,bus=virtio,size=1"
    );
    let mut more = vec!["--noreboot"];
    more.extend_from_slice(&UNKNOWN);
    host.run("virt-install", &install("above", &boot, &above, &more))?;
    let volume = host.virsh("vol-dumpxml above.qcow2 --pool default")?;
    let backing = format!("<backingStore> <path>{target}/web.img</path>");
    ensure!(volume.contains(&backing), "{volume}");
    let volume = host.virsh("vol-key web.img --pool default")?;
    let given = "vol=default/web.img,bus=virtio";
    more.extend(["--check", "path_in_use=off"]);
    host.run("virt-install", &install("given", &boot, given, &more))?;
    let disks = host.virsh("domblklist given")?;
    ensure!(disks == format!("vda {volume}"), "{disks}");
    Ok(())
}

#[test]
fn a_disk_on_another_bus_is_refused_with_what_there_is() -> Result<()> {
    let (host, kernel) = host()?;
    let images = host.files().join("images");
    fs::create_dir(&images)?;
    fs::File::create(images.join("a.raw"))?.set_len(1 << 20)?;
    let boot = format!("kernel={}", kernel.display());
    let disk = format!("path={},format=raw", images.join("a.raw").display());
    let mut more = vec!["--noreboot"];
    more.extend_from_slice(&UNKNOWN);
    let mut command = host.client("virt-install");
    let output = command.args(install("web", &boot, &disk, &more)).output()?;
    ensure!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("every disk is a virtio disk"), "{said}");
    ensure!(host.virsh("list --all")?.is_empty());
    Ok(())
}

#[test]
fn a_disk_alone_is_not_started_and_what_a_kernel_installed_on_it_is_kept() -> Result<()> {
    const WORDS: &str = "unsupported configuration: ";
    const WHY: &str = "there is no firmware that boots a disk; give a <kernel>";
    let (host, kernel) = host()?;
    let images = host.files().join("images");
    fs::create_dir(&images)?;
    let image = images.join("a.raw");
    fs::File::create(&image)?.set_len(1 << 20)?;
    let disk = format!("path={},format=raw,bus=virtio", image.display());
    let mut command = host.client("virt-install");
    let output = command
        .args(install("web", "hd", &disk, &UNKNOWN))
        .output()?;
    ensure!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains(WORDS) && said.contains(WHY), "{said}");
    ensure!(host.virsh("list --all")?.is_empty());

    // As it installs from a location: it starts one with the installer's kernel, and defines it without.
    let boot = format!("kernel={},kernel_args=\"mode=echo\"", kernel.display());
    let mut more = vec!["--transient"];
    more.extend_from_slice(&UNKNOWN);
    host.run("virt-install", &install("web", &boot, &disk, &more))?;
    let file = host.outside().join("web.xml");
    let running = host.run("virsh", &["dumpxml", "web"])?;
    let (before, rest) = running.split_once("<kernel>").context("no kernel")?;
    let (_, after) = rest.split_once("</cmdline>").context("no command line")?;
    let installed = format!("{before}<boot dev='hd'/>{after}");
    fs::write(&file, &installed)?;
    host.virsh(&format!("define {}", file.display()))?;
    ensure!(host.virsh("list --persistent --name")? == "web");
    let definition = host.virsh("dumpxml web --inactive")?;
    ensure!(!definition.contains("<kernel>"), "{definition}");
    ensure!(definition.contains("<boot dev='hd'/>"), "{definition}");
    host.virsh("destroy web")?;
    let why = host.refused("start web")?;
    ensure!(why.contains(WORDS) && why.contains(WHY), "{why}");
    // It can be given one of its own.
    let kernel = format!("<kernel>{}</kernel><boot dev='hd'/>", kernel.display());
    fs::write(&file, installed.replace("<boot dev='hd'/>", &kernel))?;
    host.virsh(&format!("define {}", file.display()))?;
    host.virsh("start web")?;
    Ok(())
}
