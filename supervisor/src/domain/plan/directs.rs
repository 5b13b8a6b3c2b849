//! Network interfaces by macvtap. They are looked at with the others, and their macvtaps, which do not end with what a
//! plan holds, are made once they are recorded.

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{Devices, DirectMode, InterfaceName, Nic, NicSource};
use reeve_ipc::spec::{DeviceSpec, MacAddress, PciSlot};

use super::PlanError;
use super::devices::{placed, unplaced};
use super::nics::{NicPolicy, as_connected, filtered_where_it_can_be, guard, nic_spec, open_vhost};
use crate::host::filter::FilterError;
use crate::host::network::cable_ends_at;
use crate::host::tap::{Draft, ETHERNET_MTU, Macvtap, MacvtapError, MacvtapRecord};

/// The macvtaps of a machine: those that are to be made, and what is recorded of each.
#[derive(Debug, Default)]
pub(super) struct Directs {
    drafts: Vec<(Nic, DirectMode, PciSlot, MacAddress, Draft)>,
    records: Vec<(PciSlot, MacvtapRecord)>,
    policy: NicPolicy,
}

/// Whether an interface is upon a device of the host.
pub(super) fn is_direct(nic: &Nic) -> bool {
    matches!(as_connected(nic).source, NicSource::Direct { .. })
}

/// That a device is no cable to a bridge of the host: upon it a guest would be beside the ports of that, which are
/// isolated from one another and not from it.
fn leads_to_no_bridge(device: &InterfaceName, draft: &Draft) -> Result<(), MacvtapError> {
    let bridge = cable_ends_at(device.as_str()).map_err(|errno| MacvtapError::Make {
        name: draft.record().name.clone(),
        device: device.clone(),
        errno,
    })?;
    match bridge {
        None => Ok(()),
        Some(bridge) => {
            let what = format!("a cable to a port of '{bridge}'");
            Err(MacvtapError::Shared(device.clone(), what))
        }
    }
}

impl Directs {
    /// Chooses what each is to be.
    ///
    /// # Errors
    /// [`PlanError::Macvtap`], [`PlanError::Filter`].
    pub(super) fn plan(devices: &Devices, policy: NicPolicy) -> Result<Self, PlanError> {
        let mut all = Self::default();
        for nic in &devices.nics {
            let connected = as_connected(nic);
            let NicSource::Direct { device, mode } = &connected.source else {
                continue;
            };
            filtered_where_it_can_be(&connected)?;
            let device = device.clone();
            if *mode == DirectMode::Bridge {
                if policy.multi_tenant {
                    return Err(FilterError::Beside(device).into());
                }
                if connected.isolated {
                    return Err(MacvtapError::Isolated(device).into());
                }
            }
            // Both are filled in together.
            let (slot, mac) = (placed(nic.address)?, nic.mac.ok_or_else(unplaced)?);
            let mode = *mode;
            let draft = Draft::choose(connected.target.as_ref(), (&device, mode), mac)?;
            if policy.multi_tenant {
                draft.is_apart()?;
                leads_to_no_bridge(&device, &draft)?;
            }
            all.records.push((slot, draft.record().clone()));
            let nic = connected.into_owned();
            all.drafts.push((nic, mode, slot, mac, draft));
        }
        all.policy = policy;
        Ok(all)
    }

    /// What is recorded of that at a place on the bus.
    pub(super) fn at(&self, slot: PciSlot) -> impl Iterator<Item = &MacvtapRecord> {
        let at = self.records.iter().filter(move |(place, _)| *place == slot);
        at.map(|(_, record)| record)
    }

    /// Whether any is to be made.
    pub(super) fn any(&self) -> bool {
        !self.drafts.is_empty()
    }

    /// Makes them, each with its filter before it is up.
    ///
    /// # Errors
    /// [`PlanError::Macvtap`], [`PlanError::Filter`], [`PlanError::Tap`], [`PlanError::VhostNet`],
    /// [`PlanError::Descriptors`]; none is left.
    pub(super) fn make(
        &mut self,
        fds: &mut FdTable,
    ) -> Result<(Vec<DeviceSpec>, Vec<Macvtap>), PlanError> {
        let (mut specs, mut made) = (Vec::new(), Vec::new());
        let policy = &self.policy;
        for (nic, mode, slot, mac, draft) in std::mem::take(&mut self.drafts) {
            let vhost = open_vhost(&nic, mac, policy, fds)?;
            let (macvtap, tap, mtu) = draft.make(nic.mtu, nic.queues)?;
            made.push(macvtap);
            guard(&nic, mac, policy, &tap)?;
            draft.up(&tap)?;
            let told = (nic.mtu.is_some() || mtu != ETHERNET_MTU).then_some(mtu);
            // Of the others the kernel gives a guest what is for the address that the macvtap has.
            let may_change_mac = nic.trust_guest && mode == DirectMode::Passthrough;
            let tap = (tap, told);
            specs.push(nic_spec(
                &nic,
                (slot, mac),
                tap,
                vhost,
                may_change_mac,
                fds,
            )?);
        }
        Ok((specs, made))
    }
}
