//! Who may do what: the one place where access is decided.
//!
//! The kernel says who connected (unix(7): `SO_PEERCRED`, `SO_PEERGROUPS`), at the moment of the
//! connection. Root and the supervisor's own user may do everything, one configured group may too,
//! and one may look; nobody else gets a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use reeve_ipc::api::Access;

/// The most groups that are asked for: the kernel's own limit (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;
/// Groups that most users fit in.
const USUAL_GROUPS: usize = 64;

/// Who connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its pid, for logs.
    pub pid: i32,
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel about the other end of `socket`.
    ///
    /// # Errors
    /// It is no UNIX socket, or has no other end.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd();
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self {
            pid: credentials.pid.as_raw_nonzero().get(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
            groups: peer_groups(socket)?,
        })
    }
}

fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut room = USUAL_GROUPS;
    loop {
        let mut groups = vec![0_u32; room];
        match ask_groups(socket, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && room < MAX_GROUPS => {
                room = MAX_GROUPS;
            }
            Err(error) => return Err(error),
        }
    }
}

#[expect(unsafe_code, reason = "no library has SO_PEERGROUPS")]
fn ask_groups(socket: BorrowedFd<'_>, groups: &mut [u32]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(std::mem::size_of_val(groups))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `groups` has room for `length` bytes, both live through the call, and any bytes are
    // valid group ids.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(length as usize / size_of::<u32>())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The supervisor's own uid.
    pub own_uid: u32,
    /// The group that may do everything.
    pub read_write_group: Option<u32>,
    /// The group that may look.
    pub read_only_group: Option<u32>,
}

impl Policy {
    /// What `peer` may do, if anything.
    #[must_use]
    pub fn access(&self, peer: &Peer) -> Option<Access> {
        let in_group = |group: Option<u32>| {
            group.is_some_and(|group| peer.gid == group || peer.groups.contains(&group))
        };
        if self.is_exempt(peer) || in_group(self.read_write_group) {
            Some(Access::ReadWrite)
        } else if in_group(self.read_only_group) {
            Some(Access::ReadOnly)
        } else {
            None
        }
    }

    /// Whether the limit of one user's connections is not for this one.
    #[must_use]
    pub const fn is_exempt(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid
    }
}

/// The gid of a group, as `/etc/group` has it: a static binary has no other source of groups.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    find_group(&std::fs::read_to_string("/etc/group").ok()?, name)
}

/// group(5): `name:password:gid:members`.
fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name && !name.is_empty()).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer {
            pid: 1,
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn root_the_own_user_and_two_groups_have_access_and_nobody_else() {
        let policy = Policy {
            own_uid: 7,
            read_write_group: Some(100),
            read_only_group: Some(200),
        };
        for (peer, access) in [
            (peer(0, 0, &[]), Some(Access::ReadWrite)),
            (peer(7, 9, &[]), Some(Access::ReadWrite)),
            (peer(8, 100, &[]), Some(Access::ReadWrite)),
            (peer(8, 9, &[1, 100, 200]), Some(Access::ReadWrite)),
            (peer(8, 9, &[200]), Some(Access::ReadOnly)),
            (peer(8, 9, &[1, 2]), None),
        ] {
            assert_eq!(policy.access(&peer), access, "{peer:?}");
        }
        let closed = Policy {
            own_uid: 0,
            read_write_group: None,
            read_only_group: None,
        };
        assert_eq!(closed.access(&peer(8, 0, &[0])), None);
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nreeve:x:991:me,you\nreeve-ro:x:990:\n";
        assert_eq!(find_group(text, "reeve"), Some(991));
        assert_eq!(find_group(text, "reeve-ro"), Some(990));
        assert_eq!(find_group(text, "ree"), None);
        assert_eq!(find_group(":x:5:", ""), None);
    }

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.pid, rustix::process::getpid().as_raw_nonzero().get());
        let mut own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        let mut groups = peer.groups;
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, own);
    }
}
