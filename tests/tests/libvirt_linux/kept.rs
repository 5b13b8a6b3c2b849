//! A document with every element that is taken and kept without being provided: Linux boots from it, and its
//! administrator finds it as it was written.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, drivers};
use reeve_tests::network::Network;

use super::host::{Host, SHELL, expect_up, guest};

/// The list, as administrators read it.
const DOCS: &str = include_str!("../../../docs/libvirt-xml.md");
const DRIVERS: &[&str] = &["virtio_blk", "virtio_net", "virtio_balloon", "virtio_mem"];

/// Elements of a domain that stand by themselves, with what they are in.
const KEPT: &[&str] = &[
    "<pm>\n    <suspend-to-mem enabled='no'/>\n    <suspend-to-disk enabled='no'/>\n  </pm>",
    "<cputune>\n    <period>50000</period>\n    <global_period>50000</global_period>\n  </cputune>",
    "<seclabel type='dynamic' model='apparmor' relabel='yes'/>",
    "<resource>\n    <partition>/machine</partition>\n  </resource>",
    "<memoryBacking>\n    <nosharepages/>\n    <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>",
];
const OF_OS: &[&str] = &[
    "<boot dev='hd'/>",
    "<bootmenu enable='no'/>",
    "<smbios mode='emulate'/>",
];
const OF_FEATURES: &[&str] = &[
    "<pae/>",
    "<vmport state='off'/>",
    "<smm state='off'/>",
    "<vmcoreinfo state='on'/>",
    "<pmu state='off'/>",
];
const OF_CPU: &[&str] = &[
    "<topology sockets='1' dies='1' cores='2' threads='1'/>",
    "<model fallback='allow'/>",
    "<feature policy='disable' name='vmx'/>",
    "<feature policy='forbid' name='svm'/>",
];
const OF_CLOCK: &[&str] = &[
    "<timer name='rtc' tickpolicy='catchup'/>",
    "<timer name='pit' tickpolicy='delay'/>",
    "<timer name='hpet' present='no'/>",
];
const DEVICES: &[&str] = &[
    "<emulator>/usr/bin/qemu-system-x86_64</emulator>",
    "<controller type='usb' index='0' model='qemu-xhci' ports='15'/>",
    "<controller type='pci' index='0' model='pcie-root'/>",
    "<controller type='sata' index='0'/>",
    "<controller type='ide' index='0'/>",
    "<controller type='scsi' index='0' model='virtio-scsi'/>",
    "<controller type='fdc' index='0'/>",
    "<controller type='virtio-serial' index='0'/>",
    "<input type='tablet' bus='usb'/>",
    "<input type='mouse' bus='ps2'/>",
    "<input type='keyboard' bus='ps2'/>",
    "<graphics type='vnc' port='-1' autoport='yes'>\n      <listen type='address'/>\n    </graphics>",
    "<video>\n      <model type='virtio' heads='1' primary='yes'/>\n    </video>",
    "<audio id='1' type='none'/>",
];
/// Elements of devices that are there.
const OF_DEVICES: &[&str] = &[
    "<boot order='1'/>",
    "<boot order='2'/>",
    "<stats period='10'/>",
    "<log file='/var/log/serial.log' append='on'/>",
    "<log file='/var/log/console.log' append='off'/>",
];

fn document(bridge: &str) -> String {
    let [disk_boot, nic_boot, stats, serial_log, console_log] = OF_DEVICES else {
        return String::new();
    };
    format!(
        "<domain type='kvm'>
           <name>kept</name>
           {}
           <maxMemory slots='16' unit='MiB'>512</maxMemory>
           <memory unit='MiB'>512</memory>
           <currentMemory unit='MiB'>256</currentMemory>
           <vcpu>2</vcpu>
           <os>
             <type arch='x86_64' machine='reeve'>hvm</type>
             <kernel>{}</kernel>
             <initrd>{}</initrd>
             <cmdline>{COMMAND_LINE} memhp_default_state=online_movable {}</cmdline>
             {}
           </os>
           <features><acpi/><apic/>{}</features>
           <cpu mode='host-model'>{}</cpu>
           <clock offset='utc'>{}</clock>
           <devices>
             {}
             <disk type='file' device='disk'>
               <driver name='qemu' type='raw'/>
               <source file='{}'/>
               <target dev='vda' bus='virtio'/>
               <readonly/>
               {disk_boot}
             </disk>
             <interface type='bridge'>
               <source bridge='{}'/>
               <mac address='52:54:00:0a:0d:01'/>
               <model type='virtio'/>
               {nic_boot}
             </interface>
             <serial type='pty'><target port='0'/>{serial_log}</serial>
             <console type='pty'><target type='serial' port='0'/>{console_log}</console>
             <memballoon model='virtio'>{stats}</memballoon>
             <memory model='virtio-mem'>
               <target>
                 <size unit='MiB'>256</size>
                 <node>0</node>
                 <block unit='MiB'>2</block>
                 <requested unit='MiB'>0</requested>
               </target>
             </memory>
           </devices>
         </domain>",
        KEPT.concat(),
        assets().full_vmlinux.display(),
        assets().full_initramfs.display(),
        drivers(DRIVERS),
        OF_OS.concat(),
        OF_FEATURES.concat(),
        OF_CPU.concat(),
        OF_CLOCK.concat(),
        DEVICES.concat(),
        assets().disk.display(),
        bridge,
    )
}

/// The elements of the table in the docs: a path, and what tells those of one name apart.
fn listed() -> Vec<(&'static str, Option<&'static str>)> {
    let title = "What is accepted without being provided\n";
    let mut sections = DOCS.split("\n## ");
    let section = sections.find_map(|section| section.strip_prefix(title));
    let rows = section.unwrap_or_default().lines().filter_map(|line| {
        let (element, _) = line.strip_prefix("| `")?.split_once("` |")?;
        Some(match element.split_once("[@") {
            Some((path, of)) => (path, Some(of.trim_end_matches(']'))),
            None => (element, None),
        })
    });
    rows.collect()
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn linux_boots_from_a_document_with_all_that_is_kept() -> Result<()> {
    let network = Network::new()?;
    let host = Host::start()?;
    let document = document(network.bridge());
    let file = host.file("kept.xml", &document)?;
    host.virsh(&format!("define {file}"))?;
    let all = [
        KEPT,
        OF_OS,
        OF_FEATURES,
        OF_CPU,
        OF_CLOCK,
        DEVICES,
        OF_DEVICES,
    ]
    .concat();
    let kept = host.virsh("dumpxml kept --inactive")?;
    for element in &all {
        ensure!(kept.contains(element), "no {element} in:\n{kept}");
    }
    expect_every_rule(&host, &document).context("the list in the docs")?;
    // What was dumped defines the same again.
    host.virsh("undefine kept")?;
    let file = host.file("again.xml", &kept)?;
    host.virsh(&format!("define {file}"))?;
    let again = host.virsh("dumpxml kept --inactive")?;
    ensure!(again == kept, "{again}\nwhere there was\n{kept}");

    host.virsh("start kept")?;
    let mut console = host.virsh_on_terminal("console kept")?;
    let (vcpus, memory) = expect_up(&mut console)?;
    ensure!(
        vcpus == 2 && (180 << 10..256 << 10).contains(&memory),
        "{vcpus} vCPUs, {memory} KiB"
    );
    let live = host.virsh("dumpxml kept")?;
    for element in &all {
        // There is no display to connect to.
        let shown = !["<graphics", "<video"]
            .iter()
            .any(|it| element.starts_with(it));
        ensure!(
            live.contains(element) == shown,
            "{element}, {shown}, in:\n{live}"
        );
    }
    ensure!(
        guest(&mut console, "ls /sys/block")?.contains("vda"),
        "no disk"
    );
    ensure!(
        guest(&mut console, "ls /sys/class/net")?.contains("eth0"),
        "no interface"
    );
    // Memory beyond what it started with is its memory device's.
    host.virsh("setmem kept 512M --live")?;
    host.virsh_until("dominfo kept", |info| {
        info.contains("Used memory:    524288 KiB")
    })?;
    let deadline = Instant::now() + SHELL;
    loop {
        let total = guest(&mut console, "awk '/MemTotal:/ { print $2 }' /proc/meminfo")?;
        if total.parse::<u64>()? > memory + (240 << 10) {
            break;
        }
        ensure!(Instant::now() < deadline, "{total} KiB, {memory} at first");
        std::thread::sleep(Duration::from_millis(500));
    }
    host.virsh("destroy kept")?;
    console.wait(SHELL)?;
    Ok(())
}

/// The document has each element of the list: the daemon's log names those that it took.
fn expect_every_rule(host: &Host, document: &str) -> Result<()> {
    let listed = listed();
    ensure!(listed.len() > 30, "the table is not found");
    let deadline = Instant::now() + SHELL;
    let document = document.replace('\n', " ");
    for (path, of) in listed {
        let said = format!("domain=kept path={path}\"");
        // So many lines are written a few at a time.
        while !host.daemon.log().contains(&said) {
            ensure!(
                Instant::now() < deadline,
                "{path} was not taken: {}",
                host.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let has = |of: &str| {
            let start = format!("<{name} ");
            let mut elements = document.split(&start).skip(1);
            elements.any(|rest| rest.split('>').next().is_some_and(|it| it.contains(of)))
        };
        let here = of.is_none_or(has);
        ensure!(here, "no {path} with {of:?}");
    }
    Ok(())
}
