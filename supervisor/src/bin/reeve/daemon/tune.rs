//! What a domain is held to: its guest's memory, where its worker runs, and what that may use.

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainCurrentMemorySet, DomainMaxMemorySet, DomainTune, TuningChange};
use reeve_ipc::api::view::DomainSummary;

use super::args::{SetMemoryArgs, TuneArgs};
use super::devices::{done, summary};
use super::{CommandError, Output};

/// Whether the machine and the kept definition are meant, where that may have been said.
const fn reach(summary: &DomainSummary, live: bool, config: bool) -> (bool, bool) {
    let active = summary.state.is_active();
    match (live, config) {
        (false, false) => (active, !active),
        said => said,
    }
}

pub(super) fn set_memory(
    connection: &mut Connection,
    out: Output,
    args: &SetMemoryArgs,
) -> Result<(), CommandError> {
    let summary = summary(connection, &args.domain)?;
    let (domain, memory) = (args.domain.clone(), args.memory);
    if args.max {
        connection.call(DomainMaxMemorySet { domain, memory })?;
        return done(out, &summary);
    }
    let (live, persistent) = match (args.live, args.config) {
        // A guest is asked, or it is an error: its definition is changed where that is said only.
        (false, false) => (true, false),
        said => said,
    };
    connection.call(DomainCurrentMemorySet {
        domain,
        memory,
        live,
        persistent,
    })?;
    done(out, &summary)
}

pub(super) fn tune(
    connection: &mut Connection,
    out: Output,
    args: &TuneArgs,
) -> Result<(), CommandError> {
    // Where both are said, no step in between may leave less for memory and swap than for memory.
    let lifted = args
        .limit_memory
        .as_ref()
        .and(args.limit_memory_and_swap.as_ref());
    let lifted = lifted.map(|_| TuningChange::MemoryAndSwapLimit(None));
    let others = [
        &args.emulator,
        &lifted,
        &args.limit_memory,
        &args.limit_memory_soft,
        &args.limit_memory_and_swap,
        &args.limit_cpu,
        &args.limit_vcpus,
        &args.cpu_weight,
    ];
    let others = others.into_iter().flatten();
    let changes: Vec<TuningChange> = args.vcpu.iter().chain(others).cloned().collect();
    if changes.is_empty() {
        let nothing = "nothing to change: say --vcpu, --emulator, a limit or --cpu-weight";
        return Err(CommandError::Usage(nothing.to_owned()));
    }
    let summary = summary(connection, &args.domain)?;
    let (live, persistent) = reach(&summary, args.live, args.config);
    connection.call(DomainTune {
        domain: args.domain.clone(),
        changes,
        live,
        persistent,
    })?;
    done(out, &summary)
}
