//! A network namespace in which a test's daemon, its networks and its clients are, so that nothing of this machine's
//! own network is touched. It goes when its value is dropped, and all that is in it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::lab::{assets, inside_outer_guest};
use crate::process::{Leashed, Session};
use crate::tool::output;

/// How long a server may take until it runs.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the names of all of them begin with; a letter and the number of a process follow.
const PREFIX: &str = "reeve-";

/// Whose a namespace of that name is.
fn owner(name: &str) -> Option<u32> {
    let mut rest = name.strip_prefix(PREFIX)?.chars();
    rest.next().filter(char::is_ascii_alphabetic)?;
    rest.as_str().parse().ok()
}

/// Removes the namespaces of processes that are gone.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        let gone = |pid: u32| !std::path::Path::new("/proc").join(pid.to_string()).exists();
        if owner.is_some_and(gone) {
            // Another test may be at it, too.
            let mut delete = Command::new(program("ip"));
            let _ = delete.args(["netns", "del"]).arg(&name).output();
        }
    }
}

/// The namespace. Needs root.
#[derive(Debug)]
pub struct NetNamespace {
    name: String,
    servers: Vec<Leashed>,
}

impl NetNamespace {
    /// Makes one, named after the test's process and `letter`, with its loopback up. Those of processes that were
    /// killed are removed.
    ///
    /// # Errors
    /// The kernel or `ip` does not make it.
    pub fn new(letter: char) -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}{letter}{}", std::process::id());
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

    /// Runs a program in it for as long as it is there. When this returns, what puts it there has become it: to who looks
    /// for leftovers a process that changes its program is two.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn serve(&mut self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(program);
        command.args(arguments);
        let server = Leashed::spawn(&mut command, Session::Group, &[])?;
        let name = format!("/proc/{}/comm", server.pid());
        self.servers.push(server);
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_to_string(&name)?.trim() == "nsenter" {
            ensure!(Instant::now() < deadline, "{program} does not start");
            std::thread::sleep(Duration::from_millis(1));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_its_name_for_whose_it_is() {
        assert_eq!(owner("reeve-k71"), Some(71));
        for other in ["reeve-71", "reeve-k", "reeve-k7x", "k71", "reeve-"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_killed_test_left_is_removed_by_the_next() {
        let own = std::process::id();
        // No process has a number that large (PID_MAX_LIMIT).
        let left = format!("{PREFIX}z{}", 1_000_000_000_u32.saturating_add(own));
        output(Command::new(program("ip")).args(["netns", "add", &left])).unwrap();
        let _new = NetNamespace::new('z').unwrap();
        assert!(!std::path::Path::new("/run/netns").join(&left).exists());
    }
}
