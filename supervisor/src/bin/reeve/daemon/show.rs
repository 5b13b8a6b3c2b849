//! What is there: lists, one domain, the daemon itself.

mod devices;
mod usage;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDefinitionGet, DomainGet, DomainRef, DomainStatsGet, SupervisorInfoGet,
};
use reeve_ipc::api::view::{DomainStats, DomainSummary, SupervisorInfo};
use reeve_ipc::model::MemorySize;
use reeved::logging::printable;
use serde_json::{Value, json};

use super::args::ListArgs;
use super::table::{Table, fields};
use super::{CommandError, Output, json, print};

pub(super) fn list(
    connection: &mut Connection,
    out: Output,
    args: &ListArgs,
) -> Result<(), CommandError> {
    if args.long {
        return usage::list(connection, out, !args.all);
    }
    let domains = connection.domains(!args.all)?;
    if out.json {
        let values: Vec<Value> = domains.iter().map(summary_json).collect();
        return json(&values);
    }
    if args.quiet {
        let names = domains
            .iter()
            .map(|domain| printable(domain.name.as_str()) + "\n");
        return print(&names.collect::<String>());
    }
    let mut table = Table::new(&["ID", "NAME", "STATE", "CPUS", "MEMORY", "TITLE"]);
    for domain in &domains {
        table.row(vec![
            domain
                .id
                .map_or_else(|| "-".to_owned(), |id| id.to_string()),
            domain.name.to_string(),
            state(domain),
            domain.vcpus.to_string(),
            domain.memory.to_string(),
            domain.title.clone().unwrap_or_default(),
        ]);
    }
    print(&table.render())
}

/// The state with what else stands in the way of using the domain.
fn state(domain: &DomainSummary) -> String {
    let mut state = domain.state.name().to_owned();
    if domain.unresponsive {
        state.push_str(" (does not answer)");
    }
    if domain.reaping {
        state.push_str(" (being reaped)");
    }
    state
}

/// A domain in a list, with keys that stay.
pub(super) fn summary_json(domain: &DomainSummary) -> Value {
    json!({
        "name": domain.name,
        "uuid": domain.uuid,
        "id": domain.id,
        "state": domain.state.name(),
        "reason": domain.state.reason(),
        "persistent": domain.persistent,
        "autostart": domain.autostart,
        "cpus": domain.vcpus,
        "max_cpus": domain.max_vcpus,
        "memory_bytes": domain.memory.bytes(),
        "current_memory_bytes": domain.current_memory.bytes(),
        "max_memory_bytes": domain.max_memory.bytes(),
        "title": domain.title,
        "unresponsive": domain.unresponsive,
        "reaping": domain.reaping,
        "job": domain.job.map(|job| job.verb()),
    })
}

pub(super) fn info(
    connection: &mut Connection,
    out: Output,
    domain: &DomainRef,
) -> Result<(), CommandError> {
    let details = connection.call(DomainGet {
        domain: domain.clone(),
    })?;
    let active = details.summary.state.is_active();
    let stats = stats(connection, domain, active);
    let definition = connection.call(DomainDefinitionGet {
        domain: domain.clone(),
        persistent: !active,
    });
    // It may be gone by now, with everything else still worth showing.
    let definition = definition.ok().map(|definition| definition.domain);
    let (devices, platform) = match definition {
        Some(domain) => (Some(domain.devices), Some(domain.platform)),
        None => (None, None),
    };
    if out.json {
        let mut value = summary_json(&details.summary);
        if let Value::Object(fields) = &mut value {
            fields.insert("started_unix_ms".to_owned(), json!(details.started_ms));
            fields.insert("resets".to_owned(), json!(details.resets));
            fields.insert("last_failure".to_owned(), json!(details.last_failure));
            fields.insert("redefined".to_owned(), json!(details.redefined));
            fields.insert("worker".to_owned(), json!(details.worker));
            fields.insert("stats".to_owned(), json!(stats));
            fields.insert("devices".to_owned(), json!(devices));
            fields.insert("platform".to_owned(), json!(platform));
        }
        return json(&value);
    }
    let summary = &details.summary;
    let mut lines = vec![
        ("Name", summary.name.to_string()),
        ("UUID", summary.uuid.to_string()),
        (
            "State",
            format!("{} ({})", state(summary), summary.state.reason()),
        ),
        (
            "CPUs",
            match (summary.vcpus, summary.max_vcpus) {
                (vcpus, most) if vcpus == most => vcpus.to_string(),
                (vcpus, most) => format!("{vcpus} of {most}"),
            },
        ),
        (
            "Memory",
            match (summary.current_memory, summary.memory) {
                (now, memory) if now == memory => memory.to_string(),
                (now, memory) => format!("{memory}, its guest has {}", human(now.bytes())),
            },
        ),
        (
            "Kept",
            if summary.persistent {
                "yes"
            } else {
                "no: gone when it ends"
            }
            .to_owned(),
        ),
        (
            "Autostart",
            summary
                .autostart
                .map_or_else(|| "no".to_owned(), |order| format!("yes, place {order}")),
        ),
    ];
    lines.extend(devices.iter().flat_map(devices::lines));
    lines.extend(platform.map(|platform| ("Platform", devices::platform(platform))));
    if let Some(title) = &summary.title {
        lines.push(("Title", title.clone()));
    }
    if let Some(id) = summary.id {
        lines.push(("ID", id.to_string()));
    }
    if let Some(started) = details.started_ms {
        lines.push(("Running for", ago(started)));
        lines.push(("Resets", details.resets.to_string()));
    }
    if let Some(worker) = &details.worker {
        let own = if worker.own_uid {
            "its own"
        } else {
            "shared with its caller"
        };
        lines.push((
            "Worker",
            format!("pid {}, uid {} ({own})", worker.pid, worker.uid),
        ));
        if let Some(cgroup) = &worker.cgroup {
            lines.push(("Cgroup", cgroup.clone()));
        }
    }
    if let Some(stats) = stats {
        lines.push((
            "CPU time",
            format!("{:.1?}", Duration::from_nanos(stats.cpu_time_ns)),
        ));
        lines.push(("Resident", human(stats.resident_bytes)));
    }
    if let Some(job) = summary.job {
        lines.push(("Job", job.verb().to_owned()));
    }
    if details.redefined {
        lines.push((
            "Definition",
            "another one waits for the next start".to_owned(),
        ));
    }
    if let Some(failure) = &details.last_failure {
        lines.push(("Last failure", failure.clone()));
    }
    print(&fields(&lines))
}

/// What the worker says, where there is one that answers.
fn stats(connection: &mut Connection, domain: &DomainRef, active: bool) -> Option<DomainStats> {
    let asked = active.then(|| {
        connection.call(DomainStatsGet {
            domain: domain.clone(),
        })
    });
    asked?.ok()
}

pub(super) fn inspect(connection: &mut Connection, domain: &DomainRef) -> Result<(), CommandError> {
    let details = connection.call(DomainGet {
        domain: domain.clone(),
    })?;
    let active = details.summary.state.is_active();
    let mut definition = |persistent| {
        let call = DomainDefinitionGet {
            domain: domain.clone(),
            persistent,
        };
        connection.call(call).ok()
    };
    let kept = details
        .summary
        .persistent
        .then(|| definition(true))
        .flatten();
    let live = active.then(|| definition(false)).flatten();
    let stats = stats(connection, domain, active);
    json(&json!({
        "summary": summary_json(&details.summary),
        "started_unix_ms": details.started_ms,
        "resets": details.resets,
        "last_failure": details.last_failure,
        "redefined": details.redefined,
        "worker": details.worker,
        "stats": stats,
        "definition": kept.map(|kept| kept.domain),
        "live_definition": live.map(|live| live.domain),
    }))
}

pub(super) fn status(connection: &mut Connection, out: Output) -> Result<(), CommandError> {
    let info = connection.call(SupervisorInfoGet {})?;
    let access = connection.access();
    out.value(&info, || {
        let SupervisorInfo {
            build,
            pid,
            started_ms,
            state_directory,
            run_directory,
            active,
            inactive,
            adopted,
            adopted_within_us,
            clients,
            refused,
        } = &info;
        let mut lines = vec![
            ("Build", build.clone()),
            ("Pid", pid.to_string()),
            ("Running for", ago(*started_ms)),
            ("Domains", format!("{active} running, {inactive} off")),
            (
                "Taken over",
                format!("{adopted} at the start, in {adopted_within_us} µs"),
            ),
            ("Clients", clients.to_string()),
            ("Access", access.to_string()),
            ("State", state_directory.clone()),
            ("Run", run_directory.clone()),
        ];
        lines.extend(refused.iter().map(|line| ("Not loaded", line.clone())));
        fields(&lines)
    })
}

fn ago(ms: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(ms);
    let seconds = SystemTime::now()
        .duration_since(then)
        .unwrap_or_default()
        .as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// Bytes in whole KiB or MiB, rounded up: for the eye.
pub(super) fn human(bytes: u64) -> String {
    let unit = if bytes >= 10 << 20 { 20 } else { 10 };
    let whole = bytes.div_ceil(1 << unit).checked_mul(1 << unit);
    MemorySize(whole.unwrap_or(bytes)).to_string()
}
