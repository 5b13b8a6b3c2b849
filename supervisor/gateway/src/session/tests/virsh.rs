//! The real `virsh` against a session, command by command as an administrator types them.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::harness::{Supervisor, serve_both};
use super::host::Host;

/// Serves whoever connects, each by a session of its own.
fn serve(path: &Path, host: Arc<Mutex<Host>>) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client: OwnedFd = client.unwrap().into();
            let host = Arc::clone(&host);
            serve_both(client, move |supervisor: &Supervisor, call| {
                host.lock().unwrap().act(supervisor, call)
            });
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
    let (code, _, complaint) = virsh(&socket, &["save", "x", "y"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("failed to get domain"), "{complaint}");
}
