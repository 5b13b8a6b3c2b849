//! The book of a network's server (`reeve_ipc::leases`) before it starts: the server alone writes it while it runs.
//!
//! dnsmasq does not start on a book with more leases than it may give, of which it counts also those that have expired or
//! are of addresses that it does not give out any more; and these it renews. So they are taken out, and what is left is a
//! lease for each address that is given out at most, of which there are no more than `dhcp-lease-max` says
//! (`configuration.rs`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use reeve_ipc::leases;
use reeve_ipc::model::Network;

use super::NetworkHostError;
use super::configuration::Given;
use super::failure::host_io;

/// The most bytes of a book that are kept: leases for more than 200,000 addresses.
const MAX_BYTES: u64 = 16 << 20;
/// What the line begins with that names the server to clients of IPv6.
const SERVER: &[u8] = b"duid ";

/// Makes a network's book ready for a server that has that uid and gid: made where there is none, and without what it
/// would not start with.
pub(super) fn make_ready(path: &Path, network: &Network, uid: u32) -> Result<(), NetworkHostError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let made = || {
        let book = opened(path, fs::File::options().read(true).append(true))?;
        let mut bytes = Vec::new();
        let whole = book.metadata()?.len() <= MAX_BYTES;
        (&book).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let kept = kept(&bytes, &Given::of(network), now);
        if whole && kept == bytes {
            return fchown(&book, Some(uid), Some(uid));
        }
        let temporary = temporary(path);
        let mut file = opened(&temporary, fs::File::options().write(true).truncate(true))?;
        fchown(&file, Some(uid), Some(uid))?;
        file.write_all(&kept)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    made().map_err(|error| host_io("cannot make ready", path, &error))
}

/// Removes a network's book, and what a crash has left of one.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for each in [temporary(path), path.to_owned()] {
        match fs::remove_file(each) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn opened(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    let options = options.create(true).mode(0o600);
    options
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// What of a book its server starts with.
fn kept(book: &[u8], given: &Given, now_unix_s: u64) -> Vec<u8> {
    let (mut kept, mut lent, mut named) = (Vec::new(), BTreeSet::new(), false);
    for line in book.split_inclusive(|byte| *byte == b'\n') {
        let keeps = if line.starts_with(SERVER) {
            let fits = line.ends_with(b"\n") && line.len() <= leases::MAX_LINE_BYTES;
            fits && !std::mem::replace(&mut named, true)
        } else {
            let lease = leases::parse(line, now_unix_s).pop();
            lease.is_some_and(|lease| given.has(lease.address) && lent.insert(lease.address))
        };
        if keeps {
            kept.extend_from_slice(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use reeve_ipc::model::{Dhcp, DhcpHost, DhcpRange, NetworkAddress, NetworkUuid};

    use super::*;

    const NOW: u64 = 1_764_515_000;

    fn network() -> Network {
        let uuid = NetworkUuid(uuid::Uuid::from_u128(7));
        let mut network = Network::new("n".parse().unwrap(), uuid);
        let on = |own: &str, prefix, first: &str, last: &str, host: &str| NetworkAddress {
            address: own.parse().unwrap(),
            prefix,
            local_ptr: false,
            dhcp: Some(Dhcp {
                ranges: vec![DhcpRange {
                    first: first.parse().unwrap(),
                    last: last.parse().unwrap(),
                    lease: None,
                }],
                hosts: vec![DhcpHost {
                    name: Some("known".to_owned()),
                    address: Some(host.parse().unwrap()),
                    ..DhcpHost::default()
                }],
                ..Dhcp::default()
            }),
            tftp_root: None,
        };
        network.addresses = vec![
            on("10.0.0.1", 24, "10.0.0.10", "10.0.0.19", "10.0.0.99"),
            on("fd00::1", 64, "fd00::1:0", "fd00::1:ffff", "fd00::99"),
        ];
        network
    }

    #[test]
    fn only_leases_that_last_of_addresses_that_are_given_are_kept_once_each() {
        let good = "1764515001 52:54:00:12:34:56 10.0.0.10 a 01:52:54:00:12:34:56\n\
                    0 52:54:00:12:34:57 10.0.0.99 * *\n\
                    duid 00:01:00:01:30:f1:52:54:00:be:d7:03:aa:bb\n\
                    1764515001 7 fd00::1:3ff a 00:03:00:01:52:54:00:12:34:56\n\
                    1764515001 T7 fd00::99 * 00:04:aa\n";
        let given = Given::of(&network());
        let kept = |text: &str| String::from_utf8(kept(text.as_bytes(), &given, NOW)).unwrap();
        assert_eq!(kept(good), good);
        for bad in [
            "1764515000 52:54:00:12:34:58 10.0.0.11 expired *\n",
            "0 52:54:00:12:34:58 10.0.0.20 outside *\n",
            "0 7 fd00::1:400 beyond 00:04:aa\n",
            "0 52:54:00:12:34:58 10.0.0.10 twice *\n",
            "duid 00:04:bb\n",
            "nonsense\n",
            "0 52:54:00:12:34:58 10.0.0.12 half *",
        ] {
            assert_eq!(kept(&format!("{good}{bad}")), good, "{bad}");
        }
    }

    #[test]
    fn a_book_is_made_changed_in_one_step_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (book, network) = (directory.path().join("book"), network());
        let uid = rustix::process::getuid().as_raw();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&book).unwrap());
        make_ready(&book, &network, uid).unwrap();
        assert_eq!(fs::read(&book).unwrap(), b"");
        let good = "0 52:54:00:12:34:57 10.0.0.99 * *\n";
        fs::write(&book, good).unwrap();
        let same = inode();
        make_ready(&book, &network, uid).unwrap();
        assert_eq!(inode(), same);
        // A crash left one half written.
        fs::write(temporary(&book), "x".repeat(99)).unwrap();
        fs::write(&book, format!("{good}{}", "\n".repeat(17 << 20))).unwrap();
        make_ready(&book, &network, uid).unwrap();
        assert_eq!(fs::read_to_string(&book).unwrap(), good);
        assert!(inode() != same && !temporary(&book).exists());
        remove(&book).unwrap();
        remove(&book).unwrap();
        symlink("/dev/null", &book).unwrap();
        let refused = make_ready(&book, &network, uid).unwrap_err();
        assert!(
            refused.message.starts_with("cannot make ready"),
            "{refused}"
        );
    }
}
