//! The calls about virtual networks, which the list names: their arguments, and what those and the answers are
//! made of.

use serde::{Deserialize, Serialize};

use super::parts::LabelChange;
use crate::api::network::{NetworkSummary, PortDetails};
use crate::model::{InterfaceName, Network, NetworkEdit, NetworkName, NetworkUuid, PortUuid};

arguments! {
    /// One page of networks, in order of their names.
    NetworkList {
        /// Only those after this name.
        after: Option<NetworkName>,
        /// Only those that are so.
        filter: NetworkFilter,
    };

    /// One network.
    NetworkGet {
        /// Which.
        network: NetworkRef,
    };

    /// A network's definition.
    NetworkDefinitionGet {
        /// Which.
        network: NetworkRef,
        /// The one it will start with next, rather than the one it is active with.
        persistent: bool,
    };

    /// Keeps a definition of a network. One of the same UUID and name is replaced; a network that is active goes
    /// on with the one it has. It is on disk when the answer comes. Refused where another network has its bridge.
    NetworkDefine {
        /// The definition.
        network: Box<Network>,
        /// Refuse to replace one.
        only_new: bool,
    };

    /// Starts a network without keeping its definition: it is gone when it is stopped.
    NetworkCreate {
        /// The definition.
        network: Box<Network>,
    };

    /// Starts a network. Answered when its guests can be connected, and its server serves. Refused where its
    /// addresses are on another network or on a route of the host.
    NetworkStart {
        /// Which.
        network: NetworkRef,
    };

    /// Stops a network (libvirt's destroy). Interfaces that are connected to it stay, and reach nothing; they are
    /// connected again when it is started again.
    NetworkStop {
        /// Which.
        network: NetworkRef,
    };

    /// Forgets the definition of a network. One that is active lives on and is transient from then.
    NetworkUndefine {
        /// Which.
        network: NetworkRef,
    };

    /// Whether a network starts with the host.
    NetworkAutostartSet {
        /// Which.
        network: NetworkRef,
        /// Whether.
        autostart: bool,
    };

    /// Changes a part of a network's definition: all of what is asked for, or nothing. What is active is changed
    /// as it goes, and no guest notices more than the change.
    NetworkUpdate {
        /// Which.
        network: NetworkRef,
        /// What.
        edit: Box<NetworkEdit>,
        /// In the definition that is active.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    };

    /// Changes what people and programs noted about a network.
    NetworkLabelSet {
        /// Which.
        network: NetworkRef,
        /// What.
        label: LabelChange,
        /// In the definition that is active.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    };

    /// What an active network has lent: the answer is whether it lends at all, and brings one descriptor then, its
    /// server's book open for reading. What is in it guests have said: `reeve_ipc::leases` reads it.
    NetworkLeasesGet {
        /// Of which.
        network: NetworkRef,
    };

    /// One page of what is connected to a network, in order of their UUIDs.
    NetworkPortList {
        /// To which.
        network: NetworkRef,
        /// Only those after this one.
        after: Option<PortUuid>,
    };
}

/// Names a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NetworkRef {
    /// By its UUID.
    Uuid(NetworkUuid),
    /// By its name.
    Name(NetworkName),
    /// By the bridge that its guests are on.
    Bridge(InterfaceName),
}

impl std::fmt::Display for NetworkRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Name(name) => write!(f, "'{name}'"),
            Self::Bridge(bridge) => write!(f, "of bridge '{bridge}'"),
        }
    }
}

/// Which networks are listed: all that every word that is said is true of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFilter {
    /// Active, or not.
    pub active: Option<bool>,
    /// Kept, or not.
    pub persistent: Option<bool>,
    /// Started with the host, or not.
    pub autostart: Option<bool>,
}

/// A page of networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE).
    pub networks: Vec<NetworkSummary>,
    /// There are more.
    pub more: bool,
}

/// A page of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPortPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE) divided by four: each may have long names.
    pub ports: Vec<PortDetails>,
    /// There are more.
    pub more: bool,
}
