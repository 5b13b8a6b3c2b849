//! What a running instance does with its configuration, at its start and at each reload. No domain is
//! touched by either.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use reeve_ipc::api::SOCKETS_DIRECTORY;
use rustix::fs::{Mode, OFlags};

use crate::api::Limits;
use crate::api::access::{Policy, group_id};
use crate::config::{Config, ConfigError};
use crate::domain::plan::{ImageAccess, PathError, PathPolicy};
use crate::gateway::remote::{self, Credentials, Names, Remote, UserNames};
use crate::host::paths::AllowedPaths;
use crate::host::sockets::Place;
use crate::logging::{DaemonLog, LogBounds, LogFiles};

/// The configuration in force, and everything that follows it.
#[derive(Debug)]
pub struct Configured {
    path: PathBuf,
    config: RwLock<Config>,
    /// Who may do what.
    pub(super) policy: Arc<RwLock<Policy>>,
    /// What clients may cost.
    pub(super) limits: Arc<RwLock<Limits>>,
    /// What lets clients of other hosts in.
    pub(super) remote: remote::Current,
    /// What looks at its files when they are read again.
    pub(super) checker: remote::Checker,
    /// Which files definitions may name.
    pub(super) paths: Arc<ConfiguredPaths>,
    pub(super) log: DaemonLog,
    /// Where the domains' logs are written, where any are.
    pub(super) files: Option<LogFiles>,
    /// One reload at a time, since each may wait for a file system.
    reloading: Mutex<()>,
}

impl Configured {
    /// With `config`, which was read from `path`.
    #[must_use]
    pub fn new(path: PathBuf, config: Config, log: DaemonLog, files: Option<LogFiles>) -> Self {
        Self {
            policy: Arc::new(RwLock::new(policy(&config))),
            limits: Arc::new(RwLock::new(limits(&config))),
            remote: remote::Current::new(remote(&config, None, |_| Ok(())).0),
            checker: remote::Checker::default(),
            paths: Arc::new(ConfiguredPaths {
                allowed: RwLock::new(allowed(&config, &path)),
                sockets: OnceLock::new(),
            }),
            config: RwLock::new(config),
            path,
            log,
            files,
            reloading: Mutex::new(()),
        }
    }

    /// Waits until what was logged is written, at most so long.
    pub fn flush_log(&self, patience: Duration) {
        self.log.flush(patience);
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Config {
        // Nothing panics while it is changed.
        let config = self.config.read();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again and says what changed, one line a setting. With an error nothing changes.
    /// It may wait for a file system, and so is for a thread that may.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn reload(&self) -> Result<Vec<String>, ConfigError> {
        let _turn = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.config();
        let read = Config::load_for_instance(&self.path)?;
        let changes = before.changes(&read);
        let config = before.reloaded(read);
        set(&self.policy, policy(&config));
        set(&self.limits, limits(&config));
        let trouble = self.reload_remote(&config);
        set(&self.paths.allowed, allowed(&config, &self.path));
        if let Some(files) = &self.files {
            files.set_bounds(bounds(&config));
        }
        if config.log_level != before.log_level {
            // It was checked when it was read.
            if let Err(error) = self.log.set_filter(&config.log_level) {
                tracing::error!(%error, "the log filter stays as it is");
            }
        }
        set(&self.config, config);
        let applied = changes.applied.iter().map(|key| format!("{key}: changed"));
        let later = changes.at_restart.iter();
        let later =
            later.map(|key| format!("{key}: takes a restart of reeved, which no domain notices"));
        Ok(applied.chain(later).chain(trouble).collect())
    }

    /// Has what lets clients of other hosts in follow the configuration: their files, once a process has looked at them,
    /// and whom names let in. Whoever may not stay by that is put out. Gives what is wrong.
    fn reload_remote(&self, config: &Config) -> Option<String> {
        let inside = self.remote.chains();
        let mut ended = None;
        let check = |credentials: &Arc<Credentials>| {
            let order = self.checker.check(credentials, &inside)?;
            let number = |order: &u32| inside.get(usize::try_from(*order).ok()?).map(|one| one.0);
            ended = Some(order.iter().filter_map(number).collect::<BTreeSet<u64>>());
            Ok(())
        };
        let (remote, trouble) = remote(config, Some(&self.remote.get()), check);
        let looked_at: BTreeSet<u64> = inside.iter().map(|(number, _)| *number).collect();
        self.remote.set(remote, |number| match &ended {
            // One that came meanwhile was not looked at.
            Some(ended) => looked_at.contains(&number) && !ended.contains(&number),
            // The files are those by which it came.
            None => true,
        });
        trouble
    }
}

fn set<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}

/// Allowed directories that a reload may change, and one of the instance's own for sockets.
#[derive(Debug)]
pub(crate) struct ConfiguredPaths {
    allowed: RwLock<AllowedPaths>,
    /// Where the sockets of devices are whose path nobody said: a directory of the supervisor's own.
    sockets: OnceLock<PathBuf>,
}

impl ConfiguredPaths {
    /// Makes the directory of sockets whose path nobody says, in the run directory, for the supervisor alone; from
    /// then on they may be there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn keep_sockets(&self, run_directory: &Path) -> std::io::Result<()> {
        let directory = run_directory.join(SOCKETS_DIRECTORY);
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // It is said once, where the instance starts.
        let _ = self.sockets.set(directory);
        Ok(())
    }

    /// The place of a socket in that directory, if it is to be there.
    fn own_place(&self, path: &Path) -> Option<Result<Place, PathError>> {
        let directory = self.sockets.get()?;
        let name = path.file_name()?.to_owned();
        // As it is written: no link and no other name leads there.
        if *path != directory.join(&name) {
            return None;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty());
        let place = opened.map(|directory| Place { directory, name });
        Some(place.map_err(PathError::Os))
    }

    /// With these directories, for tests.
    #[cfg(test)]
    pub(crate) const fn with(allowed: AllowedPaths) -> Self {
        Self {
            allowed: RwLock::new(allowed),
            sockets: OnceLock::new(),
        }
    }

    /// A copy: a file system that does not answer must not hold up a reload.
    pub(crate) fn allowed(&self) -> AllowedPaths {
        let allowed = self.allowed.read();
        allowed.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PathPolicy for ConfiguredPaths {
    fn open_read(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        PathPolicy::open_read(&self.allowed(), what, path)
    }

    fn open_image(
        &self,
        what: &str,
        path: &Path,
        access: ImageAccess,
    ) -> Result<OwnedFd, PathError> {
        PathPolicy::open_image(&self.allowed(), what, path, access)
    }

    fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        PathPolicy::open_directory(&self.allowed(), what, path)
    }

    fn place(&self, what: &str, path: &Path) -> Result<Place, PathError> {
        if let Some(place) = self.own_place(path) {
            return place;
        }
        PathPolicy::place(&self.allowed(), what, path)
    }
}

fn allowed(config: &Config, path: &Path) -> AllowedPaths {
    AllowedPaths::configured_in(config.allowed_directories.clone(), path.to_owned())
}

/// A group that does not exist gives nobody access; that is said once, where the file is read.
fn policy(config: &Config) -> Policy {
    let group = |name: &str| {
        let found = group_id(name);
        if found.is_none() && !name.is_empty() {
            tracing::info!(
                group = name,
                "there is no such group: it gives nobody access"
            );
        }
        found
    };
    Policy {
        own_uid: rustix::process::geteuid().as_raw(),
        read_write_group: group(&config.read_write_group),
        read_only_group: group(&config.read_only_group),
    }
}

fn limits(config: &Config) -> Limits {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    Limits {
        clients: number(config.max_clients),
        clients_per_user: number(config.max_clients_per_uid),
        calls_in_flight: number(config.max_calls_in_flight),
    }
}

/// What lets clients of other hosts in, and what is wrong with it. Files that cannot be read, or of which `check` says that
/// they cannot be used, leave what was read `before`.
fn remote(
    config: &Config,
    before: Option<&Remote>,
    check: impl FnOnce(&Arc<Credentials>) -> Result<(), String>,
) -> (Remote, Option<String>) {
    let mut trouble = None;
    let credentials = if config.tls_listen.is_empty() {
        None
    } else {
        let files = remote::Files {
            certificate: config.tls_certificate.clone(),
            key: config.tls_key.clone(),
            authorities: config.tls_authorities.clone(),
            revoked: config.tls_revoked.clone(),
            users: config.tls_users.clone(),
            proof: config.tls_clients,
        };
        let read = Credentials::read(&files).map(Arc::new);
        let read = read.map_err(|error| error.to_string());
        match read.and_then(|read| check(&read).map(|()| read)) {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                let kept = before.and_then(|before| before.credentials.clone());
                let then = match kept {
                    Some(_) => "what was read before holds",
                    None => {
                        "no client of another host is let in until it is mended, and 'reeve reload' said"
                    }
                };
                let told = format!("the files of TLS: {error}; {then}");
                tracing::error!("{told}");
                trouble = Some(told);
                kept
            }
        }
    };
    let names = Names {
        allowed: config.tls_allowed.clone(),
        read_only: config.tls_read_only.clone(),
    };
    let users = UserNames {
        allowed: config.tls_users_allowed.clone(),
        read_only: config.tls_users_read_only.clone(),
    };
    let remote = Remote {
        credentials,
        names,
        users,
        from: config.tls_from.clone(),
    };
    (remote, trouble)
}

/// How large logs grow.
#[must_use]
pub fn bounds(config: &Config) -> LogBounds {
    LogBounds {
        log_bytes: config.log_max_bytes,
        log_keep: config.log_keep,
        console_bytes: config.console_log_max_bytes,
        console_keep: config.console_log_keep,
    }
}
