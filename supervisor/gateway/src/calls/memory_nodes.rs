//! The host's NUMA nodes that a domain's memory is on (libvirt `<numatune>`), as typed parameters.

use std::sync::Arc;

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::model::{CpuSet, MemoryNodes, NodeMode};

use super::Context;
use super::context::{Impact, impact};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::params::{INT, TEXT, TEXT_OKAY, check, int, text, told_within};
use super::pinning::tune;
use crate::wire::types::params::Param;
use crate::wire::types::tuning as wire;

const MODE: &str = "numa_mode";
const NODES: &str = "numa_nodeset";
/// The longest set of nodes in bytes: more than every one of them by its number takes.
const NODES_BYTES: usize = 8 << 10;

/// By libvirt's number (`virDomainNumatuneMemMode`).
const MODES: [NodeMode; 4] = [
    NodeMode::Strict,
    NodeMode::Preferred,
    NodeMode::Interleave,
    NodeMode::Restrictive,
];

fn number(mode: NodeMode) -> i32 {
    let place = MODES.iter().position(|known| *known == mode);
    i32::try_from(place.unwrap_or_default()).unwrap_or_default()
}

/// What parameters make of it.
fn changed(before: Option<&MemoryNodes>, params: &[Param]) -> Result<Option<MemoryNodes>, Failure> {
    let mode = match int(params, MODE) {
        Some(number) => {
            let place = usize::try_from(number).ok();
            let mode = place.and_then(|place| MODES.get(place));
            let unknown = || invalid_argument(format!("unsupported numatune mode: '{number}'"));
            Some(*mode.ok_or_else(unknown)?)
        }
        None => None,
    };
    let nodes = match text(params, NODES) {
        Some(nodes) => {
            let wrong = || {
                let nodes: String = nodes.chars().take(256).collect();
                invalid_argument(format!("Failed to parse bitmap '{nodes}'"))
            };
            let set = (nodes.len() <= NODES_BYTES).then(|| nodes.parse::<CpuSet>().ok());
            Some(set.flatten().ok_or_else(wrong)?)
        }
        None => None,
    };
    if mode.is_none() && nodes.is_none() {
        return Ok(before.cloned());
    }
    let mode = mode.or_else(|| before.map(|before| before.mode));
    let nodes = nodes.or_else(|| before.map(|before| before.nodes.clone()));
    let none = || {
        let why = "nodeset for NUMA memory tuning must be set if 'placement' is 'static'";
        Failure::new(Code::XmlError, why)
    };
    Ok(Some(MemoryNodes {
        mode: mode.unwrap_or(NodeMode::Strict),
        nodes: nodes.ok_or_else(none)?,
    }))
}

fn parameters(nodes: Option<&MemoryNodes>) -> Vec<Param> {
    let mode = nodes.map_or(NodeMode::Strict, |nodes| nodes.mode);
    let nodes = nodes.map_or_else(String::new, |nodes| nodes.nodes.to_string());
    vec![Param::new(MODE, number(mode)), Param::new(NODES, nodes)]
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetNumaParameters,
) -> Result<wire::TuneParams, Failure> {
    let flags = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, flags, "virDomainGetNumaParameters")?;
    let definition = context.meant(&call.domain, call.flags).await?;
    let mut params = parameters(definition.tuning.memory_nodes.as_ref());
    if call.flags & TEXT_OKAY == 0 {
        params.retain(|param| param.field != NODES);
    }
    Ok(told_within(params, call.nparams))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetNumaParameters,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetNumaParameters")?;
    let params = &call.params.0;
    check(params, &[(MODE, INT), (NODES, TEXT)])?;
    // What is wrong with it is said before anything of the machine that runs.
    let Impact { live, .. } = context.impact(&call.domain, call.flags).await?;
    if live {
        let running = context.definition(&call.domain, false).await?;
        let before = running.tuning.memory_nodes;
        let mode = before.as_ref().map_or(NodeMode::Strict, |nodes| nodes.mode);
        if int(params, MODE).is_some_and(|wanted| wanted != number(mode)) {
            return Err(Failure::invalid(
                "can't change numatune mode for running domain",
            ));
        }
        if text(params, NODES).is_some() && mode != NodeMode::Restrictive {
            changed(before.as_ref(), params)?;
            let why = "change of nodeset for running domain requires restrictive numa mode";
            return Err(Failure::invalid(why));
        }
    }
    tune(&context, &call.domain, call.flags, |definition| {
        let before = definition.tuning.memory_nodes.as_ref();
        let nodes = changed(before, params)?;
        let change = (nodes.as_ref() != before).then_some(TuningChange::MemoryNodes(nodes));
        Ok(change.into_iter().collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_set_and_each_half_of_it_changes_alone() {
        let nodes = |mode, nodes: &str| MemoryNodes {
            mode,
            nodes: nodes.parse().unwrap(),
        };
        for mode in MODES {
            let some = nodes(mode, "0-1,3");
            let told = parameters(Some(&some));
            assert_eq!(changed(None, &told), Ok(Some(some)));
        }
        let before = nodes(NodeMode::Interleave, "0");
        let others = changed(Some(&before), &[Param::new(NODES, "1")]);
        assert_eq!(others, Ok(Some(nodes(NodeMode::Interleave, "1"))));
        let another = changed(Some(&before), &[Param::new(MODE, 3_i32)]);
        assert_eq!(another, Ok(Some(nodes(NodeMode::Restrictive, "0"))));
        assert_eq!(changed(Some(&before), &[]), Ok(Some(before)));
        assert_eq!(changed(None, &[]), Ok(None));
    }

    #[test]
    fn what_is_no_mode_or_no_set_is_refused() {
        let long = "0,".repeat(NODES_BYTES);
        for param in [
            Param::new(MODE, 4_i32),
            Param::new(MODE, -1_i32),
            Param::new(MODE, 0_i32),
            Param::new(NODES, "nothing"),
            Param::new(NODES, ""),
            Param::new(NODES, long),
        ] {
            assert!(
                changed(None, std::slice::from_ref(&param)).is_err(),
                "{}",
                param.field
            );
        }
    }
}
