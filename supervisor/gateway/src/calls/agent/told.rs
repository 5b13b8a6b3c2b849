//! What an agent tells of its guest.

use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::model::Devices;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::asked::vcpus;
use super::{Context, Refusal, ask, ask_if};
use crate::calls::failure::{Code, Failure, check_flags};
use crate::calls::network::{leases, neighbours};
use crate::wire::error::Origin;
use crate::wire::types::guest as wire;
use crate::wire::types::handles::Domain;
use crate::wire::types::params::{Param, Params};
use crate::wire::xdr::List;

/// Interfaces, addresses, file systems and users of one answer: what the protocol has room for at least.
const MANY: usize = 256;
/// Parameters of one answer.
const MAX_PARAMS: usize = 2_048;

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "ip-address-type")]
    kind: String,
    #[serde(rename = "ip-address")]
    address: String,
    prefix: u32,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(rename = "hardware-address")]
    hardware: Option<String>,
    #[serde(rename = "ip-addresses", default)]
    addresses: Vec<Address>,
}

/// An interface, with what an alias of it (`eth0:1`) has.
struct Merged {
    name: String,
    hardware: Option<String>,
    addresses: Vec<Address>,
}

fn merged(all: Vec<Interface>) -> Vec<Merged> {
    let mut merged: Vec<Merged> = Vec::new();
    for interface in all.into_iter().take(MANY) {
        let base = interface.name.split(':').next().unwrap_or_default();
        match merged.iter_mut().find(|other| other.name == base) {
            Some(there) => there.addresses.extend(interface.addresses),
            None => merged.push(Merged {
                name: base.to_owned(),
                hardware: interface.hardware,
                addresses: interface.addresses,
            }),
        }
    }
    for interface in &mut merged {
        interface.addresses.truncate(MANY);
    }
    merged
}

impl Address {
    /// Of IPv4 (0) or IPv6 (1).
    fn number(&self) -> Option<i32> {
        match self.kind.as_str() {
            "ipv4" => Some(0),
            "ipv6" => Some(1),
            _ => None,
        }
    }
}

const INTERFACES: &str = "guest-network-get-interfaces";

pub(in crate::calls) async fn addresses(
    context: Arc<Context>,
    call: wire::DomainInterfaceAddresses,
) -> Result<List<wire::GuestInterface, 2_048>, Failure> {
    const LEASE: u32 = 0;
    const AGENT: u32 = 1;
    const ARP: u32 = 2;
    check_flags(call.flags, 0, "virDomainInterfaceAddresses")?;
    match call.source {
        LEASE => leases::of_domain(&context, &call.domain).await,
        AGENT if context.read_only => {
            let why = "read only access prevents virDomainInterfaceAddresses";
            Err(Failure::of(Origin::Domain, Code::OperationDenied, why))
        }
        AGENT => {
            let all: Vec<Interface> = ask(&context, &call.domain, INTERFACES, Value::Null).await?;
            let told = merged(all).into_iter().map(|interface| {
                let addresses = interface.addresses.into_iter();
                let addresses = addresses.filter_map(|address| {
                    Some(wire::IpAddress {
                        kind: address.number()?,
                        prefix: address.prefix,
                        address: address.address,
                    })
                });
                wire::GuestInterface {
                    name: interface.name,
                    hwaddr: interface.hardware,
                    addresses: addresses.collect(),
                }
            });
            Ok(told.collect())
        }
        ARP => neighbours::of_domain(&context, &call.domain).await,
        other => {
            let why = format!("Unsupported IP address data source {other}");
            Err(Failure::new(Code::ArgumentUnsupported, why))
        }
    }
}

#[derive(Deserialize)]
struct Controller {
    slot: Option<i64>,
}

#[derive(Deserialize)]
struct GuestDisk {
    #[serde(rename = "pci-controller")]
    controller: Option<Controller>,
}

#[derive(Deserialize)]
struct FileSystem {
    name: String,
    mountpoint: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "total-bytes")]
    total: Option<u64>,
    #[serde(rename = "used-bytes")]
    used: Option<u64>,
    #[serde(default)]
    disk: Vec<GuestDisk>,
}

impl FileSystem {
    /// The targets of the disks that it is on.
    fn targets(&self, devices: &Devices) -> Vec<String> {
        let slots = self.disk.iter().take(MANY);
        let slots = slots.filter_map(|disk| disk.controller.as_ref()?.slot);
        let targets = slots.filter_map(|slot| {
            let mut disks = devices.disks.iter();
            let found = disks.find(|disk| {
                let address = disk.address;
                address.is_some_and(|address| i64::from(address.number()) == slot)
            });
            Some(found?.target.as_str().to_owned())
        });
        targets.collect()
    }
}

const FILE_SYSTEMS: &str = "guest-get-fsinfo";

pub(in crate::calls) async fn file_systems(
    context: Arc<Context>,
    call: wire::DomainGetFsinfo,
) -> Result<wire::FileSystems, Failure> {
    check_flags(call.flags, 0, "virDomainGetFSInfo")?;
    let all: Vec<FileSystem> = ask(&context, &call.domain, FILE_SYSTEMS, Value::Null).await?;
    let devices = context.definition(&call.domain, false).await?.devices;
    let info: Vec<wire::FileSystem> = all
        .into_iter()
        .take(MANY)
        .map(|system| wire::FileSystem {
            aliases: system.targets(&devices).into(),
            mountpoint: system.mountpoint,
            name: system.name,
            fstype: system.kind,
        })
        .collect();
    let ret = u32::try_from(info.len()).unwrap_or(u32::MAX);
    Ok(wire::FileSystems {
        info: info.into(),
        ret,
    })
}

pub(in crate::calls) async fn told_vcpus(
    context: Arc<Context>,
    call: wire::DomainGetGuestVcpus,
) -> Result<Params<64>, Failure> {
    check_flags(call.flags, 0, "virDomainGetGuestVcpus")?;
    let mut all = vcpus(&context, &call.domain).await?;
    all.sort_unstable_by_key(|vcpu| vcpu.id);
    let set = |which: &dyn Fn(&super::asked::GuestVcpu) -> bool| {
        let some = all.iter().filter(|vcpu| which(vcpu));
        ranges(some.map(|vcpu| vcpu.id))
    };
    let params = vec![
        Param::new("vcpus", set(&|_| true)),
        Param::new("online", set(&|vcpu| vcpu.online)),
        Param::new("offlinable", set(&|vcpu| vcpu.can_offline)),
    ];
    Ok(params.into())
}

/// Rising numbers as libvirt writes them: `0-3,8`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            Some((_, last)) if *last == number => {}
            _ => ranges.push((number, number)),
        }
    }
    let words = ranges.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(",")
}

#[derive(Deserialize)]
struct User {
    user: String,
    domain: Option<String>,
    #[serde(rename = "login-time")]
    since: f64,
}

#[derive(Deserialize)]
struct Zone {
    zone: Option<String>,
    offset: i32,
}

#[derive(Deserialize)]
struct HostName {
    #[serde(rename = "host-name")]
    name: String,
}

/// Kinds of what is told (libvirt `virDomainGuestInfoTypes`).
mod kind {
    pub(super) const USERS: u32 = 1;
    pub(super) const OS: u32 = 2;
    pub(super) const TIMEZONE: u32 = 4;
    pub(super) const HOSTNAME: u32 = 8;
    pub(super) const FILE_SYSTEMS: u32 = 16;
    pub(super) const INTERFACES: u32 = 64;
    pub(super) const HERE: u32 = USERS | OS | TIMEZONE | HOSTNAME | FILE_SYSTEMS | INTERFACES;
}

/// What of `guest-get-osinfo` is told.
const OS: [&str; 10] = [
    "id",
    "name",
    "pretty-name",
    "version",
    "version-id",
    "machine",
    "variant",
    "variant-id",
    "kernel-release",
    "kernel-version",
];

pub(in crate::calls) async fn guest_info(
    context: Arc<Context>,
    call: wire::DomainGetGuestInfo,
) -> Result<Params<MAX_PARAMS>, Failure> {
    check_flags(call.flags, 0, "virDomainGetGuestInfo")?;
    let missing = call.types & !kind::HERE;
    if missing != 0 {
        let why = format!("unsupported guest information types '0x{missing:x}'");
        return Err(Failure::new(Code::InvalidArgument, why));
    }
    let asker = Asker {
        context: &context,
        of: &call.domain,
        types: call.types,
    };
    let mut params = Vec::new();
    asker.users(&mut params).await?;
    asker.system(&mut params).await?;
    if let Some(zone) = asker
        .told::<Zone>(kind::TIMEZONE, "guest-get-timezone")
        .await?
    {
        let name = zone.zone.map(|zone| Param::new("timezone.name", zone));
        params.extend(name);
        params.push(Param::new("timezone.offset", zone.offset));
    }
    if let Some(name) = asker
        .told::<HostName>(kind::HOSTNAME, "guest-get-host-name")
        .await?
    {
        params.push(Param::new("hostname", name.name));
    }
    asker.file_systems(&mut params).await?;
    asker.interfaces(&mut params).await?;
    params.truncate(MAX_PARAMS);
    Ok(params.into())
}

struct Asker<'a> {
    context: &'a Context,
    of: &'a Domain,
    types: u32,
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Asker<'_> {
    /// What is told of that kind, if it is wanted. Where all is wanted, what an agent does not know is left out.
    async fn told<T: DeserializeOwned>(&self, kind: u32, name: &str) -> Result<Option<T>, Failure> {
        if self.types != 0 && self.types & kind == 0 {
            return Ok(None);
        }
        let answer: Result<T, Refusal> = ask_if(self.context, self.of, name, Value::Null).await?;
        match answer {
            Ok(told) => Ok(Some(told)),
            Err(refusal) if self.types == 0 && refusal.is_unknown() => Ok(None),
            Err(refusal) => Err(refusal.failure(name)),
        }
    }

    async fn users(&self, params: &mut Vec<Param>) -> Result<(), Failure> {
        let told = self
            .told::<Vec<User>>(kind::USERS, "guest-get-users")
            .await?;
        let Some(users) = told else { return Ok(()) };
        let users = users.get(..users.len().min(MANY)).unwrap_or_default();
        params.push(Param::new("user.count", count(users.len())));
        for (index, user) in users.iter().enumerate() {
            let name = |what: &str| format!("user.{index}.{what}");
            params.push(Param::new(name("name"), user.user.as_str()));
            if let Some(domain) = &user.domain {
                params.push(Param::new(name("domain"), domain.as_str()));
            }
            // In milliseconds.
            let since = Duration::try_from_secs_f64(user.since).unwrap_or_default();
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            params.push(Param::new(name("login-time"), since));
        }
        Ok(())
    }

    async fn system(&self, params: &mut Vec<Param>) -> Result<(), Failure> {
        type System = serde_json::Map<String, Value>;
        let told = self.told::<System>(kind::OS, "guest-get-osinfo").await?;
        let Some(system) = told else { return Ok(()) };
        for name in OS {
            if let Some(Value::String(value)) = system.get(name) {
                params.push(Param::new(format!("os.{name}"), value.as_str()));
            }
        }
        Ok(())
    }

    async fn file_systems(&self, params: &mut Vec<Param>) -> Result<(), Failure> {
        let told = self
            .told::<Vec<FileSystem>>(kind::FILE_SYSTEMS, FILE_SYSTEMS)
            .await?;
        let Some(systems) = told else { return Ok(()) };
        let devices = self.context.definition(self.of, false).await?.devices;
        let systems = systems.get(..systems.len().min(MANY)).unwrap_or_default();
        params.push(Param::new("fs.count", count(systems.len())));
        for (index, system) in systems.iter().enumerate() {
            let name = |what: &str| format!("fs.{index}.{what}");
            params.push(Param::new(name("name"), system.name.as_str()));
            params.push(Param::new(name("mountpoint"), system.mountpoint.as_str()));
            params.push(Param::new(name("fstype"), system.kind.as_str()));
            let sizes = [("total-bytes", system.total), ("used-bytes", system.used)];
            for (what, size) in sizes {
                params.extend(size.map(|size| Param::new(name(what), size)));
            }
            let targets = system.targets(&devices);
            params.push(Param::new(name("disk.count"), count(targets.len())));
            for (disk, target) in targets.into_iter().enumerate() {
                params.push(Param::new(name(&format!("disk.{disk}.alias")), target));
            }
        }
        Ok(())
    }

    async fn interfaces(&self, params: &mut Vec<Param>) -> Result<(), Failure> {
        let told = self
            .told::<Vec<Interface>>(kind::INTERFACES, INTERFACES)
            .await?;
        let Some(all) = told else { return Ok(()) };
        let all = merged(all);
        params.push(Param::new("if.count", count(all.len())));
        for (index, interface) in all.into_iter().enumerate() {
            let name = |what: &str| format!("if.{index}.{what}");
            params.push(Param::new(name("name"), interface.name));
            let hardware = interface.hardware;
            params.extend(hardware.map(|hardware| Param::new(name("hwaddr"), hardware)));
            params.push(Param::new(
                name("addr.count"),
                count(interface.addresses.len()),
            ));
            for (number, address) in interface.addresses.into_iter().enumerate() {
                let name = |what: &str| name(&format!("addr.{number}.{what}"));
                params.push(Param::new(name("type"), address.kind));
                params.push(Param::new(name("addr"), address.address));
                params.push(Param::new(name("prefix"), address.prefix));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn numbers_are_written_as_ranges() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[0], "0"),
            (&[0, 1, 2, 8], "0-2,8"),
            (&[3, 3, 4, u32::MAX], "3-4,4294967295"),
        ] {
            assert_eq!(ranges(numbers.iter().copied()), text);
        }
    }
}
