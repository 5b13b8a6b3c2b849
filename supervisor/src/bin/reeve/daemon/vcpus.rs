//! vCPUs of domains: how many, and what they have done.

use std::time::Duration;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::DomainVcpusSet;
use reeve_ipc::api::view::VcpuStats;
use serde_json::{Value, json};

use super::args::SetVcpusArgs;
use super::devices::{done, summary};
use super::table::Table;
use super::{CommandError, Output};

pub(super) fn set(
    connection: &mut Connection,
    out: Output,
    args: &SetVcpusArgs,
) -> Result<(), CommandError> {
    let summary = summary(connection, &args.domain)?;
    let active = summary.state.is_active();
    let (live, persistent) = match (args.live, args.config) {
        (false, false) => (active, !active),
        said => said,
    };
    connection.call(DomainVcpusSet {
        domain: args.domain.clone(),
        vcpus: args.vcpus,
        live,
        persistent,
    })?;
    done(out, &summary)
}

/// A row for each; nothing where there are none.
pub(super) fn table(stats: &[VcpuStats]) -> String {
    if stats.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["VCPU", "RUN", "WAIT"]);
    let seconds = |ns: u64| format!("{:.3}s", Duration::from_nanos(ns).as_secs_f64());
    for VcpuStats {
        vcpu,
        run_ns,
        wait_ns,
    } in stats
    {
        let wait = wait_ns.map_or_else(|| "-".to_owned(), seconds);
        table.row(vec![vcpu.to_string(), seconds(*run_ns), wait]);
    }
    table.render()
}

/// As a device's, which it stands beside.
pub(super) fn json(stats: &VcpuStats) -> Value {
    let VcpuStats {
        vcpu,
        run_ns,
        wait_ns,
    } = stats;
    json!({
        "device": format!("vcpu{vcpu}"),
        "address": null,
        "kind": "vcpu",
        "host": null,
        "figures": { "run_ns": run_ns, "wait_ns": wait_ns },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_has_a_row_and_any_figure_fits() {
        let stats = [
            VcpuStats {
                vcpu: 0,
                run_ns: 1_234_567_890,
                wait_ns: Some(u64::MAX),
            },
            VcpuStats {
                vcpu: 1023,
                run_ns: u64::MAX,
                wait_ns: None,
            },
        ];
        let text = table(&stats);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("1.235s"), "{text}");
        assert!(text.trim_end().ends_with('-'), "{text}");
        assert_eq!(table(&[]), "");
        assert_eq!(json(&stats[1])["figures"]["wait_ns"], Value::Null);
        assert_eq!(json(&stats[1])["device"], "vcpu1023");
    }
}
