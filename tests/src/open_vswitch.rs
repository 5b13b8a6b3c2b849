//! Debian's Open vSwitch with its datapath in user space, in a network namespace of a test's, and with its sockets in a
//! directory of its own. It goes when its value is dropped.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::namespace::NetNamespace;
use crate::process::{Leashed, Session};
use crate::tool::output;

/// How long its database may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The switch.
#[derive(Debug)]
pub struct OpenVswitch {
    directory: TempDir,
    database: Leashed,
    _switch: Leashed,
}

impl OpenVswitch {
    /// Starts one in that namespace.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(namespace: &NetNamespace) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = directory.path().display().to_string();
        let command = |program: &str| -> Command {
            let mut command = namespace.command(program);
            for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(name, &place);
            }
            command
        };
        output(command("ovsdb-tool").args(["create", &format!("{place}/conf.db"), SCHEMA]))
            .context("Open vSwitch is missing: tests/lab/install has it")?;
        let mut database = command("/usr/sbin/ovsdb-server");
        database
            .arg(format!("{place}/conf.db"))
            .arg(format!("--remote=punix:{place}/db.sock"))
            .arg(format!("--unixctl={place}/database.ctl"))
            .stderr(Stdio::null());
        let database = Leashed::spawn(&mut database, Session::Group, &[])?;
        let deadline = Instant::now() + PATIENCE;
        while !directory.path().join("db.sock").exists() {
            ensure!(Instant::now() < deadline, "its database does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut switch = command("/usr/sbin/ovs-vswitchd");
        switch
            .arg(format!("unix:{place}/db.sock"))
            .arg(format!("--unixctl={place}/switch.ctl"))
            .stderr(Stdio::null());
        let switch = Leashed::spawn(&mut switch, Session::Group, &[])?;
        Ok(Self {
            directory,
            database,
            _switch: switch,
        })
    }

    /// Its database's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }

    /// Its database's process.
    #[must_use]
    pub fn database(&self) -> u32 {
        self.database.pid()
    }

    /// What `ovs-vsctl` prints, given these words.
    ///
    /// # Errors
    /// It fails.
    pub fn control(&self, words: &str) -> Result<String> {
        let mut command = Command::new("ovs-vsctl");
        command
            .arg(format!("--db=unix:{}", self.socket().display()))
            .arg("--timeout=20")
            .args(words.split_whitespace());
        Ok(output(&mut command)?.trim().to_owned())
    }
}
