//! Administrators on other hosts: stock clients in network namespaces of their own manage the domains of a real
//! `reeved`, by TLS and by ssh; and whoever may not is refused.

use anyhow::{Context as _, Result, ensure};
use reeve_tests::libvirt::Libvirt;
use reeve_tests::managed::{Managed, document, until};
use reeve_tests::remote::{Authority, Neighbour};
use reeve_tests::virsh::{fail, succeed};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Who may do everything.
const ADMIN: &str = "/C=GB/O=Reeve/CN=admin";

/// What Python's binding does with all that a program needs: domains, consoles, events, volumes.
fn python(near: &Neighbour, host: &Libvirt, uri: &str) -> Result<()> {
    let kernel = host.files().join("kernel");
    fs::write(&kernel, reeve_guest::IMAGE)?;
    let mut command = near.command("/usr/bin/python3");
    command
        .args(["-c", include_str!("../bindings/python.py"), uri])
        .args([&kernel, &host.files()]);
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}: {}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        host.daemon.log()
    );
    Ok(())
}

/// Many bytes go both ways, and arrive as they are.
fn volumes(managed: &Managed, uri: &str) -> Result<()> {
    let virsh = |line: &str| managed.virsh(uri, &line.split_whitespace().collect::<Vec<_>>());
    let pool = managed.host.files().join("volumes");
    fs::create_dir(&pool)?;
    virsh(&format!(
        "pool-create-as volumes dir --target {}",
        pool.display()
    ))?;
    virsh("vol-create-as volumes one 24M --format raw")?;
    let outside = managed.host.outside();
    let (there, back) = (outside.join("there"), outside.join("back"));
    let words = (0..6_u32 << 20).flat_map(|at| at.wrapping_mul(0x9e37_79b1).to_le_bytes());
    fs::write(&there, words.collect::<Vec<u8>>())?;
    virsh(&format!(
        "vol-upload --pool volumes one {}",
        there.display()
    ))?;
    virsh(&format!(
        "vol-download --pool volumes one {}",
        back.display()
    ))?;
    ensure!(
        fs::read(&there)? == fs::read(&back)?,
        "it is not what was sent"
    );
    virsh("vol-delete --pool volumes one")?;
    virsh("pool-destroy volumes")?;
    Ok(())
}

#[test]
fn a_host_is_managed_from_another_one_by_tls() -> Result<()> {
    let managed = Managed::usual()?;
    let uri = managed.client("admin", ADMIN)?;
    ensure!(managed.virsh(&uri, &["list", "--all"])?.is_empty());
    ensure!(managed.virsh(&uri, &["uri"])?.contains("qemu+tls://"));
    let file = managed.host.outside().join("one.xml");
    fs::write(&file, document("one"))?;
    managed.virsh(&uri, &["define", &file.display().to_string()])?;
    managed.virsh(&uri, &["start", "one"])?;
    let list = managed.virsh(&uri, &["list"])?;
    ensure!(list.contains("one") && list.contains("running"), "{list}");
    // What is done there is done here.
    ensure!(managed.host.virsh("domstate one")? == "running");
    managed.virsh(&uri, &["destroy", "one"])?;
    managed.virsh(&uri, &["undefine", "one"])?;
    volumes(&managed, &uri)?;
    virt_install(&managed.near, &managed.host, &uri)?;
    python(&managed.near, &managed.host, &uri)?;
    let log = managed.host.daemon.log();
    ensure!(
        log.contains("a remote client is connected: C=GB,O=Reeve,CN=admin"),
        "{log}"
    );
    ensure!(
        log.contains("a remote client has left: C=GB,O=Reeve,CN=admin"),
        "{log}"
    );
    ensure!(!log.contains("was refused"), "{log}");
    // Those that wait are left, and no other.
    until("they are gone", || Ok(managed.gateways()? <= 2))
}

#[test]
fn keys_of_every_kind_are_served() -> Result<()> {
    for kind in ["rsa", "ed25519"] {
        let managed = Managed::start(kind, Neighbour::new()?, Authority::new("ours")?, "")?;
        let uri = managed.client("admin", ADMIN)?;
        let version = managed.virsh(&uri, &["version"]);
        version.with_context(|| kind.to_owned())?;
    }
    Ok(())
}

#[test]
fn whoever_has_no_certificate_that_holds_is_refused_and_the_log_says_why() -> Result<()> {
    let authority = Authority::new("ours")?;
    let foreign = Authority::new("theirs")?;
    let revoked = authority.client("revoked", "/CN=revoked", None, &authority)?;
    let list = authority.revoke("revoked")?;
    let settings = format!("tls_revoked = {list:?}\ntls_allowed = [\"C=GB,*\", \"CN=revoked\"]\n");
    let managed = Managed::start("ec", Neighbour::new()?, authority, &settings)?;
    let ours = &managed.authority;
    let admin = managed.client("admin", ADMIN)?;
    managed.virsh(&admin, &["version"])?;

    let past = Some(("20200101000000Z", "20210101000000Z"));
    let expired = ours.client("expired", ADMIN, past, ours)?;
    managed.refuses(&managed.uri(&expired), "has expired")?;
    let future = Some(("20400101000000Z", "20410101000000Z"));
    let early = ours.client("early", ADMIN, future, ours)?;
    managed.refuses(&managed.uri(&early), "is not valid yet")?;
    let stranger = foreign.client("stranger", ADMIN, None, ours)?;
    managed.refuses(
        &managed.uri(&stranger),
        "signed by no authority of tls_authorities",
    )?;
    managed.refuses(&managed.uri(&revoked), "was revoked")?;
    let other = managed.client("other", "/C=FR/CN=admin")?;
    managed.refuses(&other, "tls_allowed does not name it: C=FR,CN=admin")?;
    // The server's own is for servers.
    let server = ours.file("as-client");
    fs::create_dir(&server)?;
    for (from, to) in [
        ("cacert.pem", "cacert.pem"),
        ("servercert.pem", "clientcert.pem"),
        ("serverkey.pem", "clientkey.pem"),
    ] {
        fs::copy(ours.file(from), server.join(to))?;
    }
    managed.refuses(&managed.uri(&server), "not one for clients")?;

    let before = managed.refusals();
    let address = format!("{}:{}", managed.near.here, managed.port);
    let mut none = managed.near.command("openssl");
    none.args(["s_client", "-connect", &address, "-tls1_3"]);
    let _ = none.output()?;
    managed.until_refused(before, "it has no certificate")?;
    let before = managed.refusals();
    let mut old = managed.near.command("openssl");
    old.args(["s_client", "-connect", &address, "-tls1_2"]);
    ensure!(!old.output()?.status.success());
    managed.until_refused(before, "does not speak TLS 1.3")?;
    let before = managed.refusals();
    let mut plain = managed.near.command("nc");
    plain
        .args(["-w", "20", &managed.near.here, &managed.port.to_string()])
        .stdin(Stdio::piped());
    let mut plain = plain.stdout(Stdio::null()).spawn()?;
    let mut input = plain.stdin.take().context("its input")?;
    input.write_all(&[0, 0, 0, 28, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 66])?;
    let refused = managed.until_refused(before, "what it sent is no TLS");
    let _ = plain.kill();
    let _ = plain.wait();
    refused?;
    // And who may is still let in.
    managed.virsh(&admin, &["version"])?;
    until("they are gone", || Ok(managed.gateways()? <= 2))
}

#[test]
fn a_reload_changes_whom_names_let_in() -> Result<()> {
    let managed = Managed::usual()?;
    let uri = managed.client("admin", ADMIN)?;
    let virsh = |arguments: &[&str]| managed.virsh(&uri, arguments);
    virsh(&["version"])?;
    let config = managed.host.outside().join("reeve.toml");
    let text = fs::read_to_string(&config)?;
    let reload = |line: &str| -> Result<String> {
        fs::write(&config, format!("{text}{line}\n"))?;
        managed.host.daemon.reeve(&["reload"])
    };
    let told = reload("tls_allowed = []")?;
    ensure!(told.contains("tls_allowed: changed"), "{told}");
    managed.refuses(&uri, "tls_allowed does not name it")?;
    // Nobody there has that address: it is for documentation.
    reload("tls_from = [\"203.0.113.0/24\"]")?;
    managed.refuses(&uri, "tls_from does not name its address")?;
    reload("tls_read_only = [\"*CN=admin\"]")?;
    virsh(&["list"])?;
    let file = managed.host.outside().join("one.xml");
    fs::write(&file, document("one"))?;
    let define = ["define", &file.display().to_string()];
    let refused = fail(managed.near.virsh(&uri, &define))?;
    ensure!(refused.contains("read only access prevents"), "{refused}");
    // Files that are gone leave what was read before.
    fs::rename(
        managed.authority.file("cacert.pem"),
        managed.authority.file("gone.pem"),
    )?;
    let told = reload("tls_read_only = []")?;
    let log = managed.host.daemon.log();
    ensure!(log.contains("cacert.pem: No such file"), "{log}");
    ensure!(told.contains("cacert.pem: No such file"), "{told}");
    virsh(&define)?;
    Ok(())
}

#[test]
fn an_authority_whose_own_certificate_does_not_hold_signs_nothing() -> Result<()> {
    let managed = Managed::usual()?;
    let ours = &managed.authority;
    let admin = managed.client("admin", ADMIN)?;
    let before = fs::read_to_string(managed.config())?;
    let own = fs::read_to_string(ours.file("cacert.pem"))?;
    for (name, why) in [
        ("expired", "its own certificate has expired"),
        ("other", "its own certificate is not one that signs others"),
    ] {
        let theirs = Authority::new(name)?;
        let client = theirs.client("stranger", ADMIN, None, ours)?;
        let uri = managed.uri(&client);
        let trust = |certificate: &Authority| -> Result<()> {
            let more = fs::read_to_string(certificate.file("cacert.pem"))?;
            fs::write(ours.file("cacert.pem"), format!("{own}{more}"))?;
            managed.reload(&before, "")?;
            Ok(())
        };
        trust(&theirs)?;
        managed.virsh(&uri, &["version"])?;
        let held = managed.hold(&uri, &[])?;
        match name {
            "expired" => theirs.expire()?,
            _ => theirs.disown()?,
        }
        trust(&theirs)?;
        held.is_gone()?;
        managed.refuses(&uri, why)?;
        // The others' go on to hold.
        managed.virsh(&admin, &["version"])?;
        // One alone that signs nothing is none.
        fs::copy(theirs.file("cacert.pem"), ours.file("cacert.pem"))?;
        let told = managed.reload(&before, "")?;
        ensure!(
            told.contains(why) && told.contains("what was read before holds"),
            "{told}"
        );
        managed.virsh(&admin, &["version"])?;
        fs::write(ours.file("cacert.pem"), &own)?;
    }
    Ok(())
}

#[test]
fn a_key_that_is_not_the_certificates_leaves_what_there_was() -> Result<()> {
    let managed = Managed::usual()?;
    let admin = managed.client("admin", ADMIN)?;
    let before = fs::read_to_string(managed.config())?;
    let mut held = managed.hold(&admin, &[])?;
    let ours = &managed.authority;
    let key = ours.file("serverkey.pem");
    let right = fs::read(&key)?;
    for (file, why) in [
        ("adminkey.pem", "tls_key is not the key of tls_certificate"),
        ("cacert.pem", "tls_key: "),
    ] {
        fs::copy(ours.file(file), &key)?;
        let told = managed.reload(&before, "")?;
        ensure!(
            told.contains(why) && told.contains("what was read before holds"),
            "{told}"
        );
        let log = managed.host.daemon.log();
        ensure!(
            log.lines().filter(|line| line.contains(why)).count() == 1,
            "{log}"
        );
        managed.virsh(&admin, &["version"])?;
    }
    fs::write(&key, right)?;
    ensure!(managed.reload(&before, "")?.trim().is_empty());
    managed.virsh(&admin, &["version"])?;
    ensure!(held.is_in()?);
    Ok(())
}

#[test]
fn whoever_may_not_stay_is_put_out_by_a_reload_and_nobody_else() -> Result<()> {
    let authority = Authority::new("ours")?;
    authority.client("other", "/C=GB/CN=other", None, &authority)?;
    let list = authority.revoke("other")?;
    let settings = format!("tls_revoked = {list:?}\n");
    let managed = Managed::start("ec", Neighbour::new()?, authority, &settings)?;
    let before = fs::read_to_string(managed.config())?;
    let admin = managed.client("admin", ADMIN)?;
    let mut stays = managed.hold(&admin, &[])?;
    let second = managed.client("second", "/C=GB/CN=second")?;
    let held = managed.hold(&second, &[])?;
    managed.authority.revoke("second")?;
    managed.reload(&before, "")?;
    held.is_gone()?;
    managed.refuses(&second, "was revoked")?;
    // By name, and by what it may do.
    for (name, line) in [
        ("third", "tls_allowed = [\"*CN=admin\"]"),
        ("fourth", "tls_read_only = [\"*CN=fourth\"]"),
    ] {
        managed.reload(&before, "")?;
        let uri = managed.client(name, &format!("/C=GB/CN={name}"))?;
        let held = managed.hold(&uri, &[])?;
        managed.reload(&before, line)?;
        held.is_gone()?;
    }
    ensure!(stays.is_in()?);
    managed.virsh(&admin, &["version"])?;
    let log = managed.host.daemon.log();
    ensure!(log.contains("remote clients may not stay"), "{log}");
    drop(stays);
    until("they are gone", || Ok(managed.gateways()? <= 2))
}

/// The most memory of its own that one of the daemon's gateways uses, in KiB.
fn largest_gateway(managed: &Managed) -> Result<u64> {
    let mut most = 0;
    for pid in managed.gateway_pids()? {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let own = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let own = own.and_then(|own| own.trim().strip_suffix(" kB"));
        most = most.max(own.unwrap_or("0").trim().parse()?);
    }
    Ok(most)
}

#[test]
fn a_long_list_of_revoked_certificates_is_in_no_session() -> Result<()> {
    let authority = Authority::new("ours")?;
    authority.client("first", "/CN=first", None, &authority)?;
    let list = authority.revoke("first")?;
    let settings = format!("tls_revoked = {list:?}\n");
    let managed = Managed::start("ec", Neighbour::new()?, authority, &settings)?;
    let before = fs::read_to_string(managed.config())?;
    let admin = managed.client("admin", ADMIN)?;
    let mut held = managed.hold(&admin, &[])?;
    let short = largest_gateway(&managed)?;
    managed.client("second", "/CN=second")?;
    managed.authority.revoke_many(60_000)?;
    managed.authority.revoke("second")?;
    let length = fs::metadata(&list)?.len() >> 10;
    ensure!(length > 1024, "{length}");
    managed.reload(&before, "")?;
    let also = managed.hold(&admin, &[])?;
    let long = largest_gateway(&managed)?;
    ensure!(
        long < short + 512,
        "{long} KiB, and {short} with a short list"
    );
    // It is looked at all the same.
    let revoked = managed.uri(&managed.authority.file("second"));
    managed.refuses(&revoked, "was revoked")?;
    ensure!(held.is_in()?);
    drop(also);
    Ok(())
}

#[test]
fn those_who_only_look_leave_places_to_others() -> Result<()> {
    let settings = "max_clients_per_uid = 4\ntls_read_only = [\"*CN=viewer\"]\n";
    let managed = Managed::start("ec", Neighbour::new()?, Authority::new("ours")?, settings)?;
    let viewer = managed.client("viewer", "/CN=viewer")?;
    let admin = managed.client("admin", ADMIN)?;
    let held = [(); 3].map(|()| managed.hold(&viewer, &[]));
    let held = held.into_iter().collect::<Result<Vec<_>>>()?;
    managed.refuses(&viewer, "3 remote clients that only look are connected")?;
    managed.virsh(&admin, &["version"])?;
    drop(held);
    until("there is room", || {
        Ok(succeed(managed.near.virsh(&viewer, &["version"])).is_ok())
    })
}

/// So many connections from a neighbour on which nothing is said, by a program that holds them.
fn silent(near: &Neighbour, port: u16, count: usize) -> Result<Child> {
    let program = format!(
        "import socket, sys, time\n\
         held = [socket.create_connection(('{}', {port})) for _ in range({count})]\n\
         print('there', flush=True)\n\
         began = time.monotonic()\n\
         for one in held:\n    \
             one.settimeout(60)\n    \
             try:\n        \
                 assert one.recv(1) == b''\n    \
             except ConnectionResetError:\n        \
                 pass\n\
         print('cut', flush=True)\n\
         sys.stdin.read()\n",
        near.here
    );
    let mut command = near.command("/usr/bin/python3");
    command
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut there = [0; 6];
    let output = child.stdout.as_mut().context("its output")?;
    output.read_exact(&mut there)?;
    ensure!(&there == b"there\n");
    Ok(child)
}

#[test]
fn those_who_say_nothing_are_cut_and_keep_nobody_out() -> Result<()> {
    let near = Neighbour::new()?;
    let loud = Neighbour::new()?;
    let managed = Managed::start("ec", near, Authority::new("ours")?, "")?;
    let uri = managed.client("admin", ADMIN)?;
    let mut held = silent(&loud, managed.port, 200)?;
    // While they are there.
    managed.virsh(&uri, &["list", "--all"])?;
    // Eight of one address, each with what would sign for it, and those that wait or end.
    let gateways = managed.gateways()?;
    ensure!(gateways <= 8 * 2 + 8, "{gateways}");
    let mut cut = String::new();
    let mut output = held.stdout.take().context("its output")?;
    drop(held.stdin.take());
    output.read_to_string(&mut cut)?;
    ensure!(held.wait()?.success() && cut == "cut\n", "{cut}");
    let log = managed.host.daemon.log();
    for why in [
        "it did not say in time who it is",
        "too many are connected that have not said who they are",
    ] {
        ensure!(log.contains(why), "{why}: {log}");
    }
    until("they are gone", || Ok(managed.gateways()? <= 2))?;
    managed.virsh(&uri, &["list", "--all"])?;
    Ok(())
}

#[test]
fn nobody_listens_where_nothing_is_configured() -> Result<()> {
    let host = Libvirt::start()?;
    let daemon = host.daemon.pid().context("it runs")?;
    for table in ["tcp", "tcp6"] {
        let sockets = fs::read_to_string(format!("/proc/{daemon}/net/{table}"))?;
        let inodes: Vec<&str> = sockets
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(9))
            .collect();
        for descriptor in fs::read_dir(format!("/proc/{daemon}/fd"))?.flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let target = target.display().to_string();
            ensure!(
                !inodes
                    .iter()
                    .any(|inode| target == format!("socket:[{inode}]")),
                "{target} is one of {table}"
            );
        }
    }
    ensure!(TcpStream::connect("127.0.0.1:16514").is_err());
    Ok(())
}

/// A server of ssh at this host's end of a link, to which root's key of the test lets in. It sees a `/run` of its own,
/// in which libvirt's usual socket is the daemon's.
struct Ssh {
    server: Child,
    files: tempfile::TempDir,
}

/// What it is told: nothing of this machine's own configuration.
const SSHD: &str = "\
ListenAddress ADDRESS:2222
HostKey DIRECTORY/host
AuthorizedKeysFile DIRECTORY/client.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
";

/// Makes that place, and becomes the server.
const PLACE: &str = "set -e
mount -t tmpfs -o mode=0755 run /run
mkdir /run/sshd /run/libvirt
for end in '' -ro; do ln -s \"$2$end\" \"/run/libvirt/libvirt-sock$end\"; done
exec /usr/sbin/sshd -D -e -f \"$1/sshd_config\"
";

impl Ssh {
    fn start(near: &Neighbour, socket: &Path) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("ssh-").tempdir()?;
        let path = files.path();
        for key in ["host", "client"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path.join(key));
            succeed(make)?;
        }
        let config = SSHD
            .replace("ADDRESS", &near.here)
            .replace("DIRECTORY", &path.display().to_string());
        fs::write(path.join("sshd_config"), config)?;
        // What libvirt's client runs in place of ssh: it with no files of the user's.
        let ssh = path.join("ssh");
        let known = path.join("known").display().to_string();
        let script = format!(
            "#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile={known} -o LogLevel=ERROR \"$@\"\n"
        );
        fs::write(&ssh, script)?;
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755))?;
        let log = fs::File::create(path.join("log"))?;
        let server = Command::new("unshare")
            .args([
                "-m",
                "--propagation",
                "private",
                "--kill-child=KILL",
                "--fork",
                "--pid",
            ])
            .args(["--mount-proc", "sh", "-c", PLACE, "sh"])
            .args([path, socket])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sshd: run tests/lab/install")?;
        let server = Self { server, files };
        until("sshd listens", || {
            let log = fs::read_to_string(server.files.path().join("log"))?;
            ensure!(!log.contains("rror") && !log.contains("issing"), "{log}");
            Ok(log.contains("Server listening"))
        })?;
        Ok(server)
    }

    /// The URI, with what it says beside.
    fn uri(&self, near: &Neighbour, more: &str) -> String {
        let path = self.files.path().display();
        let here = &near.here;
        format!(
            "qemu+ssh://root@{here}:2222/system?command={path}/ssh&keyfile={path}/client&no_verify=1{more}"
        )
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // And with the first process of its pid namespace all the others.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Debian's `virt-install` there makes a disk and a domain here, and its guest runs.
fn virt_install(near: &Neighbour, host: &Libvirt, uri: &str) -> Result<()> {
    let kernel = host.files().join("kernel");
    fs::write(&kernel, reeve_guest::DRIVERS_IMAGE)?;
    let images = host.files().join("installed");
    fs::create_dir(&images)?;
    let image = images.join("web.qcow2");
    let disk = format!("path={},size=1,bus=virtio", image.display());
    let boot = format!("kernel={},kernel_args=\"mode=echo\"", kernel.display());
    let virsh = |line: &str| -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        succeed(near.virsh(uri, &words)).with_context(|| host.daemon.log())
    };
    let mut command = near.command("virt-install");
    command
        .args([
            "--connect",
            uri,
            "--name",
            "web",
            "--memory",
            "128",
            "--vcpus",
            "1",
        ])
        .args([
            "--import",
            "--boot",
            &boot,
            "--disk",
            &disk,
            "--network",
            "none",
        ])
        .args(["--osinfo", "detect=off,require=off", "--graphics", "none"])
        .args(["--noautoconsole"])
        .env("HOME", host.outside())
        .env("XDG_CACHE_HOME", host.outside());
    let output = command
        .output()
        .context("virt-install: run tests/lab/install")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("Domain creation completed"),
        "{said}{}{}",
        String::from_utf8_lossy(&output.stderr),
        host.daemon.log()
    );
    ensure!(virsh("domstate web")? == "running");
    ensure!(host.virsh("domstate web")? == "running");
    let info = virsh("vol-info web.qcow2 installed --bytes")?;
    ensure!(info.contains("1073741824 bytes"), "{info}");
    virsh("destroy web")?;
    virsh("undefine web --remove-all-storage")?;
    ensure!(!image.exists() && virsh("list --all --name")?.is_empty());
    virsh("pool-destroy installed")?;
    virsh("pool-undefine installed")?;
    Ok(())
}

#[test]
fn a_host_is_managed_from_another_one_by_ssh() -> Result<()> {
    let host = Libvirt::start()?;
    let near = Neighbour::new()?;
    let socket = host.daemon.run().join("libvirt-sock");
    let ssh = Ssh::start(&near, &socket)?;
    let named = format!("&socket={}", socket.display());
    // Debian's helper finds the usual socket; a client that names one has it reached by nc.
    for more in ["", &named, "&proxy=netcat", "&mode=legacy&proxy=native"] {
        let uri = ssh.uri(&near, more);
        let virsh = |arguments: &[&str]| {
            succeed(near.virsh(&uri, arguments)).with_context(|| more.to_owned())
        };
        let file = host.outside().join("one.xml");
        fs::write(&file, document("one"))?;
        virsh(&["define", &file.display().to_string()])?;
        virsh(&["start", "one"])?;
        let list = virsh(&["list", "--all"])?;
        ensure!(list.contains("one") && list.contains("running"), "{list}");
        virsh(&["destroy", "one"])?;
        virsh(&["undefine", "one"])?;
    }
    // One that only looks is kept to it.
    let uri = ssh.uri(&near, "");
    let file = host.outside().join("one.xml");
    let reading = near.virsh(&uri, &["-r", "define", &file.display().to_string()]);
    let refused = fail(reading)?;
    ensure!(refused.contains("read only access"), "{refused}");
    virt_install(&near, &host, &uri)?;
    python(&near, &host, &uri)
}
