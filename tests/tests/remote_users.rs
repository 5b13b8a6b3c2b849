//! Administrators on other hosts who have a password: stock clients log in by SASL over TLS, and whoever may not is
//! refused and told nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use reeve_tests::managed::{Managed, document, until};
use reeve_tests::remote::{Authority, Neighbour};
use reeve_tests::virsh::{fail, succeed};

/// Logs in by a callback, as programs do.
const OPEN_AUTH: &str = "\
import libvirt, sys
def answer(credentials, words):
    for credential in credentials:
        if credential[0] == libvirt.VIR_CRED_AUTHNAME:
            credential[4] = words[0]
        elif credential[0] == libvirt.VIR_CRED_PASSPHRASE:
            credential[4] = words[1]
        else:
            return -1
    return 0
kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
uri, name, password = sys.argv[1:4]
connection = libvirt.openAuth(uri, [kinds, answer, [name, password]], 0)
print(connection.getType(), len(connection.listAllDomains()))
";

/// A host whose users have passwords, with a file of them.
struct Users {
    managed: Managed,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Users {
    fn start(clients: &str, settings: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("users-").tempdir()?;
        let file = directory.path().join("users");
        let settings = format!("tls_clients = {clients:?}\ntls_users = {file:?}\n{settings}");
        write_empty(&file)?;
        let managed = Managed::start("ec", Neighbour::new()?, Authority::new("ours")?, &settings)?;
        fs::remove_file(&file)?;
        Ok(Self {
            managed,
            file,
            _directory: directory,
        })
    }

    /// `reeve remote-user`, with that on its input.
    fn command(&self, words: &[&str], input: &str) -> Result<String> {
        let file = self.file.display().to_string();
        let arguments = [&["remote-user", "--file", &file], words].concat();
        let mut command = self.managed.host.daemon.reeve_command(&arguments)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child
            .stdin
            .take()
            .context("its input")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok(String::from_utf8(output.stdout)? + &said)
    }

    fn add(&self, name: &str, password: &str) -> Result<()> {
        self.command(&["add", name], &format!("{password}\n"))?;
        Ok(())
    }

    fn reload(&self) -> Result<String> {
        self.managed.host.daemon.reeve(&["reload"])
    }

    /// A file with a name and a password, as libvirt's clients read it.
    fn credentials(&self, name: &str, password: &str) -> Result<PathBuf> {
        let path = self
            .managed
            .host
            .outside()
            .join(format!("auth-{name}-{}", password.replace(' ', "-")));
        let here = &self.managed.near.here;
        let text = format!(
            "[credentials-one]\nauthname={name}\npassword={password}\n[auth-libvirt-{here}]\ncredentials=one\n"
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The URI for a client without a certificate.
    fn uri(&self) -> Result<String> {
        let files = self.managed.host.outside().join("no-certificate");
        fs::create_dir_all(&files)?;
        let authority = self.managed.authority.file("cacert.pem");
        fs::copy(authority, files.join("cacert.pem"))?;
        Ok(self.managed.uri(&files))
    }

    fn virsh(&self, uri: &str, auth: &Path, words: &[&str]) -> Result<String> {
        let mut command = self.managed.near.virsh(uri, words);
        command.env("LIBVIRT_AUTH_FILE", auth);
        succeed(command).with_context(|| self.managed.host.daemon.log())
    }

    /// What a client is told that is refused, for that reason in the log.
    fn refuses(&self, uri: &str, auth: &Path, why: &str) -> Result<String> {
        let before = self.managed.refusals();
        let mut command = self.managed.near.virsh(uri, &["list"]);
        command.env("LIBVIRT_AUTH_FILE", auth);
        let told = fail(command)?;
        self.managed.until_refused(before, why)?;
        Ok(told)
    }
}

/// A file of no users.
fn write_empty(file: &Path) -> Result<()> {
    Ok(fs::write(file, format!("unknown {}\n", "00".repeat(32)))?)
}

#[test]
fn users_log_in_with_their_passwords_and_nobody_else_does() -> Result<()> {
    let settings =
        "tls_users_allowed = [\"alice\", \"view*\", \"bob\"]\ntls_users_read_only = [\"view*\"]\n";
    let users = Users::start("sasl", settings)?;
    users.add("alice", "correct horse")?;
    users.add("viewer", "looks")?;
    users.add("mallory", "known")?;
    users.reload()?;
    let (managed, uri) = (&users.managed, users.uri()?);

    let alice = users.credentials("alice", "correct horse")?;
    let virsh = |words: &[&str]| users.virsh(&uri, &alice, words);
    ensure!(virsh(&["list", "--all"])?.is_empty());
    let file = managed.host.outside().join("one.xml");
    fs::write(&file, document("one"))?;
    let define = ["define", &file.display().to_string()];
    virsh(&define)?;
    virsh(&["start", "one"])?;
    ensure!(managed.host.virsh("domstate one")? == "running");
    virsh(&["destroy", "one"])?;
    virsh(&["undefine", "one"])?;
    // A file that the URI names, and a program that asks.
    let named = format!("{uri}&authfile={}", alice.display());
    managed.virsh(&named, &["version"])?;
    let mut python = managed.near.command("/usr/bin/python3");
    python.args(["-c", OPEN_AUTH, &uri, "alice", "correct horse"]);
    ensure!(succeed(python)? == "QEMU 0");

    let viewer = users.credentials("viewer", "looks")?;
    users.virsh(&uri, &viewer, &["list"])?;
    let mut looks = managed.near.virsh(&uri, &define);
    looks.env("LIBVIRT_AUTH_FILE", &viewer);
    let refused = fail(looks)?;
    ensure!(refused.contains("read only access prevents"), "{refused}");

    // A wrong password, a name that nobody has, and one that may not come are told the same.
    let wrong = "its password does not hold, or there is no user of that name";
    let mut told = Vec::new();
    for (name, password, why) in [
        ("alice", "wrong", wrong),
        ("nobody", "wrong", wrong),
        ("mallory", "wrong", wrong),
        (
            "mallory",
            "known",
            "tls_users_allowed does not name its user: mallory",
        ),
    ] {
        told.push(users.refuses(&uri, &users.credentials(name, password)?, why)?);
    }
    ensure!(told[0].contains("authentication failed"), "{told:?}");
    ensure!(told.iter().all(|one| *one == told[0]), "{told:?}");
    let log = managed.host.daemon.log();
    ensure!(
        log.contains("a remote client is connected: user alice"),
        "{log}"
    );
    ensure!(!log.contains("correct horse"), "{log}");
    until("they are gone", || Ok(managed.gateways()? <= 2))
}

#[test]
fn users_come_and_go_with_their_file_and_a_reload() -> Result<()> {
    let users = Users::start("sasl", "")?;
    let (managed, uri) = (&users.managed, users.uri()?);
    let alice = users.credentials("alice", "first")?;
    users.refuses(&uri, &alice, "does not hold")?;
    let said = users.command(&["add", "alice"], "first\n")?;
    ensure!(said.contains("'reeve reload'"), "{said}");
    users.add("bob", "other")?;
    ensure!(users.command(&["list"], "")? == "alice\nbob\n");
    let text = fs::read_to_string(&users.file)?;
    ensure!(!text.contains("first"), "{text}");
    users.reload()?;
    let held = managed.hold(&uri, &[("LIBVIRT_AUTH_FILE", &alice)])?;
    let bob = users.credentials("bob", "other")?;
    let mut stays = managed.hold(&uri, &[("LIBVIRT_AUTH_FILE", &bob)])?;
    // A file that is none leaves what there was.
    fs::write(&users.file, "alice:first\n")?;
    let told = users.reload()?;
    ensure!(told.contains("line 1 is no entry of a user"), "{told}");
    users.virsh(&uri, &alice, &["version"])?;
    fs::write(&users.file, text)?;
    // With another password nobody stays who came by the one before.
    users.add("alice", "second")?;
    users.reload()?;
    held.is_gone()?;
    ensure!(stays.is_in()?);
    users.refuses(&uri, &alice, "does not hold")?;
    let alice = users.credentials("alice", "second")?;
    let held = managed.hold(&uri, &[("LIBVIRT_AUTH_FILE", &alice)])?;
    users.command(&["remove", "alice"], "")?;
    users.reload()?;
    held.is_gone()?;
    ensure!(stays.is_in()?);
    users.refuses(&uri, &alice, "does not hold")?;
    for (words, input) in [
        (&["add", "a,b"][..], "x\n"),
        (&["add", "carol"], "\n"),
        (&["add", "carol"], "caf\u{e9}\n"),
        (&["remove", "carol"], ""),
    ] {
        ensure!(users.command(words, input).is_err(), "{words:?} {input}");
    }
    Ok(())
}

#[test]
fn where_both_are_asked_for_neither_is_enough() -> Result<()> {
    let settings = "tls_allowed = [\"C=GB,*\"]\ntls_read_only = [\"*CN=viewer\"]\n";
    let users = Users::start("both", settings)?;
    users.add("alice", "secret")?;
    users.reload()?;
    let managed = &users.managed;
    let alice = users.credentials("alice", "secret")?;
    let wrong = users.credentials("alice", "guess")?;
    let admin = managed.client("admin", "/C=GB/CN=admin")?;
    users.virsh(&admin, &alice, &["list"])?;
    users.refuses(&admin, &wrong, "its password does not hold")?;
    users.refuses(&users.uri()?, &alice, "it has no certificate")?;
    let other = managed.client("other", "/C=FR/CN=other")?;
    users.refuses(&other, &alice, "tls_allowed does not name it")?;
    // It may do what both let it.
    let viewer = managed.client("viewer", "/C=GB/CN=viewer")?;
    users.virsh(&viewer, &alice, &["list"])?;
    let file = managed.host.outside().join("one.xml");
    fs::write(&file, document("one"))?;
    let mut looks = managed
        .near
        .virsh(&viewer, &["define", &file.display().to_string()]);
    looks.env("LIBVIRT_AUTH_FILE", &alice);
    let refused = fail(looks)?;
    ensure!(refused.contains("read only access prevents"), "{refused}");
    let log = managed.host.daemon.log();
    ensure!(
        log.contains("connected: C=GB,CN=admin, user alice"),
        "{log}"
    );
    Ok(())
}
