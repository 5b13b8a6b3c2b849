//! Interfaces of type `user`: a passt for each, in a jail of its own, which speaks for one guest to whatever a plain
//! process of the host reaches.
//!
//! ```text
//!   guest ─► worker ═ frames, each behind its length ═ passt ─ sockets of its own ─► the host's network
//! ```
//!
//! Nothing is made on the host: no link, no address, no rule. passt answers the guest's DHCP, NDP and ARP by itself,
//! and gives it the host's own address. It runs where the supervisor's network is, without power over it, as the
//! domain's user; it makes a further jail for itself. The guest reaches nothing of the host's loopback, and nobody
//! reaches the guest: `--no-map-gw`, and no port is forwarded. Where the host has its server of names on its loopback
//! alone, as with systemd-resolved, the guest asks it, by UDP, at an address of its own
//! ([`program::OWN_RESOLVER`]), which passt tells it of.
//!
//! Once the worker has its ends, the process is its own affair, as those of shared directories are
//! ([`super::shares`]): it ends when they are closed, and outlives this supervisor as the worker does.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use reeve_ipc::spec::MacAddress;
use reeve_sandbox::program::{self, Program, ProgramError, Serves};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::identity::Level;
use super::reason;
use super::shares::{Serving, ShareServers, Sharer};

/// Where distributions have it.
pub const PLACES: [&str; 2] = ["/usr/bin/passt", "/usr/local/bin/passt"];

/// Why nobody speaks for a guest. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum UserNetworkError {
    /// There is no program for it.
    #[error(
        "no passt is there to serve network interface {mac}: install it with 'sudo apt install passt', or \
         connect the interface to a bridge or a network"
    )]
    Missing {
        /// The interface.
        mac: MacAddress,
    },
    /// The guests are of several tenants.
    #[error(
        "network interface {mac} would reach all that this host reaches, which a host of several tenants \
         lets none do (multi_tenant in reeve.toml): connect it to a bridge or a network"
    )]
    Tenants {
        /// The interface.
        mac: MacAddress,
    },
    /// No socket.
    #[error("cannot make the socket of network interface {mac}: {}", reason(*.errno))]
    Socket {
        /// The interface.
        mac: MacAddress,
        /// Why.
        errno: Errno,
    },
    /// No process.
    #[error("cannot start {program} for network interface {mac}: {error}", program = .program.display())]
    Program {
        /// The interface.
        mac: MacAddress,
        /// The program.
        program: PathBuf,
        /// Why.
        error: ProgramError,
    },
}

/// The first that is there.
#[must_use]
pub fn find() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .find(|place| place.is_file())
}

/// Starts a process that speaks for the interface with that address of `sharer`'s; waits for it to be executed.
///
/// # Errors
/// [`UserNetworkError`]; nothing is left of it.
pub(crate) fn serve(
    servers: &ShareServers,
    (mac, mtu): (MacAddress, Option<u16>),
    sharer: &Sharer,
) -> Result<Serving, UserNetworkError> {
    let program = find().ok_or(UserNetworkError::Missing { mac })?;
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (socket, theirs): (OwnedFd, OwnedFd) =
        pair.map_err(|errno| UserNetworkError::Socket { mac, errno })?;
    let identity = match sharer.level {
        Level::User => reeve_sandbox::Identity::Caller,
        Level::System => reeve_sandbox::Identity::Block {
            uid: sharer.uid,
            gid: sharer.uid,
        },
    };
    let words = program::launch(&Program {
        launcher: servers.launcher(),
        path: &program,
        arguments: &arguments(mtu),
        serves: Serves::Network,
        identity,
        cgroup: sharer.cgroup.as_deref(),
        handed: theirs.as_fd(),
    });
    match words {
        Ok(words) => Ok(Serving { socket, words }),
        Err(error) => Err(UserNetworkError::Program {
            mac,
            program,
            error,
        }),
    }
}

fn arguments(mtu: Option<u16>) -> Vec<OsString> {
    let mut arguments = vec![
        "--foreground".to_owned(),
        "--quiet".to_owned(),
        "--no-map-gw".to_owned(),
        "--tcp-ports=none".to_owned(),
        "--udp-ports=none".to_owned(),
        format!("--dns-forward={}", program::OWN_RESOLVER),
        format!("--fd={}", program::HANDED_FD),
    ];
    if let Some(mtu) = mtu {
        arguments.push(format!("--mtu={mtu}"));
    }
    arguments.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_of_the_guest_is_anybody_s_and_no_loopback_the_guest_s() {
        let said = arguments(None);
        for word in ["--no-map-gw", "--tcp-ports=none", "--udp-ports=none"] {
            assert!(said.iter().any(|argument| argument == word), "{said:?}");
        }
        assert!(arguments(Some(1400)).contains(&"--mtu=1400".into()));
    }
}
