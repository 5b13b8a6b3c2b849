//! The configuration of an instance: `/etc/reeve/reeve.toml`.
//!
//! Read in the supervisor, at its start and on reload. The file is flat: a line that is uncommented
//! means the same wherever it stands. Every setting has a default, so that a file that is missing
//! settings, or all of them, is a whole one; a setting nobody knows is an error, so that a misspelt
//! one does not go unnoticed. `packaging/reeve.toml` documents every setting, and a test holds it and
//! [`Config::default`] together.

mod error;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use reeve_ipc::gateway::{MAX_NAME_BYTES, Proof};
use reeve_ipc::model::IpRange;
use serde::{Deserialize, Deserializer, Serialize};

use crate::host::open_vswitch::DATABASE;
use crate::host::paths::DEFAULT_DIRECTORIES;

pub use self::error::ConfigError;

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = crate::host::paths::CONFIG_FILE;
/// Where the definitions of the host's own instance are.
pub const HOST_STATE_DIRECTORY: &str = "/var/lib/reeve";
/// Where the logs of the host's own instance are.
pub const DEFAULT_LOG_DIRECTORY: &str = "/var/log/reeve";

/// The most bytes of a configuration.
const MAX_BYTES: u64 = 1 << 20;
/// A log smaller than this would be all rotation.
const MIN_LOG_BYTES: u64 = 4096;
/// More than this are no reserve but a service of their own.
const MAX_WARM_PROCESSES: u32 = 64;
/// The most names or addresses of remote clients in one list.
const MAX_NAMES: usize = 4096;
/// A host that takes longer than a day to shut down does not.
const MAX_HOST_SHUTDOWN_SECONDS: u32 = 86_400;

/// The file of users of other hosts where nothing is set.
pub const DEFAULT_USERS: &str = "/etc/reeve/remote-users";

/// Every setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whose members may do everything; empty for nobody's. Read-write access is worth as much as
    /// the paths below allow.
    pub read_write_group: String,
    /// Whose members may look; empty for nobody's.
    pub read_only_group: String,
    /// The directories beneath which clients may name files. Absolute.
    pub allowed_directories: Vec<PathBuf>,
    /// What serves shared directories: an absolute path. Where there is none it is looked for.
    pub virtiofsd: Option<PathBuf>,
    /// The socket of Open vSwitch's database: an absolute path.
    pub open_vswitch: PathBuf,
    /// Guests are of several tenants: none reaches another on its bridge, and none is without a filter.
    pub multi_tenant: bool,
    /// Whether guests' frames may be moved by the kernel; see [`Config::may_use_vhost_net`].
    pub vhost_net: Option<bool>,
    /// Whether there is the network `default` from the first start on; where nothing is set, in the host's own
    /// instance alone.
    pub default_network: Option<bool>,
    /// Whether clients of libvirt's protocol are served.
    pub libvirt: bool,
    /// Where they are besides the run directory: absolute paths of sockets. Beside each there is a second one,
    /// with `-ro` behind its name, whose clients only look.
    pub libvirt_sockets: Vec<PathBuf>,
    /// Where clients of libvirt's protocol on other hosts are served, by TLS: addresses with ports.
    pub tls_listen: Vec<SocketAddr>,
    /// From where they may come; where nothing is set, from anywhere.
    #[serde(deserialize_with = "ranges")]
    pub tls_from: Option<Vec<IpRange>>,
    /// The server's certificate, and those between it and its authority: an absolute path.
    pub tls_certificate: PathBuf,
    /// Its private key: an absolute path.
    pub tls_key: PathBuf,
    /// The authorities one of which must have signed a client's certificate: an absolute path.
    pub tls_authorities: PathBuf,
    /// The certificates that they have revoked: an absolute path.
    pub tls_revoked: Option<PathBuf>,
    /// Whose certificates let in, by name or pattern; where nothing is set, all that an authority has signed.
    pub tls_allowed: Option<Vec<String>>,
    /// Which of them only look.
    pub tls_read_only: Vec<String>,
    /// How clients of other hosts say who they are: by a certificate, by a password (SASL), or by both.
    pub tls_clients: Proof,
    /// The users who have passwords, as 'reeve remote-user' writes them: an absolute path.
    pub tls_users: PathBuf,
    /// Which of them may come, by name or pattern; where nothing is set, all.
    pub tls_users_allowed: Option<Vec<String>>,
    /// Which of them only look.
    pub tls_users_read_only: Vec<String>,
    /// How many processes wait for them, 0 to 64.
    pub libvirt_warm_processes: u32,
    /// Whether clients may ask for the test hypervisor.
    pub test_hypervisor: bool,
    /// Connections at once.
    pub max_clients: u32,
    /// Connections of one uid at once; root is not counted.
    pub max_clients_per_uid: u32,
    /// Calls of one connection that are being served at once.
    pub max_calls_in_flight: u32,
    /// What is logged: a level, or directives as in `info,reeved::domain=debug`.
    pub log_level: String,
    /// Where the domains' logs are; see [`Config::log_directory_or`].
    pub log_directory: Option<PathBuf>,
    /// A domain's log is rotated at this size, in bytes.
    pub log_max_bytes: u64,
    /// How many rotated logs are kept beside the one that is written.
    pub log_keep: u32,
    /// As `log_max_bytes`, for what the guest writes to its console.
    pub console_log_max_bytes: u64,
    /// As `log_keep`, for the console; whether there is a console log at all is not told by this.
    pub console_log_keep: u32,
    /// How long guests have to shut down when the host does, in seconds, 0 to
    /// 86400; what runs then is destroyed.
    pub host_shutdown_timeout_seconds: u32,
    /// How many domains are being started at once when the host comes up.
    pub autostart_concurrency: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_write_group: "reeve".to_owned(),
            read_only_group: "reeve-ro".to_owned(),
            allowed_directories: DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec(),
            virtiofsd: None,
            open_vswitch: PathBuf::from(DATABASE),
            multi_tenant: false,
            vhost_net: None,
            default_network: None,
            libvirt: true,
            libvirt_sockets: Vec::new(),
            tls_listen: Vec::new(),
            tls_from: None,
            tls_certificate: "/etc/pki/libvirt/servercert.pem".into(),
            tls_key: "/etc/pki/libvirt/private/serverkey.pem".into(),
            tls_authorities: "/etc/pki/CA/cacert.pem".into(),
            tls_revoked: None,
            tls_allowed: None,
            tls_read_only: Vec::new(),
            tls_clients: Proof::Certificate,
            tls_users: DEFAULT_USERS.into(),
            tls_users_allowed: None,
            tls_users_read_only: Vec::new(),
            libvirt_warm_processes: 2,
            test_hypervisor: true,
            max_clients: 256,
            max_clients_per_uid: 64,
            max_calls_in_flight: 32,
            log_level: "info".to_owned(),
            log_directory: None,
            log_max_bytes: 1 << 20,
            log_keep: 3,
            console_log_max_bytes: 2 << 20,
            console_log_keep: 3,
            host_shutdown_timeout_seconds: 120,
            autostart_concurrency: 4,
        }
    }
}

/// What a reload changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings that hold from now on.
    pub applied: Vec<String>,
    /// Settings that hold from the next start of the supervisor on; domains keep running then too.
    pub at_restart: Vec<String>,
}

/// Settings that only a new supervisor takes up: the logs of running domains are open, what starts domains
/// is made, and so are the sockets.
const AT_RESTART: [&str; 11] = [
    "log_directory",
    "virtiofsd",
    "open_vswitch",
    "multi_tenant",
    "vhost_net",
    "default_network",
    "libvirt",
    "libvirt_sockets",
    "tls_listen",
    "libvirt_warm_processes",
    "test_hypervisor",
];

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], one line with the file and, where there is one, the line and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source: std::io::Error| ConfigError::read(path, &source);
        let file = std::fs::File::open(path).map_err(read)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                limit: MAX_BYTES,
            });
        }
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText {
            path: path.to_owned(),
        })?;
        Self::parse(path, &text)
    }

    /// As [`Config::load`]; the defaults where there is no file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_or_default(path: &Path) -> Result<Self, ConfigError> {
        match Self::load(path) {
            Err(error) if error.is_missing() => Ok(Self::default()),
            result => result,
        }
    }

    /// What an instance is configured with: the file at [`DEFAULT_PATH`] may be missing, one that
    /// somebody named may not.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_for_instance(path: &Path) -> Result<Self, ConfigError> {
        if path == Path::new(DEFAULT_PATH) {
            Self::load_or_default(path)
        } else {
            Self::load(path)
        }
    }

    /// Reads and checks the text of `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::form(path, text, &error))?;
        config
            .check()
            .map_err(|(key, reason)| ConfigError::value(path, text, key, reason))?;
        Ok(config)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// The key of the first setting that cannot be, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = [
            ("max_clients", u64::from(self.max_clients)),
            ("max_clients_per_uid", u64::from(self.max_clients_per_uid)),
            ("max_calls_in_flight", u64::from(self.max_calls_in_flight)),
            (
                "autostart_concurrency",
                u64::from(self.autostart_concurrency),
            ),
        ];
        for (key, value) in positive {
            if !(1..=65_536).contains(&value) {
                return Err((key, format!("{value} is not in 1 to 65536")));
            }
        }
        for (key, bytes) in [
            ("log_max_bytes", self.log_max_bytes),
            ("console_log_max_bytes", self.console_log_max_bytes),
        ] {
            if bytes < MIN_LOG_BYTES {
                return Err((key, format!("{bytes} is less than {MIN_LOG_BYTES} bytes")));
            }
        }
        for (key, keep) in [
            ("log_keep", self.log_keep),
            ("console_log_keep", self.console_log_keep),
        ] {
            if keep > crate::logging::MAX_KEEP {
                let most = crate::logging::MAX_KEEP;
                return Err((key, format!("{keep} is more than {most}")));
            }
        }
        let seconds = self.host_shutdown_timeout_seconds;
        if seconds > MAX_HOST_SHUTDOWN_SECONDS {
            let reason = format!("{seconds} is more than {MAX_HOST_SHUTDOWN_SECONDS}, a day");
            return Err(("host_shutdown_timeout_seconds", reason));
        }
        let warm = self.libvirt_warm_processes;
        if warm > MAX_WARM_PROCESSES {
            let reason = format!("{warm} is more than {MAX_WARM_PROCESSES}");
            return Err(("libvirt_warm_processes", reason));
        }
        let mut sockets = BTreeSet::new();
        for socket in &self.libvirt_sockets {
            check_directory("libvirt_sockets", socket)?;
            if socket.file_name().is_none() || !sockets.insert(socket) {
                let name = socket.display();
                let reason = format!("'{name}' is there twice, or is no name of a socket");
                return Err(("libvirt_sockets", reason));
            }
        }
        self.check_tls()?;
        let mut seen = BTreeSet::new();
        for directory in &self.allowed_directories {
            check_directory("allowed_directories", directory)?;
            if !seen.insert(directory) {
                let name = directory.display();
                return Err(("allowed_directories", format!("'{name}' is there twice")));
            }
        }
        if let Some(directory) = &self.log_directory {
            check_directory("log_directory", directory)?;
        }
        if let Some(program) = &self.virtiofsd {
            check_directory("virtiofsd", program)?;
        }
        check_directory("open_vswitch", &self.open_vswitch)?;
        if self.multi_tenant && self.vhost_net == Some(true) {
            let reason = "with multi_tenant every interface has a source filter, and none with one is the kernel's to \
                          serve: take one of the two out";
            return Err(("vhost_net", reason.to_owned()));
        }
        crate::logging::check_filter(&self.log_level)
            .map_err(|error| ("log_level", error.to_string()))
    }

    /// What is said of clients of other hosts.
    fn check_tls(&self) -> Result<(), (&'static str, String)> {
        let addresses: BTreeSet<_> = self.tls_listen.iter().collect();
        if addresses.len() < self.tls_listen.len() {
            return Err(("tls_listen", "an address is there twice".to_owned()));
        }
        let from = self.tls_from.as_deref().unwrap_or_default();
        if from.len() > MAX_NAMES {
            let reason = format!("there are more than {MAX_NAMES} addresses");
            return Err(("tls_from", reason));
        }
        // A client of IPv4 is one of IPv4, whichever socket it came by: none would ever be meant.
        let is_mapped = |range: &&IpRange| matches!(range.first(), IpAddr::V6(first) if first.to_ipv4_mapped().is_some());
        if let Some(range) = from.iter().find(is_mapped) {
            let reason = format!("'{range}': an address of IPv4 is written as one");
            return Err(("tls_from", reason));
        }
        for (key, path) in [
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
            ("tls_authorities", &self.tls_authorities),
            ("tls_users", &self.tls_users),
        ] {
            check_directory(key, path)?;
        }
        if let Some(path) = &self.tls_revoked {
            check_directory("tls_revoked", path)?;
        }
        for (key, names) in [
            (
                "tls_allowed",
                self.tls_allowed.as_deref().unwrap_or_default(),
            ),
            ("tls_read_only", &self.tls_read_only),
            (
                "tls_users_allowed",
                self.tls_users_allowed.as_deref().unwrap_or_default(),
            ),
            ("tls_users_read_only", &self.tls_users_read_only),
        ] {
            let bad = |name: &&String| name.is_empty() || name.len() > MAX_NAME_BYTES;
            if names.len() > MAX_NAMES || names.iter().find(bad).is_some() {
                let reason = format!(
                    "there are more than {MAX_NAMES} names, or one is empty or has more than {MAX_NAME_BYTES} bytes"
                );
                return Err((key, reason));
            }
        }
        Ok(())
    }

    /// The log directory, of the configuration or, where that names none, of the instance:
    /// [`DEFAULT_LOG_DIRECTORY`], or `log` in its state directory when it has one of its own.
    #[must_use]
    pub fn log_directory_or<'a>(&'a self, instance: &'a Path) -> &'a Path {
        self.log_directory.as_deref().unwrap_or(instance)
    }

    /// Whether guests' frames may be moved by the kernel, with vhost-net, where a definition says so:
    /// unless it is set that they may not, or the guests are of several tenants, who all have filters.
    #[must_use]
    pub fn may_use_vhost_net(&self) -> bool {
        self.vhost_net.unwrap_or(true) && !self.multi_tenant
    }

    /// What a reload from `self` to `new` changes, by key.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let (before, after) = (table(self), table(new));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut changes = Changes::default();
        for key in keys {
            if before.get(key) != after.get(key) {
                if AT_RESTART.contains(&key.as_str()) {
                    changes.at_restart.push(key.clone());
                } else {
                    changes.applied.push(key.clone());
                }
            }
        }
        changes
    }

    /// The configuration after a reload to `new`: with what holds already.
    #[must_use]
    pub fn reloaded(&self, new: Self) -> Self {
        Self {
            log_directory: self.log_directory.clone(),
            virtiofsd: self.virtiofsd.clone(),
            open_vswitch: self.open_vswitch.clone(),
            multi_tenant: self.multi_tenant,
            vhost_net: self.vhost_net,
            default_network: self.default_network,
            libvirt: self.libvirt,
            libvirt_sockets: self.libvirt_sockets.clone(),
            tls_listen: self.tls_listen.clone(),
            libvirt_warm_processes: self.libvirt_warm_processes,
            test_hypervisor: self.test_hypervisor,
            ..new
        }
    }
}

/// The settings by key. A path that is not UTF-8 cannot come from a file of text.
fn table(config: &Config) -> toml::Table {
    toml::Table::try_from(config).unwrap_or_default()
}

/// Addresses and networks.
fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpRange>>, D::Error> {
    let range = |text: String| {
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "'{text}' is no address and no network: write 192.0.2.5, or a network's first address with the length \
                 of its prefix, 192.0.2.0/24"
            ))
        })
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .into_iter()
        .map(range)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn check_directory(key: &'static str, path: &Path) -> Result<(), (&'static str, String)> {
    let dots = path
        .components()
        .any(|component| component == std::path::Component::ParentDir);
    if !path.is_absolute() || dots {
        let name = path.display();
        return Err((key, format!("'{name}' is no absolute path without '..'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
