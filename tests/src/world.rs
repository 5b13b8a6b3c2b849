//! An instance of the daemon that serves libvirt's clients in a network namespace of its own, and guests for it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::daemon::Daemon;
use crate::namespace::NetNamespace;
use crate::virsh::{Host, REAL};

/// How long what happens by itself may take: a process, an event, a link that goes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The instance, and its namespace, which outlives it.
#[derive(Debug)]
pub struct World {
    /// The instance, with a connection to it.
    pub host: Host,
    /// Where it is.
    pub namespace: NetNamespace,
}

impl World {
    /// Starts one in a namespace of that letter, with that in its configuration.
    ///
    /// # Errors
    /// There is no namespace, or it does not start.
    pub fn start(letter: char, config: &str) -> Result<Self> {
        Self::start_in(NetNamespace::new(letter)?, config)
    }

    /// The same in a namespace that is there. It looks after its networks every half second.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_in(namespace: NetNamespace, config: &str) -> Result<Self> {
        let mut daemon = Daemon::prepare()?;
        daemon.set("REEVE_NETWORK_CHECK", "500");
        daemon.configure(&format!("libvirt = true\n{config}"))?;
        daemon.in_namespace(&namespace);
        daemon.spawn()?;
        let host = Host::of(daemon, REAL);
        Ok(Self { host, namespace })
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`], or cannot be seen.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self)? {
            ensure!(
                Instant::now() < deadline,
                "{what}: {}",
                self.host.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The document of a built-in guest that says that it is there, and stays: with these interfaces.
#[must_use]
pub fn guest(name: &str, interfaces: &str) -> String {
    guest_that("mode=echo", name, interfaces)
}

/// The same of one that does what its command line says.
#[must_use]
pub fn guest_that(command_line: &str, name: &str, interfaces: &str) -> String {
    format!(
        "<domain type='kvm'>\
           <name>{name}</name>\
           <metadata>\
             <reeve:domain xmlns:reeve='urn:x-reeve:domain:1'><reeve:boot source='built-in'/></reeve:domain>\
           </metadata>\
           <memory unit='MiB'>64</memory>\
           <vcpu>1</vcpu>\
           <os><type arch='x86_64' machine='reeve'>hvm</type><cmdline>{command_line}</cmdline></os>\
           <features><acpi/><apic/></features>\
           <devices>{interfaces}</devices>\
         </domain>"
    )
}
