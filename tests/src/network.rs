//! A network for guests to be on: a bridge of this machine, and behind it a network namespace that
//! hands out addresses and serves files. It goes when its value is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::lab::assets;
use crate::process::{Leashed, Session};
use crate::tool::{output, tool};

/// The server's address. Guests get others of 10.77.0.0/24.
pub const SERVER: &str = "10.77.0.1";

/// How long a server may take until it runs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network, made. Needs root.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    namespace: String,
    directory: TempDir,
    servers: Vec<Leashed>,
}

impl Network {
    /// Makes it, with a DHCP server, and an HTTP server for [`Network::directory`].
    pub fn new() -> Result<Network> {
        let mark = std::process::id();
        let directory = tempfile::Builder::new().prefix("network-").tempdir()?;
        let mut network = Network {
            bridge: format!("rtb{mark}"),
            namespace: format!("reeve-test-{mark}"),
            directory,
            servers: Vec::new(),
        };
        network.links(&format!("rtv{mark}"))?;
        let leases = network.directory().join("leases");
        fs::write(&leases, "")?;
        let settings = network.directory().join("udhcpd.conf");
        let text = format!(
            "start 10.77.0.100\nend 10.77.0.120\ninterface eth0\noption subnet 255.255.255.0\n\
             option router {SERVER}\nlease_file {}\n",
            leases.display()
        );
        fs::write(&settings, text)?;
        network.serve(&["udhcpd", "-f", &settings.display().to_string()])?;
        let files = network.directory().display().to_string();
        network.serve(&["httpd", "-f", "-h", &files, "-p", "80"])?;
        Ok(network)
    }

    fn links(&self, port: &str) -> Result<()> {
        let Network {
            bridge, namespace, ..
        } = self;
        tool("ip", ["link", "add", bridge, "type", "bridge"])?;
        tool("ip", ["link", "set", bridge, "up"])?;
        tool("ip", ["netns", "add", namespace])?;
        output(
            Command::new(assets().tool("ip"))
                .args(["link", "add", port, "type", "veth"])
                .args(["peer", "name", "eth0", "netns", namespace]),
        )?;
        tool("ip", ["link", "set", port, "master", bridge, "up"])?;
        let address = format!("{SERVER}/24");
        tool(
            "ip",
            ["-n", namespace, "addr", "add", &address, "dev", "eth0"],
        )?;
        tool("ip", ["-n", namespace, "link", "set", "eth0", "up"])?;
        Ok(())
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// What the HTTP server serves at its root.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a file there of so many bytes, no two blocks of 4 KiB alike.
    pub fn file(&self, name: &str, bytes: u32) -> Result<PathBuf> {
        let path = self.directory().join(name);
        let word = |at: u32| at.wrapping_mul(0x9e37_79b1).to_le_bytes();
        let contents: Vec<u8> = (0..bytes / 4).flat_map(word).collect();
        fs::write(&path, contents)?;
        Ok(path)
    }

    /// Runs a busybox program in the namespace for as long as the network is there. When it returns, what
    /// puts it there has become it: to who looks for leftovers a process that changes its program is two.
    pub fn serve(&mut self, words: &[&str]) -> Result<()> {
        let mut command = self.command(words);
        let server = Leashed::spawn(&mut command, Session::Group, &[])?;
        let program = format!("/proc/{}/exe", server.pid());
        self.servers.push(server);
        let deadline = Instant::now() + PATIENCE;
        while fs::read_link(&program)? != fs::canonicalize(assets().tool("busybox"))? {
            ensure!(Instant::now() < deadline, "{words:?} does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Runs a busybox program in the namespace to its end; gives what it prints.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(words))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(assets().tool("ip"));
        command
            .args(["netns", "exec", &self.namespace])
            .arg(assets().tool("busybox"))
            .args(words);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.servers.clear();
        // The pair of links goes with either end.
        let _ = tool("ip", ["netns", "del", &self.namespace]);
        let _ = tool("ip", ["link", "del", &self.bridge]);
    }
}
