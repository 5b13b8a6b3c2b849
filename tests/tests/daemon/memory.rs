//! Memory that a domain is given while it runs: its guest takes it up and gives it back, a fresh worker and a
//! fresh daemon keep it, a reset takes it away, and what cannot be is refused.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainDestroy, DomainDeviceDetach, DomainDeviceStatsGet, DomainMemorySet, DomainReset,
    DomainUpgrade,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::device::{DeviceFigures, MemoryFigures};
use reeve_ipc::model::{Balloon, Domain, MemorySize, PluggableMemory};
use reeve_tests::daemon::{Daemon, built_in, named};
use reeve_tests::domain::unique_name;

use super::guest::{console, expect};
use super::{assert_at_rest, define, start, wait_until_off};

const MIB: u64 = 1 << 20;
/// A guest that follows what is asked of it, with a mark in each block, and ends by itself if nothing ends it.
const WATCH: &str = "mode=memory-watch ms=120000";
const SOON: Duration = Duration::from_secs(20);

/// 64 MiB at the start, 96 at most.
fn domain(name: &str, balloon: bool) -> Domain {
    let mut domain = built_in(name, WATCH);
    domain.memory = MemorySize::mebibytes(64);
    domain.devices.memory = Some(PluggableMemory {
        max: MemorySize::mebibytes(96),
        address: None,
    });
    domain.devices.balloon = balloon.then(Balloon::default);
    domain
}

fn set(connection: &mut Connection, name: &str, mebibytes: u64) -> Result<(), CallError> {
    connection.call(DomainMemorySet {
        domain: named(name),
        memory: MemorySize(mebibytes * MIB),
    })
}

fn figures(connection: &mut Connection, name: &str) -> Result<MemoryFigures> {
    let domain = named(name);
    let stats = connection.call(DomainDeviceStatsGet { domain })?;
    let figures = stats.iter().find_map(|stats| match stats.figures {
        DeviceFigures::Memory(memory) => Some(memory),
        _ => None,
    });
    figures.context("no memory device")
}

/// Asks for so much, has the guest say that it has it, and the statistics too.
fn resize(
    connection: &mut Connection,
    client: &mut UnixStream,
    name: &str,
    mebibytes: u64,
) -> Result<()> {
    let extra = mebibytes.saturating_sub(64) * MIB;
    set(connection, name, mebibytes)?;
    expect(client, &format!("plugged: {extra}\n"))?;
    let figures = figures(connection, name)?;
    ensure!(figures.requested_bytes == extra, "{figures:?}");
    ensure!(figures.plugged_bytes == extra, "{figures:?}");
    Ok(())
}

fn refusal(result: Result<(), CallError>) -> Result<(ApiErrorCode, String)> {
    match result {
        Err(CallError::Refused(error)) => Ok((error.code, error.message)),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

#[test]
fn memory_comes_and_goes_and_stays_with_a_fresh_worker_and_a_fresh_daemon() -> Result<()> {
    let name = unique_name("grows");
    let mut daemon = Daemon::prepare()?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &domain(&name, true))?;
    start(&mut connection, &name)?;
    let mut client = console(&mut connection, &name, "plugged: 0\n")?;
    let at_first = figures(&mut connection, &name)?;
    let expected = MemoryFigures {
        requested_bytes: 0,
        plugged_bytes: 0,
        most_bytes: 32 * MIB,
        block_bytes: 2 * MIB,
    };
    ensure!(at_first == expected, "{at_first:?}");

    resize(&mut connection, &mut client, &name, 80)?;
    resize(&mut connection, &mut client, &name, 96)?;
    resize(&mut connection, &mut client, &name, 70)?;
    // The marks in what is plugged are looked at all the time; a guest that misses one ends.
    connection.call(DomainUpgrade {
        domain: named(&name),
    })?;
    resize(&mut connection, &mut client, &name, 72)?;
    daemon.kill()?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let deadline = Instant::now() + SOON;
    while set(&mut connection, &name, 74).is_err() {
        ensure!(Instant::now() < deadline, "the domain is not adopted");
        std::thread::sleep(Duration::from_millis(50));
    }
    expect(&mut client, &format!("plugged: {}\n", 10 * MIB))?;
    // Less than it started with leaves nothing plugged.
    resize(&mut connection, &mut client, &name, 32)?;
    resize(&mut connection, &mut client, &name, 96)?;

    // A reset begins without it, and is asked for as much as before.
    connection.call(DomainReset {
        domain: named(&name),
    })?;
    expect(&mut client, "plugged at first: 0\n")?;
    expect(&mut client, &format!("plugged: {}\n", 32 * MIB))?;

    connection.call(DomainDestroy {
        domain: named(&name),
    })?;
    wait_until_off(&mut connection, &name)?;
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn memory_that_cannot_be_is_refused() -> Result<()> {
    let name = unique_name("refused");
    let mut daemon = Daemon::prepare()?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut small = domain(&name, false);
    small.devices.memory = Some(PluggableMemory {
        max: MemorySize(64 * MIB),
        address: None,
    });
    ensure!(define(&mut connection, &small).is_err());
    let mut limited = domain(&name, false);
    limited.limits.memory = Some(MemorySize(95 * MIB));
    let error = define(&mut connection, &limited).expect_err("no room for what it can be given");
    ensure!(format!("{error:#}").contains("max-memory"), "{error:#}");
    define(&mut connection, &domain(&name, false))?;
    start(&mut connection, &name)?;
    let _client = console(&mut connection, &name, "plugged: 0\n")?;
    for (mebibytes, code, text) in [
        (97, ApiErrorCode::InvalidArgument, "2M to 96M"),
        (65, ApiErrorCode::InvalidArgument, "blocks of 2M"),
        (32, ApiErrorCode::NoDevice, "no balloon"),
    ] {
        let (found, message) = refusal(set(&mut connection, &name, mebibytes))?;
        ensure!(found == code && message.contains(text), "{message}");
    }
    let detached = connection.call(DomainDeviceDetach {
        domain: named(&name),
        device: "memory".parse()?,
        force: true,
        live: true,
        persistent: false,
    });
    let (code, message) = refusal(detached)?;
    ensure!(code == ApiErrorCode::Unsupported, "{message}");
    ensure!(message.contains("max-memory"), "{message}");
    connection.call(DomainDestroy {
        domain: named(&name),
    })?;
    wait_until_off(&mut connection, &name)?;
    assert_at_rest(&daemon);
    Ok(())
}
