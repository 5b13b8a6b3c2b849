//! A socket that listens under a name of its own, until it is put where it is wanted.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, linkat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{BACKLOG, Place, bind, is_served, look};

/// How often a name, or the way to one, is tried that somebody takes at the same time.
const TRIES: u32 = 16;

/// What a draft's name begins with; 16 hexadecimal digits follow.
const PREFIX: &str = ".reeve-";
/// How long a draft is nobody's business but its maker's, who has it for a few system calls.
pub(super) const STALE: Duration = Duration::from_secs(10);
/// The most names of a directory that are looked at for what was left.
const MAX_NAMES: usize = 4096;

/// Unlinks drafts that nobody listens on and nobody has touched for `age`: those of supervisors that were
/// killed. What cannot be unlinked stays.
pub(super) fn sweep(directory: &OwnedFd, age: Duration) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = openat(directory, ".", flags, Mode::empty()).and_then(Dir::new);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (Ok(names), Ok(now)) = (names, now) else {
        return;
    };
    for entry in names.take(MAX_NAMES).flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !is_draft(name) {
            continue;
        }
        let stale = look(directory, name).is_ok_and(|found| {
            let changed = Duration::from_secs(u64::try_from(found.changed_s).unwrap_or(0));
            let own = found.owner == rustix::process::geteuid().as_raw();
            found.is_socket && own && changed + age <= now
        });
        if stale && !is_served(directory, name) {
            let _ = unlinkat(directory, name, AtFlags::empty());
        }
    }
}

fn is_draft(name: &OsStr) -> bool {
    let digits = name.as_bytes().strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// The name goes when this is dropped.
pub(super) struct Draft<'a> {
    directory: &'a OwnedFd,
    name: OsString,
    /// What the socket is known by: device and inode.
    pub(super) identity: (u64, u64),
}

/// What came of putting it somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there.
    There,
    /// Somebody else's is, and is served.
    InUse,
    /// Something else is.
    NotASocket,
}

impl<'a> Draft<'a> {
    /// Binds one in `directory` and listens; gives the socket too.
    pub(super) fn make(directory: &'a OwnedFd) -> Result<(Self, OwnedFd), Errno> {
        for _ in 0..TRIES {
            let mut bytes = [0; 8];
            let _ = getrandom(&mut bytes, GetRandomFlags::empty());
            let name = OsString::from(format!("{PREFIX}{:016x}", u64::from_ne_bytes(bytes)));
            let socket = match bind(directory, &name) {
                Err(Errno::ADDRINUSE) => continue,
                bound => bound?,
            };
            let mut draft = Self {
                directory,
                name,
                identity: (0, 0),
            };
            draft.identity = look(directory, &draft.name)?.identity;
            rustix::net::listen(&socket, BACKLOG)?;
            return Ok((draft, socket));
        }
        Err(Errno::ADDRINUSE)
    }

    /// Gives it the name of `place`, in the directory that it is in, in place of a socket that nobody listens
    /// on any more.
    pub(super) fn put(&self, place: &Place) -> Result<Put, Errno> {
        self.put_and(place, || {})
    }

    /// As [`put`](Self::put); `exchanged` is called when it has changed places with what was there.
    pub(super) fn put_and(&self, place: &Place, exchanged: impl Fn()) -> Result<Put, Errno> {
        let (directory, from) = (self.directory, &self.name);
        for _ in 0..TRIES {
            match linkat(directory, from, directory, &place.name, AtFlags::empty()) {
                Ok(()) => return Ok(Put::There),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let found = match place.look() {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            if !found.is_socket {
                return Ok(Put::NotASocket);
            }
            if is_served(&place.directory, &place.name) {
                return Ok(Put::InUse);
            }
            let exchange = || {
                renameat_with(
                    directory,
                    from,
                    directory,
                    &place.name,
                    RenameFlags::EXCHANGE,
                )
            };
            match exchange() {
                Ok(()) => {
                    exchanged();
                    match look(directory, from) {
                        Ok(now) if now.identity == found.identity => return Ok(Put::There),
                        // What was there is gone altogether.
                        Err(Errno::NOENT) => return Ok(Put::There),
                        Err(errno) => return Err(errno),
                        // Another came in between, and gets its place back.
                        Ok(_) => match exchange() {
                            Ok(()) => {}
                            // Ours was taken away there; the other's is put back alone.
                            Err(Errno::NOENT) => {
                                let back = RenameFlags::NOREPLACE;
                                let _ =
                                    renameat_with(directory, from, directory, &place.name, back);
                                return Ok(Put::InUse);
                            }
                            Err(errno) => return Err(errno),
                        },
                    }
                }
                Err(Errno::NOENT) => {}
                // A file system that cannot.
                Err(Errno::INVAL) => {
                    renameat(directory, from, directory, &place.name)?;
                    return Ok(Put::There);
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(Put::InUse)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // What is there is the draft, or what it took the place of.
        let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
    }
}
