//! What networks are made of on the host, as their actors ask for it: a trait, so that actors are tried without a
//! kernel. `crate::host::network` is the real one.

use std::os::fd::OwnedFd;

use reeve_ipc::model::{InterfaceName, Network, NetworkPort, NetworkUuid};
use serde::{Deserialize, Serialize};

/// Writes what is about to be made where the next supervisor finds it; what cannot be noted is not made.
pub type Note<'a> = &'a mut dyn FnMut(&NetworkResources) -> Result<(), NetworkHostError>;

/// What an active network has of the host: noted before it is made, so that whoever comes after this supervisor can
/// take it over or away. Names alone would do for most; a process is named so that another with its number is not
/// taken for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkResources {
    /// The bridge that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
    /// Settings of the host that are other for it, with what they were: a path beneath `/proc/sys` and the value.
    /// What several networks need is put back with the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
    /// The highest number of a link of the host when the first of them was changed: whoever has links of later ones may
    /// rely on what they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
    /// Its server of names and addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerProcess>,
}

/// The process that serves a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerProcess {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the host booted (proc(5), `starttime`).
    pub start_time: u64,
}

/// What a port's interface is connected with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection<'a> {
    /// The tap, which is there.
    pub interface: &'a InterfaceName,
    /// What the network gave it.
    pub port: &'a NetworkPort,
}

/// Why something of a network cannot be had. One line: what failed, on what, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NetworkHostError {
    /// What kind of failure.
    pub kind: NetworkFailure,
    /// One line.
    pub message: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFailure {
    /// An address of it is on another link or route of the host, or its bridge's name is taken.
    Taken,
    /// What the host does not have or refuses.
    Host,
    /// What this build does not do.
    Unsupported,
    /// What was about to be made could not be noted.
    Storage,
}

/// Makes, changes and takes away what networks are made of. Every call may wait for the kernel or a process, for
/// seconds at most, and is made on a thread that may; calls for one network never overlap, those for several may.
pub trait NetworkHost: Send + Sync + std::fmt::Debug + 'static {
    /// Makes all of an active network that is there before its first guest: bridge, addresses, routes, rules,
    /// settings, server. On an error nothing of it is left.
    ///
    /// # Errors
    /// [`NetworkHostError`].
    fn start(
        &self,
        network: &Network,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError>;

    /// Takes over what a supervisor before this one made, and makes again what of it is gone: rules, addresses, a
    /// server that ended. Guests that are connected notice nothing.
    ///
    /// # Errors
    /// [`NetworkHostError`]: it cannot be had again; what is there stays.
    fn adopt(
        &self,
        network: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError>;

    /// Whether the host reaches none of a network's addresses by a link or a route of its own.
    ///
    /// # Errors
    /// [`NetworkHostError`]: it cannot be seen.
    fn is_free(&self, network: &Network) -> Result<bool, NetworkHostError>;

    /// Makes of `before` what `after` says, as it goes.
    ///
    /// # Errors
    /// [`NetworkHostError`]: all is as before.
    fn update(
        &self,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError>;

    /// Takes away whatever of it is there. May be asked of what is gone already, or was never made.
    ///
    /// # Errors
    /// [`NetworkHostError`]: something of it is left.
    fn stop(&self, network: &Network, resources: &NetworkResources)
    -> Result<(), NetworkHostError>;

    /// Connects the interface of a guest that is there already to a network that was started again.
    ///
    /// # Errors
    /// [`NetworkHostError`].
    fn connect(&self, connection: &Connection<'_>) -> Result<(), NetworkHostError>;

    /// The book of a network's server, open for reading; `None` where it keeps none.
    ///
    /// # Errors
    /// [`NetworkHostError`].
    fn leases(&self, network: &Network) -> Result<Option<OwnedFd>, NetworkHostError>;

    /// Forgets what is kept of a network that is neither active nor defined any more: its server's book. What cannot
    /// be removed is logged.
    fn forget(&self, network: &Network);

    /// Looks whether what was made still does its work, as far as nothing tells by itself: whether the bridge is there
    /// and the server answers. A server that does not, time after time, is ended, which whoever watches it is told.
    ///
    /// # Errors
    /// [`NetworkHostError`]: something of it is gone, which [`adopt`](Self::adopt) makes again.
    fn check(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), NetworkHostError>;

    /// A descriptor that becomes readable when the network's server ends (pidfd_open(2)); `None` where there is
    /// none, or it has ended.
    fn watch(&self, network: NetworkUuid, resources: &NetworkResources) -> Option<OwnedFd>;
}
