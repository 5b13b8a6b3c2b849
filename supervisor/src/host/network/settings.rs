//! Settings of the host (sysctl(8)), and what a bridge of ours is to do by itself. Settings of a bridge go with it; those
//! of the host as a whole are `forwarding.rs`'s.

use std::fs;
use std::path::{Path, PathBuf};

use reeve_ipc::model::Network;

use super::NetworkHostError;
use super::failure::{host, host_io};

/// Where they are.
const SETTINGS: &str = "/proc/sys";

pub(super) fn path(name: &str) -> PathBuf {
    Path::new(SETTINGS).join(name)
}

pub(super) fn read(name: &str) -> Result<String, NetworkHostError> {
    let path = path(name);
    let value = fs::read_to_string(&path);
    value
        .map(|value| value.trim().to_owned())
        .map_err(|error| host_io("cannot read", &path, &error))
}

pub(super) fn write(name: &str, value: &str) -> Result<(), NetworkHostError> {
    let path = path(name);
    fs::write(&path, value).map_err(|error| {
        if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
            return host(format!(
                "cannot set {}: it is read-only where reeved runs; its unit needs ReadWritePaths=/proc/sys/net, or \
                 set it yourself with 'sudo sysctl -w {}={value}'",
                path.display(),
                name.replace('/', ".")
            ));
        }
        host_io("cannot set", &path, &error)
    })
}

/// What a bridge does by itself: it is no host that asks routers for addresses, and speaks IPv6 only where the network
/// has an address of it.
pub(super) fn of_bridge(bridge: &str, network: &Network) -> Result<(), NetworkHostError> {
    let directory = format!("net/ipv6/conf/{bridge}");
    if !path(&directory).is_dir() {
        // A kernel without IPv6.
        return Ok(());
    }
    let ipv6 = network
        .addresses
        .iter()
        .any(|address| address.address.is_ipv6());
    let disabled = if ipv6 { "0" } else { "1" };
    for (name, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("disable_ipv6", disabled),
    ] {
        let name = format!("{directory}/{name}");
        if read(&name)? != value {
            write(&name, value)?;
        }
    }
    Ok(())
}

/// Whether an interface goes on listening to routers where the host is one itself.
pub(super) fn listens_to_routers(interface: &str) -> bool {
    read(&format!("net/ipv6/conf/{interface}/accept_ra")).is_ok_and(|value| value == "2")
}
