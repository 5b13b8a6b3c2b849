//! The NUMA nodes of the host that a domain's memory is on.
//!
//! A worker is born with the policy: the memory of its guest, which it touches first, is where that says, and so is
//! its own. Where the kernel is to hold it there by a cgroup instead, [`super::confinement`] does.

use std::fs;

use reeve_ipc::model::{CpuSet, Domain, NodeMode};
use reeve_sandbox::{MemoryMode, MemoryPolicy, NODE_WORDS};

/// The nodes of the host that are there.
const ONLINE: &str = "/sys/devices/system/node/online";

/// The policy that the worker of a domain is born with.
pub(crate) fn policy(domain: &Domain) -> Option<MemoryPolicy> {
    let nodes = domain.tuning.memory_nodes.as_ref()?;
    let mode = match nodes.mode {
        NodeMode::Strict => MemoryMode::Bind,
        NodeMode::Preferred => MemoryMode::Preferred,
        NodeMode::Interleave => MemoryMode::Interleave,
        NodeMode::Restrictive => return None,
    };
    let mut words = [0_u64; NODE_WORDS];
    for node in nodes.nodes.iter() {
        let (word, bit) = (node / u64::BITS, node % u64::BITS);
        // The model has none beyond.
        if let Some(word) = words.get_mut(usize::try_from(word).unwrap_or(usize::MAX)) {
            *word |= 1 << bit;
        }
    }
    let nodes = words;
    Some(MemoryPolicy { mode, nodes })
}

/// The first node of a domain that the host does not have; without `/sys` the kernel's own answer has to do.
pub(crate) fn missing(domain: &Domain) -> Option<u32> {
    let nodes = domain.tuning.memory_nodes.as_ref()?;
    let online = fs::read_to_string(ONLINE).ok()?;
    let online: CpuSet = online.trim().parse().ok()?;
    let mut nodes = nodes.nodes.iter();
    nodes.find(|node| !online.iter().any(|present| present == *node))
}

#[cfg(test)]
mod tests {
    use reeve_ipc::model::MemoryNodes;

    use super::*;
    use crate::host::confinement::tests::domain;

    fn on(mode: NodeMode, nodes: &str) -> Domain {
        let mut domain = domain();
        let nodes = nodes.parse().unwrap();
        domain.tuning.memory_nodes = Some(MemoryNodes { mode, nodes });
        domain
    }

    #[test]
    fn a_policy_has_the_bits_of_its_nodes() {
        assert_eq!(policy(&domain()), None);
        assert_eq!(policy(&on(NodeMode::Restrictive, "0")), None);
        let policy = policy(&on(NodeMode::Interleave, "0-1,65")).unwrap();
        assert_eq!(policy.mode, MemoryMode::Interleave);
        assert_eq!(policy.nodes[..3], [3, 2, 0]);
    }

    #[test]
    fn a_node_that_the_host_does_not_have_is_missing() {
        assert_eq!(missing(&domain()), None);
        assert_eq!(missing(&on(NodeMode::Strict, "0")), None);
        // Where it is told which there are.
        let told = fs::read_to_string(ONLINE).is_ok();
        let missing = missing(&on(NodeMode::Strict, "0,1023"));
        assert_eq!(missing, told.then_some(1023));
    }
}
