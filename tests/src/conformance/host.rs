//! A server with its directory, and the real client that is run against it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::documents::Documents;
use super::events::Listener;
use super::normal::{Own, normal};
use super::session::{Session, Step, Verb};
use super::{DIRECTORIES, Server, console, libvirtd};
use crate::daemon::Daemon;
use crate::namespace::NetNamespace;
use crate::tool::output;

/// How long a server may take until it serves, and a domain until it is in a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a line may take, in seconds.
const LINE_SECONDS: &str = "30";

/// Domains that mark a place among the events begin so.
const MARKER: &str = "marker";

/// What each line of a session came to; `None` where it is not run.
pub type Answers = Vec<Option<String>>;

/// A server, ready. The order is that in which things go.
#[derive(Debug)]
pub struct Host {
    listener: Listener,
    server: Server,
    uri: String,
    own: Own,
    documents: Documents,
    markers: u32,
    /// Pools that were there from the start.
    pools: Vec<String>,
    daemon: Serving,
    /// Where it is, with its bridge, and so nothing of either is this machine's.
    _namespace: Option<NetNamespace>,
    directory: TempDir,
}

#[derive(Debug)]
enum Serving {
    Reeve(Box<Daemon>),
    Libvirtd {
        #[expect(dead_code, reason = "it is ended by being dropped")]
        daemon: libvirtd::Libvirtd,
    },
}

impl Host {
    /// Starts one, with all its directories in one of its own.
    ///
    /// # Errors
    /// It does not serve; its log is in the error.
    pub fn start(server: Server) -> Result<Host> {
        let directory = tempfile::Builder::new().prefix(DIRECTORIES).tempdir()?;
        let place = directory.path();
        let bridge = format!("rtc{}", std::process::id());
        let documents = Documents::lay_out(server, place, &bridge)?;
        let (serving, made, socket) = if server == Server::Reeve {
            let namespace = NetNamespace::new('k')?;
            namespace.ip(&["link", "add", &bridge, "type", "bridge"])?;
            namespace.ip(&["link", "set", &bridge, "up"])?;
            let config = place.join("reeve.toml");
            let settings = format!(
                "libvirt = true\nallowed_directories = [\"{}\"]\n",
                place.display()
            );
            std::fs::write(&config, settings)?;
            let mut daemon = Daemon::prepare()?;
            daemon.argument(&format!("--config={}", config.display()));
            daemon.in_namespace(&namespace);
            daemon.spawn()?;
            let socket = daemon.run().join("libvirt-sock");
            (Serving::Reeve(Box::new(daemon)), Some(namespace), socket)
        } else {
            let daemon = libvirtd::start(place, &bridge)?;
            (
                Serving::Libvirtd { daemon },
                None,
                place.join(libvirtd::SOCKET),
            )
        };
        let name = match server {
            Server::Test => "test+unix:///default",
            Server::Reeve | Server::Qemu => "qemu+unix:///system",
        };
        let uri = format!("{name}?socket={}", socket.display());
        let own = Own {
            socket: socket.display().to_string(),
            directory: place.display().to_string(),
            bridge,
        };
        let waited = wait_until_it_serves(&uri, place);
        waited.with_context(|| libvirtd::log(place))?;
        let mut host = Host {
            listener: Listener::start(&uri)?,
            server,
            uri,
            own,
            documents,
            markers: 0,
            pools: Vec::new(),
            daemon: serving,
            _namespace: made,
            directory,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let marker = host.mark()?;
            if host.listener.hears_of(&marker) {
                break;
            }
            ensure!(Instant::now() < deadline, "no event comes");
        }
        host.pools = host.names("pool-list --all --name")?;
        host.clear()?;
        Ok(host)
    }

    /// Runs a session; what each line came to. It begins, and ends, without a domain.
    ///
    /// # Errors
    /// The client cannot be run, or events do not come any more.
    pub fn play(&mut self, session: &Session) -> Result<Answers> {
        let mut answers = Vec::new();
        for step in &session.steps {
            if step.why_not(self.server).is_some() {
                answers.push(None);
                continue;
            }
            let answer = self.step(step)?;
            answers.push(Some(normal(&answer, &self.own, &session.rules)));
        }
        self.clear()?;
        Ok(answers)
    }

    fn step(&mut self, step: &Step) -> Result<String> {
        let text = self.documents.fill(&step.text);
        match &step.verb {
            Verb::Run => self.virsh(&text, false, "true"),
            Verb::ReadOnly => self.virsh(&text, true, "true"),
            Verb::Edit(expression) => {
                let expression = self.documents.fill(expression);
                self.virsh(&text, false, &format!("sed -i -e '{expression}'"))
            }
            Verb::Await => {
                let (domain, wanted) = text.split_once(' ').context("no state to wait for")?;
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let state =
                        self.virsh(&format!("domstate --reason {domain}"), false, "true")?;
                    let reached = state
                        .lines()
                        .any(|line| line.starts_with(wanted) || line.contains("failed to get"));
                    if reached || Instant::now() > deadline {
                        return Ok(state);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Verb::Events => Ok(self.events()?.join("\n")),
            Verb::Console => {
                let (domain, word) = text.split_once(' ').context("no word to type")?;
                let (code, said) = console::talk(&self.uri, domain, word)?;
                Ok(format!("exit {code}\n{said}"))
            }
        }
    }

    /// What a line prints and complains of, with its exit code if that is not 0.
    fn virsh(&self, line: &str, read_only: bool, editor: &str) -> Result<String> {
        let mut command = Command::new("timeout");
        command.args([LINE_SECONDS, "virsh"]);
        if read_only {
            command.arg("-r");
        }
        let output = command
            .args(["-c", &self.uri, line])
            .env("LC_ALL", "C")
            .env("HOME", self.directory.path())
            .env("VISUAL", editor)
            .env("TMPDIR", self.directory.path())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()?;
        if let Serving::Reeve(daemon) = &self.daemon {
            let said = String::from_utf8_lossy(&output.stdout);
            daemon.documents.printed("qemu:///system", line, &said);
        }
        let mut text = match output.status.code() {
            Some(0) => String::new(),
            code => format!("exit {}\n", code.unwrap_or(-1)),
        };
        text += &String::from_utf8_lossy(&output.stdout);
        text += "\n";
        text += &String::from_utf8_lossy(&output.stderr);
        Ok(text)
    }

    /// The lines of an answer that is a list of names; none, if it is a refusal.
    fn names(&self, line: &str) -> Result<Vec<String>> {
        let answer = self.virsh(line, false, "true")?;
        if answer.starts_with("exit") {
            return Ok(Vec::new());
        }
        let names = answer.lines().map(str::trim);
        Ok(names.filter(|n| !n.is_empty()).map(str::to_owned).collect())
    }

    /// Defines and undefines a domain of its own, whose events tell where others end; its name.
    fn mark(&mut self) -> Result<String> {
        self.markers += 1;
        let name = format!("{MARKER}{}", self.markers);
        let path = self.directory.path().join("marker-now.xml");
        let document = std::fs::read_to_string(self.directory.path().join("marker.xml"))?;
        std::fs::write(&path, document.replace("MARKER", &name))?;
        let line = format!("define {}; undefine {name}", path.display());
        let answer = self.virsh(&line, false, "true")?;
        ensure!(!answer.starts_with("exit"), "{line}: {answer}");
        Ok(name)
    }

    fn events(&mut self) -> Result<Vec<String>> {
        let marker = self.mark()?;
        self.listener.until_undefined(&marker, MARKER)
    }

    /// Ends and removes what a session has left.
    fn clear(&mut self) -> Result<()> {
        for _ in 0..3 {
            let names = self.names("list --all --name")?;
            for name in &names {
                self.virsh(&format!("destroy {name}"), false, "true")?;
                let undefined = self.virsh(&format!("undefine {name}"), false, "true")?;
                if undefined.starts_with("exit") {
                    for snapshot in self.names(&format!("snapshot-list {name} --name"))? {
                        self.virsh(&format!("snapshot-delete {name} {snapshot}"), false, "true")?;
                    }
                    let all = "--managed-save --snapshots-metadata --checkpoints-metadata";
                    self.virsh(&format!("undefine {name} {all}"), false, "true")?;
                }
            }
            for name in self.names("pool-list --all --name")? {
                if !self.pools.contains(&name) {
                    self.virsh(&format!("pool-destroy {name}"), false, "true")?;
                    self.virsh(&format!("pool-undefine {name}"), false, "true")?;
                }
            }
            if names.is_empty() {
                self.events()?;
                return Ok(());
            }
        }
        bail!("a domain is left: {:?}", self.names("list --all --name")?)
    }
}

fn wait_until_it_serves(uri: &str, directory: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new("virsh");
        command.args(["-c", uri, "version"]).current_dir(directory);
        match output(&mut command) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
