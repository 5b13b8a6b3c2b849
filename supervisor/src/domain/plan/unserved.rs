//! Devices that processes of their own serve: shared directories and interfaces of type `user`. They are looked at with
//! the others, and their processes are started once it is known for whom.

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{Devices, Nic, NicSource};
use reeve_ipc::spec::{DeviceSpec, MacAddress, PciSlot, ShareSpec, UserNicSpec};

use super::PlanError;
use super::devices::{placed, unplaced};
use super::nics::NicPolicy;
use super::paths::PathPolicy;
use crate::host::shares::{self, OpenShare, ShareServers, Sharer};
use crate::host::user_network::{self, UserNetworkError};

/// What no process serves yet.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    shares: Vec<OpenShare>,
    nics: Vec<(PciSlot, MacAddress, Nic)>,
}

impl Unserved {
    /// Opens the directories that are to be shared, and looks which interfaces a process is to serve.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(super) fn plan(
        devices: &Devices,
        paths: &dyn PathPolicy,
        policy: &NicPolicy,
    ) -> Result<Self, PlanError> {
        let shares = devices.shares.iter().map(|share| {
            let what = format!("directory of share '{}'", share.tag);
            let opened = paths.open_directory(&what, &share.source);
            Ok(OpenShare {
                slot: placed(share.address)?,
                tag: share.tag.clone(),
                source: share.source.clone(),
                read_only: share.read_only,
                directory: shares::open(&share.tag, &share.source, opened)?,
            })
        });
        let nics = devices.nics.iter();
        let nics = nics.filter(|nic| nic.source == NicSource::User).map(|nic| {
            // Both are filled in together.
            let (slot, mac) = (placed(nic.address)?, nic.mac.ok_or_else(unplaced)?);
            if policy.multi_tenant {
                return Err(UserNetworkError::Tenants { mac }.into());
            }
            Ok((slot, mac, nic.clone()))
        });
        Ok(Self {
            shares: shares.collect::<Result<_, PlanError>>()?,
            nics: nics.collect::<Result<_, PlanError>>()?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.nics.is_empty()
    }

    /// Starts a process for each.
    ///
    /// # Errors
    /// [`PlanError`]; those that were started end.
    pub(super) fn serve(
        self,
        servers: &ShareServers,
        sharer: &Sharer,
        fds: &mut FdTable,
    ) -> Result<Vec<DeviceSpec>, PlanError> {
        let mut specs = Vec::new();
        for share in self.shares {
            let serving = servers.serve(&share, sharer)?;
            specs.push(DeviceSpec::Share(ShareSpec {
                slot: share.slot,
                tag: share.tag,
                socket: fds.push(serving.socket)?,
                words: fds.push(serving.words)?,
            }));
        }
        for (slot, mac, nic) in self.nics {
            let serving = user_network::serve(servers, (mac, nic.mtu), sharer)?;
            specs.push(DeviceSpec::UserNic(UserNicSpec {
                slot,
                mac,
                socket: fds.push(serving.socket)?,
                words: fds.push(serving.words)?,
                mtu: nic.mtu,
                link_up: nic.link_up,
                inbound: nic.inbound,
                outbound: nic.outbound,
            }));
        }
        Ok(specs)
    }
}
