//! The client's process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Debian's Python: the one that its binding is for.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("client.py");

/// What the client is told to do. Each gives the times of its calls in microseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order<'a> {
    /// The daemon's version (`virConnectGetLibVersion`), so many times.
    Version {
        /// How often.
        count: usize,
    },
    /// A domain by its name (`virDomainLookupByName`), so many times.
    Lookup {
        /// The domain.
        name: &'a str,
        /// How often.
        count: usize,
    },
    /// What `dominfo` shows first (`virDomainGetInfo`), so many times.
    Info {
        /// The domain.
        name: &'a str,
        /// How often.
        count: usize,
    },
    /// Every domain (`virConnectListAllDomains`), so many times.
    List {
        /// How often.
        count: usize,
    },
    /// Both of `List` and `Statistics`, as what shows them does every few seconds, so many times.
    Refresh {
        /// How often.
        count: usize,
    },
    /// All figures of every domain (`virConnectGetAllDomainStats`), so many times.
    Statistics {
        /// How often.
        count: usize,
    },
    /// A transient domain (`virDomainCreateXML`), until the call says that it runs.
    Create {
        /// Its document.
        document: &'a str,
    },
    /// Its end (`virDomainDestroy`).
    Destroy {
        /// The domain.
        name: &'a str,
    },
    /// Definitions (`virDomainDefineXML`), which are not timed.
    Define {
        /// Their documents.
        documents: &'a [String],
    },
    /// Definitions of networks (`virNetworkDefineXML`), which are not timed.
    NetworkDefine {
        /// Their documents.
        documents: &'a [String],
    },
    /// A network (`virNetworkCreate`), until the call says that it is active.
    NetworkStart {
        /// The network.
        name: &'a str,
    },
    /// Its end (`virNetworkDestroy`).
    NetworkStop {
        /// The network.
        name: &'a str,
    },
    /// A device for a domain that runs (`virDomainAttachDeviceFlags`).
    Attach {
        /// The domain.
        name: &'a str,
        /// The device's document.
        document: &'a str,
    },
    /// How many domains there are, as the one time.
    Count,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Times(Vec<f64>),
    Failed(String),
}

/// One connection of one client process.
#[derive(Debug)]
pub struct Client {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Client {
    /// Connects to the driver `name` (`qemu:///system`, `test:///default`) behind the socket.
    ///
    /// # Errors
    /// There is no Python binding, or nobody serves.
    pub fn connect(name: &str, socket: &Path) -> anyhow::Result<Self> {
        let (scheme, rest) = name.split_once(':').context("no URI")?;
        let uri = format!("{scheme}+unix:{rest}?socket={}", socket.display());
        let mut child = Command::new(PYTHON)
            .args(["-c", SCRIPT, &uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot execute {PYTHON}"))?;
        let answers = child.stdout.take().context("no pipe")?;
        let mut client = Self {
            orders: child.stdin.take(),
            answers: BufReader::new(answers),
            child,
        };
        client.take(&Order::Count).with_context(|| {
            format!("no connection to {uri} (is Debian's python3-libvirt installed?)")
        })?;
        Ok(client)
    }

    /// Has it do something; the times in microseconds.
    ///
    /// # Errors
    /// A call failed, or the client is gone.
    pub fn take(&mut self, order: &Order<'_>) -> anyhow::Result<Vec<f64>> {
        let orders = self.orders.as_mut().context("no pipe")?;
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        orders.write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match serde_json::from_str(&answer).context("the client is gone")? {
            Said::Times(times) => Ok(times),
            Said::Failed(why) => bail!("{why}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its input.
        self.orders = None;
        let _ = self.child.wait();
    }
}
