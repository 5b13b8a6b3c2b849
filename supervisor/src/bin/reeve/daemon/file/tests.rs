//! What people write is what the daemon gets, and what is exported is read back.

use std::path::Path;

use reeve_ipc::model::{NicSource, Watchdog};
use reeve_ipc::spec::WatchdogAction;

use super::*;

fn parsed(text: &str) -> DefinitionFile {
    parse(text, Path::new("web.toml")).unwrap()
}

fn refused(text: &str) -> String {
    let error = parse(text, Path::new("web.toml")).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_name_is_enough() {
    let domain = parsed("name = 'web'").domain(DomainUuid(uuid::Uuid::from_u128(7)));
    assert_eq!(domain.name.as_str(), "web");
    assert_eq!(domain.memory, MemorySize::mebibytes(256));
    assert_eq!(domain.vcpus.count(), 1);
    assert_eq!(domain.machine, MachineType::Reeve1_0);
    assert_eq!(domain.validate(), Ok(()));
}

const FULL: &str = r#"
name = "web server"
uuid = "2b1f5c1e-6f0a-4f3e-9f43-0a2f9c6f1d11"
machine = "reeve-legacy-1.0"
cpus = 4
memory = "2G"
kernel = "/var/lib/reeve/images/vmlinuz"
initrd = "/var/lib/reeve/images/initrd"
cmdline = "console=ttyS0"
on-poweroff = "restart"
on-reboot = "preserve"
on-crash = "preserve"
autostart = 3
title = "The web"
description = "two\nlines"

[limits]
memory = "2200M"
memory-soft = "2100M"
memory-and-swap = "2300M"
cpu-percent = 150
vcpu-percent = 120
cpu-weight = 50
pids = 64

[vcpu-quota]
quota-us = 35001
period-us = 70000

[block]
weight = 300

[[block.devices]]
path = "/dev/sda"
read-bytes = 4096

[memory-nodes]
mode = "interleave"
nodes = "0-1"

[cpu]
invariant-tsc = false

[[pin]]
vcpu = 0
cpus = "0-1,3"

[[metadata]]
uri = "http://example.org/x"
content = "<x/>"

[[kept]]
path = "pm"
xml = "<pm/>"
"#;

const DEVICES: &str = r#"
name = "web"
ports-address = 12

[[disk]]
target = "vda"
path = "/var/lib/reeve/images/web.qcow2"
format = "qcow2"
cache = "none"
io = "threads"
discard = "unmap"
serial = "W1"
queues = 4
block-size = 4096
address = 3
total-bytes = { per-second = 10, burst = 20, burst-seconds = 5 }
read-iops = { per-second = 30 }
write-iops = { per-second = 40 }

[[disk.backing]]
path = "/var/lib/reeve/images/base"
format = "raw"

[[disk]]
target = "vdb"
read-only = true

[[nic]]
bridge = "br0"
mac = "52:54:00:12:34:56"
target = "web0"
queues = 2
mtu = 1400
link = "down"
isolated = true
addresses = ["192.0.2.5", "2001:db8::/64"]
address = 4
inbound = { per-second = 1000 }
outbound = { per-second = 2000, burst = 4000 }

[[nic]]
tap = "tap0"
driver = "vhost"
trust-guest = true

[[nic]]

[[nic]]
network = "lan"
open-vswitch = { profile = "gold", tags = [42] }

[[nic]]
network = "lan"
open-vswitch = { tags = [7, 8], trunk = true, native = 8, tags-alone = true }

[rng]
address = 5
bytes = { per-second = 1024 }

[balloon]
free-page-reporting = true

[vsock]
path = "/var/lib/reeve/images/web.vsock"
cid = 7

[[channel]]
name = "org.qemu.guest_agent.0"
path = "/var/lib/reeve/images/web.agent"

[[console]]
path = "/var/lib/reeve/images/web.hvc0"

[[share]]
tag = "data"
path = "/var/lib/reeve/images/data"
read-only = true
address = 13
"#;

#[test]
fn devices_arrive_as_they_are_written_and_are_exported_again() {
    let file = parsed(DEVICES);
    let mut domain = file.clone().domain(DomainUuid(uuid::Uuid::from_u128(7)));
    assert_eq!(domain.validate(), Ok(()));
    let devices = &domain.devices;
    let drivers: Vec<_> = devices.nics.iter().map(|nic| nic.driver.word()).collect();
    assert_eq!(drivers, ["user", "vhost", "user", "user", "user"]);
    let own = |nic: usize| devices.nics[nic].virtual_port.as_deref().unwrap();
    assert!(own(3).open_vswitch && !own(4).open_vswitch);
    assert_eq!(own(3).profile.as_deref(), Some("gold"));
    assert_eq!(own(4).vlan.as_ref().unwrap().tags[1].native, Some(false));
    assert_eq!(devices.disks[0].layers().count(), 2);
    assert!(devices.disks[1].image.is_none() && devices.disks[1].read_only);
    let burst = devices.disks[0]
        .throttle
        .bytes
        .total
        .unwrap()
        .burst
        .unwrap();
    assert_eq!((burst.per_second, burst.seconds), (20, 5));
    let outbound = devices.nics[0].outbound.unwrap().burst.unwrap();
    assert_eq!((outbound.per_second, outbound.seconds), (4000, 1));
    assert_eq!(devices.nics[2].source, NicSource::Nothing);
    assert!(!devices.balloon.unwrap().deflate_on_oom);
    assert!(devices.shares[0].read_only);
    // As the daemon keeps it.
    domain.complete().unwrap();
    let definition = DomainDefinition {
        domain: domain.clone(),
        autostart: None,
    };
    let exported = write(&DefinitionFile::from(&definition)).unwrap();
    assert_eq!(parsed(&exported).domain(domain.uuid), domain, "{exported}");
    let json = serde_json::to_string(&DefinitionFile::from(&definition)).unwrap();
    assert_eq!(parsed(&json).domain(domain.uuid), domain, "{json}");
}

#[test]
fn a_device_that_makes_no_sense_is_refused_with_its_line() {
    let disk = |keys: &str| refused(&format!("name = 'web'\n[[disk]]\ntarget = 'vda'\n{keys}"));
    let line = disk("path = '/x'");
    assert!(line.contains("disk 'vda': state what is in it"), "{line}");
    assert!(line.contains("line"), "{line}");
    assert!(disk("format = 'raw'").contains("has a format and no path"));
    assert!(disk("path = '/x'\nformat = 'vmdk'").contains("vmdk"));
    assert!(disk("block-size = 1024").contains("512 or 4096"));
    assert!(disk("address = 32").contains("1 to 31"));
    assert!(disk("colour = 'red'").contains("colour"));
    assert!(refused("name = 'web'\n[[disk]]\ntarget = 'sda'").contains("'sda'"));
    let nic = |keys: &str| refused(&format!("name = 'web'\n[[nic]]\n{keys}"));
    assert!(nic("bridge = 'a'\ntap = 'b'").contains("not on two"));
    assert!(nic("mac = '01:00:00:00:00:00'").contains("one station"));
    assert!(nic("bridge = 'a/b'").contains("'a/b'"));
    assert!(nic("open-vswitch = { tags = [1] }").contains("needs a bridge"));
    let alone = nic("open-vswitch = { bridge = 'a', tags = [1], tags-alone = true }");
    assert!(alone.contains("with a network"), "{alone}");
    assert!(nic("filter-parameters = [['IP', '192.0.2.5']]").contains("filter-parameters are"));
    let both = "network = 'lan'\nopen-vswitch = { bridge = 'a' }";
    assert!(nic(both).contains("is the network's"));
}

#[test]
fn a_new_domain_has_a_generation_id_and_one_that_is_kept_has_what_it_says() {
    let uuid = DomainUuid(uuid::Uuid::nil());
    let id = |keys: &str| {
        let file = parsed(&format!("name = 'web'\n{keys}"));
        file.domain(uuid).platform.generation_id
    };
    assert_eq!(id(""), GenerationId::Random);
    assert_eq!(id("generation-id = 'none'"), GenerationId::Absent);
    let fixed = GenerationId::Fixed(uuid::Uuid::from_u128(7));
    assert_eq!(
        id(&format!("generation-id = '{}'", uuid::Uuid::from_u128(7))),
        fixed
    );
    for kept in [GenerationId::Absent, GenerationId::Random, fixed] {
        let mut domain = parsed("name = 'web'\npanic-port = true").domain(uuid);
        domain.platform.generation_id = kept;
        let definition = DomainDefinition {
            domain: domain.clone(),
            autostart: None,
        };
        let exported = write(&DefinitionFile::from(&definition)).unwrap();
        assert_eq!(parsed(&exported).domain(uuid), domain, "{exported}");
    }
    let line = refused("name = 'web'\ngeneration-id = 'sometimes'");
    assert!(line.contains("write random, none or a UUID"), "{line}");
}

#[test]
fn a_maximum_of_memory_is_one_device_and_no_maximum_is_none() {
    let read = |text: &str| {
        let file = parsed(&format!("name = 'web'\nmemory = '256M'\n{text}"));
        file.domain(DomainUuid(uuid::Uuid::from_u128(7)))
    };
    for text in ["", "max-memory = '256M'"] {
        assert_eq!(read(text).devices.memory, None);
    }
    let domain = read("max-memory = '1G'\nmemory-address = 9");
    assert_eq!(domain.validate(), Ok(()));
    assert_eq!(domain.max_memory(), MemorySize::mebibytes(1024));
    let address = domain.devices.memory.and_then(|memory| memory.address);
    assert_eq!(address.map(PciSlot::number), Some(9));
    let definition = DomainDefinition {
        domain: domain.clone(),
        autostart: None,
    };
    let exported = write(&DefinitionFile::from(&definition)).unwrap();
    assert!(exported.contains("max-memory = \"1G\""), "{exported}");
    assert_eq!(parsed(&exported).domain(domain.uuid), domain);
    let error = read("max-memory = '128M'").validate().unwrap_err();
    assert!(error.to_string().contains("128M of memory"), "{error}");
    let limited = read("max-memory = '1G'\n[limits]\nmemory = '1000M'");
    let error = limited.validate().unwrap_err().to_string();
    assert!(error.contains("a limit of 1000M of memory"), "{error}");
}

#[test]
fn a_definition_for_a_firmware_is_written_and_has_no_kernel() {
    let uuid = DomainUuid(uuid::Uuid::from_u128(7));
    let domain = parsed("name = 'web'\nfirmware = true").domain(uuid);
    assert_eq!(domain.boot, BootSource::Firmware);
    let definition = DomainDefinition {
        domain: domain.clone(),
        autostart: None,
    };
    let exported = write(&DefinitionFile::from(&definition)).unwrap();
    assert_eq!(parsed(&exported).domain(uuid), domain, "{exported}");
    for key in ["kernel = '/k'", "initrd = '/i'", "cmdline = 'quiet'"] {
        let line = refused(&format!("name = 'web'\nfirmware = true\n{key}"));
        assert!(line.contains("'firmware' goes without"), "{line}");
    }
}

#[test]
fn a_watchdog_has_one_of_its_actions_and_dump_is_told_of() {
    let uuid = DomainUuid(uuid::Uuid::nil());
    for action in WatchdogAction::ALL {
        let file = parsed(&format!("name = 'web'\n[watchdog]\naction = '{action}'"));
        let watchdog = file.domain(uuid).devices.watchdog;
        let (action, address) = (*action, None);
        assert_eq!(watchdog, Some(Watchdog { action, address }));
    }
    let watchdog = |keys: &str| refused(&format!("name = 'web'\n[watchdog]\n{keys}"));
    assert!(watchdog("action = 'dump'").contains("'dump' is not supported"));
    assert!(watchdog("action = 'bark'").contains("reset, shutdown, poweroff, pause, none"));
    assert!(watchdog("address = 4").contains("action"));
}

#[test]
fn relative_paths_of_devices_begin_at_the_files_directory() {
    let mut file = parsed(
        "name = 'web'\n[[disk]]\ntarget = 'vda'\npath = 'a'\nformat = 'qcow2'\n[[disk.backing]]\n\
         path = 'b'\nformat = 'raw'\n[vsock]\npath = 'v'\n[[channel]]\nname = 'c'\npath = 'c'\n\
         [[console]]\npath = 'h'\n[[share]]\ntag = 't'\npath = 's'",
    );
    assert_eq!(file.relative().unwrap().0, "disk");
    file.anchor(Path::new("/images")).unwrap();
    assert!(file.relative().is_none());
    let domain = file.domain(DomainUuid(uuid::Uuid::nil()));
    let paths = domain.devices.disks[0].layers().map(|layer| &layer.path);
    let paths: Vec<&Path> = paths.map(PathBuf::as_path).collect();
    assert_eq!(paths, [Path::new("/images/a"), Path::new("/images/b")]);
    let sockets: Vec<&Path> = domain.devices.sockets().map(|(_, path)| path).collect();
    assert_eq!(
        sockets,
        ["/images/v", "/images/c", "/images/h"].map(Path::new)
    );
    assert_eq!(domain.devices.shares[0].source, Path::new("/images/s"));
}

#[test]
fn everything_that_can_be_written_arrives_and_is_exported_again() {
    let file = parsed(FULL);
    let autostart = file.autostart;
    let uuid = file.uuid.unwrap();
    let domain = file.clone().domain(uuid);
    assert_eq!(domain.limits.vcpu_percent, Some(120));
    assert_eq!(domain.limits.swap(), Some(100 << 20));
    assert!(domain.limits.memory_soft.is_some());
    assert_eq!(domain.tuning.vcpu_quota.unwrap().period_us, 70_000);
    assert_eq!(domain.tuning.block.devices[0].read_bytes, Some(4096));
    assert!(domain.tuning.memory_nodes.is_some());
    assert_eq!(domain.lifecycle.on_reboot, OnReboot::Preserve);
    assert_eq!(domain.pinning[0].cpus.to_string(), "0-1,3");
    assert!(!domain.cpu.invariant_tsc && domain.cpu.kvmclock);
    assert_eq!(domain.validate(), Ok(()));
    let definition = DomainDefinition { domain, autostart };
    let exported = write(&DefinitionFile::from(&definition)).unwrap();
    assert_eq!(parsed(&exported), file, "{exported}");
    let json = serde_json::to_string(&file).unwrap();
    assert_eq!(parsed(&json), file);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    assert!(refused("name = 'web'\nmemroy = '1G'").contains("line 2"));
    assert!(refused("name = 'web'\nmemory = '1Q'").contains("'1Q' is not a size"));
    assert!(refused("name = 'web'\ncpus = 0").contains("1 to 1024"));
    assert!(refused("name = 'a/b'").contains("must not contain"));
    assert!(refused("name = 'web'\nmachine = 'q35'").contains("reeve-1.0"));
    assert!(refused("name = 'web'\non-crash = 'coredump'").contains("coredump"));
    assert!(refused("name = 'web").contains("line 1"));
    assert!(refused("{\"name\": 1}").contains("web.toml"));
}

#[test]
fn a_file_is_replaced_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    replace(&path, "one").unwrap();
    replace(&path, "two").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(replace(&directory.path().join("no/where"), "x").is_err());
}
