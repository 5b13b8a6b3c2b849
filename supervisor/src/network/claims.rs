//! What belongs to one network at a time: the addresses of those that are active or about to be, and the bridges that
//! definitions are about to have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::{InterfaceName, Network, NetworkName, NetworkUuid, networks_overlap};

/// The addresses of one network, each with its prefix.
type Claimed = (NetworkName, Vec<(IpAddr, u8)>);

/// Addresses of active networks.
#[derive(Debug, Default)]
pub struct Claims {
    of: Mutex<BTreeMap<NetworkUuid, Claimed>>,
}

impl Claims {
    fn of(&self) -> MutexGuard<'_, BTreeMap<NetworkUuid, Claimed>> {
        // Nothing panics while it is held.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network is about to be active.
    ///
    /// # Errors
    /// [`ApiErrorCode::Host`]: an address of it is on another that is active. The host's own are found by whoever
    /// makes it.
    pub fn claim(&self, network: &Network) -> Result<(), ApiError> {
        let mut all = self.of();
        for own in &network.addresses {
            let shares = |(_, addresses): &&Claimed| {
                let own = (own.address, own.prefix);
                addresses.iter().any(|other| networks_overlap(own, *other))
            };
            let others = all.iter().filter(|(uuid, _)| **uuid != network.uuid);
            if let Some((other, _)) = others.map(|(_, of)| of).find(shares) {
                let (address, prefix) = (own.address, own.prefix);
                let why = format!(
                    "network '{}': {address}/{prefix} is on network '{other}' already",
                    network.name
                );
                return Err(ApiError::new(ApiErrorCode::Host, why));
            }
        }
        let addresses = network.addresses.iter();
        let addresses = addresses.map(|own| (own.address, own.prefix)).collect();
        all.insert(network.uuid, (network.name.clone(), addresses));
        Ok(())
    }

    /// It is not any more.
    pub fn release(&self, uuid: NetworkUuid) {
        self.of().remove(&uuid);
    }
}

/// The bridges that definitions are about to have, of which networks.
pub type WantedBridges = Arc<Mutex<Vec<(NetworkUuid, InterfaceName)>>>;

/// That a bridge is about to be a network's, until this is dropped.
#[derive(Debug)]
pub struct Wanted {
    of: (NetworkUuid, InterfaceName),
    all: WantedBridges,
}

impl Wanted {
    /// Notes it.
    #[must_use]
    pub fn new(all: &WantedBridges, uuid: NetworkUuid, bridge: InterfaceName) -> Self {
        let of = (uuid, bridge);
        // Nothing panics while it is held, here and below.
        let mut noted = all.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(of.clone());
        let all = Arc::clone(all);
        Self { of, all }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|of| *of == self.of) {
            all.swap_remove(at);
        }
    }
}
