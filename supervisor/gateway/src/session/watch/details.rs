//! What is kept of a definition so that a later event can be told in libvirt's words: what its devices were
//! called, and whether it has a guest's agent. Pure.

use reeve_ipc::model::{DeviceName, Domain};

use crate::calls::agent;
use crate::xml::device::alias;

/// What is kept of one definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Details {
    aliases: Vec<(String, DeviceName)>,
    agent: bool,
}

impl Details {
    pub(super) fn of(definition: &Domain) -> Self {
        Self {
            aliases: alias::all(&definition.devices),
            agent: definition
                .devices
                .channels
                .iter()
                .any(|channel| channel.name == agent::CHANNEL),
        }
    }

    /// Whether it has the channel of a guest's agent.
    pub(super) const fn has_agent(&self) -> bool {
        self.agent
    }

    /// The alias of a device; what the supervisor calls it, where it is not known.
    pub(super) fn alias(&self, device: &DeviceName) -> String {
        let mut aliases = self.aliases.iter();
        let found = aliases.find(|(_, name)| name == device);
        found.map_or_else(|| device.to_string(), |(alias, _)| alias.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_an_alias_is_called_what_the_supervisor_calls_it() {
        let device: DeviceName = "52:54:00:01:02:03".parse().unwrap();
        assert_eq!(Details::default().alias(&device), "52:54:00:01:02:03");
    }
}
