//! What is refused, and that the message names it.

use reeve_gateway::xml::XmlErrorKind;

use super::parse;

/// A document with this among its elements, and with this among its devices.
fn with(elements: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>n</name><memory>65536</memory>\
         <os><type>hvm</type><kernel>/k</kernel></os>{elements}<devices>{devices}</devices></domain>"
    )
}

#[test]
fn what_a_guest_would_notice_is_refused_by_its_path() {
    let elements = [
        ("<features><hyperv/></features>", "features/hyperv"),
        (
            "<features><smm state='on'/></features>",
            "features/smm/@state",
        ),
        (
            "<cpu mode='custom'><model>Nehalem</model></cpu>",
            "cpu/@mode",
        ),
        ("<cpu><model>Nehalem</model></cpu>", "cpu/model"),
        (
            "<cpu><feature name='vmx' policy='require'/></cpu>",
            "cpu/feature/@name",
        ),
        ("<cpu><numa/></cpu>", "cpu/numa"),
        ("<clock offset='localtime'/>", "clock/@offset"),
        (
            "<clock offset='utc'><timer name='hpet' present='yes'/></clock>",
            "clock/timer/@present",
        ),
        (
            "<clock offset='utc'><timer name='tsc'/></clock>",
            "clock/timer",
        ),
        ("<numatune><memnode/></numatune>", "numatune/memnode"),
        (
            "<features><pmu state='on'/></features>",
            "features/pmu/@state",
        ),
        (
            "<cpu><feature name='svm' policy='require'/></cpu>",
            "cpu/feature",
        ),
        (
            "<memoryBacking><nosharepages/><locked/></memoryBacking>",
            "memoryBacking/locked",
        ),
        (
            "<memoryBacking><hugepages/></memoryBacking>",
            "memoryBacking/hugepages",
        ),
        (
            "<pm><suspend-to-mem enabled='yes'/></pm>",
            "pm/suspend-to-mem/@enabled",
        ),
        ("<seclabel type='static'/>", "seclabel/@type"),
        ("<vcpu placement='auto'>1</vcpu>", "vcpu/@placement"),
        ("<on_crash>coredump-destroy</on_crash>", "on_crash"),
        (
            "<cputune><emulatorpin cpuset='1' period='1'/></cputune>",
            "cputune/emulatorpin",
        ),
        (
            "<cputune><iothreadpin iothread='1' cpuset='1'/></cputune>",
            "cputune/iothreadpin",
        ),
        (
            "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>",
            "q:commandline",
        ),
        ("<nonsense/>", "nonsense"),
        ("<sysinfo type='smbios'/>", "sysinfo"),
    ];
    let devices = [
        ("<sound model='ich9'/>", "devices/sound"),
        ("<hostdev/>", "devices/hostdev"),
        ("<tpm/>", "devices/tpm"),
        ("<graphics type='spice'/>", "devices/graphics/@type"),
        (
            "<graphics type='vnc' passwd='secret'/>",
            "devices/graphics/@passwd",
        ),
        ("<input type='tablet' bus='virtio'/>", "devices/input/@bus"),
        ("<controller type='ccid'/>", "devices/controller"),
        (
            "<interface type='user'><vlan><tag id='1'/></vlan></interface>",
            "devices/interface/vlan",
        ),
        (
            "<interface type='network'><source network='default'/><virtualport type='802.1Qbg'/></interface>",
            "devices/interface/virtualport/@type",
        ),
        (
            "<interface type='direct'><source dev='a' mode='x'/></interface>",
            "devices/interface/source/@mode",
        ),
        (
            "<interface type='direct'><source dev='a'/><virtualport type='802.1Qbg'/></interface>",
            "devices/interface/virtualport: a switch is told of no port",
        ),
        ("<interface type='server'/>", "devices/interface/@type"),
        (
            "<interface type='ethernet'><model type='e1000e'/></interface>",
            "interface/model/@type",
        ),
        (
            "<interface type='ethernet'><virtualport/></interface>",
            "devices/interface/virtualport",
        ),
        (
            "<disk><target dev='sda' bus='sata'/></disk>",
            "devices/disk/target/@bus",
        ),
        ("<disk><target dev='sda'/></disk>", "devices/disk/target"),
        (
            "<disk device='lun'><target dev='vda'/></disk>",
            "devices/disk/@device",
        ),
        (
            "<disk type='network'><target dev='vda'/></disk>",
            "devices/disk/@type",
        ),
        (
            "<disk><target dev='vda'/><driver type='vmdk'/></disk>",
            "devices/disk/driver/@type",
        ),
        (
            "<disk><target dev='vda'/><driver iothread='1'/></disk>",
            "devices/disk/driver/@iothread",
        ),
        (
            "<disk><target dev='vda'/><shareable/></disk>",
            "devices/disk/shareable",
        ),
        (
            "<disk><target dev='vda'/><alias name='ua-mine'/></disk>",
            "devices/disk",
        ),
        (
            "<disk><target dev='vda'/><address type='pci' bus='0x01' slot='0x02'/></disk>",
            "devices/disk/address/@bus",
        ),
        ("<serial type='file'/>", "devices/serial/@type"),
        ("<serial type='pty'/><serial type='pty'/>", "devices/serial"),
        ("<channel type='spicevmc'/>", "devices/channel/@type"),
        (
            "<filesystem><source dir='/a'/><target dir='t'/></filesystem>",
            "devices/filesystem/@type",
        ),
        ("<memory model='dimm'/>", "devices/memory/@model"),
        ("<watchdog model='itco'/>", "devices/watchdog/@model"),
        (
            "<watchdog model='i6300esb' action='dump'/>",
            "devices/watchdog",
        ),
        ("<panic model='pvpanic'/>", "devices/panic/@model"),
        (
            "<rng model='virtio'><backend model='egd'/></rng>",
            "devices/rng/backend/@model",
        ),
        (
            "<rng model='virtio'><backend model='random'/></rng>\
             <rng model='virtio'><backend model='random'/></rng>",
            "devices/rng",
        ),
    ];
    let elements = elements.map(|(text, path)| (with(text, ""), path));
    let devices = devices.map(|(text, path)| (with("", text), path));
    for (text, path) in elements.into_iter().chain(devices) {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.kind, XmlErrorKind::Unsupported, "{error}");
        assert!(error.message.contains(path), "{path}: {error}");
        assert_eq!(error.code(), 67);
    }
}

#[test]
fn what_makes_no_sense_is_refused_as_such() {
    let twice = |element: &str| {
        let switch =
            "<source bridge='ovsbr'/><virtualport type='openvswitch'/><vlan><tag id='7'/></vlan>";
        format!("<interface type='bridge'>{switch}{element}</interface>")
    };
    for (text, part) in [
        ("<network/>".to_owned(), "expecting <domain>"),
        ("<domain/>".to_owned(), "type"),
        ("<domain type='kvm'/>".to_owned(), "<os>"),
        (with("<memory>1</memory>", ""), "second"),
        (with("<uuid>no</uuid>", ""), "uuid"),
        (with("<vcpu>x</vcpu>", ""), "vcpu"),
        (
            with("<maxMemory slots='1' unit='XB'>1</maxMemory>", ""),
            "unit",
        ),
        (with("<maxMemory unit='EiB'>17</maxMemory>", ""), "large"),
        (
            with("<currentMemory unit='XB'>1</currentMemory>", ""),
            "unit",
        ),
        (with("<metadata><plain/></metadata>", ""), "namespace"),
        (with("", "<disk/>"), "<target>"),
        (with("", "<vsock/><vsock/>"), "one only"),
        (with("<vcpu cpuset='^1'>1</vcpu>", ""), "CPUs"),
        (
            with("", "<interface type='ethernet'><filterref/></interface>"),
            "interface/filterref: attribute 'filter'",
        ),
        (
            with(
                "",
                "<interface type='ethernet'><filterref filter='f'><parameter name='A' value='a/b'/></filterref></interface>",
            ),
            "interface/filterref: 'a/b' is no value",
        ),
        (
            with(
                "",
                "<interface type='ethernet'><filterref filter='f'/><filterref filter='g'/></interface>",
            ),
            "interface/filterref: there is a second one",
        ),
        (
            with("", &twice("<virtualport type='openvswitch'/>")),
            "interface/virtualport: there is a second one",
        ),
        (
            with("", &twice("<vlan><tag id='8'/></vlan>")),
            "interface/vlan: there is a second one",
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), 27, "{error}");
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

#[test]
fn what_is_no_document_is_refused_as_such() {
    for text in [
        "",
        "<domain",
        "<domain></other>",
        "<a:domain/>",
        "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>",
        "<domain>&a;</domain>",
    ] {
        assert_eq!(parse(text).unwrap_err().code(), 35, "{text}");
    }
}

#[test]
fn strings_for_smbios_tables_are_refused_for_there_are_none() {
    let nova = include_str!("../data/nova.xml");
    let sysinfo = "<sysinfo type='smbios'><system><entry name='product'>OpenStack Nova</entry></system></sysinfo>";
    for (text, path) in [
        (nova.replace("<os>", &format!("{sysinfo}<os>")), "sysinfo"),
        (
            nova.replace("</os>", "<smbios mode='sysinfo'/></os>"),
            "os/smbios",
        ),
        (
            nova.replace("</os>", "<smbios mode='host'/></os>"),
            "os/smbios",
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), 67);
        assert!(error.message.contains(path), "{error}");
        assert!(error.message.contains("no SMBIOS tables"), "{error}");
    }
    assert!(parse(&nova.replace("</os>", "<smbios mode='emulate'/></os>")).is_ok());
}

#[test]
fn a_quota_of_each_vcpu_is_kept_as_it_is_written() {
    let quota = "<cputune><period>70000</period><quota>50001</quota></cputune>";
    let of = |vcpus: u32| with(&format!("<vcpu>{vcpus}</vcpu>{quota}"), "");
    for vcpus in [1, 2] {
        let domain = super::defined(&of(vcpus));
        assert_eq!(domain.limits.vcpu_percent, None);
        let quota = domain.tuning.vcpu_quota.unwrap();
        assert_eq!((quota.quota_us, quota.period_us), (50_001, 70_000));
        let text = super::dumped(&domain);
        assert!(text.contains("<quota>50001</quota>"), "{text}");
        assert!(text.contains("<period>70000</period>"), "{text}");
    }
    // None is none of each.
    let none = super::defined(&of(2).replace("50001</quota>", "-1</quota>"));
    assert_eq!(none.tuning.vcpu_quota, None);
}

#[test]
fn a_period_without_a_quota_is_kept_until_there_is_one() {
    for name in ["period", "global_period"] {
        let period = |length: &str| {
            let tune = format!("<cputune><{name}>{length}</{name}></cputune>");
            with(&format!("<vcpu>1</vcpu>{tune}"), "")
        };
        let mut domain = super::defined(&period("50000"));
        let said = format!("<{name}>50000</{name}>");
        let dumped = super::dumped(&domain);
        assert_eq!(dumped.matches(&said).count(), 1, "{dumped}");
        assert_eq!(super::dumped(&super::defined(&dumped)), dumped);
        domain.limits.cpu_percent = Some(50);
        domain.tuning.vcpu_quota = Some(reeve_ipc::model::CpuQuota {
            quota_us: 10_000,
            period_us: 20_000,
        });
        let dumped = super::dumped(&domain);
        assert!(!dumped.contains(&said), "{dumped}");
        assert_eq!(dumped.matches("<period>").count(), 1, "{dumped}");
        for wrong in ["7", "1000001", "-1", "x"] {
            assert!(parse(&period(wrong)).is_err(), "{wrong}");
        }
    }
}

#[test]
fn a_period_of_nothing_is_the_common_one() {
    for (quota, name) in [("quota", "period"), ("global_quota", "global_period")] {
        let none = format!("<{name}>0</{name}>");
        let of = |tune: &str| with(&format!("<vcpu>1</vcpu><cputune>{tune}</cputune>"), "");
        let dumped = super::dumped(&super::defined(&of(&none)));
        assert!(!dumped.contains(name), "{dumped}");
        let half = format!("<{quota}>50000</{quota}>");
        let domain = super::defined(&of(&format!("{none}{half}")));
        let common = super::defined(&of(&half));
        assert_eq!(domain.tuning.vcpu_quota, common.tuning.vcpu_quota);
        assert_eq!(domain.limits.cpu_percent, common.limits.cpu_percent);
        assert!(common.tuning.vcpu_quota.is_some() || common.limits.cpu_percent == Some(50));
    }
}

#[test]
fn a_topology_that_does_not_make_the_vcpus_any_more_is_not_printed() {
    let text = include_str!("../data/virt-manager-wizard.xml");
    let mut domain = super::defined(text);
    let topology = |domain: &reeve_ipc::model::Domain| {
        reeve_gateway::xml::domain::topology_vcpus(&domain.kept)
    };
    assert_eq!(topology(&domain), Some(2));
    assert!(super::dumped(&domain).contains("<topology"));
    domain.max_vcpus = reeve_ipc::model::Vcpus::try_from(5).unwrap();
    let dump = super::dumped(&domain);
    assert!(!dump.contains("<topology"), "{dump}");
    assert_eq!(super::defined(&dump).max_vcpus, domain.max_vcpus);
}

#[test]
fn a_set_of_cpus_is_bounded_however_much_it_leaves_out() {
    let long = format!("0-4095{}", ",^1".repeat(1 << 20));
    let error = parse(&with(&format!("<vcpu cpuset='{long}'>1</vcpu>"), "")).unwrap_err();
    assert_eq!(error.code(), 27, "{error}");
    let all_out: Vec<String> = (1..4096).map(|cpu| format!("^{cpu}")).collect();
    let most = format!("0-4095,{}", all_out.join(","));
    let domain = super::defined(&with(&format!("<vcpu cpuset='{most}'>1</vcpu>"), ""));
    assert_eq!(domain.pinning[0].cpus.to_string(), "0");
}

#[test]
fn what_goes_with_a_kernel_is_refused_without_one() {
    for part in ["<initrd>/i</initrd>", "<cmdline>quiet</cmdline>"] {
        let text = format!(
            "<domain type='kvm'><name>n</name><memory>65536</memory>\
             <os><type>hvm</type>{part}<boot dev='hd'/></os></domain>"
        );
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), 27, "{error}");
        assert!(error.message.contains("<kernel>"), "{error}");
    }
}
