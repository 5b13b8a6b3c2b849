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
    // What the agent runs, systemd's own, leaves it to logind, which is not there.
    guest(
        &mut install,
        "rm /sbin/shutdown; printf '#!/bin/sh\\nsystemctl --no-block start poweroff.target\\n' >/sbin/shutdown; chmod +x /sbin/shutdown",
    )?;
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
    what_it_tells(host).context("what it tells")?;
    clock(host, console).context("the clock")?;
    frozen(host, console).context("the frozen file system")?;
    asked(
        host,
        "set-user-password debian root $6$of$the.test --encrypted",
    )?;
    guest(console, "grep -F 'root:$6$of$the.test:' /etc/passwd")?;
    Ok(())
}

fn what_it_tells(host: &Host) -> Result<()> {
    let name = asked(host, "domhostname debian --source agent")?;
    ensure!(name == "debian", "{name}");
    // Words of one line each.
    let rows: &[(&str, &str)] = &[
        ("guestinfo debian --os", "os.id : debian"),
        ("guestinfo debian", "os.version-id : 12"),
        ("guestinfo debian", "user.count :"),
        ("guestinfo debian", "timezone.offset : 0"),
        ("guestinfo debian", "hostname : debian"),
        ("guestinfo debian", "fs.count : 1"),
        ("guestinfo debian", "fs.0.mountpoint : /"),
        ("guestinfo debian", "fs.0.fstype : ext4"),
        ("guestinfo debian", "fs.0.disk.0.alias : vda"),
        ("guestinfo debian", "if.0.name : lo"),
        ("domfsinfo debian", "/ vda ext4 vda"),
        ("guestvcpus debian", "vcpus : 0"),
        ("guestvcpus debian", "online : 0"),
        (
            "domifaddr debian --source agent",
            "lo 00:00:00:00:00:00 ipv4 127.0.0.1/8",
        ),
    ];
    let (mut line, mut said) = ("", String::new());
    for &(next, row) in rows {
        if line != next {
            line = next;
            said = asked(host, line)?;
        }
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            said.lines().any(|line| words(line).starts_with(row)),
            "{line}: {row}: {said}"
        );
    }
    let ask = |what: &str| {
        let line = format!(r#"qemu-agent-command debian '{{"execute": "{what}"}}'"#);
        asked(host, &line)
    };
    let said = ask("guest-ping")?;
    ensure!(said == r#"{"return":{}}"#, "{said}");
    let refused = ask("guest-of-none").err().context("an unknown command")?;
    ensure!(
        refused
            .to_string()
            .contains("guest-of-none has not been found"),
        "{refused}"
    );
    Ok(())
}

/// The guest's time is that of its machine, and it is set there and in the machine.
fn clock(host: &Host, console: &mut Reeve) -> Result<()> {
    /// Seconds.
    const LATE: u64 = 600;
    let told = || -> Result<u64> {
        let said = asked(host, "domtime debian")?;
        let time = said.trim_start_matches("Time: ").parse();
        time.with_context(|| said.clone())
    };
    let now = || -> Result<u64> { Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()) };
    // Both are of the lab's own clock.
    let (time, here) = (told()?, now()?);
    ensure!(time.abs_diff(here) < LATE, "{time}, and it is {here}");
    let later = here + 100_000;
    asked(host, &format!("domtime debian --time {later}"))?;
    let time = told()?;
    ensure!(time.abs_diff(later) < LATE, "{time} after {later} is set");
    // The agent has it written to the machine's own clock.
    guest(console, &format!("date -s @{here}"))?;
    asked(host, "domtime debian --sync")?;
    let time = told()?;
    ensure!(time.abs_diff(later) < LATE, "{time} of a clock of {later}");
    Ok(())
}

/// Nothing is written while it is frozen, and all that waits is when it is thawed.
fn frozen(host: &Host, console: &mut Reeve) -> Result<()> {
    let froze = asked(host, "domfsfreeze debian")?;
    ensure!(froze.contains("Froze 1 filesystem"), "{froze}");
    guest(console, "(echo word >/root/late &)")?;
    guest(console, "sleep 1; [ ! -e /root/late ]")?;
    let thawed = asked(host, "domfsthaw debian")?;
    ensure!(thawed.contains("Thawed 1 filesystem"), "{thawed}");
    guest(console, "until [ -s /root/late ]; do sleep 0.1; done; sync")?;
    Ok(())
}

/// What the agent says: one that is emulated twice over may take longer for its first word than the 5 s that it has.
fn asked(host: &Host, line: &str) -> Result<String> {
    let deadline = Instant::now() + SHELL;
    loop {
        match host.virsh(line) {
            Err(error)
                if Instant::now() < deadline
                    && error.to_string().contains("agent is not responding") =>
            {
                std::thread::sleep(Duration::from_millis(200));
            }
            said => return said,
        }
    }
}
