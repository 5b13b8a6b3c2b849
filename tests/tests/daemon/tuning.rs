//! What a domain is held to, where the daemon dies between noting it and doing it: the next one does it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{DomainDefinitionGet, DomainDeviceStatsGet, DomainTune, TuningChange};
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::{Balloon, Domain, MemorySize, PluggableMemory};
use reeve_tests::daemon::{Daemon, built_in, named};
use reeve_tests::domain::{status, unique_name, workers};

use super::world::end_everything;
use super::{ECHO, define, start};

const SOON: Duration = Duration::from_secs(10);

/// The CPUs that the vCPU of a domain's worker may run on.
fn vcpu_cpus(name: &str) -> Result<String> {
    let pid = *workers(name).first().context("no worker")?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // Another thread may end meanwhile.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "vcpu0" {
            let mut status = status(&path.join("status").display().to_string())?;
            return status.remove("Cpus_allowed_list").context("no list");
        }
    }
    anyhow::bail!("no vCPU")
}

fn last_of(cpus: &str) -> Result<&str> {
    cpus.rsplit([',', '-']).next().context("no CPU")
}

fn soon(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Asks for what the daemon dies of.
fn dies(daemon: &mut Daemon, asked: Result<(), CallError>) -> Result<()> {
    ensure!(
        matches!(
            asked,
            Ok(()) | Err(CallError::Closed | CallError::Socket(_))
        ),
        "{asked:?}"
    );
    daemon.wait_for_end()?;
    daemon.set("REEVE_CRASH", "");
    Ok(())
}

#[test]
fn a_vcpu_that_was_to_be_bound_is_bound_by_the_next_supervisor() -> Result<()> {
    let domain = built_in(&unique_name("bound"), ECHO);
    let name = domain.name.as_str();
    let mut daemon = Daemon::prepare()?;
    daemon.set("REEVE_CRASH", "tune.after-status");
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &domain)?;
    start(&mut connection, name)?;
    // The thread takes its name when it begins.
    soon("it has no vCPU", || Ok(vcpu_cpus(name).is_ok()))?;
    let anywhere = vcpu_cpus(name)?;
    let last = last_of(&anywhere)?;
    let asked = bind(&mut connection, name, last);
    dies(&mut daemon, asked)?;
    ensure!(vcpu_cpus(name)? == anywhere, "it was noted, and no more");
    daemon.spawn()?;
    soon("it is not bound", || Ok(vcpu_cpus(name)? == last))?;
    end_everything(&daemon, &[domain])
}

fn bind(connection: &mut Connection, name: &str, cpus: &str) -> Result<(), CallError> {
    let vcpu = TuningChange::VcpuCpus {
        vcpu: 0,
        cpus: Some(cpus.parse().expect("CPUs")),
    };
    connection.call(DomainTune {
        domain: named(name),
        changes: vec![vcpu],
        live: true,
        persistent: false,
    })
}

/// Whether the definition that a domain runs with binds its vCPU.
fn is_bound(connection: &mut Connection, name: &str) -> Result<bool> {
    let definition = connection.call(DomainDefinitionGet {
        domain: named(name),
        persistent: false,
    })?;
    Ok(!definition.domain.pinning.is_empty())
}

/// A CPU that this host does not have.
const NO_CPU: &str = "4095";

#[test]
fn what_the_host_lacks_is_never_noted_and_is_taken_back_where_it_lacks_it_by_then() -> Result<()> {
    let domain = built_in(&unique_name("lacked"), ECHO);
    let name = domain.name.as_str();
    let mut daemon = Daemon::prepare()?;
    daemon.set("REEVE_CRASH", "tune.after-status");
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &domain)?;
    start(&mut connection, name)?;
    soon("it has no vCPU", || Ok(vcpu_cpus(name).is_ok()))?;
    let anywhere = vcpu_cpus(name)?;
    let refused = bind(&mut connection, name, NO_CPU);
    ensure!(
        matches!(&refused, Err(CallError::Refused(error)) if error.message.contains(NO_CPU)),
        "{refused:?}"
    );
    ensure!(!is_bound(&mut connection, name)?, "and the daemon lives");
    let last = last_of(&anywhere)?;
    let asked = bind(&mut connection, name, last);
    dies(&mut daemon, asked)?;
    // The host loses that CPU.
    let directory = daemon.run().join("domains").join(domain.uuid.to_string());
    let path = directory.join("status.json");
    let status = fs::read_to_string(&path)?;
    let (noted, lacked) = (
        format!("\"host_cpus\": \"{last}\""),
        format!("\"host_cpus\": \"{NO_CPU}\""),
    );
    ensure!(status.contains(&noted), "{status}");
    fs::write(&path, status.replace(&noted, &lacked))?;
    for _ in 0..2 {
        daemon.spawn()?;
        let mut connection = daemon.connect()?;
        soon("it is not taken back", || {
            Ok(!is_bound(&mut connection, name)?
                && !fs::read_to_string(&path)?.contains("\"tuning\""))
        })?;
        ensure!(vcpu_cpus(name)? == anywhere);
        // A change that the host has for it is made.
        bind(&mut connection, name, last)?;
        ensure!(vcpu_cpus(name)? == last);
        let loose = TuningChange::VcpuCpus {
            vcpu: 0,
            cpus: None,
        };
        connection.call(DomainTune {
            domain: named(name),
            changes: vec![loose],
            live: true,
            persistent: false,
        })?;
        daemon.kill()?;
    }
    daemon.spawn()?;
    end_everything(&daemon, &[domain])
}

fn requested(connection: &mut Connection, name: &str) -> Result<u64> {
    let domain = named(name);
    let stats = connection.call(DomainDeviceStatsGet { domain })?;
    let requested = stats.iter().find_map(|stats| match stats.figures {
        DeviceFigures::Memory(memory) => Some(memory.requested_bytes),
        _ => None,
    });
    requested.context("no memory device")
}

/// 64 MiB at the start, 96 at most, of which its guest is to have 80.
fn growing() -> Domain {
    let mut domain = built_in(&unique_name("grown"), ECHO);
    domain.memory = MemorySize::mebibytes(64);
    domain.devices.memory = Some(PluggableMemory {
        max: MemorySize::mebibytes(96),
        address: None,
    });
    domain.devices.balloon = Some(Balloon::default());
    domain.tuning.current_memory = Some(MemorySize::mebibytes(80));
    domain
}

#[test]
fn a_guest_that_was_to_be_asked_for_memory_is_asked_by_the_next_supervisor() -> Result<()> {
    let domain = growing();
    let name = domain.name.as_str();
    let mut daemon = Daemon::prepare()?;
    daemon.set("REEVE_CRASH", "tune.before-call");
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &domain)?;
    let started = start(&mut connection, name);
    ensure!(
        started.is_ok()
            || connection
                .call(DomainDeviceStatsGet {
                    domain: named(name)
                })
                .is_err()
    );
    dies(&mut daemon, Ok(()))?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    soon("it is not asked", || {
        Ok(requested(&mut connection, name).is_ok_and(|bytes| bytes == 16 << 20))
    })?;
    drop(connection);
    end_everything(&daemon, &[domain])
}
