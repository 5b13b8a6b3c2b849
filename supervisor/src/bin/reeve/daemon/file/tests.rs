//! What people write is what the daemon gets, and what is exported is read back.

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
cpu-percent = 150
vcpu-percent = 120
cpu-weight = 50
pids = 64

[cpu]
invariant-tsc = false

[[pin]]
vcpu = 0
cpus = "0-1,3"

[[metadata]]
uri = "http://example.org/x"
content = "<x/>"
"#;

#[test]
fn everything_that_can_be_written_arrives_and_is_exported_again() {
    let file = parsed(FULL);
    let autostart = file.autostart;
    let uuid = file.uuid.unwrap();
    let domain = file.clone().domain(uuid);
    assert_eq!(domain.limits.vcpu_percent, Some(120));
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
