//! What domains use of the host, one a line.

use std::time::Duration;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::DomainFiguresList;
use reeve_ipc::api::figures::{DomainFigures, FigureGroups, FiguresOf};
use serde_json::{Value, json};

use super::{human, state, summary_json};
use crate::daemon::table::Table;
use crate::daemon::{CommandError, Output, json as print_json, print};

pub(super) fn list(
    connection: &mut Connection,
    out: Output,
    active_only: bool,
) -> Result<(), CommandError> {
    let domains = figures(connection, active_only)?;
    if out.json {
        let values: Vec<Value> = domains.iter().map(value).collect();
        return print_json(&values);
    }
    print(&table(&domains))
}

fn figures(
    connection: &mut Connection,
    active_only: bool,
) -> Result<Vec<DomainFigures>, CommandError> {
    let mut all: Vec<DomainFigures> = Vec::new();
    loop {
        let after = all.last().map(|last| last.summary.name.clone());
        let groups = FigureGroups {
            usage: true,
            ..FigureGroups::default()
        };
        let of = FiguresOf::All { after, active_only };
        let page = connection.call(DomainFiguresList { of, groups })?;
        let more = page.more && !page.domains.is_empty();
        all.extend(page.domains);
        if !more {
            return Ok(all);
        }
    }
}

fn table(domains: &[DomainFigures]) -> String {
    let header = [
        "ID", "NAME", "STATE", "CPUS", "CPU TIME", "MEMORY", "RESIDENT",
    ];
    let mut table = Table::new(&header);
    for DomainFigures { summary, usage, .. } in domains {
        let dash = || "-".to_owned();
        let time = usage.map(|usage| {
            let time = Duration::from_nanos(usage.cpu_time_ns);
            format!("{:.1}s", time.as_secs_f64())
        });
        table.row(vec![
            summary.id.map_or_else(dash, |id| id.to_string()),
            summary.name.to_string(),
            state(summary),
            summary.vcpus.to_string(),
            time.unwrap_or_else(dash),
            human(summary.current_memory.bytes()),
            usage.map_or_else(dash, |usage| human(usage.resident_bytes)),
        ]);
    }
    table.render()
}

/// A domain as in a list, with what it uses.
fn value(figures: &DomainFigures) -> Value {
    let mut value = summary_json(&figures.summary);
    if let Value::Object(fields) = &mut value {
        fields.insert("usage".to_owned(), json!(figures.usage));
    }
    value
}
