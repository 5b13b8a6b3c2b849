//! The real `virsh` against a session, command by command as an administrator types them.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::CallBody;

use super::harness::{Act, Supervisor, serve_both};
use super::host::Host;
use super::one::{One, definition};
use super::store::Store;

/// Serves whoever connects, each by a session of its own.
fn serve(path: &Path, host: Arc<Mutex<Host>>) {
    serve_by(path, move |supervisor, call| {
        host.lock().unwrap().act(supervisor, call)
    });
}

fn serve_by(
    path: &Path,
    script: impl FnMut(&Supervisor, &CallBody) -> Act + Clone + Send + 'static,
) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client: OwnedFd = client.unwrap().into();
            serve_both(client, script.clone());
        }
    });
}

/// Runs one command; its exit code, what it wrote and what it complained of.
fn virsh(socket: &Path, arguments: &[&str]) -> (i32, String, String) {
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let output = Command::new("virsh")
        .args(["-q", "-c", &uri])
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

const DEFINITION: &str = "<domain type='kvm'><name>web</name><memory unit='MiB'>64</memory>\
    <vcpu>1</vcpu><os><type arch='x86_64'>hvm</type><kernel>/var/lib/reeve/images/k</kernel></os>\
    <devices/></domain>";

#[test]
fn virsh_defines_starts_shows_and_stops_a_domain() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("libvirt-sock");
    serve(&socket, Arc::default());
    let file = directory.path().join("web.xml");
    std::fs::write(&file, DEFINITION).unwrap();
    let run = |arguments: &[&str]| virsh(&socket, arguments);
    let good = |arguments: &[&str]| {
        let (code, out, complaint) = run(arguments);
        assert_eq!((code, complaint.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    };
    assert_eq!(good(&["list", "--all"]), "");
    good(&["define", file.to_str().unwrap()]);
    let listed = good(&["list", "--all"]);
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words, ["-", "web", "shut", "off"]);
    assert_eq!(good(&["domstate", "web"]), "shut off");
    assert_eq!(good(&["domid", "web"]), "-");
    good(&["start", "web"]);
    assert_eq!(good(&["domid", "web"]), "1");
    assert_eq!(good(&["domname", "1"]), "web");
    let info = good(&["dominfo", "web"]);
    for line in [
        "OS Type:        hvm",
        "State:          running",
        "CPU time:       3.0s",
        "Max memory:     65536 KiB",
        "Persistent:     yes",
        "Autostart:      disable",
        "Managed save:   no",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    good(&["suspend", "web"]);
    assert_eq!(good(&["domstate", "--reason", "web"]), "paused (user)");
    good(&["resume", "web"]);
    let (code, _, complaint) = run(&["start", "web"]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("Domain is already active"),
        "{complaint}"
    );
    good(&["autostart", "web"]);
    assert!(good(&["dominfo", "web"]).contains("Autostart:      enable"));
    let xml = good(&["dumpxml", "web"]);
    assert!(xml.starts_with("<domain type='kvm' id='1'>"), "{xml}");
    assert_eq!(good(&["dumpxml", "--inactive", "web"]).find("id='1'"), None);
    good(&["desc", "--title", "web", "--new-desc", "the web"]);
    assert_eq!(good(&["desc", "--title", "web"]), "the web");
    let stats = good(&["domstats", "web"]);
    assert!(
        stats.contains("state.state=1") && stats.contains("cpu.time=3000000000"),
        "{stats}"
    );
    good(&["destroy", "web"]);
    assert_eq!(
        good(&["domstate", "--reason", "web"]),
        "shut off (destroyed)"
    );
    good(&["undefine", "web"]);
    assert_eq!(good(&["list", "--all"]), "");
    let (code, _, complaint) = run(&["domstate", "web"]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("failed to get domain 'web'"),
        "{complaint}"
    );
}

#[test]
fn virsh_asks_about_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("libvirt-sock");
    serve(&socket, Arc::default());
    let good = |arguments: &[&str]| {
        let (code, out, complaint) = virsh(&socket, arguments);
        assert_eq!((code, complaint.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    };
    assert_eq!(good(&["hostname"]), "host.example");
    assert!(good(&["version"]).contains("Running hypervisor: QEMU"));
    assert!(good(&["nodeinfo"]).contains("Memory size:         1048576 KiB"));
    assert!(good(&["capabilities"]).starts_with("<capabilities>"));
    assert!(good(&["domcapabilities"]).starts_with("<domainCapabilities>"));
    assert_eq!(good(&["net-list", "--all"]), "");
    good(&["maxvcpus"]);
    let cpu = directory.path().join("cpu.xml");
    let cpu = cpu.to_str().unwrap();
    let write = |text: &str| std::fs::write(cpu, text).unwrap();
    write("<cpu><arch>x86_64</arch><model>kvm64</model><feature name='ssse3'/></cpu>");
    assert!(good(&["cpu-compare", cpu]).ends_with("is identical to host CPU"));
    let (code, _, complaint) = virsh(&socket, &["hypervisor-cpu-compare", "--error", cpu]);
    assert_eq!(code, 1);
    assert!(
        complaint.ends_with("required features: ssse3"),
        "{complaint}"
    );
    assert!(good(&["cpu-baseline", cpu]).contains("<feature policy='require' name='ssse3'/>"));
    assert!(!good(&["hypervisor-cpu-baseline", cpu]).contains("ssse3"));
    assert!(good(&["capabilities"]).contains("<model>kvm64</model>"));
    assert!(good(&["cpu-models", "x86_64"]).contains("EPYC-Milan"));
    let (code, _, complaint) = virsh(&socket, &["cpu-models", "nothing"]);
    assert_eq!(code, 1);
    assert!(complaint.ends_with("invalid argument: cannot find architecture nothing"));
    let (code, _, complaint) = virsh(&socket, &["save", "x", "y"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("failed to get domain"), "{complaint}");
}

#[test]
fn virsh_tunes_a_domain_and_changes_its_devices() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("libvirt-sock");
    let devices = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>\
        <model type='virtio'/></interface><disk type='file' device='cdrom'><source file='/c.iso'/>\
        <target dev='vdb' bus='virtio'/><readonly/></disk>";
    let one = Arc::new(Mutex::new(One::running(definition("", devices))));
    let script = Arc::clone(&one);
    serve_by(&socket, move |_, call| script.lock().unwrap().act(call));
    // All that is wrong, at once.
    let wrong = RefCell::new(Vec::new());
    let run = |line: &str, well: bool, part: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (code, out, complaint) = virsh(&socket, &arguments);
        let said = if well { &out } else { &complaint };
        let words: Vec<&str> = said.split_whitespace().collect();
        if (code == 0) != well || !words.join(" ").contains(part) {
            wrong
                .borrow_mut()
                .push(format!("{line}: {out} {complaint}"));
        }
    };
    let good = |line: &str| run(line, true, "");
    let bad = |line: &str, why: &str| run(line, false, why);
    let shows = |line: &str, part: &str| run(line, true, part);
    good("vcpupin a 1 0");
    good("vcpupin a 1 0 --live --config");
    shows("vcpupin a", "1 0");
    good("emulatorpin a 0 --config");
    shows("emulatorpin a --config", "0");
    shows("schedinfo a", "cpu_shares : 100");
    shows(
        "schedinfo a --set global_quota=50000 --config",
        "global_quota : 50000",
    );
    shows("schedinfo a --set vcpu_quota=51234", "vcpu_quota : 51234");
    shows(
        "schedinfo a --set cpu_shares=200 --live",
        "cpu_shares : 200",
    );
    bad("schedinfo a --set global_quota=1234", "global_quota 1234");
    bad("schedinfo a --set vcpu_quota=12", "out of range");
    good("blkdeviotune a vdb --total-bytes-sec 1000000 --live --config");
    shows("blkdeviotune a vdb", "total_bytes_sec: 1000000");
    bad(
        "blkdeviotune a vdb --total-iops-sec 1 --group-name g",
        "group_name",
    );
    good("domiftune a 52:54:00:00:00:01 --inbound 1000,2000 --live --config");
    shows("domiftune a 52:54:00:00:00:01", "inbound.peak : 2000");
    good("blkiotune a --weight 500 --device-weights /dev/sda,300 --config");
    shows("blkiotune a --config", "device_weight : /dev/sda,300");
    good("numatune a --mode strict --nodeset 0 --config");
    shows("numatune a --config", "numa_mode : strict numa_nodeset : 0");
    bad("numatune a --nodeset 0 --live", "requires restrictive");
    good("memtune a --hard-limit 1048576 --live --config");
    shows("memtune a", "hard_limit : 1048576");
    good("memtune a --hard-limit -1");
    shows("memtune a", "hard_limit : unlimited");
    good("memtune a --soft-limit 524288 --live --config");
    shows("memtune a --config", "soft_limit : 524288");
    bad("memtune a --swap-hard-limit 2097152", "swap_hard_limit");
    good("memtune a --hard-limit 1048576 --swap-hard-limit 2097152");
    shows("memtune a", "swap_hard_limit: 2097152");
    bad("memtune a --min-guarantee 1048576", "min_guarantee");
    good("setmem a 32M");
    good("setmem a 32M --config");
    good("setmaxmem a 128M --config");
    bad("setmaxmem a 128M --live", "maximum memory");
    good("setvcpus a 3");
    good("setvcpus a 8 --maximum --config");
    shows("vcpucount a", "maximum config 8");
    shows("dominfo a", "Max memory: 65536 KiB");
    shows("cpu-stats a --total", "cpu_time 0.000003000 seconds");
    bad("sysinfo", "not supported");
    good("attach-disk a /e.raw vdc --live --config");
    shows("domblklist a", "vdc /e.raw");
    good("detach-disk a vdc --live --config");
    good("domif-setlink a 52:54:00:00:00:01 down");
    shows("domif-getlink a 52:54:00:00:00:01", "down");
    good("change-media a vdb --eject --live --config");
    good("change-media a vdb /f.iso --insert --live --config");
    shows("domblklist a --inactive", "vdb /f.iso");
    good("attach-interface a bridge br1 --model virtio --mac 52:54:00:00:00:02 --config");
    good("detach-interface a bridge --mac 52:54:00:00:00:02 --config");
    good("desc a --live --config --new-desc words");
    shows("dumpxml a --inactive", "<emulatorpin cpuset='0'/>");
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn virsh_keeps_pools_and_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("libvirt-sock");
    let store = Arc::new(Mutex::new(Store::default()));
    serve_by(&socket, move |supervisor, call| {
        store.lock().unwrap().act(supervisor, call)
    });
    let images = directory.path().join("images").display().to_string();
    let file = directory.path().join("file");
    let back = directory.path().join("back");
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|place| u8::try_from(place / 4096 % 251).unwrap())
        .collect();
    std::fs::write(&file, &bytes).unwrap();
    let [file, back] = [file, back].map(|path| path.display().to_string());
    let wrong = RefCell::new(Vec::new());
    let run = |line: &str, well: bool, part: &str| {
        let line = line.replace("IMAGES", &images).replace("FILE", &file);
        let line = line.replace("BACK", &back);
        let arguments: Vec<&str> = line.split(' ').collect();
        let (code, out, complaint) = virsh(&socket, &arguments);
        let said = if well { &out } else { &complaint };
        let words: Vec<&str> = said.split_whitespace().collect();
        let part = part.replace("IMAGES", &images);
        if (code == 0) != well || !words.join(" ").contains(&part) {
            wrong
                .borrow_mut()
                .push(format!("{line}: {out} {complaint}"));
        }
    };
    let good = |line: &str| run(line, true, "");
    let bad = |line: &str, why: &str| run(line, false, why);
    let shows = |line: &str, part: &str| run(line, true, part);
    good("pool-define-as images dir --target IMAGES");
    shows("pool-list --all", "images inactive no");
    good("pool-build images");
    good("pool-start images");
    good("pool-autostart images");
    shows("pool-list", "images active yes");
    shows(
        "pool-list --all --details",
        "images running yes yes 10.00 GiB 4.00 GiB 6.00 GiB",
    );
    shows(
        "pool-info images",
        "State: running Persistent: yes Autostart: yes",
    );
    shows("pool-dumpxml images", "<path>IMAGES</path>");
    shows("pool-uuid images", "-");
    shows("pool-capabilities", "<pool type='dir' supported='yes'>");
    good("pool-refresh images");
    bad("find-storage-pool-sources-as dir", "not supported");
    good("vol-create-as images a.raw 3000000 --format raw");
    good(
        "vol-create-as images b.qcow2 1G --format qcow2 --backing-vol a.raw --backing-vol-format raw",
    );
    bad(
        "vol-create-as images a.raw 1M",
        "storage volume 'a.raw' exists already",
    );
    bad("vol-create-as images c.qcow2 1M --format vmdk", "vmdk");
    shows(
        "vol-list images",
        "a.raw IMAGES/a.raw b.qcow2 IMAGES/b.qcow2",
    );
    shows(
        "vol-list images --details",
        "a.raw IMAGES/a.raw file 2.86 MiB",
    );
    shows(
        "vol-dumpxml b.qcow2 images",
        "<backingStore> <path>IMAGES/a.raw</path>",
    );
    good("vol-upload a.raw FILE --pool images");
    shows("vol-info a.raw images", "Type: file Capacity: 2.86 MiB");
    shows(
        "vol-info a.raw images --bytes --physical",
        "Physical: 3000000 bytes",
    );
    shows("vol-path a.raw --pool images", "IMAGES/a.raw");
    shows("vol-key a.raw --pool images", "IMAGES/a.raw");
    shows("vol-name IMAGES/a.raw", "a.raw");
    shows("vol-pool IMAGES/a.raw", "images");
    good("vol-download IMAGES/a.raw BACK");
    assert!(std::fs::read(&back).unwrap() == bytes);
    let sparse = std::fs::File::create(&file).unwrap();
    sparse.set_len(3_000_000).unwrap();
    sparse.write_all_at(b"x", 1_500_000).unwrap();
    good("vol-upload a.raw FILE --pool images --sparse");
    good("vol-download IMAGES/a.raw BACK --sparse");
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&file).unwrap());
    assert!(std::fs::metadata(&back).unwrap().blocks() * 512 < 1_000_000);
    good("vol-clone a.raw c.raw --pool images");
    let copied = std::fs::read(format!("{images}/c.raw")).unwrap();
    assert!(copied == std::fs::read(&file).unwrap());
    good("vol-resize c.raw 4M --pool images");
    bad("vol-resize c.raw 1M --pool images", "shrink");
    good("vol-wipe c.raw --pool images");
    bad(
        "vol-wipe c.raw --pool images --algorithm nnsa",
        "no such rule",
    );
    good("vol-delete c.raw --pool images");
    bad("vol-info c.raw images", "failed to get vol 'c.raw'");
    bad("vol-info /nowhere", "failed to get vol '/nowhere'");
    good("pool-destroy images");
    bad("vol-list images", "not active");
    good("pool-undefine images");
    shows("pool-list --all", "");
    good("pool-create-as other dir --target IMAGES");
    shows("pool-list --transient", "other");
    good("pool-destroy other");
    bad("pool-info other", "failed to get pool 'other'");
    bad(
        "-r pool-define-as images dir --target IMAGES",
        "read only access",
    );
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
