//! Network interfaces: a tap for each, made or taken, and connected.

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{Nic, NicSource};
use reeve_ipc::spec::{MacAddress, NicSpec, PciSlot};

use super::PlanError;
use crate::host::tap::{ETHERNET_MTU, Tap, TapError};

/// Makes or takes the tap of an interface with that address, at its place on the bus.
pub(super) fn plan_nic(
    nic: &Nic,
    slot: PciSlot,
    mac: MacAddress,
    fds: &mut FdTable,
) -> Result<NicSpec, PlanError> {
    let (tap, mtu) = connected(nic, mac)?;
    let name = tap.name().to_owned();
    let mut taps = Vec::new();
    for queue in tap.into_queues() {
        taps.push(fds.push(queue)?);
    }
    Ok(NicSpec {
        slot,
        name,
        mac,
        taps,
        mtu,
        link_up: nic.link_up,
        inbound: nic.inbound,
        outbound: nic.outbound,
        may_change_mac: nic.trust_guest,
    })
}

/// The tap, and the MTU that the guest must be told.
fn connected(nic: &Nic, mac: MacAddress) -> Result<(Tap, Option<u16>), TapError> {
    let make = || Tap::make(nic.target.as_ref(), mac, nic.queues);
    match &nic.source {
        NicSource::Tap(name) => Ok((Tap::existing(name, nic.queues)?, None)),
        NicSource::Bridge(bridge) => {
            let tap = make()?;
            let mtu = tap.join(bridge, nic.mtu, nic.isolated)?;
            tap.up()?;
            let told = nic.mtu.is_some() || mtu != ETHERNET_MTU;
            Ok((tap, told.then_some(mtu)))
        }
        // Down: were it up, the guest could talk to the host by it.
        NicSource::Nothing => {
            let tap = make()?;
            if let Some(mtu) = nic.mtu {
                tap.set_mtu(mtu)?;
            }
            Ok((tap, nic.mtu))
        }
    }
}
