//! virt-install that imports the disk of a Debian system and boots it to its login prompt; and what Debian's guest agent
//! there says and does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, drivers};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::network::Network;
use reeve_tests::reeve::{Builder, Reeve};
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
            "kernel={kernel},initrd={initrd},kernel_args=\"{COMMAND_LINE} {} root=/dev/vda rw\"",
            drivers(&["virtio_console"])
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
    the_agent_answers(&host, &mut install).context("the guest's agent")?;
    asked(&host, "shutdown debian --mode agent")?;
    let status = install.wait(BOOT)?;
    ensure!(status.success(), "{status}: {}", install.output());
    host.wait_for_state("debian", "shut off (shutdown)")?;
    host.virsh("undefine debian")?;
    tool("qemu-img", ["check", "-q", &image])?;
    drop((install, host, network));
    before.assert_nothing_new(SHELL);
    Ok(())
}

/// Starts Debian's own agent, which no udev starts here, and asks it all that virsh asks.
fn the_agent_answers(host: &Host, console: &mut Reeve) -> Result<()> {
    let port = guest(
        console,
        "grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name | cut -d / -f 5",
    )?;
    guest(
        console,
        &format!("qemu-ga -d -m virtio-serial -p /dev/{port}"),
    )?;
    let name = asked(host, "domhostname debian --source agent")?;
    ensure!(name == "debian", "{name}");
    let parts: [(&str, &[&str]); 5] = [
        ("guestinfo debian --os", &["os.id", ": debian"]),
        ("guestinfo debian --filesystem", &["fs.count", ": ext4"]),
        ("domfsinfo debian", &["/ ", "vda", "ext4"]),
        ("guestvcpus debian", &["vcpus", "online", ": 0"]),
        ("domifaddr debian --source agent", &["lo", "127.0.0.1/8"]),
    ];
    for (line, parts) in parts {
        let said = asked(host, line)?;
        for part in parts {
            ensure!(said.contains(part), "{line}: {part}: {said}");
        }
    }
    let said = asked(host, "domtime debian")?;
    let time = said.trim_start_matches("Time: ").parse::<u64>();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // Both are of the lab's own clock.
    ensure!(
        time.with_context(|| said.clone())?.abs_diff(now) < 600,
        "{said}, and it is {now}"
    );
    let froze = asked(host, "domfsfreeze debian")?;
    ensure!(froze.contains("Froze 1 filesystem"), "{froze}");
    let thawed = asked(host, "domfsthaw debian")?;
    ensure!(thawed.contains("Thawed 1 filesystem"), "{thawed}");
    guest(console, "sync")?;
    asked(
        host,
        "set-user-password debian root $6$of$the.test --encrypted",
    )?;
    guest(
        console,
        "grep -hF 'root:$6$of$the.test:' /etc/passwd /etc/shadow",
    )?;
    Ok(())
}

/// What the agent says: one that is emulated twice over may take longer for its first word than the 5 s that it has.
fn asked(host: &Host, line: &str) -> Result<String> {
    let deadline = Instant::now() + SHELL;
    loop {
        match host.virsh(line) {
            Err(error)
                if Instant::now() < deadline && error.to_string().contains("agent is not") =>
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            said => return said,
        }
    }
}
