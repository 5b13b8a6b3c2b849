//! Addresses that a definition leaves out.

use uuid::Builder;

use super::{DeviceError, Devices, Nic, NicSource, VirtualPort};
use crate::model::DomainUuid;
use crate::spec::{MacAddress, PciSlot};

/// The first three bytes of addresses that are drawn: those of QEMU's and libvirt's guests.
const MAC_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

pub(super) fn complete(devices: &mut Devices, domain: DomainUuid) -> Result<(), DeviceError> {
    let taken: Vec<PciSlot> = placed(devices).map(|(slot, _)| slot).collect();
    let count = devices.count();
    let mut free = PciSlot::all().filter(|slot| !taken.contains(slot));
    for address in unplaced(devices) {
        let slot = free.next().ok_or(DeviceError::TooMany(count))?;
        *address = Some(slot);
    }
    devices.number_ports()?;
    draw_macs(&mut devices.nics, domain);
    name_ports(&mut devices.nics, domain);
    Ok(())
}

/// Every place that is taken, with what messages call the device there.
pub(super) fn placed(devices: &Devices) -> impl Iterator<Item = (PciSlot, String)> {
    let Devices {
        disks,
        nics,
        rng,
        balloon,
        vsock,
        channels: _,
        consoles: _,
        ports_address,
        shares,
        watchdog,
        memory,
    } = devices;
    let disks = disks
        .iter()
        .map(|disk| (disk.address, format!("disk '{}'", disk.target)));
    let nics = nics.iter().enumerate();
    let nics = nics.map(|(index, nic)| (nic.address, nic.called(index)));
    let single = [
        (rng.and_then(|rng| rng.address), "the entropy device"),
        (balloon.and_then(|balloon| balloon.address), "the balloon"),
        (
            vsock.as_ref().and_then(|vsock| vsock.address),
            "the socket device",
        ),
        (
            ports_address.filter(|_| devices.has_ports()),
            "the serial controller",
        ),
        (
            watchdog.and_then(|watchdog| watchdog.address),
            "the watchdog",
        ),
        (
            memory.and_then(|memory| memory.address),
            "the memory device",
        ),
    ];
    let single = single.map(|(address, what)| (address, what.to_owned()));
    let shares = shares
        .iter()
        .map(|share| (share.address, format!("share '{}'", share.tag)));
    disks
        .chain(nics)
        .chain(single)
        .chain(shares)
        .filter_map(|(address, what)| Some((address?, what)))
}

/// The addresses that are left out, in the order in which they are filled in.
fn unplaced(devices: &mut Devices) -> impl Iterator<Item = &mut Option<PciSlot>> {
    let ports = devices.has_ports();
    let Devices {
        disks,
        nics,
        rng,
        balloon,
        vsock,
        channels: _,
        consoles: _,
        ports_address,
        shares,
        watchdog,
        memory,
    } = devices;
    let disks = disks.iter_mut().map(|disk| &mut disk.address);
    let nics = nics.iter_mut().map(|nic| &mut nic.address);
    let rng = rng.iter_mut().map(|rng| &mut rng.address);
    let balloon = balloon.iter_mut().map(|balloon| &mut balloon.address);
    let vsock = vsock.iter_mut().map(|vsock| &mut vsock.address);
    let ports = Some(ports_address).filter(|_| ports);
    let shares = shares.iter_mut().map(|share| &mut share.address);
    let watchdog = watchdog.iter_mut().map(|watchdog| &mut watchdog.address);
    let memory = memory.iter_mut().map(|memory| &mut memory.address);
    disks
        .chain(nics)
        .chain(rng)
        .chain(balloon)
        .chain(vsock)
        .chain(ports)
        .chain(shares)
        .chain(watchdog)
        .chain(memory)
        .filter(|address| address.is_none())
}

fn draw_macs(nics: &mut [Nic], domain: DomainUuid) {
    let mut taken: Vec<MacAddress> = nics.iter().filter_map(|nic| nic.mac).collect();
    let mut drawn = Draw::new(domain);
    for nic in nics.iter_mut().filter(|nic| nic.mac.is_none()) {
        // There are 2^24 of them, and at most 31 are taken.
        let mac = std::iter::repeat_with(|| drawn.mac())
            .flatten()
            .find(|mac| !taken.contains(mac));
        nic.mac = mac;
        taken.extend(mac);
    }
}

/// What a switch's controller knows interfaces by, where that is not said: the same for the same address.
fn name_ports(nics: &mut [Nic], domain: DomainUuid) {
    for nic in nics {
        // One that says nothing is none.
        let said = nic.virtual_port.take();
        nic.virtual_port = said.filter(|port| **port != VirtualPort::default());
        let Some(mac) = nic.mac else { continue };
        let own = nic.virtual_port.as_mut().filter(|port| port.open_vswitch);
        let id = match (&mut nic.source, own) {
            (NicSource::OpenVswitch(port), _) => &mut port.interface_id,
            (NicSource::Network { .. }, Some(own)) => &mut own.interface_id,
            _ => continue,
        };
        id.get_or_insert_with(|| {
            let mut bytes = *domain.0.as_bytes();
            for (byte, of_mac) in bytes.iter_mut().rev().zip(mac.octets()) {
                *byte ^= of_mac;
            }
            Builder::from_random_bytes(bytes).into_uuid()
        });
    }
}

/// Numbers that follow from a UUID, spread evenly: SplitMix64 from its folded bits. No secret, and need
/// not be one.
struct Draw(u64);

impl Draw {
    fn new(domain: DomainUuid) -> Self {
        let (high, low) = domain.0.as_u64_pair();
        Self(high ^ low.rotate_left(32))
    }

    fn mac(&mut self) -> Option<MacAddress> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, ..] = (mixed ^ (mixed >> 31)).to_be_bytes();
        let [x, y, z] = MAC_PREFIX;
        MacAddress::try_from([x, y, z, a, b, c]).ok()
    }
}
