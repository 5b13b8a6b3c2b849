//! Other hosts, and what lets their clients in: network namespaces with a link to this one, and certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::tool::output;

/// Namespaces of this process so far.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Another host: a network namespace, and a link between it and this one. It goes when its value is dropped.
#[derive(Debug)]
pub struct Neighbour {
    namespace: String,
    /// The address of this host on the link.
    pub here: String,
    /// Its own.
    pub there: String,
}

impl Neighbour {
    /// Makes it. Needs root.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn new() -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mark = std::process::id();
        // Each test process has a network of its own, each of its neighbours a part of it.
        let network = format!("10.{}.{}", 64 + (mark >> 8) % 64, mark % 256);
        let first = number % 64 * 4;
        let neighbour = Self {
            namespace: format!("reeve-remote-{mark}-{number}"),
            here: format!("{network}.{}", first + 1),
            there: format!("{network}.{}", first + 2),
        };
        let Self {
            namespace,
            here,
            there,
        } = &neighbour;
        let link = format!("rr{mark}n{number}");
        ip(&format!("netns add {namespace}"))?;
        ip(&format!(
            "link add {link} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("addr add {here}/30 dev {link}"))?;
        ip(&format!("link set {link} up"))?;
        ip(&format!("-n {namespace} addr add {there}/30 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(neighbour)
    }

    /// A program there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(program)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// A `virsh` there.
    #[must_use]
    pub fn virsh(&self, uri: &str, arguments: &[&str]) -> Command {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", uri]).args(arguments);
        command
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // The link goes with one of its ends.
        let _ = ip(&format!("netns del {}", self.namespace));
    }
}

fn ip(words: &str) -> Result<String> {
    output(Command::new("ip").args(words.split_whitespace()))
}

/// What `openssl` is told about each certificate.
const OPENSSL: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = none
[ca]
default_ca = own
[own]
dir = DIRECTORY
database = DIRECTORY/index
serial = DIRECTORY/serial
crlnumber = DIRECTORY/crlnumber
new_certs_dir = DIRECTORY
certificate = DIRECTORY/cacert.pem
private_key = DIRECTORY/cakey.pem
default_md = sha256
default_days = 30
default_crl_days = 30
unique_subject = no
policy = any
crl_extensions = list
[any]
countryName = optional
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[list]
authorityKeyIdentifier = keyid
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature,keyEncipherment
extendedKeyUsage = clientAuth
";

/// An authority that signs certificates, with its files.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn new(name: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("authority-").tempdir()?;
        let authority = Self { directory };
        let path = authority.path();
        let text = OPENSSL.replace("DIRECTORY", &path.display().to_string());
        fs::write(path.join("openssl.cnf"), text)?;
        fs::write(path.join("index"), "")?;
        fs::write(path.join("serial"), "01\n")?;
        fs::write(path.join("crlnumber"), "01\n")?;
        let subject = format!("/O=Reeve tests/CN={name}");
        authority.openssl(
            "req -new -x509 -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
             -extensions authority -keyout cakey.pem -out cacert.pem",
            &["-subj", &subject],
        )?;
        Ok(authority)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file of its.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn openssl(&self, words: &str, more: &[&str]) -> Result<String> {
        let mut words = words.split_whitespace();
        let mut command = Command::new("openssl");
        command
            .args(words.next())
            .args(["-config", "openssl.cnf"])
            .args(words)
            .args(more)
            .current_dir(self.path());
        output(&mut command).context("openssl: run tests/lab/install")
    }

    /// Makes a key of that kind in a file of that name, and signs it; gives the directory's file of the certificate.
    fn sign(&self, file: &str, kind: &str, subject: &str, more: &[&str]) -> Result<PathBuf> {
        let key = match kind {
            "rsa" => "rsa:2048",
            kind => kind,
        };
        let curve = match kind {
            "ec" => "-pkeyopt ec_paramgen_curve:P-256",
            _ => "",
        };
        let request =
            format!("req -new -nodes -newkey {key} {curve} -keyout {file}key.pem -out {file}.csr");
        self.openssl(&request, &["-subj", subject])?;
        let sign = format!("ca -batch -notext -preserveDN -in {file}.csr -out {file}cert.pem");
        self.openssl(&sign, more)?;
        Ok(self.file(&format!("{file}cert.pem")))
    }

    /// Makes the files of a server at these addresses: the lines of its configuration. Its key is of that kind of
    /// `openssl`'s: `ec`, `rsa`, `ed25519`.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn server(&self, kind: &str, addresses: &[&str]) -> Result<String> {
        let names: Vec<String> = addresses.iter().map(|a| format!("IP:{a}")).collect();
        let extensions = format!(
            "[server]\nbasicConstraints = CA:FALSE\nkeyUsage = digitalSignature,keyEncipherment\n\
             extendedKeyUsage = serverAuth\nsubjectAltName = {}\n",
            names.join(",")
        );
        fs::write(self.file("server.cnf"), extensions)?;
        let more = ["-extfile", "server.cnf", "-extensions", "server"];
        self.sign("server", kind, "/CN=server", &more)?;
        Ok(format!(
            "tls_certificate = {:?}\ntls_key = {:?}\ntls_authorities = {:?}\n",
            self.file("servercert.pem"),
            self.file("serverkey.pem"),
            self.file("cacert.pem"),
        ))
    }

    /// Makes a client's files in a directory of that name, as libvirt's `pkipath` has them, with the certificates of
    /// `server`'s authority to check the server by. The subject is as `/C=GB/CN=admin`; `validity` are dates as
    /// `20200101000000Z`, from and to.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn client(
        &self,
        name: &str,
        subject: &str,
        validity: Option<(&str, &str)>,
        server: &Self,
    ) -> Result<PathBuf> {
        let mut more = vec!["-extensions", "client"];
        if let Some((from, to)) = validity {
            more.extend(["-startdate", from, "-enddate", to]);
        }
        self.sign(name, "ec", subject, &more)?;
        let directory = self.file(name);
        fs::create_dir(&directory)?;
        fs::copy(server.file("cacert.pem"), directory.join("cacert.pem"))?;
        for (from, to) in [("cert", "clientcert"), ("key", "clientkey")] {
            let from = self.file(&format!("{name}{from}.pem"));
            fs::copy(from, directory.join(format!("{to}.pem")))?;
        }
        Ok(directory)
    }

    /// Makes its own certificate one that was valid a while ago.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn expire(&self) -> Result<()> {
        let validity = [
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20210101000000Z",
        ];
        self.sign_itself("authority", &validity)
    }

    /// Makes its own certificate one that signs no others.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn disown(&self) -> Result<()> {
        self.sign_itself("client", &[])
    }

    fn sign_itself(&self, extensions: &str, more: &[&str]) -> Result<()> {
        let request = "req -new -key cakey.pem -out ca.csr -subj";
        self.openssl(request, &["/O=Reeve tests/CN=itself"])?;
        let sign = format!(
            "ca -batch -notext -preserveDN -selfsign -in ca.csr -extensions {extensions} -out again.pem"
        );
        self.openssl(&sign, more)?;
        fs::copy(self.file("again.pem"), self.file("cacert.pem"))?;
        Ok(())
    }

    /// Has it have revoked so many certificates that nobody has, beside others.
    ///
    /// # Errors
    /// The file's.
    pub fn revoke_many(&self, count: u32) -> Result<()> {
        let index = self.file("index");
        let mut text = fs::read_to_string(&index)?;
        for number in 0..count {
            // As openssl-ca(1) has them: the state, until when it is valid, since when it is not, number, file, subject.
            text += &format!(
                "R\t491231235959Z\t260101000000Z\t7F{number:08X}\tunknown\t/CN=x{number}\n"
            );
        }
        Ok(fs::write(index, text)?)
    }

    /// Revokes a client's certificate, and gives the list of all that are revoked.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn revoke(&self, name: &str) -> Result<PathBuf> {
        let certificate = format!("ca -revoke {name}cert.pem");
        self.openssl(&certificate, &[])?;
        self.openssl("ca -gencrl -out cacrl.pem", &[])?;
        Ok(self.file("cacrl.pem"))
    }
}
