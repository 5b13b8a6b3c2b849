//! One domain through all that virsh does with one, in three boots of its guest: each is most of what such a
//! test takes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER, drivers};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::network::{Network, SERVER};
use reeve_tests::reeve::Reeve;
use reeve_tests::tool::tool;

use super::host::{BOOT, Host, SHELL, expect_up, guest, guest_until};
use super::peek;

/// The interfaces that it has, and gets.
const MAC: &str = "52:54:00:0a:0c:01";
const SECOND_MAC: &str = "52:54:00:0a:0c:02";
/// The name of its channel.
const CHANNEL: &str = "org.example.test.0";
const DRIVERS: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
];

/// As an administrator writes it: nothing in it is Reeve's own.
fn document(host: &Host, bridge: &str, name: &str) -> String {
    format!(
        "<domain type='kvm'>
           <name>{name}</name>
           <title>Plain</title>
           <memory unit='MiB'>256</memory>
           <vcpu current='1'>3</vcpu>
           <os>
             <type arch='x86_64' machine='reeve'>hvm</type>
             <kernel>{}</kernel>
             <initrd>{}</initrd>
             <cmdline>{} {}</cmdline>
           </os>
           <features><acpi/><apic/></features>
           <devices>
             <disk type='file' device='disk'>
               <driver name='qemu' type='raw'/>
               <source file='{}'/>
               <target dev='vda' bus='virtio'/>
             </disk>
             <interface type='bridge'>
               <source bridge='{}'/>
               <mac address='{MAC}'/>
               <model type='virtio'/>
             </interface>
             <console type='pty'/>
             <channel type='unix'>
               <target type='virtio' name='{CHANNEL}'/>
             </channel>
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
             <memballoon model='virtio'/>
           </devices>
         </domain>",
        assets().vmlinux.display(),
        assets().initramfs.display(),
        // The lab's line makes a reboot a triple fault, which is a crash; here Linux chooses.
        COMMAND_LINE.replace("reboot=t ", ""),
        drivers(DRIVERS),
        host.path("first.raw"),
        bridge,
    )
}

#[reeve_tests::in_lab(timeout = "1200s", root)]
fn a_domain_with_linux_lives_as_its_administrator_types() -> Result<()> {
    let network = Network::new()?;
    // The place of the namespaces of networks stays when a network goes.
    let before = Snapshot::take();
    let host = Host::start()?;
    for name in ["first.raw", "second.raw"] {
        fs::File::create(host.path(name))?.set_len(16 << 20)?;
    }
    let mut events = listen(&host, network.bridge())?;
    let file = host.file("lab.xml", &document(&host, network.bridge(), "lab"))?;
    define_and_edit(&host, &file)?;

    host.virsh("start lab")?;
    let mut console = host.virsh_on_terminal("console lab")?;
    let (vcpus, memory) = expect_up(&mut console)?;
    ensure!(
        vcpus == 1 && (190 << 10..256 << 10).contains(&memory),
        "{vcpus} {memory}"
    );
    seen_from_outside(&host).context("what is seen")?;
    suspend_and_resume(&host, &mut console).context("suspend")?;
    tune(&host, &mut console).context("vCPUs")?;
    disks(&host, &mut console).context("disks")?;
    peek::python_sees_what_the_guest_does(&host, &mut console).context("Python")?;
    interfaces(&host, network.bridge(), &mut console).context("interfaces")?;
    devices_by_document(&host, &mut console).context("devices")?;
    channel(&host, &mut console).context("channel")?;
    memory_by_balloon(&host, &mut console).context("memory")?;

    host.virsh("reboot lab")?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    let (vcpus, _) = expect_up(&mut console)?;
    ensure!(vcpus == 2, "{vcpus} vCPUs after a reboot");
    host.virsh("shutdown lab")?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    // Who is on the console of a domain that ends is let go.
    let status = console.wait(SHELL)?;
    ensure!(status.success(), "{status}: {}", console.output());
    host.wait_for_state("lab", "shut off (shutdown)")?;
    let listed = host.virsh("list --all")?;
    ensure!(listed.contains("shut off"), "{listed}");
    host.virsh("undefine lab")?;

    short(&host, network.bridge()).context("a domain that is not kept")?;
    told_in_order(&mut events)?;
    drop((events, console, host, network));
    before.assert_nothing_new(SHELL);
    Ok(())
}

/// Starts to listen, and knows that it does.
fn listen(host: &Host, bridge: &str) -> Result<Reeve> {
    let mut events = host.virsh_listening("event --all --loop")?;
    // Who has asked for events hears of this.
    let file = host.file("call.xml", &document(host, bridge, "call"))?;
    for _ in 0..30 {
        host.virsh(&format!("define {file}"))?;
        host.virsh("undefine call")?;
        events.listen(std::time::Duration::from_millis(300))?;
        if events.output().contains("Undefined Removed") {
            return Ok(events);
        }
    }
    bail!("no event is heard: {}", events.errors())
}

fn define_and_edit(host: &Host, file: &str) -> Result<()> {
    let said = host.virsh(&format!("define {file}"))?;
    ensure!(
        said == format!("Domain 'lab' defined from {file}"),
        "{said}"
    );
    ensure!(host.virsh("domstate lab")? == "shut off");
    let said = host.virsh("edit lab")?;
    ensure!(said == "Domain 'lab' XML configuration edited.", "{said}");
    ensure!(host.virsh("desc lab --title")? == "Edited");
    // What is left as it was is no change.
    let said = host.virsh("edit lab")?;
    ensure!(
        said == "Domain 'lab' XML configuration not changed.",
        "{said}"
    );
    let kept = host.virsh("dumpxml lab")?;
    for part in [
        "<title>Edited</title>",
        "current='1'>3</vcpu>",
        MAC,
        CHANNEL,
    ] {
        ensure!(kept.contains(part), "{part}: {kept}");
    }
    Ok(())
}

fn contains_all(what: &str, printed: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(printed.contains(part), "{what}: no '{part}' in:\n{printed}");
    }
    Ok(())
}

fn seen_from_outside(host: &Host) -> Result<()> {
    contains_all(
        "dominfo",
        &host.virsh("dominfo lab")?,
        &[
            "State:          running",
            "CPU(s):         1",
            "Max memory:     262144 KiB",
            "Used memory:    262144 KiB",
            "Persistent:     yes",
        ],
    )?;
    contains_all(
        "dumpxml",
        &host.virsh("dumpxml lab")?,
        &[
            "<domain type='kvm' id='1'>",
            "<target dev='vnet0'/>",
            "<alias name='net",
        ],
    )?;
    contains_all(
        "domblklist",
        &host.virsh("domblklist lab")?,
        &["vda", &host.path("first.raw")],
    )?;
    contains_all(
        "domiflist",
        &host.virsh("domiflist lab")?,
        &["vnet0", "bridge", MAC],
    )?;
    contains_all(
        "domstats",
        &host.virsh("domstats lab")?,
        &[
            "state.state=1",
            "cpu.time=",
            "balloon.current=262144",
            "balloon.maximum=262144",
            "vcpu.current=1",
            "vcpu.maximum=3",
            "vcpu.0.time=",
            "net.count=1",
            "net.0.name=vnet0",
            "block.count=1",
            "block.0.name=vda",
        ],
    )
}

fn suspend_and_resume(host: &Host, console: &mut Reeve) -> Result<()> {
    host.virsh("suspend lab")?;
    host.wait_for_state("lab", "paused (user)")?;
    // What it printed before is on its way still.
    console.listen(std::time::Duration::from_secs(2))?;
    console.send(b"echo an''swer\n")?;
    let printed = console.output().len();
    console.listen(std::time::Duration::from_secs(2))?;
    ensure!(
        console.output().len() == printed,
        "a suspended guest prints"
    );
    host.virsh("resume lab")?;
    host.wait_for_state("lab", "running (unpaused)")?;
    console.expect("answer", SHELL)?;
    console.expect(reeve_tests::lab::assets::PROMPT, SHELL)?;
    Ok(())
}

/// vCPUs that come, where they run, and what they may use.
fn tune(host: &Host, console: &mut Reeve) -> Result<()> {
    host.virsh("setvcpus lab 2 --live --config")?;
    guest_until(console, "[ -e /sys/devices/system/cpu/cpu1/online ]")?;
    guest(console, "echo 1 >/sys/devices/system/cpu/cpu1/online")?;
    ensure!(guest(console, "nproc")? == "2", "nproc");
    contains_all(
        "dominfo",
        &host.virsh("dominfo lab")?,
        &["CPU(s):         2"],
    )?;
    let info = host.virsh("vcpuinfo lab")?;
    contains_all(
        "vcpuinfo",
        &info,
        &[
            "VCPU:           0",
            "VCPU:           1",
            "State:",
            "CPU time:",
        ],
    )?;
    host.virsh("vcpupin lab 1 0")?;
    let pins = host.virsh("vcpupin lab")?;
    let pins: Vec<Vec<&str>> = pins
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    ensure!(pins.contains(&vec!["1", "0"]), "{pins:?}");

    contains_all(
        "schedinfo",
        &host.virsh("schedinfo lab")?,
        &["Scheduler", "posix", "cpu_shares"],
    )?;
    let set = host.virsh("schedinfo lab --set cpu_shares=512")?;
    let line = set.lines().find(|line| line.starts_with("cpu_shares"));
    ensure!(line.is_some_and(|line| line.ends_with(" 512")), "{set}");
    let worker = host.daemon.workers().first().copied().context("a worker")?;
    let cgroup = fs::read_to_string(format!("/proc/{worker}/cgroup"))?;
    let path = cgroup.trim().split("::").nth(1).context("cgroup v2")?;
    let mut directory = std::path::PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let weight = loop {
        if let Ok(weight) = fs::read_to_string(directory.join("cpu.weight")) {
            if weight.trim() != "100" {
                break weight;
            }
        }
        ensure!(directory.pop(), "no cgroup of its has another weight");
    };
    ensure!(weight.trim() == "512", "{weight}");
    Ok(())
}

/// The figure of that name in what `domblkstat` and their like print: `vda rd_req 17`.
fn figure(printed: &str, name: &str) -> Result<u64> {
    let mut lines = printed.lines().map(|line| line.split_whitespace());
    let found = lines.find_map(|mut words| {
        words.by_ref().find(|word| *word == name)?;
        words.next()
    });
    let found = found.with_context(|| format!("no {name}: {printed}"))?;
    Ok(found.parse()?)
}

fn disks(host: &Host, console: &mut Reeve) -> Result<()> {
    let second = host.path("second.raw");
    host.virsh(&format!("attach-disk lab {second} vdb --live"))?;
    guest_until(console, "[ -b /dev/vdb ]")?;
    ensure!(
        guest(console, "cat /sys/block/vdb/size")? == "32768",
        "its size"
    );
    for disk in ["vda", "vdb"] {
        guest(
            console,
            &format!("dd if=/dev/urandom of=/dev/{disk} bs=64k count=16 oflag=direct 2>/dev/null"),
        )?;
        let stats = host.virsh(&format!("domblkstat lab {disk}"))?;
        ensure!(figure(&stats, "wr_bytes")? == 1 << 20, "{stats}");
        ensure!(figure(&stats, "rd_req")? > 0, "{stats}");
    }
    let sum = guest(
        console,
        "dd if=/dev/vdb bs=64k count=16 iflag=direct 2>/dev/null | md5sum",
    )?;
    host.virsh("detach-disk lab vdb --live")?;
    guest_until(console, "[ ! -e /sys/block/vdb ]")?;
    // The guest lets go of it first.
    host.virsh_until("domblklist lab", |listed| !listed.contains("vdb"))?;
    let bytes = fs::read(&second)?;
    let copy = host.path("copy");
    fs::write(&copy, bytes.get(..1 << 20).context("its start")?)?;
    let here = reeve_tests::tool::md5(copy.as_ref())?;
    ensure!(sum.starts_with(&here), "{sum} in the guest, {here} here");
    Ok(())
}

fn interfaces(host: &Host, bridge: &str, console: &mut Reeve) -> Result<()> {
    let up = |card: &str| {
        format!(
            "ip link set {card} up && udhcpc -i {card} -n -q >/dev/null 2>&1 && ping -c 2 -I {card} -W 5 {SERVER}"
        )
    };
    guest(console, &up("eth0"))?;
    let stats = host.virsh("domifstat lab vnet0")?;
    for name in ["rx_bytes", "rx_packets", "tx_bytes", "tx_packets"] {
        ensure!(figure(&stats, name)? > 0, "{stats}");
    }
    guest(console, "ip link set eth0 down")?;

    host.virsh(&format!(
        "attach-interface lab bridge {bridge} --mac {SECOND_MAC} --model virtio --live"
    ))?;
    guest_until(console, "[ -e /sys/class/net/eth1 ]")?;
    let mac = guest(console, "cat /sys/class/net/eth1/address")?;
    ensure!(mac == SECOND_MAC, "{mac}");
    guest(console, &up("eth1"))?;
    let listed = host.virsh("domiflist lab")?;
    ensure!(listed.contains(SECOND_MAC), "{listed}");
    let stats = host.virsh("domifstat lab vnet1")?;
    ensure!(figure(&stats, "tx_packets")? > 0, "{stats}");
    host.virsh(&format!(
        "detach-interface lab bridge --mac {SECOND_MAC} --live"
    ))?;
    guest_until(console, "[ ! -e /sys/class/net/eth1 ]")?;
    // The guest lets go of it first.
    host.virsh_until("domiflist lab", |listed| !listed.contains(SECOND_MAC))?;
    let deadline = Instant::now() + SHELL;
    loop {
        let links = tool("ip", ["-br", "link"])?;
        if !links.contains("vnet1") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{links}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn devices_by_document(host: &Host, console: &mut Reeve) -> Result<()> {
    let image = host.path("third.qcow2");
    tool("qemu-img", ["create", "-q", "-f", "qcow2", &image, "8M"])?;
    let file = host.file(
        "disk.xml",
        &format!(
            "<disk type='file' device='disk'>
               <driver name='qemu' type='qcow2'/>
               <source file='{image}'/>
               <target dev='vdc' bus='virtio'/>
               <serial>THIRD</serial>
             </disk>"
        ),
    )?;
    let said = host.output(
        host.client("virsh")
            .args(["attach-device", "lab", &file, "--live"]),
    )?;
    ensure!(said == "Device attached successfully", "{said}");
    guest_until(console, "grep -qx THIRD /sys/block/vd*/serial")?;
    let info = host.virsh("dumpxml lab")?;
    ensure!(info.contains("<serial>THIRD</serial>"), "{info}");
    host.virsh(&format!("detach-device lab {file} --live"))?;
    guest_until(console, "! grep -qx THIRD /sys/block/vd*/serial")?;
    Ok(())
}

/// A channel without a path gets one, which the document says.
fn channel(host: &Host, console: &mut Reeve) -> Result<()> {
    let document = host.virsh("dumpxml lab")?;
    let channel = document.split("<channel").nth(1).context("a channel")?;
    let path = channel
        .split("path='")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    let mut client = UnixStream::connect(path.context("a path")?)?;
    client.set_read_timeout(Some(SHELL))?;
    let name = guest(
        console,
        &format!("grep -lx {CHANNEL} /sys/class/virtio-ports/*/name"),
    )?;
    let port = name.rsplit('/').nth(1).context("a port")?;
    guest(console, &format!("(head -n 1 </dev/{port} >/tmp/word &)"))?;
    client.write_all(b"ping\n")?;
    guest_until(console, "grep -qx ping /tmp/word")?;
    guest(console, &format!("echo pong >/dev/{port}"))?;
    let mut word = [0; 5];
    client.read_exact(&mut word)?;
    ensure!(word == *b"pong\n", "{word:?}");
    let source = guest(console, "cat /sys/class/misc/hw_random/rng_current")?;
    ensure!(source == "virtio_rng.0", "{source}");
    Ok(())
}

/// Memory that is taken from the guest and given back.
fn memory_by_balloon(host: &Host, console: &mut Reeve) -> Result<()> {
    let free = |console: &mut Reeve| -> Result<u64> {
        let free = guest(console, "awk '/MemAvailable:/ { print $2 }' /proc/meminfo")?;
        Ok(free.parse()?)
    };
    let at_first = free(console)?;
    host.virsh("setmem lab 192M --live")?;
    host.virsh_until("dommemstat lab", |stats| {
        figure(stats, "actual").is_ok_and(|actual| actual == 192 << 10)
    })?;
    let less = free(console)?;
    ensure!(
        less + (56 << 10) < at_first,
        "{less} KiB, {at_first} before"
    );
    contains_all(
        "dominfo",
        &host.virsh("dominfo lab")?,
        &["Used memory:    196608 KiB"],
    )?;
    // The driver says what it has when it is asked.
    let stats = host.virsh_until("dommemstat lab", |stats| figure(stats, "usable").is_ok())?;
    for name in ["unused", "available", "usable", "rss", "last_update"] {
        ensure!(figure(&stats, name)? > 0, "{stats}");
    }
    host.virsh("setmem lab 262144")?;
    host.virsh_until("dommemstat lab", |stats| {
        figure(stats, "actual").is_ok_and(|actual| actual == 256 << 10)
    })?;
    let again = free(console)?;
    ensure!(again > less + (56 << 10), "{again} KiB, {less} before");
    Ok(())
}

/// A domain that is not kept: created, seen, destroyed while its guest boots.
fn short(host: &Host, bridge: &str) -> Result<()> {
    let file = host.file("short.xml", &document(host, bridge, "short"))?;
    let mut console = host.virsh_on_terminal(&format!("create {file} --console"))?;
    console.expect("Connected to domain 'short'", BOOT)?;
    contains_all(
        "dominfo",
        &host.virsh("dominfo short")?,
        &["Persistent:     no"],
    )?;
    host.virsh("destroy short")?;
    console.wait(SHELL)?;
    let listed = host.virsh("list --all")?;
    ensure!(!listed.contains("short"), "{listed}");
    Ok(())
}

/// What was heard of it all, in its order.
fn told_in_order(events: &mut Reeve) -> Result<()> {
    let all = [
        "event 'lifecycle' for domain 'lab': Defined Added",
        "event 'lifecycle' for domain 'lab': Defined Updated",
        "event 'lifecycle' for domain 'lab': Started Booted",
        "event 'lifecycle' for domain 'lab': Suspended Paused",
        "event 'lifecycle' for domain 'lab': Resumed Unpaused",
        "event 'lifecycle' for domain 'lab': Defined Updated",
        "event 'device-added' for domain 'lab': virtio-disk1",
        "event 'device-removed' for domain 'lab': virtio-disk1",
        "event 'device-added' for domain 'lab': net",
        "event 'device-removed' for domain 'lab': net",
        "event 'device-added' for domain 'lab': virtio-disk2",
        "event 'device-removed' for domain 'lab': virtio-disk2",
        "event 'balloon-change' for domain 'lab': 196608KiB",
        "event 'balloon-change' for domain 'lab': 262144KiB",
        // A reboot is told of as libvirt does.
        "event 'lifecycle' for domain 'lab': Shutdown Finished after guest request",
        "event 'reboot' for domain 'lab'",
        "event 'lifecycle' for domain 'lab': Resumed Unpaused",
        "event 'lifecycle' for domain 'lab': Shutdown Finished after guest request",
        "event 'lifecycle' for domain 'lab': Stopped Shutdown",
        "event 'lifecycle' for domain 'lab': Undefined Removed",
        "event 'lifecycle' for domain 'short': Started Booted",
        "event 'lifecycle' for domain 'short': Shutdown Finished after host request",
        "event 'lifecycle' for domain 'short': Stopped Destroyed",
    ];
    for event in all {
        events.expect(event, SHELL)?;
    }
    // And no state of it that is not among these.
    let told = events.output();
    let life = "event 'lifecycle' for domain 'lab'";
    let heard = told.lines().filter(|line| line.starts_with(life)).count();
    let wanted = all.iter().filter(|line| line.starts_with(life)).count();
    ensure!(heard == wanted, "{told}");
    Ok(())
}
