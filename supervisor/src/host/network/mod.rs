//! Virtual networks on the host: what of it each has, made, kept, changed and taken away.
//!
//! ```text
//!   network actor ── NetworkHost ──► Host ─┬─ links.rs     bridge, addresses, routes     rtnetlink
//!                                          ├─ forwarding.rs  switched on, and put back       /proc/sys/net
//!                                          ├─ settings.rs  IPv6 of the bridge              /proc/sys/net
//!                                          ├─ rules.rs     what passes and is translated   nf_tables
//!                                          │    tables.rs, keeper.rs
//!                                          ├─ bandwidth.rs  of a network as a whole        tc, nf_tables
//!                                          └─ server.rs    dnsmasq in its jail             a process
//!                                               configuration.rs, book.rs, answers.rs
//! ```
//!
//! `cable.rs` looks where the host's own cables lead, for guests upon one.
//!
//! What lives here: how each is made, and made again; all that another supervisor must know of it is noted before. What
//! may not: who is connected to a network, and what a definition means (`crate::network`).
//!
//! Calls are made on threads that may wait. All of it is in the network namespace of the calling thread.
//!
//! ## Decisions
//!
//! 1. 2026-11: the host's other rules are not touched, and nothing in another table lets pass what they drop: a host
//!    whose policy drops what is forwarded, or comes in, has to name the bridge itself (`rules.rs` says which ports).
//! 2. 2026-11: a network is refused where the host reaches its addresses already: one of the host's own or a route of
//!    its main table within it, or a link that has them all. A route to more than it by way of a router is none: the
//!    network is nearer.
//! 3. 2026-11: bandwidth of a network whose bridge is the host's, or none, is refused as not supported rather than left
//!    out: it would be shared with others.

mod answers;
mod bandwidth;
mod book;
mod cable;
mod configuration;
mod failure;
mod forwarding;
mod keeper;
pub(super) mod links;
mod rules;
mod server;
mod settings;
mod tables;
mod work;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_ipc::model::{Network, NetworkUuid, PortLink};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::answers::Answers;
pub(crate) use self::cable::ends_at as cable_ends_at;
use self::failure::{host, host_io, refused, unsupported};
use self::forwarding::Forwarding;
use self::keeper::Rules;
use self::links::Links;
use self::server::{Places, Unread};
use self::work::{Work, bridge_of, bridge_taken, collision, delete_bridge, name};
use super::reason;
use super::worker_binary::WorkerBinary;
use crate::domain::plan::{PathError, PathPolicy};
use crate::network::host::{Connection, NetworkHost, NetworkHostError, NetworkResources, Note};

/// Where what is written of networks is.
#[derive(Debug, Clone)]
pub struct Directories {
    /// What a later supervisor of the same boot needs, in memory; passed through by the servers.
    pub run: PathBuf,
    /// What survives: the books of servers. Passed through by them, too.
    pub state: PathBuf,
}

/// The host's networks, of one supervisor.
#[derive(Debug)]
pub struct Host {
    directories: Directories,
    rules: Rules,
    forwarding: Forwarding,
    answers: Answers,
    /// Our own program that jails servers: the one that was there when this supervisor was started, whatever has been
    /// installed since. Looked for again where there was none.
    launcher: Option<OwnedFd>,
    dnsmasq: PathBuf,
    /// Which directories may be named for TFTP; none without.
    paths: Option<Arc<dyn PathPolicy>>,
}

impl Host {
    /// With the programs at their usual places. Nothing is made before the first network.
    #[must_use]
    pub fn new(directories: Directories) -> Self {
        Self {
            directories,
            rules: Rules::default(),
            forwarding: Forwarding::default(),
            answers: Answers::default(),
            launcher: worker_binary().ok(),
            dnsmasq: PathBuf::from(server::PROGRAM),
            paths: None,
        }
    }

    /// The same with the program that jails servers, which calls [`reeve_sandbox::service::run_if_launcher`] first
    /// thing: for embedders and tests.
    #[must_use]
    pub fn with_launcher(self, launcher: OwnedFd) -> Self {
        let launcher = Some(launcher);
        Self { launcher, ..self }
    }

    /// The same with dnsmasq elsewhere.
    #[must_use]
    pub fn with_dnsmasq(self, dnsmasq: PathBuf) -> Self {
        Self { dnsmasq, ..self }
    }

    /// The same with directories that may be named for TFTP.
    #[must_use]
    pub fn with_paths(self, paths: Arc<dyn PathPolicy>) -> Self {
        let paths = Some(paths);
        Self { paths, ..self }
    }

    /// The directories of a network's TFTP, opened as the policy has it.
    fn tftp_roots(&self, network: &Network) -> Result<Vec<OwnedFd>, NetworkHostError> {
        let open = |root: &Path| match &self.paths {
            Some(paths) => {
                let opened = paths.open_directory("directory of TFTP", root);
                opened.map_err(|error| match error {
                    PathError::Os(errno) => {
                        let why = reason(errno);
                        host(format!(
                            "cannot open the directory of TFTP {}: {why}",
                            root.display()
                        ))
                    }
                    PathError::Forbidden(why) => host(why),
                })
            }
            None => Err(unsupported(format!(
                "files of {} by TFTP: no directory may be named here",
                root.display()
            ))),
        };
        server::tftp_roots(network).map(open).collect()
    }

    fn launcher(&self) -> Result<OwnedFd, NetworkHostError> {
        match &self.launcher {
            Some(launcher) => rustix::io::fcntl_dupfd_cloexec(launcher, 0).map_err(unopened),
            None => worker_binary(),
        }
    }

    fn places(&self, uuid: NetworkUuid) -> Places {
        Places::of(&self.directories, uuid)
    }
}

/// The program of the worker, which is the launcher as well.
fn worker_binary() -> Result<OwnedFd, NetworkHostError> {
    let binary = WorkerBinary::find().map_err(|error| host(error.to_string()))?;
    rustix::io::fcntl_dupfd_cloexec(binary.as_fd(), 0).map_err(unopened)
}

fn unopened(errno: Errno) -> NetworkHostError {
    host(format!("cannot open the launcher: {}", reason(errno)))
}

impl NetworkHost for Host {
    fn start(
        &self,
        network: &Network,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(network)? else {
            return Ok(NetworkResources::default());
        };
        let mut work = Work::new(self, network, bridge, NetworkResources::default(), note)?;
        let found = work.links.find(work.bridge());
        if found.map_err(work.refused("see the bridge"))?.is_some() {
            return Err(bridge_taken(work.bridge()));
        }
        work.check()?;
        let index = work.make_bridge()?;
        let done = work.set_up(index).and_then(|()| work.serve());
        let resources = work.resources;
        match done {
            Ok(()) => Ok(resources),
            Err(error) => {
                if let Err(left) = self.stop(network, &resources) {
                    tracing::warn!(network = %network.name, "what was made of it is left: {left}");
                }
                Err(error)
            }
        }
    }

    fn adopt(
        &self,
        network: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(network)? else {
            return Ok(resources.clone());
        };
        let mut work = Work::new(self, network, bridge, resources.clone(), note)?;
        let found = work.links.find(work.bridge());
        let index = match found.map_err(work.refused("see the bridge"))? {
            Some(link) if link.is_bridge && network.mac.is_none_or(|mac| link.has(mac)) => {
                work.links
                    .set(link.index, &work.bridge)
                    .map_err(|errno| refused("set the bridge", name(network), errno))?;
                link.index
            }
            Some(_) => return Err(bridge_taken(work.bridge())),
            None => work.make_bridge()?,
        };
        work.set_up(index)?;
        work.serve()?;
        Ok(work.resources)
    }

    fn is_free(&self, network: &Network) -> Result<bool, NetworkHostError> {
        let reached = Links::open().and_then(|mut links| links.reached());
        let unseen = |errno| refused("compare the addresses", name(network), errno);
        let reached = reached.map_err(unseen)?;
        Ok(collision(network, &reached, None).is_none())
    }

    fn update(
        &self,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let Some(bridge) = bridge_of(after)? else {
            return Ok(resources.clone());
        };
        if before.bridge.name != after.bridge.name || !before.forward.makes_bridge() {
            return Err(unsupported(format!(
                "another bridge of network '{}' takes a new start of it",
                after.name
            )));
        }
        let mut work = Work::new(self, after, bridge, resources.clone(), note)?;
        work.check()?;
        let done = work.change(before);
        let resources = work.resources;
        let Err(error) = done else {
            return Ok(resources);
        };
        let back = bridge_of(before)?.ok_or_else(|| error.clone())?;
        let mut work = Work::new(self, before, back, resources, work.note)?;
        if let Err(left) = work.change(after) {
            tracing::error!(network = %before.name, "it cannot be made again as it was: {left}");
        }
        Err(error)
    }

    fn stop(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        let mut left = None;
        let mut note = |done: Result<(), NetworkHostError>| {
            if let Err(error) = done {
                left.get_or_insert(error);
            }
        };
        if let Some(server) = &resources.server {
            note(server::end(server));
        }
        note(self.places(network.uuid).remove());
        if let Some(bridge) = &resources.bridge {
            let removed = self.rules.remove(network.uuid, bridge.as_str());
            note(removed.map_err(|errno| refused("remove the rules", name(network), errno)));
            let removed = self.rules.limit(bridge.as_str(), None);
            note(removed.map_err(|errno| refused("remove the limit", name(network), errno)));
            let deleted = delete_bridge(bridge, network);
            note(deleted.map_err(|errno| refused("remove the bridge", name(network), errno)));
        }
        self.forwarding.forget(network.uuid);
        self.answers.forget(network.uuid);
        let (uuid, settings) = (network.uuid, &resources.settings);
        note(self.forwarding.release(uuid, settings, resources.links));
        left.map_or(Ok(()), Err)
    }

    fn connect(&self, connection: &Connection<'_>) -> Result<(), NetworkHostError> {
        let (tap, port) = (connection.interface, connection.port);
        match &port.link {
            PortLink::Bridge(bridge) => super::tap::rejoin(tap, bridge, port.mtu, port.isolated)
                .map_err(|error| host(error.to_string())),
            // A macvtap is where it was made for as long as it is there.
            PortLink::Direct { .. } => Ok(()),
            // The switch has a port for as long as its tap is there.
            PortLink::OpenVswitch(_) => Ok(()),
        }
    }

    fn leases(&self, network: &Network) -> Result<Option<OwnedFd>, NetworkHostError> {
        if !network
            .addresses
            .iter()
            .any(|address| address.dhcp.is_some())
        {
            return Ok(None);
        }
        let places = self.places(network.uuid);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open(places.leases(), flags, Mode::empty()) {
            Ok(book) => Ok(Some(book)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(host_io("cannot open", places.leases(), &errno.into())),
        }
    }

    fn forget(&self, network: &Network) {
        let places = self.places(network.uuid);
        if let Err(error) = book::remove(places.leases()) {
            let path = places.leases().display();
            tracing::warn!(network = %network.name, %error, "cannot remove {path}");
        }
    }

    fn check(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        let unseen = |errno| refused("see the bridge", name(network), errno);
        if let Some(bridge) = &resources.bridge {
            let found = Links::open().and_then(|mut links| links.find(bridge.as_str()));
            if found.map_err(unseen)?.is_none() {
                return Err(host(format!("its bridge {bridge} is gone")));
            }
        }
        let Some(server) = &resources.server else {
            return Ok(());
        };
        let places = self.places(network.uuid);
        // What the host knows of names is no part of the network, which works without.
        let told = places.copy_names(network).and_then(|()| {
            if places.unread() == Unread::Hosts {
                server::reload(server, &places)?;
            }
            Ok(())
        });
        if let Err(error) = told {
            tracing::warn!(network = %network.name, "its server does not know the host's names: {error}");
        }
        self.answers.check(network, server)
    }

    fn watch(&self, _: NetworkUuid, resources: &NetworkResources) -> Option<OwnedFd> {
        resources.server.as_ref().and_then(server::watch)
    }
}
