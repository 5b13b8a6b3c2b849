//! What the packages' scripts and an installer would have done to the system, and what it starts: as
//! an inner guest a login on the console and an answer to the power button, as an outer guest the
//! lab's session.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;

/// Configures an address as busybox's DHCP client got it.
pub(in crate::lab) const UDHCPC: &str = include_str!("../../../lab/udhcpc.sh");
const PROFILE: &str = include_str!("../../../lab/debian-profile.sh");
/// Units that wait for what this machine does not have (udev, D-Bus), or take time for nothing.
const MASKED: &[&str] = &[
    "getty.target",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-random-seed.service",
    "systemd-boot-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-pstore.service",
    "systemd-binfmt.service",
    "systemd-timesyncd.service",
    "systemd-journal-flush.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
];
/// What an inner guest and an outer guest come up to, and what these want.
const UNITS: &[(&str, &str)] = &[
    (
        "guest.target",
        "[Unit]
Requires=multi-user.target
Wants=guest-console.service guest-power.service
AllowIsolate=yes
",
    ),
    (
        "guest-console.service",
        "[Unit]
After=multi-user.target
[Service]
Type=idle
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud - 115200 dumb
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/console
TTYReset=yes
SendSIGHUP=yes
TimeoutStopSec=5
Restart=always
RestartSec=0
",
    ),
    (
        "guest-power.service",
        "[Service]
ExecStart=/lab/busybox acpid -f -c /etc/acpi -l /dev/null -p /run/acpid.pid
",
    ),
    (
        "lab.target",
        "[Unit]\nRequires=multi-user.target lab.service\nAllowIsolate=yes\n",
    ),
    (
        "lab.service",
        "[Unit]
After=multi-user.target
[Service]
ExecStart=/bin/sh -c '. /lab/session.sh; serve'
WorkingDirectory=/
",
    ),
];
/// What systemd-sysusers would make at the first boot, for the units that are here.
const GROUPS: &str = "input:x:996:\nsystemd-journal:x:997:\nkvm:x:998:\nrender:x:999:\n";
/// Their being newer than /usr says that there is no first boot to prepare.
const UPDATED: [&str; 2] = ["etc/.updated", "var/.updated"];
/// What busybox's acpid runs at the power button.
const POWER_BUTTON: &str = "#!/bin/sh
echo REEVE-GUEST-POWER-BUTTON >/dev/console
systemctl --no-block start poweroff.target
";
/// Whoever gets to the console is root.
const PAM: [&str; 4] = ["account", "auth", "password", "session"];
/// Of what tests and the session's script use, Debian has all but these in packages that are here.
const BUSYBOX: &[&str] = &["httpd", "nc", "ping", "ps", "udhcpc", "wget"];

/// Changes when what [`configure`] makes does.
pub(super) const SOURCES: [&str; 3] = [include_str!("system.rs"), UDHCPC, PROFILE];

/// Makes a system of the unpacked packages below `root`.
pub(super) fn configure(root: &Path, busybox: &Path) -> Result<()> {
    for name in [
        "assets",
        "dev",
        "etc/acpi/PWRF",
        "etc/udhcpc",
        "lab",
        "mnt",
        "payload",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/local/bin",
    ] {
        fs::create_dir_all(root.join(name))?;
    }
    accounts(root)?;
    for (link, target) in [("sh", "dash"), ("awk", "mawk")] {
        let link = root.join("usr/bin").join(link);
        if !link.exists() {
            symlink(target, link)?;
        }
    }
    fs::write(
        root.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )?;
    fs::write(root.join("etc/hostname"), "debian\n")?;
    fs::write(root.join("etc/fstab"), "")?;
    units(root)?;

    for name in UPDATED {
        fs::write(root.join(name), "")?;
    }
    // An outer guest has its modules there, an inner guest has loaded what it needs.
    symlink("/assets/modules", root.join("usr/lib/modules"))?;
    fs::copy(busybox, root.join("lab/busybox"))?;
    for name in BUSYBOX {
        symlink("/lab/busybox", root.join("usr/local/bin").join(name))?;
    }
    script(&root.join("etc/udhcpc/default.script"), UDHCPC)?;
    script(&root.join("etc/acpi/PWRF/00000080"), POWER_BUTTON)
}

fn accounts(root: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{name}.master"));
        fs::copy(master, root.join("etc").join(name))?;
    }
    let groups = root.join("etc/group");
    let known = fs::read_to_string(&groups)?;
    fs::write(groups, format!("{known}{GROUPS}"))?;
    for kind in PAM {
        fs::write(
            root.join("etc/pam.d").join(format!("common-{kind}")),
            format!("{kind} required pam_permit.so\n"),
        )?;
    }
    fs::write(root.join("root/.profile"), PROFILE)?;
    // Of what a login takes, a third: bash, and processes for the message of the day.
    let users = root.join("etc/passwd");
    let known = fs::read_to_string(&users)?;
    fs::write(users, known.replacen("/bin/bash", "/bin/sh", 1))?;
    fs::remove_dir_all(root.join("etc/update-motd.d"))?;
    Ok(())
}

fn units(root: &Path) -> Result<()> {
    let directory = root.join("etc/systemd/system");
    for unit in MASKED {
        symlink("/dev/null", directory.join(unit))?;
    }
    for (unit, text) in UNITS {
        fs::write(directory.join(unit), text)?;
    }
    symlink("guest.target", directory.join("default.target"))?;
    // Each is a process at every start of systemd and at every reload, for things that are not here.
    fs::remove_dir_all(root.join("usr/lib/systemd/system-generators"))?;
    Ok(())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
