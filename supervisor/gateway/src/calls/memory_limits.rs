//! Limits of memory as typed parameters, in KiB: guest memory and what its worker needs beside it together.
//!
//! libvirt's limit of memory and swap holds for both together, and so does the model's; that the limit of memory is no
//! more than it is checked here, where libvirt checks it, and in its words.

use std::sync::Arc;

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::model::{Domain as Definition, MemorySize, ResourceLimits};

use super::context::impact;
use super::failure::{Failure, check_flags, invalid_argument};
use super::params::{TEXT_OKAY, ULONG, check, told_within, ulong};
use super::pinning::tune;
use super::{Context, kib};
use crate::wire::types::params::Param;
use crate::wire::types::tuning as wire;

/// The most there can be.
const HARD_LIMIT: &str = "hard_limit";
/// Beyond it the kernel slows the domain down, and takes back what it can (cgroup v2, `memory.high`).
const SOFT_LIMIT: &str = "soft_limit";
/// The most there can be, with what is swapped out.
const SWAP_HARD_LIMIT: &str = "swap_hard_limit";
/// No limit (libvirt `VIR_DOMAIN_MEMORY_PARAM_UNLIMITED`).
const NO_LIMIT_KIB: u64 = 9_007_199_254_740_991;

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetMemoryParameters,
) -> Result<wire::TuneParams, Failure> {
    let known = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, known, "virDomainGetMemoryParameters")?;
    let ResourceLimits {
        memory,
        memory_soft,
        memory_and_swap,
        ..
    } = context.meant(&call.domain, call.flags).await?.limits;
    let told = |name, limit: Option<MemorySize>| {
        let limit = limit.map_or(NO_LIMIT_KIB, |limit| kib(limit.bytes()));
        Param::new(name, limit)
    };
    let params = vec![
        told(HARD_LIMIT, memory),
        told(SOFT_LIMIT, memory_soft),
        told(SWAP_HARD_LIMIT, memory_and_swap),
    ];
    Ok(told_within(params, call.nparams))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetMemoryParameters,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetMemoryParameters")?;
    let params = &call.params.0;
    let known = [HARD_LIMIT, SOFT_LIMIT, SWAP_HARD_LIMIT];
    check(params, &known.map(|name| (name, ULONG)))?;
    let said = |name| {
        ulong(params, name).map(|kib| match kib {
            0 | NO_LIMIT_KIB.. => None,
            kib => Some(MemorySize(kib << 10)),
        })
    };
    let said = Said {
        hard: said(HARD_LIMIT),
        soft: said(SOFT_LIMIT),
        with_swap: said(SWAP_HARD_LIMIT),
    };
    tune(&context, &call.domain, call.flags, |definition| {
        said.changes(definition)
    })
    .await
}

/// What a client says of limits; of each perhaps that there is to be none.
#[derive(Debug, Clone, Copy)]
struct Said {
    hard: Option<Option<MemorySize>>,
    soft: Option<Option<MemorySize>>,
    with_swap: Option<Option<MemorySize>>,
}

impl Said {
    /// What that changes of a definition, which is to be valid after each.
    fn changes(&self, definition: &Definition) -> Result<Vec<TuningChange>, Failure> {
        let before = &definition.limits;
        let hard = self.hard.unwrap_or(before.memory);
        let with_swap = self.with_swap.unwrap_or(before.memory_and_swap);
        let is_within = |hard: Option<MemorySize>, with_swap: Option<MemorySize>| {
            with_swap.is_none_or(|most| hard.is_some_and(|hard| hard <= most))
        };
        let any = self.hard.is_some() || self.with_swap.is_some();
        if any && !is_within(hard, with_swap) {
            let why =
                "memory hard_limit tunable value must be lower than or equal to swap_hard_limit";
            return Err(invalid_argument(why));
        }
        let mut changes: Vec<_> = self
            .soft
            .map(TuningChange::MemorySoftLimit)
            .into_iter()
            .collect();
        let limits = [
            self.with_swap.map(TuningChange::MemoryAndSwapLimit),
            self.hard.map(TuningChange::MemoryLimit),
        ];
        let first = limits.into_iter().flatten();
        match is_within(before.memory, with_swap) {
            true => changes.extend(first),
            // The limit of memory is there by then, or lower.
            false => changes.extend(first.rev()),
        }
        Ok(changes)
    }
}
