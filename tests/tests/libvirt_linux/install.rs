//! virt-install that imports the disk of a Debian system and boots it to its login prompt.

use anyhow::{Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::network::Network;
use reeve_tests::reeve::Builder;
use reeve_tests::tool::tool;

use super::host::{BOOT, Host, SHELL, expect_up, guest};

#[reeve_tests::in_lab(timeout = "900s", root)]
fn virt_install_imports_debian_to_its_login_prompt() -> Result<()> {
    let network = Network::new()?;
    // The place of the namespaces of networks stays when a network goes.
    let before = Snapshot::take();
    let host = Host::start()?;
    let image = host.path("debian.qcow2");
    let base = assets().disk.display().to_string();
    tool(
        "qemu-img",
        [
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &image,
        ],
    )?;
    let (kernel, initrd) = (assets().vmlinux.display(), assets().initramfs.display());
    let mut command = host.client("virt-install");
    command
        .args(["--name", "debian", "--memory", "512", "--vcpus", "1"])
        .args(["--osinfo", "linux2022", "--import"])
        .arg("--disk")
        .arg(format!("path={image},format=qcow2"))
        .arg("--boot")
        .arg(format!(
            "kernel={kernel},initrd={initrd},kernel_args=\"{COMMAND_LINE} root=/dev/vda rw\""
        ))
        .arg("--network")
        .arg(format!("bridge={}", network.bridge()))
        .args(["--graphics", "none"]);
    // It goes on as virsh on the console of what it has started.
    let mut install = Builder::new(command).on_terminal().spawn()?;
    install.expect("Creating domain...", BOOT)?;
    install.expect("login: ", BOOT)?;
    let (vcpus, _) = expect_up(&mut install)?;
    ensure!(vcpus == 1, "{vcpus}");
    let root = guest(&mut install, "grep ' / ' /proc/mounts")?;
    ensure!(root.starts_with("/dev/vda / ext4 rw"), "{root}");

    let document = host.virsh("dumpxml debian")?;
    for part in [&image[..], "type='qcow2'", "org.qemu.guest_agent.0", "<rng"] {
        ensure!(document.contains(part), "{part}: {document}");
    }
    let info = host.virsh("dominfo debian")?;
    ensure!(
        info.contains("running") && info.contains("Persistent:     yes"),
        "{info}"
    );
    host.virsh("shutdown debian")?;
    install.expect(POWER_BUTTON_MARKER, SHELL)?;
    let status = install.wait(SHELL)?;
    ensure!(status.success(), "{status}: {}", install.output());
    host.wait_for_state("debian", "shut off (shutdown)")?;
    host.virsh("undefine debian")?;
    tool("qemu-img", ["check", "-q", &image])?;
    drop((install, host, network));
    before.assert_nothing_new(SHELL);
    Ok(())
}
