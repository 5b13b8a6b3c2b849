//! Which vCPUs a machine has, as both sides of the worker protocol say it: sets of fixed size, so that no
//! number of a worker's choosing is ever allocated for.

use serde::{Deserialize, Serialize};

use crate::spec::MAX_VCPUS;

/// A set of vCPUs: bit n of word n / 64 is vCPU n, below [`MAX_VCPUS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuMask([u64; 16]);

const _: () = assert!(MAX_VCPUS == 16 * 64);

impl VcpuMask {
    fn place(vcpu: u32) -> (usize, u64) {
        let word = usize::try_from(vcpu / 64).unwrap_or(usize::MAX);
        (word, 1 << (vcpu % 64))
    }

    /// Whether `vcpu` is in.
    #[must_use]
    pub fn contains(&self, vcpu: u32) -> bool {
        let (word, bit) = Self::place(vcpu);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Puts `vcpu` in; one that cannot be is never in.
    pub fn insert(&mut self, vcpu: u32) {
        let (word, bit) = Self::place(vcpu);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Takes `vcpu` out; whether it was in.
    pub fn remove(&mut self, vcpu: u32) -> bool {
        let was_in = self.contains(vcpu);
        let (word, bit) = Self::place(vcpu);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
        was_in
    }

    /// How many are in.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Those that are in, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..MAX_VCPUS).filter(|vcpu| self.contains(*vcpu))
    }

    fn is_within(&self, other: &Self) -> bool {
        let mut words = self.0.iter().zip(other.0);
        words.all(|(word, other)| word & !other == 0)
    }
}

impl FromIterator<u32> for VcpuMask {
    fn from_iter<I: IntoIterator<Item = u32>>(vcpus: I) -> Self {
        let mut mask = Self::default();
        for vcpu in vcpus {
            mask.insert(vcpu);
        }
        mask
    }
}

/// Which vCPUs a machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuStanding {
    /// Those that are there; 0 is always among them.
    pub present: VcpuMask,
    /// Those of them that the guest was asked to let go of and has neither ejected nor refused; never 0.
    pub leaving: VcpuMask,
    /// Those of them that came since the machine started and that the guest has not said it has taken up.
    pub new: VcpuMask,
    /// How many were asked for last. There are more while the guest is to let go of some, and when it has
    /// refused to.
    pub wanted: u32,
}

impl VcpuStanding {
    /// Whether it says what a machine that can have `possible` vCPUs may: what a worker says is not to be
    /// believed.
    #[must_use]
    pub fn is_possible(&self, possible: u32) -> bool {
        let all: VcpuMask = (0..possible).collect();
        let within = [&self.leaving, &self.new];
        self.present.contains(0)
            && self.present.is_within(&all)
            && within.iter().all(|mask| mask.is_within(&self.present))
            && !self.leaving.contains(0)
            && (1..=possible).contains(&self.wanted)
    }
}
