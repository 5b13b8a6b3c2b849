//! Debian's libvirtd in namespaces of its own: it sees none of the host's configuration and leaves nothing.
//!
//! It is the child of the first process of a PID namespace, which reaps at once: libvirtd waits for the end of
//! its QEMUs, and a first process that is slow to reap would be counted as libvirtd's time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::client::Client;
use crate::contender::{DEADLINE, find_program};

/// Its executable, as Debian names it.
pub const PROGRAM: &str = "libvirtd";
/// How often it is seen whether it serves.
const AGAIN: Duration = Duration::from_millis(20);

/// No security driver, no cgroups, no log daemon: libvirtd at its quickest.
const QEMU_CONFIGURATION: &str = "\
security_driver = \"none\"
user = \"root\"
group = \"root\"
stdio_handler = \"file\"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
remember_owner = 0
";

/// The places that it must not share with the host's.
const PRIVATE: [&str; 5] = [
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
];

/// One that serves.
#[derive(Debug)]
pub struct Libvirtd {
    directory: TempDir,
    child: Child,
}

impl Libvirtd {
    /// Starts one, if it is installed.
    ///
    /// # Errors
    /// It is, and does not serve.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(program) = find_program(PROGRAM) else {
            return Ok(None);
        };
        let directory = tempfile::tempdir()?;
        let configuration = directory.path().join("libvirtd.conf");
        let sockets = directory.path().join("sockets");
        fs::create_dir(&sockets)?;
        fs::write(
            &configuration,
            format!(
                "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_dir = \"{}\"\n",
                sockets.display()
            ),
        )?;
        let script = script(directory.path(), &program)?;
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["sh", "-c", &script])
            .arg("sh")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot execute unshare")?;
        let libvirtd = Self { directory, child };
        libvirtd.wait_until_it_serves()?;
        Ok(Some(libvirtd))
    }

    fn wait_until_it_serves(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.socket().exists() {
            ensure!(begun.elapsed() < DEADLINE, "libvirtd does not serve");
            sleep(AGAIN);
        }
        Ok(())
    }

    /// A client of its driver `name`.
    ///
    /// # Errors
    /// It does not serve.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        Client::connect(name, &self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sockets/libvirt-sock")
    }
}

/// Hides the host's places behind empty ones, and runs it; its parent reaps what it leaves.
fn script(directory: &Path, program: &Path) -> anyhow::Result<String> {
    let mut script = "set -e; ip link set lo up; ".to_owned();
    for place in PRIVATE {
        // Those that the host lacks are its own to make.
        if !Path::new(place).exists() {
            continue;
        }
        if place.starts_with("/run/") {
            // In memory, as on every host.
            script.push_str(&format!("mount -t tmpfs -o mode=0755 run {place}; "));
            continue;
        }
        let ours = directory.join(place.trim_start_matches('/'));
        fs::create_dir_all(&ours)?;
        script.push_str(&format!("mount --bind '{}' {place}; ", ours.display()));
    }
    // It asks for this user whatever its QEMUs are to have; libvirt-daemon-system would make it.
    for (file, line) in [
        (
            "passwd",
            "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false",
        ),
        ("group", "libvirt-qemu:x:64055:"),
    ] {
        let ours = directory.join(file);
        script.push_str(&format!(
            "cp /etc/{file} '{0}'; mount --bind '{0}' /etc/{file}; \
             grep -q ^libvirt-qemu: /etc/{file} || echo {line} >> /etc/{file}; ",
            ours.display()
        ));
    }
    let settings = directory.join("etc/libvirt");
    fs::create_dir_all(&settings)?;
    fs::write(settings.join("qemu.conf"), QEMU_CONFIGURATION)?;
    script.push_str(&format!("{} -f \"$1\" & wait", program.display()));
    Ok(script)
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // The first process of its namespace goes with it, and with that every other.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
