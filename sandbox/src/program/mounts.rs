//! The root of a foreign program: memory, read-only, with the served directory, what programs are loaded
//! from, and the little of `/proc` that they ask for.

use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};

use super::{DIRECTORY, OWN_RESOLVER, c_string};
use crate::sys;

/// Where programs and libraries are.
const SYSTEM: [&str; 4] = ["/usr", "/lib", "/lib64", "/lib32"];
/// Where the libraries are that are elsewhere.
const LIBRARY_CACHE: &str = "/etc/ld.so.cache";
/// What of `/proc` is there: the process itself, and limits of the host that it may ask for.
const PROC: [&str; 2] = ["/proc/self", "/proc/sys/fs"];

/// Who the host asks for names.
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where a program makes a root of its own that has no directory to serve.
const OWN_ROOT: &str = "/tmp";

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;

type Failure = (&'static str, String);

fn failed(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| (what, std::io::Error::from(errno).to_string())
}

/// What goes into the root.
enum Piece {
    /// A directory of the host.
    Directory(OwnedFd),
    /// A file of the host.
    File(OwnedFd),
    /// A symbolic link as on the host.
    Link(PathBuf),
    /// A directory with nothing in it.
    Empty,
    /// A file with this in it.
    Text(String),
}

/// Puts the calling process, which stands in the directory that is served, if one is, into such a root;
/// `directory` says whether one is, and only to be read. It is root of a new user namespace, in a new mount
/// namespace.
pub(super) fn enter(program: &Path, directory: Option<bool>) -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("separating its mounts"))?;
    let mut pieces = Vec::new();
    match directory {
        Some(read_only) => {
            let share = clone("", true).map_err(failed("taking the directory"))?;
            let access = if read_only { RDONLY } else { 0 };
            restrict(share.as_fd(), access | NOSUID | NODEV, true)
                .map_err(failed("restricting the directory"))?;
            pieces.push((PathBuf::from(DIRECTORY), Piece::Directory(share)));
        }
        None => {
            pieces.push((PathBuf::from(OWN_ROOT), Piece::Empty));
            if let Some(resolvers) = resolvers()? {
                pieces.push((RESOLVERS.into(), resolvers));
            }
        }
    }
    for path in SYSTEM.map(PathBuf::from).into_iter().chain(prefix(program)) {
        if let Some(piece) = piece(&path)? {
            pieces.push((path, piece));
        }
    }
    if let Some(piece) = piece(Path::new(LIBRARY_CACHE))? {
        pieces.push((LIBRARY_CACHE.into(), piece));
    }
    for path in PROC {
        let tree = clone(path, true).map_err(failed("taking a part of /proc"))?;
        restrict(tree.as_fd(), RDONLY | NOSUID | NODEV, true)
            .map_err(failed("restricting /proc"))?;
        pieces.push((path.into(), Piece::Directory(tree)));
    }

    let root = memory().map_err(failed("making its root"))?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed("placing its root"))?;
    for (path, piece) in &pieces {
        place(&root, path, piece).map_err(failed("filling its root"))?;
    }
    drop(pieces);
    rustix::process::fchdir(&root).map_err(failed("entering its root"))?;
    // The new root is on top of the old one, which then is on top of the new one (pivot_root(2)).
    rustix::process::pivot_root(".", ".").map_err(failed("taking its root"))?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .map_err(failed("leaving the host's root"))?;
    rustix::process::chdir("/").map_err(failed("entering its root"))?;
    restrict(root.as_fd(), RDONLY | NOSUID | NODEV, false).map_err(failed("closing its root"))
}

/// The directory in which a program is installed that is not beneath the system's: that above `bin`,
/// `lib` or wherever it lies in.
fn prefix(program: &Path) -> Option<PathBuf> {
    let within = |path: &Path| SYSTEM.iter().any(|system| path.starts_with(system));
    let directory = program.parent().filter(|_| !within(program))?;
    match directory.parent() {
        Some(prefix) if prefix != Path::new("/") => Some(prefix.to_owned()),
        _ => Some(directory.to_owned()).filter(|directory| directory != Path::new("/")),
    }
}

/// What is at a path of the host, read-only; `None` where nothing is.
fn piece(path: &Path) -> Result<Option<Piece>, Failure> {
    let what = "taking what the program is loaded from";
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(None);
    };
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(|error| (what, error.to_string()))?;
        return Ok(Some(Piece::Link(target)));
    }
    let tree = clone(path, metadata.is_dir()).map_err(failed(what))?;
    restrict(tree.as_fd(), RDONLY | NOSUID | NODEV, true).map_err(failed(what))?;
    Ok(Some(match metadata.is_dir() {
        true => Piece::Directory(tree),
        false => Piece::File(tree),
    }))
}

/// The host's list of servers of names, wherever the link to it leads; with a way to its own, where it has no other.
fn resolvers() -> Result<Option<Piece>, Failure> {
    let Ok(path) = fs::canonicalize(RESOLVERS) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path);
    match text.ok().and_then(|text| with_own_resolver(&text)) {
        Some(text) => Ok(Some(Piece::Text(text))),
        None => piece(&path),
    }
}

/// A list that has servers on the host's loopback alone, with [`OWN_RESOLVER`] as the last; `None` of any other.
fn with_own_resolver(list: &str) -> Option<String> {
    let servers = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // Of IPv6 with the link that it is on behind it.
    let addresses = servers.map(|server| server.split('%').next().unwrap_or_default().parse());
    let known: Vec<IpAddr> = addresses.filter_map(Result::ok).collect();
    let own = known.iter().any(IpAddr::is_ipv4) && known.iter().all(IpAddr::is_loopback);
    own.then(|| format!("{list}\nnameserver {OWN_RESOLVER}\n"))
}

/// A copy of the mount at `path`, attached nowhere; with all beneath where it is a directory, since what
/// is mounted over something may not be looked beneath.
fn clone(path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd, Errno> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path == Path::new("") {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Sets attributes of a mount, and of all beneath it.
#[expect(unsafe_code, reason = "rustix has no mount_setattr")]
fn restrict(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attributes = MountAttr {
        set,
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (fd, empty) = (
        mount.as_raw_fd().unsigned_abs() as usize,
        c"".as_ptr().addr(),
    );
    let pointer = (&raw const attributes).addr();
    let size = size_of::<MountAttr>();
    let flags = flags.unsigned_abs() as usize;
    // SAFETY: the kernel reads an empty name and one `mount_attr`, which live across the call.
    let set = unsafe {
        sys::call(
            libc::SYS_mount_setattr,
            [fd, empty, flags, pointer, size, 0],
        )
    };
    set.map(drop)
        .map_err(|errno| Errno::from_raw_os_error(errno.0))
}

/// An empty file system in memory, attached nowhere.
fn memory() -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "mode", "0755")?;
    fsconfig_set_string(fs.as_fd(), "nr_inodes", "64")?;
    fsconfig_create(fs.as_fd())?;
    fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
}

/// Puts a piece at its path in `root`.
fn place(root: &OwnedFd, path: &Path, piece: &Piece) -> Result<(), Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let name: CString = c_string(relative.as_os_str()).map_err(|_| Errno::INVAL)?;
    let mode = Mode::from_raw_mode(0o755);
    let mut made = PathBuf::new();
    for component in relative.parent().unwrap_or(Path::new("")).components() {
        made.push(component);
        match rustix::fs::mkdirat(root, &made, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let tree = match piece {
        Piece::Link(target) => return rustix::fs::symlinkat(target, root, &name),
        Piece::Empty => return rustix::fs::mkdirat(root, &name, mode),
        Piece::Text(text) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
            let file = rustix::fs::openat(root, &name, flags, mode)?;
            let written = fs::File::from(file).write_all(text.as_bytes());
            return written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        Piece::Directory(tree) => {
            rustix::fs::mkdirat(root, &name, mode)?;
            tree
        }
        Piece::File(tree) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(root, &name, flags, mode)?;
            tree
        }
    };
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", root, &name, empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_asks_itself_for_names_is_asked_by_an_address_of_its_own() {
        let list = "# stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0 trust-ad";
        let with = format!("{list}\nnameserver 169.254.1.1\n");
        assert_eq!(with_own_resolver(list), Some(with));
        for other in [
            "",
            "options nameserver 127.0.0.1",
            "nameserver 192.0.2.1",
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
            "nameserver 127.0.0.53\nnameserver fe80::1%eth0\n",
            "nameserver ::1",
            "nameserver",
        ] {
            assert_eq!(with_own_resolver(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_beside_the_system_brings_its_prefix() {
        for (program, prefix_of) in [
            ("/usr/libexec/virtiofsd", None),
            ("/usr/local/bin/x", None),
            ("/lib/x", None),
            ("/opt/x/bin/x", Some("/opt/x")),
            ("/assets/tools/bin/x", Some("/assets/tools")),
            ("/bin/x", Some("/bin")),
            ("/x", None),
        ] {
            assert_eq!(
                prefix(Path::new(program)),
                prefix_of.map(PathBuf::from),
                "{program}"
            );
        }
    }
}
