//! A network namespace in which a test's daemon, its networks and its clients are, so that nothing of this machine's
//! own network is touched. It goes when its value is dropped, and all that is in it.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::lab::{assets, inside_outer_guest};
use crate::process::{Leashed, Session};
use crate::tool::output;

/// The namespace. Needs root.
#[derive(Debug)]
pub struct NetNamespace {
    name: String,
    servers: Vec<Leashed>,
}

impl NetNamespace {
    /// Makes one, named after the test's process and `letter`, with its loopback up.
    ///
    /// # Errors
    /// The kernel or `ip` does not make it.
    pub fn new(letter: char) -> Result<Self> {
        let name = format!("reeve-{letter}{}", std::process::id());
        output(Command::new(program("ip")).args(["netns", "add", &name]))?;
        let servers = Vec::new();
        let namespace = Self { name, servers };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program that runs in it, with this machine's mounts.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a program in it for as long as it is there.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn serve(&mut self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(program);
        command.args(arguments);
        let server = Leashed::spawn(&mut command, Session::Group, &[])?;
        self.servers.push(server);
        Ok(())
    }

    /// What `ip` prints in it.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(&program("ip")).args(arguments))
    }

    /// A pair of links between it and another: named `here` in this one and `there` in the other, both up, each with
    /// its address where one is given.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn join(
        &self,
        (here, own): (&str, Option<&str>),
        other: &Self,
        (there, theirs): (&str, Option<&str>),
    ) -> Result<()> {
        self.ip(&[
            "link",
            "add",
            here,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            &other.name,
        ])?;
        for (namespace, link, address) in [(self, here, own), (other, there, theirs)] {
            if let Some(address) = address {
                namespace.ip(&["addr", "add", address, "dev", link])?;
            }
            namespace.ip(&["link", "set", link, "up"])?;
        }
        Ok(())
    }

    /// All of it that a network may change: links, addresses, routes, rules, what forwards; one line each.
    ///
    /// # Errors
    /// A program that shows it is missing.
    pub fn state(&self) -> Result<String> {
        let mut all = String::new();
        for words in [
            &["ip", "-o", "link"][..],
            &["ip", "-o", "addr"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "all"],
            &["nft", "list", "ruleset"],
            &[
                "sh",
                "-c",
                "cd /proc/sys/net && grep . ipv4/ip_forward ipv*/conf/*/forwarding ipv4/conf/*/accept_redirects",
            ],
        ] {
            let (name, arguments) = words.split_first().unwrap_or((&"ip", &[]));
            all.push_str(&output(self.command(&program(name)).args(arguments))?);
            all.push('\n');
        }
        // Lifetimes count down.
        ensure!(!all.is_empty(), "nothing is shown");
        Ok(all)
    }
}

/// A program that shows or makes links and rules: in the lab that of this machine, and not busybox's.
#[must_use]
pub fn program(name: &str) -> String {
    if inside_outer_guest() && matches!(name, "ip" | "nft") {
        return assets().tool(name).display().to_string();
    }
    name.to_owned()
}

impl Drop for NetNamespace {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = Command::new(program("ip"))
            .args(["netns", "del", &self.name])
            .status();
    }
}
