//! `reeve remote-user`: the file of users who come from other hosts with a password. It needs no daemon, as the daemon
//! never writes that file; a reload has it read again.
//!
//! A password comes from the terminal, without echo, or as the first line of standard input, and is in no argument, which
//! every user of the host could see. What is written checks it and does not tell it (SCRAM-SHA-256, RFC 7677).

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reeve_ipc::users::{
    ITERATIONS, KEY_BYTES, MAX_PASSWORD_BYTES, MAX_USER_BYTES, MAX_USERS, MAX_USERS_BYTES,
    SALT_BYTES, User, Users, is_name, is_password,
};
use reeved::config::{Config, DEFAULT_PATH};
use rsasl::mechanisms::scram::tools::{derive_keys, hash_password};
use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use sha2::digest::generic_array::GenericArray;
use sha2::{Digest as _, Sha256};

use crate::daemon::{CommandError, Output};

/// What is done once the file is another one.
const RELOAD: &str = "'reeve reload' has reeved read it";

#[derive(Debug, Args)]
pub struct RemoteUserArgs {
    /// The file. Where it is not said, that of tls_users in /etc/reeve/reeve.toml.
    #[arg(long, global = true, value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: RemoteUserCommand,
}

#[derive(Debug, Subcommand)]
enum RemoteUserCommand {
    /// Add a user, or give one another password, which is asked for, or is the first line of standard input. Whoever is
    /// connected by the one before is put out by the reload.
    Add(UserArgs),
    /// Remove a user. One that is connected is put out by the reload.
    Remove(UserArgs),
    /// List the names of all users.
    List,
}

#[derive(Debug, Args)]
struct UserArgs {
    /// The user's name: letters and digits of ASCII, and '.', '_', '-', '@'.
    #[arg(value_parser = name)]
    name: String,
}

fn name(text: &str) -> Result<String, String> {
    let why = || {
        format!(
            "a name has 1 to {MAX_USER_BYTES} letters and digits of ASCII, '.', '_', '-' and '@', a letter or digit first"
        )
    };
    is_name(text).then(|| text.to_owned()).ok_or_else(why)
}

/// Does what is asked for.
///
/// # Errors
/// What was in the way, in one line.
pub fn remote_user(out: Output, args: &RemoteUserArgs) -> Result<(), CommandError> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => {
            let config = Config::load_for_instance(Path::new(DEFAULT_PATH));
            config
                .map_err(|error| CommandError::Own(error.to_string()))?
                .tls_users
        }
    };
    let at = |error: io::Error| CommandError::Own(format!("{}: {error}", path.display()));
    let told = |what: &str, name: &str| {
        out.notice(&format!(
            "user '{name}' {what} in {}; {RELOAD}",
            path.display()
        ));
    };
    match &args.command {
        RemoteUserCommand::List => {
            let users = read(&path).map_err(at)?;
            let names: Vec<String> = users
                .into_iter()
                .flat_map(|users| users.users)
                .map(|user| user.name)
                .collect();
            out.value(&names, || {
                names.iter().map(|name| format!("{name}\n")).collect()
            })
        }
        RemoteUserCommand::Add(UserArgs { name }) => {
            // Before the lock: whoever types holds nobody up.
            let password =
                password().map_err(|error| CommandError::Own(format!("the password: {error}")))?;
            let user = entry(name, &password).map_err(at)?;
            let mut is_new = true;
            change(&path, |users| {
                match users.users.iter_mut().find(|one| one.name == *name) {
                    Some(one) => {
                        *one = user;
                        is_new = false;
                    }
                    None => users.users.push(user),
                }
                if users.users.len() > MAX_USERS {
                    return Err(io::Error::other(format!("there are {MAX_USERS} users")));
                }
                Ok(())
            })
            .map_err(at)?;
            told(if is_new { "is" } else { "has another password" }, name);
            Ok(())
        }
        RemoteUserCommand::Remove(UserArgs { name }) => {
            change(&path, |users| {
                let before = users.users.len();
                users.users.retain(|user| user.name != *name);
                if users.users.len() == before {
                    return Err(io::Error::other(format!("there is no user '{name}'")));
                }
                Ok(())
            })
            .map_err(at)?;
            told("is no more", name);
            Ok(())
        }
    }
}

/// What is in the file, if there is one.
fn read(path: &Path) -> io::Result<Option<Users>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let mut text = String::new();
    let limit = u64::try_from(MAX_USERS_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1))
        .read_to_string(&mut text)?;
    Users::parse(&text).map(Some).map_err(io::Error::other)
}

/// Changes the file, or makes it: one at a time does, and whoever reads it meanwhile sees the one or the other.
fn change(path: &Path, change: impl FnOnce(&mut Users) -> io::Result<()>) -> io::Result<()> {
    let directory = directory(path);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let place = File::open(directory)?;
    let locked = lock(directory, name)?;
    flock(&locked, FlockOperation::LockExclusive)?;
    let mut users = match read(path)? {
        Some(users) => users,
        None => Users {
            unknown: random()?,
            users: Vec::new(),
        },
    };
    change(&mut users)?;
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = directory.join(temporary);
    // What is left of one that was killed; the lock is ours.
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(users.text().as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    place.sync_all()
}

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// What is locked while the file is changed. It stays, and is for its owner alone: whoever can open a file can lock it,
/// and the directory is anybody's to open.
fn lock(directory: &Path, name: &OsStr) -> io::Result<File> {
    let mut beside = name.to_owned();
    beside.push(".lock");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(directory.join(beside))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // So few come whole, and without waiting once the host has booted (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

/// What checks that password.
fn entry(name: &str, password: &str) -> io::Result<User> {
    let salt: [u8; SALT_BYTES] = random()?;
    let (stored_key, server_key) = keys(password, &salt, ITERATIONS);
    Ok(User {
        name: name.to_owned(),
        iterations: ITERATIONS,
        salt,
        stored_key,
        server_key,
    })
}

/// `StoredKey` and `ServerKey`.
fn keys(password: &str, salt: &[u8], iterations: u32) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
    let mut salted = GenericArray::default();
    hash_password::<Sha256>(password.as_bytes(), iterations, salt, &mut salted);
    let (client_key, server_key) = derive_keys::<Sha256>(&salted);
    (Sha256::digest(client_key).into(), server_key.into())
}

fn password() -> io::Result<String> {
    let password = if isatty(stdin()) {
        let silence = Silence::begin()?;
        let first = ask("Password: ")?;
        let again = ask("Again: ")?;
        drop(silence);
        if first != again {
            return Err(io::Error::other("these are two"));
        }
        first
    } else {
        line()?
    };
    let why = || {
        io::Error::other(format!(
            "it has 1 to {MAX_PASSWORD_BYTES} printable characters of ASCII: what clients make of others is not the same \
             everywhere"
        ))
    };
    is_password(&password).then_some(password).ok_or_else(why)
}

fn ask(words: &str) -> io::Result<String> {
    let mut terminal = io::stderr();
    terminal.write_all(words.as_bytes())?;
    let line = line();
    terminal.write_all(b"\n")?;
    line
}

fn line() -> io::Result<String> {
    let mut line = String::new();
    let limit = u64::try_from(MAX_PASSWORD_BYTES + 2).unwrap_or(u64::MAX);
    io::stdin().lock().take(limit).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').unwrap_or(&line).to_owned())
}

/// A terminal that shows nothing of what is typed, while it lives. Nor does a key end us meanwhile, which would leave it
/// so: such a one is in no password.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_those_of_the_specification() {
        // RFC 7677, 3: user "user", password "pencil".
        let salt = [
            0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36,
            0xfa, 0x81,
        ];
        let (stored, server) = keys("pencil", &salt, 4096);
        // Those from which the signatures there follow.
        assert_eq!(
            stored[..8],
            [0x58, 0x6e, 0x5d, 0xf2, 0x83, 0xe6, 0xdc, 0xeb]
        );
        assert_eq!(
            server[..8],
            [0xc1, 0xf3, 0xcb, 0xc1, 0xc1, 0x3a, 0x9d, 0x35]
        );
        let (other, _) = keys("pencil", &salt, 4097);
        assert_ne!(stored, other);
    }

    #[test]
    fn a_name_alone_is_one_in_the_directory_that_one_is_in() {
        for (path, expected) in [("users", "."), ("etc/users", "etc"), ("/users", "/")] {
            assert_eq!(directory(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_file_is_for_its_owner_alone_and_is_changed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/users");
        let add = |name: &str| {
            let user = entry(name, "secret").unwrap();
            change(&path, |users| {
                users.users.push(user);
                Ok(())
            })
        };
        add("alice").unwrap();
        let first = read(&path).unwrap().unwrap();
        std::fs::write(directory.path().join("etc/users.new"), "left over").unwrap();
        add("bob").unwrap();
        let both = read(&path).unwrap().unwrap();
        assert_eq!(both.unknown, first.unknown);
        assert_eq!(both.users.len(), 2);
        assert_ne!(both.users[0].salt, both.users[1].salt);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("secret"));
        let refused = change(&path, |_| Err(io::Error::other("no")));
        assert!(refused.is_err());
        assert_eq!(read(&path).unwrap().unwrap(), both);
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 2);
        let lock = directory.path().join("etc/users.lock");
        let mode = lock.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others could lock it");
    }
}
