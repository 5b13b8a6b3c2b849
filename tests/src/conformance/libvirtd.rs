//! Debian's libvirtd, apart from the machine's own: in namespaces for mounts, processes, network and IPC.
//!
//! Its directories lie in a directory of the test's, bound over those of the machine; the first process of its
//! namespace reaps, as on a machine, and when that is killed the kernel kills all that libvirtd started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
# It asks for these whatever user its QEMUs are to have; libvirt-daemon-system would make them.
for file in passwd group; do
    cp /etc/$file \"$1/$file\"
    mount --bind \"$1/$file\" /etc/$file
done
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/nonexistent:/bin/false >> /etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >> /etc/group
libvirtd --pid-file \"$1/pid\" --config \"$1/libvirtd.conf\" &
wait
";

/// Where its socket is, in its directory.
pub(super) const SOCKET: &str = "sockets/libvirt-sock";

/// The network filters that an administrator gets who installs all of libvirt.
const SHIPPED_FILTERS: &str = "/usr/share/libvirt/nwfilter";

/// How long the kernel may take to end a namespace.
const SOON: Duration = Duration::from_secs(10);

/// One that runs; it dies with the thread that started it, and on drop, and its QEMUs with it.
#[derive(Debug)]
pub(super) struct Libvirtd {
    process: Option<Leashed>,
    directory: PathBuf,
}

impl Drop for Libvirtd {
    /// Its directory can be removed then.
    fn drop(&mut self) {
        self.process = None;
        let deadline = Instant::now() + SOON;
        while is_named_by_a_process(&self.directory) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn is_named_by_a_process(directory: &Path) -> bool {
    let place = directory.display().to_string();
    let mut processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&place)
    })
}

/// Starts one in `directory`, which must be empty.
pub(super) fn start(directory: &Path, bridge: &str) -> Result<Libvirtd> {
    for name in ["etc", "run", "lib", "cache", "log", "sockets"] {
        fs::create_dir(directory.join(name))?;
    }
    let sockets = directory.join("sockets");
    let settings = format!("{DAEMON}unix_sock_dir = \"{}\"\n", sockets.display());
    fs::write(directory.join("libvirtd.conf"), settings)?;
    fs::write(directory.join("etc/qemu.conf"), QEMU)?;
    let filters = directory.join("etc/nwfilter");
    fs::create_dir(&filters)?;
    let shipped = fs::read_dir(SHIPPED_FILTERS)
        .with_context(|| format!("{SHIPPED_FILTERS}: install libvirt-daemon-config-nwfilter"))?;
    for file in shipped {
        let file = file?;
        fs::copy(file.path(), filters.join(file.file_name()))?;
    }
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
    Ok(Libvirtd {
        process: Some(started.context("unshare is not there: install util-linux")?),
        directory: directory.to_owned(),
    })
}

/// What it has said.
pub(super) fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("libvirtd.log")).unwrap_or_default()
}
