//! What networks are made of where nothing is: for the driver whose machines only look like some, and for the tests
//! of what is here.

use std::os::fd::OwnedFd;

use reeve_ipc::model::{Network, NetworkUuid};

use super::host::{Connection, NetworkHost, NetworkHostError, NetworkResources, Note};

/// Makes nothing, and says that it is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestHost;

fn resources(network: &Network) -> NetworkResources {
    let makes_bridge = network.forward.makes_bridge();
    NetworkResources {
        bridge: network.bridge.name.clone().filter(|_| makes_bridge),
        ..NetworkResources::default()
    }
}

impl NetworkHost for TestHost {
    fn start(
        &self,
        network: &Network,
        note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        let resources = resources(network);
        note(&resources)?;
        Ok(resources)
    }

    fn adopt(
        &self,
        _network: &Network,
        resources: &NetworkResources,
        _note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        Ok(resources.clone())
    }

    fn is_free(&self, _network: &Network) -> Result<bool, NetworkHostError> {
        Ok(true)
    }

    fn update(
        &self,
        _before: &Network,
        _after: &Network,
        resources: &NetworkResources,
        _note: Note<'_>,
    ) -> Result<NetworkResources, NetworkHostError> {
        Ok(resources.clone())
    }

    fn stop(
        &self,
        _network: &Network,
        _resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        Ok(())
    }

    fn connect(&self, _connection: &Connection<'_>) -> Result<(), NetworkHostError> {
        Ok(())
    }

    fn leases(&self, _network: &Network) -> Result<Option<OwnedFd>, NetworkHostError> {
        Ok(None)
    }

    fn forget(&self, _network: &Network) {}

    fn check(
        &self,
        _network: &Network,
        _resources: &NetworkResources,
    ) -> Result<(), NetworkHostError> {
        Ok(())
    }

    fn watch(&self, _network: NetworkUuid, _resources: &NetworkResources) -> Option<OwnedFd> {
        None
    }
}
