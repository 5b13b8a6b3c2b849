//! Which of the host's CPUs may run a vCPU.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ModelError;

/// The most CPUs of a host that a set may name: numbers below this.
pub const MAX_HOST_CPUS: u32 = 4096;

/// Host CPUs by number: at least one, each below [`MAX_HOST_CPUS`], rising. Written as `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub struct CpuSet {
    /// First and last of each range; apart from each other and rising.
    ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// Every CPU of the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// What a decoder counts for it: a length, and two numbers a range.
    pub(crate) fn bytes(&self) -> usize {
        8 + 8 * self.ranges.len()
    }
}

impl TryFrom<Vec<(u32, u32)>> for CpuSet {
    type Error = ModelError;

    fn try_from(mut ranges: Vec<(u32, u32)>) -> Result<Self, ModelError> {
        let fits = |(first, last): &(u32, u32)| first <= last && *last < MAX_HOST_CPUS;
        if ranges.is_empty() || !ranges.iter().all(fits) {
            return Err(ModelError::CpuSet);
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Ok(Self { ranges: merged })
    }
}

impl From<CpuSet> for Vec<(u32, u32)> {
    fn from(set: CpuSet) -> Self {
        set.ranges
    }
}

impl FromStr for CpuSet {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| ModelError::CpuSet);
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Ok((number(first)?, number(last)?)),
            None => number(part).map(|cpu| (cpu, cpu)),
        };
        let ranges: Result<Vec<_>, _> = text.split(',').map(range).collect();
        Self::try_from(ranges?)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// One vCPU bound to host CPUs (libvirt `<vcpupin>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuPin {
    /// The vCPU, from 0.
    pub vcpu: u32,
    /// Where it may run.
    pub cpus: CpuSet,
}

impl VcpuPin {
    /// What a decoder counts for it: the vCPU, and its CPUs.
    pub(super) fn bytes(&self) -> usize {
        4 + self.cpus.bytes()
    }
}
