//! Clients of libvirt's protocol as an administrator has them, run where a test runs: virsh, virt-install,
//! Python. They see the test's directories and the lab's assets under the same paths.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::assets;
use crate::reeve::{Builder, Reeve};

/// How long their place may take to be made.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a place for them, in a mount namespace that goes with the process that holds it: their programs from
/// the assets, and everything else from the system that the test is in.
const PLACE: &str = r#"set -e
busybox=$1 system=$2
shift 2
place=$system/mnt
$busybox mount -t tmpfs -o mode=0755 clients "$place"
$busybox cp -r "$system/etc" "$place/etc"
$busybox mkdir "$place/usr" "$place/root"
$busybox mount -o bind "$system/usr" "$place/usr"
for name in bin lib lib64 sbin; do
    $busybox ln -s "usr/$name" "$place/$name"
done
for directory in "$@"; do
    $busybox mkdir -p "$place$directory"
    $busybox mount -o rbind "$directory" "$place$directory"
done
echo there
exec $busybox cat
"#;

/// A place where they run. Needs root.
#[derive(Debug)]
pub struct Clients {
    holder: Reeve,
}

impl Clients {
    /// Makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Clients> {
        let busybox = assets().tool("busybox");
        let mut command = Command::new(&busybox);
        command
            .args(["unshare", "-m"])
            .arg(&busybox)
            .args(["sh", "-c", PLACE, "sh"])
            .arg(&busybox)
            .arg(&assets().clients)
            .args(["/dev", "/proc", "/run"])
            .arg(std::env::temp_dir())
            .arg(assets().vmlinux.parent().context("a directory")?);
        let mut holder = Builder::new(command).spawn()?;
        holder.expect("there\n", PATIENCE)?;
        Ok(Clients { holder })
    }

    /// The command line of one of them.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        command(self.holder.pid(), program)
    }

    /// What makes such command lines, as long as the place is there.
    pub fn start(&self) -> impl Fn(&str) -> Command + Send + Sync + use<> {
        let pid = self.holder.pid();
        move |program| command(pid, program)
    }
}

/// A command line in the place that a process holds.
fn command(holder: u32, program: &str) -> Command {
    let busybox = assets().tool("busybox");
    let mut command = Command::new(&busybox);
    command
        .arg("nsenter")
        .arg(format!("--mount=/proc/{holder}/ns/mnt"))
        .arg(&busybox)
        .arg("chroot")
        .arg(assets().clients.join("mnt"))
        .arg(program)
        .env("PATH", "/usr/bin:/usr/sbin")
        .env("HOME", "/root")
        .env("LC_ALL", "C");
    command
}
