//! Debian's libvirtd, apart from the machine's own: in namespaces for mounts, processes, network and IPC.
//!
//! Its directories lie in a directory of the test's, bound over those of the machine; the first process of its
//! namespace reaps, as on a machine, and when that is killed the kernel kills all that libvirtd started.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{Leashed, Session};

const DAEMON: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";

/// As root and without what a machine with systemd has around it.
const QEMU: &str = "security_driver = \"none\"\nuser = \"root\"\ngroup = \"root\"\nstdio_handler = \"file\"\n\
    cgroup_controllers = []\nnamespaces = []\ndynamic_ownership = 0\nremember_owner = 0\n";

/// What the first process of the namespace does: `$1` is the directory, `$2` the bridge.
const FIRST: &str = "set -e
mount --make-rprivate /
ip link set lo up
ip link add \"$2\" type bridge
ip link set \"$2\" up
for name in etc run lib cache log; do
    case $name in etc|run) to=/$name/libvirt;; *) to=/var/$name/libvirt;; esac
    mkdir -p $to
    mount --bind \"$1/$name\" $to
done
libvirtd --pid-file \"$1/pid\" --config \"$1/libvirtd.conf\" &
wait
";

/// Where its socket is, in its directory.
pub(super) const SOCKET: &str = "sockets/libvirt-sock";

/// Starts one in `directory`, which must be empty; it dies with the thread that calls, and on drop.
pub(super) fn start(directory: &Path, bridge: &str) -> Result<Leashed> {
    for name in ["etc", "run", "lib", "cache", "log", "sockets"] {
        fs::create_dir(directory.join(name))?;
    }
    let sockets = directory.join("sockets");
    let settings = format!("{DAEMON}unix_sock_dir = \"{}\"\n", sockets.display());
    fs::write(directory.join("libvirtd.conf"), settings)?;
    fs::write(directory.join("etc/qemu.conf"), QEMU)?;
    let log = fs::File::create(directory.join("libvirtd.log"))?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", FIRST, "sh"])
        .arg(directory)
        .arg(bridge)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let started = Leashed::spawn(&mut command, Session::Group, &[]);
    started.context("unshare is not there: install util-linux")
}

/// What it has said.
pub(super) fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("libvirtd.log")).unwrap_or_default()
}
