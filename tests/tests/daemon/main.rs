//! The daemon as its clients see it: real `reeved` processes over real KVM, each an instance of its
//! own in two directories, with the built-in guest.

mod crash;
mod crash_points;
mod descriptors;
mod devices;
mod directories;
mod guest;
mod hostile;
mod life;
mod linux;
mod linux_platform;
mod linux_upgrade;
mod lying;
mod media;
mod media_linux;
mod memory;
mod memory_linux;
mod networks;
mod platform;
mod policies;
mod ports;
mod readopt;
mod script;
mod shares;
mod signals;
mod silent;
mod stage;
mod strays;
mod tuning;
mod upgrade;
mod vcpus;
mod vsock;
mod world;

use anyhow::Result;
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainDefine, DomainStart, StartOptions};
use reeve_ipc::api::view::DomainState;
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, named, wait_for};

/// A guest that says it is ready, echoes, and powers off at its button.
const ECHO: &str = "mode=echo";

/// Defines.
fn define(connection: &mut Connection, domain: &Domain) -> Result<()> {
    connection.call(DomainDefine {
        definition: Box::new(domain.clone()),
        only_new: false,
    })?;
    Ok(())
}

/// Starts.
fn start(connection: &mut Connection, name: &str) -> Result<()> {
    connection.call(DomainStart {
        domain: named(name),
        options: StartOptions::default(),
    })?;
    Ok(())
}

/// Waits until the domain is off.
fn wait_until_off(connection: &mut Connection, name: &str) -> Result<()> {
    wait_for(connection, &named(name), |details| {
        details.is_none_or(|details| {
            matches!(details.summary.state, DomainState::ShutOff(_)) && !details.summary.reaping
        })
    })?;
    Ok(())
}

/// Asserts that nothing is left of workers: no process, no status.
///
/// # Panics
/// With what is left.
fn assert_at_rest(daemon: &Daemon) {
    let workers = daemon.workers();
    assert!(workers.is_empty(), "workers are left: {workers:?}");
    let left: Vec<_> = std::fs::read_dir(daemon.run().join("domains"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "run-time status is left: {left:?}");
}
