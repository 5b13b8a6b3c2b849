//! Debian's Open vSwitch with its datapath in user space, in a network namespace of a test's, and with its sockets in a
//! directory of its own. It goes when its value is dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::lab::tools::SWITCH_SCHEMA;
use crate::lab::{assets, inside_outer_guest};
use crate::namespace::NetNamespace;
use crate::process::{Leashed, Session};
use crate::tool::output;

/// How long its database may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of its programs: in the lab the copy of this machine's.
fn program(name: &str) -> String {
    if inside_outer_guest() {
        assets().tool(name).display().to_string()
    } else if name.ends_with("server") || name.ends_with('d') {
        // On no ordinary user's search path.
        format!("/usr/sbin/{name}")
    } else {
        name.to_owned()
    }
}

fn schema() -> PathBuf {
    if inside_outer_guest() {
        assets().tools.with_file_name("share/vswitch.ovsschema")
    } else {
        SWITCH_SCHEMA.into()
    }
}

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
        let command = |name: &str| -> Command {
            let mut command = namespace.command(&program(name));
            for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(name, &place);
            }
            command
        };
        output(
            command("ovsdb-tool")
                .args(["create", &format!("{place}/conf.db")])
                .arg(schema()),
        )
        .context("Open vSwitch is missing: tests/lab/install has it")?;
        let mut database = command("ovsdb-server");
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
        // Or it passes on what guests leave to be done, checksums for one, without a word that it is.
        control(
            &directory.path().join("db.sock"),
            "--no-wait set Open_vSwitch . other_config:userspace-tso-enable=true",
        )?;
        let mut switch = command("ovs-vswitchd");
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
        control(&self.socket(), words)
    }
}

fn control(socket: &Path, words: &str) -> Result<String> {
    let mut command = Command::new(program("ovs-vsctl"));
    command
        .arg(format!("--db=unix:{}", socket.display()))
        .arg("--timeout=60")
        .args(words.split_whitespace());
    Ok(output(&mut command)?.trim().to_owned())
}
