//! What is known of a network, for everyone to read: published by its actor, never changed.

use reeve_ipc::api::network::{NetworkDetails, NetworkForward, NetworkSummary};
use reeve_ipc::model::{Forward, InterfaceName, Network};

/// One network as it stands.
#[derive(Debug, Clone)]
pub struct View {
    /// Its definition: the one it is active with, or the one that is kept.
    pub network: Network,
    /// The one that is kept, where it is another one.
    pub next: Option<Network>,
    /// There is a definition that is kept.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// It was started, and not stopped since.
    pub active: bool,
    /// What of it does not work though it is active: one line.
    pub fault: Option<String>,
    /// How often it was started: what was given by an earlier start is connected to what is gone.
    pub starts: u64,
}

impl View {
    /// Whether anything is left of it: neither kept nor active, it is about to come or to go.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.persistent || self.active
    }

    /// The definition that it will have with the next start, if one is kept.
    #[must_use]
    pub fn kept(&self) -> Option<&Network> {
        let kept = self.next.as_ref().unwrap_or(&self.network);
        self.persistent.then_some(kept)
    }

    /// As lists have it; so many ports are connected.
    #[must_use]
    pub fn summary(&self, ports: u32) -> NetworkSummary {
        let network = &self.network;
        NetworkSummary {
            name: network.name.clone(),
            uuid: network.uuid,
            active: self.active,
            persistent: self.persistent,
            autostart: self.autostart,
            forward: forward(&network.forward),
            bridge: bridge(network).cloned(),
            ports,
        }
    }

    /// With all that is known of it.
    #[must_use]
    pub fn details(&self, ports: u32) -> NetworkDetails {
        NetworkDetails {
            summary: self.summary(ports),
            changes: self.active && self.next.is_some(),
            fault: self.fault.clone(),
        }
    }
}

/// The bridge that the guests of a network are on: its own, or one of the host.
#[must_use]
pub const fn bridge(network: &Network) -> Option<&InterfaceName> {
    match &network.forward {
        Forward::Bridge(bridge) => Some(bridge),
        forward if forward.makes_bridge() => network.bridge.name.as_ref(),
        _ => None,
    }
}

const fn forward(forward: &Forward) -> Option<NetworkForward> {
    Some(match forward {
        Forward::Isolated => return None,
        Forward::Nat(_) => NetworkForward::Nat,
        Forward::Route { .. } => NetworkForward::Route,
        Forward::Open => NetworkForward::Open,
        Forward::Bridge(_) => NetworkForward::Bridge,
        Forward::Direct { mode, .. } => NetworkForward::Direct(*mode),
        Forward::HostDevices { .. } => NetworkForward::HostDevices,
    })
}
