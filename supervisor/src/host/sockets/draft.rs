//! A socket that listens under a name of its own, until it is put where it is wanted.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{BACKLOG, Place, bind, is_served, look};

/// How often a name, or the way to one, is tried that somebody takes at the same time.
const TRIES: u32 = 16;

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
            let name = OsString::from(format!(".reeve-{:016x}", u64::from_ne_bytes(bytes)));
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
            if is_served(place) {
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
                Ok(()) if look(directory, from)?.identity == found.identity => {
                    return Ok(Put::There);
                }
                // Another came in between, and gets its place back.
                Ok(()) => exchange()?,
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
