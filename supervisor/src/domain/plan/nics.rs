//! Network interfaces: a tap for each, made or taken, and connected, and for those that the kernel is to serve
//! what it does that by.

use std::borrow::Cow;

use reeve_ipc::fd::{FdSlot, FdTable};
use reeve_ipc::model::{Domain, Nic, NicSource, PortLink};
use reeve_ipc::spec::{DeviceSpec, MacAddress, NicDriver, NicSpec, PciSlot, SwitchedNicSpec};

use super::devices::unplaced;
use super::{PathPolicy, PlanError};
use crate::host::filter::{
    Bound, FilterError, Guarded, Guest, Hook, InstanceError, Sender, TapFilters,
};
use crate::host::open_vswitch::{OpenVswitch, OpenVswitchError, Wearer};
use crate::host::sockets;
use crate::host::tap::{ETHERNET_MTU, Tap, TapId, TapNames};
use crate::host::vhost_net;
use crate::nwfilter::book::{Book, SharedBook};

/// What the host does with its guests' frames. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct NicPolicy {
    /// Filters of taps.
    pub(crate) filters: TapFilters,
    /// The network filters that definitions name.
    pub(crate) book: SharedBook,
    /// The guests are of several tenants: each reaches no other on its bridge, and none is without a filter.
    pub(crate) multi_tenant: bool,
    /// Ports of bridges of Open vSwitch.
    pub(crate) open_vswitch: OpenVswitch,
    /// No guest's frames are moved by the kernel.
    pub(crate) without_vhost_net: bool,
    /// Of taps for which none is said.
    pub(crate) tap_names: TapNames,
    /// Whose interfaces these are, where it is about one guest's.
    guest: Option<Guest>,
}

impl NicPolicy {
    /// The same for one guest, whose log says what becomes of its filters.
    #[must_use]
    pub fn of(&self, domain: &Domain) -> Self {
        Self {
            guest: Some(Guest {
                domain: domain.name.clone(),
                uuid: domain.uuid,
            }),
            ..self.clone()
        }
    }

    /// What filters let pass, where an interface with that address has one; by the network filters in `book`, which is
    /// to be held until they are in their place.
    pub(crate) fn guarded(
        &self,
        nic: &Nic,
        mac: MacAddress,
        book: &Book,
    ) -> Result<Option<Guarded>, InstanceError> {
        let nic = as_connected(nic);
        let filter = nic.filter.as_deref();
        let bound = filter
            .map(|filter| Bound::new(book, filter, mac))
            .transpose()?;
        Ok(self.with(&nic, mac, bound))
    }

    /// The same where the network filter cannot be had: no frame passes.
    pub(crate) fn blocked(&self, nic: &Nic, mac: MacAddress) -> Option<Guarded> {
        let nic = as_connected(nic);
        let filter = nic.filter.as_deref();
        self.with(&nic, mac, filter.map(|filter| Bound::blocked(filter, mac)))
    }

    fn with(&self, nic: &Nic, mac: MacAddress, bound: Option<Bound>) -> Option<Guarded> {
        let sender = self.has_source_filter(nic).then(|| Sender {
            mac,
            any_mac: nic.trust_guest,
            addresses: nic.addresses.clone(),
            hook: hook(nic).unwrap_or(Hook::Ingress),
        });
        (sender.is_some() || bound.is_some()).then(|| Guarded {
            sender,
            bound,
            guest: self.guest.clone(),
        })
    }

    /// Whether an interface can have the filters that it is to have. Nothing is changed.
    pub(crate) fn check(&self, nic: &Nic) -> Result<(), PlanError> {
        self.wanted(nic, &self.book.read()).map(drop)
    }

    /// Puts the filters that an interface is to have in the place of those that its tap has, which stay where they
    /// cannot be had.
    pub(crate) fn guard_anew(&self, nic: &Nic, tap: &TapId) -> Result<(), PlanError> {
        // No filter changes between what is looked up and what is put in its place.
        let book = self.book.read();
        match self.wanted(nic, &book)? {
            Some(guarded) => self.filters.guard(tap, guarded)?,
            None => self.filters.release(tap)?,
        }
        drop(book);
        Ok(())
    }

    fn wanted(&self, nic: &Nic, book: &Book) -> Result<Option<Guarded>, PlanError> {
        let nic = as_connected(nic);
        filtered_where_it_can_be(&nic)?;
        let mac = nic.mac.ok_or_else(unplaced)?;
        Ok(self.guarded(&nic, mac, book).map_err(FilterError::from)?)
    }

    /// Whether an interface has any filter.
    fn is_guarded(&self, nic: &Nic) -> bool {
        nic.filter.is_some() || self.has_source_filter(nic)
    }

    /// Whether what its guest says it is is looked at.
    fn has_source_filter(&self, nic: &Nic) -> bool {
        nic.has_source_filter() || (self.multi_tenant && hook(nic).is_some())
    }
}

/// Where what a guest sends meets its rules; `None` of an interface by which it reaches no other guest.
fn hook(nic: &Nic) -> Option<Hook> {
    match nic.source {
        NicSource::Bridge(_) | NicSource::OpenVswitch(_) => Some(Hook::Ingress),
        NicSource::Direct { .. } => Some(Hook::Egress),
        _ => None,
    }
}

/// That a network filter is not wanted where there is none.
pub(super) fn filtered_where_it_can_be(nic: &Nic) -> Result<(), FilterError> {
    match (&nic.source, &nic.filter) {
        (NicSource::Direct { .. }, Some(filter)) => {
            Err(FilterError::UponDevice(filter.filter.clone()))
        }
        _ => Ok(()),
    }
}

/// The interface as it is connected: one of a virtual network by what its port says, where it says nothing itself.
pub(super) fn as_connected(nic: &Nic) -> Cow<'_, Nic> {
    let NicSource::Network {
        port: Some(port), ..
    } = &nic.source
    else {
        return Cow::Borrowed(nic);
    };
    let source = match &port.link {
        PortLink::Bridge(bridge) => NicSource::Bridge(bridge.clone()),
        PortLink::Direct { device, mode } => NicSource::Direct {
            device: device.clone(),
            mode: *mode,
        },
        PortLink::OpenVswitch(port) => NicSource::OpenVswitch(port.clone()),
    };
    Cow::Owned(Nic {
        source,
        mtu: nic.mtu.or(port.mtu),
        inbound: nic.inbound.or(port.inbound),
        outbound: nic.outbound.or(port.outbound),
        trust_guest: nic.trust_guest || port.trust_guest,
        isolated: nic.isolated || port.isolated,
        ..nic.clone()
    })
}

/// Makes or takes the tap of an interface with that address, at its place on the bus.
pub(super) fn plan_nic(
    nic: &Nic,
    slot: PciSlot,
    mac: MacAddress,
    (paths, policy): (&dyn PathPolicy, &NicPolicy),
    fds: &mut FdTable,
) -> Result<DeviceSpec, PlanError> {
    let nic = &*as_connected(nic);
    if let NicSource::Switch(path) = &nic.source {
        if policy.multi_tenant {
            return Err(FilterError::Switch(path.clone()).into());
        }
        let socket = fds.push(sockets::connect(paths, "switch", path)?)?;
        return Ok(DeviceSpec::SwitchedNic(SwitchedNicSpec {
            slot,
            name: path.display().to_string(),
            mac,
            socket,
            queues: nic.queues,
            mtu: nic.mtu,
        }));
    }
    // Before there is a tap: it refuses without a trace.
    let vhost = open_vhost(nic, mac, policy, fds)?;
    let (tap, mtu) = connected(nic, mac, policy)?;
    if !vhost.is_empty() {
        tap.take_singly()?;
    }
    let may_change_mac = nic.trust_guest;
    nic_spec(nic, (slot, mac), (tap, mtu), vhost, may_change_mac, fds)
}

/// What the kernel is to move the frames of an interface by, where it is to.
pub(super) fn open_vhost(
    nic: &Nic,
    mac: MacAddress,
    policy: &NicPolicy,
    fds: &mut FdTable,
) -> Result<Vec<FdSlot>, PlanError> {
    let mut vhost = Vec::new();
    if nic.driver == NicDriver::Vhost {
        // A definition has no filter with it, and the host may still have one.
        let refuses = policy.without_vhost_net || policy.is_guarded(nic);
        for _ in 0..nic.queues {
            vhost.push(fds.push(vhost_net::open(mac, refuses)?)?);
        }
    }
    Ok(vhost)
}

/// The device of an interface whose tap there is.
pub(super) fn nic_spec(
    nic: &Nic,
    (slot, mac): (PciSlot, MacAddress),
    (tap, mtu): (Tap, Option<u16>),
    vhost: Vec<FdSlot>,
    may_change_mac: bool,
    fds: &mut FdTable,
) -> Result<DeviceSpec, PlanError> {
    let name = tap.name().to_owned();
    let mut taps = Vec::new();
    for queue in tap.into_queues() {
        taps.push(fds.push(queue)?);
    }
    Ok(DeviceSpec::Nic(NicSpec {
        slot,
        name,
        mac,
        taps,
        mtu,
        link_up: nic.link_up,
        inbound: nic.inbound,
        outbound: nic.outbound,
        may_change_mac,
        vhost,
    }))
}

/// The tap, and the MTU that the guest must be told.
fn connected(
    nic: &Nic,
    mac: MacAddress,
    policy: &NicPolicy,
) -> Result<(Tap, Option<u16>), PlanError> {
    let make = || match &nic.target {
        Some(name) => Tap::make(Some(name), mac, nic.queues),
        None => policy.tap_names.make(mac, nic.queues),
    };
    match &nic.source {
        NicSource::Tap(name) if policy.multi_tenant => {
            Err(FilterError::NotOurs(name.clone()).into())
        }
        NicSource::Tap(name) => Ok((Tap::existing(name, nic.queues)?, None)),
        NicSource::Bridge(bridge) => {
            let tap = make()?;
            let mtu = tap.join(bridge, nic.mtu, nic.isolated || policy.multi_tenant)?;
            tap.without_ipv6();
            guard(nic, mac, policy, &tap)?;
            tap.up()?;
            let told = nic.mtu.is_some() || mtu != ETHERNET_MTU;
            Ok((tap, told.then_some(mtu)))
        }
        NicSource::OpenVswitch(port) => {
            if policy.multi_tenant || nic.isolated {
                return Err(OpenVswitchError::Tenants(port.bridge.clone()).into());
            }
            let tap = make()?;
            let mtu = tap.take_mtu(&port.bridge, nic.mtu)?;
            tap.without_ipv6();
            guard(nic, mac, policy, &tap)?;
            tap.up()?;
            let id = tap.id()?;
            // Last: from then on its frames go somewhere.
            let wearer = Wearer {
                tap: &id,
                mac,
                domain: policy.guest.as_ref().map(|guest| guest.uuid),
            };
            policy.open_vswitch.add(wearer, port)?;
            let told = nic.mtu.is_some() || mtu != ETHERNET_MTU;
            Ok((tap, told.then_some(mtu)))
        }
        // One of type user has no tap, and a macvtap is made once it is recorded: both are planned elsewhere.
        NicSource::Network { .. } | NicSource::Direct { .. } | NicSource::User => {
            Err(PlanError::NicSource(nic.source.kind()))
        }
        // Down: were it up, the guest could talk to the host by it. A switch has no tap.
        NicSource::Nothing | NicSource::Switch(_) => {
            let tap = make()?;
            if let Some(mtu) = nic.mtu {
                tap.set_mtu(mtu)?;
            }
            // Somebody else may set it up.
            if nic.filter.is_some() {
                guard(nic, mac, policy, &tap)?;
            }
            Ok((tap, nic.mtu))
        }
    }
}

/// Puts the filters of a new tap in their place, or takes away what an earlier one of its name has left.
pub(super) fn guard(
    nic: &Nic,
    mac: MacAddress,
    policy: &NicPolicy,
    tap: &Tap,
) -> Result<(), PlanError> {
    let tap = tap.id()?;
    let book = policy.book.read();
    let guarded = policy.guarded(nic, mac, &book).map_err(FilterError::from)?;
    match guarded {
        Some(guarded) => policy.filters.guard(&tap, guarded)?,
        None => policy.filters.clear(&tap),
    }
    drop(book);
    Ok(())
}
