//! A host that is managed by TLS from another one, and its clients.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::libvirt::Libvirt;
use crate::remote::{Authority, Neighbour};
use crate::virsh::{fail, succeed};

/// How long something may take that is bounded otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stays connected, and asks for something all the time.
const HOLD: &str = "\
import libvirt, sys, time
libvirt.registerErrorHandler(lambda _context, _error: None, None)
kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
# Whoever has to log in does so by a file.
connection = libvirt.openAuth(sys.argv[1], [kinds, lambda *_: -1, None], 0)
print('in', flush=True)
try:
    while True:
        connection.getLibVersion()
        time.sleep(0.02)
except libvirt.libvirtError:
    print('gone', flush=True)
";

/// A client that stays connected.
#[derive(Debug)]
pub struct Held {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Held {
    /// Waits until it has no connection any more.
    ///
    /// # Errors
    /// It ends otherwise.
    pub fn is_gone(mut self) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line == "gone\n", "{line}");
        Ok(())
    }

    /// Whether it is connected still.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_in(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host that is managed by TLS, with another one, and the authority of both.
#[derive(Debug)]
pub struct Managed {
    /// The host.
    pub host: Libvirt,
    /// The other one.
    pub near: Neighbour,
    /// The authority of both.
    pub authority: Authority,
    /// The port at which the host serves.
    pub port: u16,
}

impl Managed {
    /// With a key of that kind, and these lines of configuration.
    ///
    /// # Errors
    /// It does not serve.
    pub fn start(
        kind: &str,
        near: Neighbour,
        authority: Authority,
        settings: &str,
    ) -> Result<Self> {
        let files = authority.server(kind, &[&near.here])?;
        let settings = format!("tls_listen = [\"0.0.0.0:0\"]\n{files}{settings}");
        let host = Libvirt::start_with(&settings)?;
        let mut port = 0;
        until("it says where it is", || {
            let log = host.daemon.log();
            let rest = log.split_once("are served at 0.0.0.0:");
            let Some((said, _)) = rest.and_then(|(_, rest)| rest.split_once(' ')) else {
                return Ok(false);
            };
            port = said.parse()?;
            Ok(true)
        })?;
        Ok(Self {
            host,
            near,
            authority,
            port,
        })
    }

    /// As usual.
    ///
    /// # Errors
    /// It does not serve.
    pub fn usual() -> Result<Self> {
        Self::start("ec", Neighbour::new()?, Authority::new("ours")?, "")
    }

    /// The URI for whoever has the files in that directory. Its own look at its certificate is left out, so that ours
    /// is what counts.
    #[must_use]
    pub fn uri(&self, files: &Path) -> String {
        let (here, port) = (&self.near.here, self.port);
        let files = files.display();
        format!("qemu+tls://{here}:{port}/system?pkipath={files}&no_sanity=1")
    }

    /// The URI for a client with a certificate of that name; its files are in a directory of that one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn client(&self, name: &str, subject: &str) -> Result<String> {
        let files = self
            .authority
            .client(name, subject, None, &self.authority)?;
        Ok(self.uri(&files))
    }

    /// What `virsh` says there.
    ///
    /// # Errors
    /// It fails.
    pub fn virsh(&self, uri: &str, arguments: &[&str]) -> Result<String> {
        succeed(self.near.virsh(uri, arguments)).with_context(|| self.host.daemon.log())
    }

    /// That a client is refused, for that reason and in one line.
    ///
    /// # Errors
    /// It is not.
    pub fn refuses(&self, uri: &str, why: &str) -> Result<()> {
        let before = self.refusals();
        fail(self.near.virsh(uri, &["list"]))?;
        self.until_refused(before, why)
    }

    /// How many were refused so far.
    #[must_use]
    pub fn refusals(&self) -> usize {
        self.host.daemon.log().matches("was refused: ").count()
    }

    /// That one was refused since there were `before`, for that reason and in one line.
    ///
    /// # Errors
    /// None was, or not so.
    pub fn until_refused(&self, before: usize, why: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.refusals() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = self.host.daemon.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("was refused: "))
            .skip(before)
            .collect();
        let [line] = lines[..] else {
            anyhow::bail!("{lines:?}, and not one line: {why}\n{log}");
        };
        ensure!(line.contains(why), "{line}: {why}");
        ensure!(line.contains(&self.near.there), "{line}");
        Ok(())
    }

    /// A client there that stays connected, until [`Held::is_gone`] or as long as its value lives. It has the environment's
    /// further variables.
    ///
    /// # Errors
    /// It does not get in.
    pub fn hold(&self, uri: &str, environment: &[(&str, &Path)]) -> Result<Held> {
        let mut command = self.near.command("/usr/bin/python3");
        command
            .args(["-c", HOLD, uri])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let held = Held { child, said };
        ensure!(line == "in\n", "{line}: {}", self.host.daemon.log());
        Ok(held)
    }

    /// Has the host read its configuration again, with a line behind what it was; gives what it says.
    ///
    /// # Errors
    /// It does not.
    pub fn reload(&self, before: &str, line: &str) -> Result<String> {
        fs::write(self.config(), format!("{before}{line}\n"))?;
        self.host.daemon.reeve(&["reload"])
    }

    /// The host's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.host.outside().join("reeve.toml")
    }

    /// Processes of this daemon that serve libvirt's clients: those that wait, and others.
    ///
    /// # Errors
    /// It does not run.
    pub fn gateways(&self) -> Result<usize> {
        Ok(self.gateway_pids()?.len())
    }

    /// Which they are.
    ///
    /// # Errors
    /// As for [`Self::gateways`].
    pub fn gateway_pids(&self) -> Result<Vec<u32>> {
        let daemon = self.host.daemon.pid().context("it runs")?;
        let children = format!("/proc/{daemon}/task");
        let mut found = Vec::new();
        for thread in fs::read_dir(children)? {
            let path = thread?.path().join("children");
            let children = fs::read_to_string(path).unwrap_or_default();
            for pid in children.split_whitespace() {
                let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                if name.is_ok_and(|name| name.trim() == "reeve-gateway") {
                    found.push(pid.parse()?);
                }
            }
        }
        Ok(found)
    }
}

/// Waits for something.
///
/// # Errors
/// It does not come.
pub fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A domain of that name, with the built-in guest.
#[must_use]
pub fn document(name: &str) -> String {
    format!(
        "<domain type='kvm'>\
           <name>{name}</name>\
           <metadata>\
             <reeve:domain xmlns:reeve='urn:x-reeve:domain:1'><reeve:boot source='built-in'/></reeve:domain>\
           </metadata>\
           <memory unit='MiB'>64</memory>\
           <vcpu>1</vcpu>\
           <os><type arch='x86_64' machine='reeve'>hvm</type><cmdline>mode=echo</cmdline></os>\
           <features><acpi/><apic/></features>\
           <devices><memballoon model='virtio'/></devices>\
         </domain>"
    )
}
