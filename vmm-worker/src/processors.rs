//! vCPUs that come and go while the machine stands: what the control thread does for it.
//!
//! ```text
//!  come: the spawner makes it and its thread ──► the guest's ACPI is told ··· it takes it up (`_OST`)
//!  go:   the guest's ACPI is asked ··· it ejects (`_EJ0`) ──► stands, reset, kept for when it comes again
//!                                  └── it refuses (`_OST`): the vCPU stays
//! ```
//! A guest that comes up is asked too early, and says that it failed without saying why: it is asked again, a
//! few times. What the guest was asked for and has not answered goes at the next reset. A vCPU that it ejects unasked
//! is given back to it: which vCPUs there are is the host's to say.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reeve_devices::shared::{Shared, lock};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::vcpus::{VcpuMask, VcpuStanding};

use crate::build::{BuildError, Chipset, CpuWorkshop};
use crate::spawner::Spawner;
use crate::state::VcpusStateV1;
use crate::vcpu::VcpuSet;

/// When a guest that did not say why it failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// And how often: a guest that boots takes so long at most between its first look at its ACPI tables and that
/// at its processors.
const TRIES: u32 = 60;

/// The vCPUs of a machine, and what makes more of them.
#[derive(Debug)]
pub struct Processors {
    set: VcpuSet,
    workshop: Shared<CpuWorkshop>,
    /// Those that the guest was asked to let go of.
    leaving: VcpuMask,
    /// Those that came and that the guest has not said it has taken up.
    new: VcpuMask,
    /// How many were asked for last.
    wanted: u32,
    /// When the guest is asked again, and how often it may be.
    again: Option<Instant>,
    tries: u32,
    /// Something has happened of which nobody was told.
    changed: bool,
}

impl Processors {
    /// Those of a machine's start.
    #[must_use]
    pub(crate) fn new(set: VcpuSet, workshop: CpuWorkshop) -> Self {
        Self {
            wanted: set.count(),
            set,
            workshop: Arc::new(Mutex::new(workshop)),
            leaving: VcpuMask::default(),
            new: VcpuMask::default(),
            again: None,
            tries: TRIES,
            changed: false,
        }
    }

    /// Their threads.
    #[must_use]
    pub fn set(&self) -> &VcpuSet {
        &self.set
    }

    /// Their threads, to order them about.
    pub fn set_mut(&mut self) -> &mut VcpuSet {
        &mut self.set
    }

    /// Which there are.
    #[must_use]
    pub fn standing(&self) -> VcpuStanding {
        VcpuStanding {
            present: self.set.present().collect(),
            leaving: self.leaving,
            new: self.new,
            wanted: self.wanted,
        }
    }

    /// Which there are, if that is news.
    pub fn take_change(&mut self) -> Option<VcpuStanding> {
        std::mem::take(&mut self.changed).then(|| self.standing())
    }

    /// Gives the machine `count` of them: brings those that it lacks, lowest first, and asks the guest to
    /// let go of those that are too many, highest first, or again of what it was asked for before.
    ///
    /// # Errors
    /// There can be no such number, or one could not be made; then none has come.
    pub fn set_count(
        &mut self,
        count: u32,
        chipset: &Chipset,
        spawner: &Spawner,
    ) -> Result<(), WireError> {
        let possible = self.set.possible();
        if !(1..=possible).contains(&count) {
            let why = format!("{count} vCPUs: the machine can have 1 to {possible}");
            return Err(WireError::new(ErrorCode::InvalidArgument, why));
        }
        self.settle(chipset);
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let staying: Vec<u32> = self
            .set
            .present()
            .filter(|index| !self.leaving.contains(*index))
            .collect();
        let lacking = wanted.saturating_sub(staying.len());
        let back: Vec<u32> = self.leaving.iter().take(lacking).collect();
        self.bring(lacking - back.len(), chipset, spawner)?;
        for index in back {
            self.leaving.remove(index);
            chipset.no_longer_ask_for_vcpu(index);
        }
        // The boot processor, 0, is the last to be too many.
        let too_many = staying.len().saturating_sub(wanted);
        for index in staying.into_iter().rev().take(too_many) {
            self.leaving.insert(index);
        }
        self.tries = TRIES;
        self.ask(chipset);
        self.wanted = count;
        self.changed = true;
        Ok(())
    }

    fn ask(&mut self, chipset: &Chipset) {
        self.again = None;
        for index in self.leaving.iter() {
            chipset.ask_for_vcpu(index);
        }
    }

    /// Asks the guest again, if it is time; gives the time that is left, if it is not.
    pub fn ask_again(&mut self, chipset: &Chipset) -> Option<Duration> {
        let left = self.again?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.ask(chipset);
            return None;
        }
        Some(left)
    }

    /// Brings so many that are not there, and tells the guest once all are.
    fn bring(
        &mut self,
        count: usize,
        chipset: &Chipset,
        spawner: &Spawner,
    ) -> Result<(), BuildError> {
        let absent = (0..self.set.possible()).filter(|index| !self.set.is_present(*index));
        let wanted: Vec<u32> = absent.take(count).collect();
        let tsc = match lock(&self.workshop).needs_tsc() && !wanted.is_empty() {
            true => Some(self.set.tsc()?),
            false => None,
        };
        for index in &wanted {
            let (index, workshop) = (*index, Arc::clone(&self.workshop));
            let make = move || lock(&workshop).make(index, tsc);
            if let Err(error) = self.set.bring(index, spawner, make) {
                for index in wanted {
                    self.take(index);
                }
                return Err(error);
            }
        }
        for index in wanted {
            self.new.insert(index);
            chipset.announce_vcpu(index);
        }
        Ok(())
    }

    /// Does what the guest has done with its vCPUs, and hears what it says of them.
    pub fn settle(&mut self, chipset: &Chipset) {
        let ejected = self.set.present();
        let ejected: Vec<u32> = ejected
            .filter(|index| !chipset.guest_has_vcpu(*index))
            .collect();
        for index in ejected {
            if self.leaving.contains(index) {
                self.take(index);
            } else {
                chipset.announce_vcpu(index);
            }
        }
        let answers = chipset.take_vcpu_answers();
        for index in answers.taken {
            self.changed |= self.new.remove(index);
        }
        for index in answers.kept {
            self.changed |= self.leaving.remove(index);
        }
        let not_yet = answers.not_yet.into_iter();
        let not_yet: VcpuMask = not_yet
            .filter(|index| self.leaving.contains(*index))
            .collect();
        match self.tries.checked_sub(1) {
            _ if not_yet.count() == 0 => {}
            Some(tries) => {
                self.tries = tries;
                self.again = Some(Instant::now() + ASK_AGAIN);
            }
            None => {
                for index in not_yet.iter() {
                    self.changed |= self.leaving.remove(index);
                }
            }
        }
    }

    /// Takes those away that the guest was asked for: it is being reset, and finds the others by itself.
    pub fn take_leaving(&mut self, chipset: &Chipset) {
        let leaving: Vec<u32> = self.leaving.iter().collect();
        for index in leaving {
            self.take(index);
            chipset.take_vcpu(index);
        }
        self.changed |= self.new.count() > 0;
        self.new = VcpuMask::default();
    }

    fn take(&mut self, index: u32) {
        match self.set.take(index) {
            Ok(()) => {
                self.leaving.remove(index);
                self.new.remove(index);
                self.changed = true;
            }
            // It is tried again at whatever comes next: nothing of it runs once it stands.
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// What of it is saved, beside the state of each.
    #[must_use]
    pub(crate) fn state(&self) -> VcpusStateV1 {
        VcpusStateV1 {
            possible: self.set.possible(),
            present: self.set.present().collect(),
            leaving: self.leaving.iter().collect(),
            new: self.new.iter().collect(),
        }
    }

    /// As it was saved, of a machine that was built with those that were there.
    pub(crate) fn restore(&mut self, state: &VcpusStateV1) {
        self.leaving = state.leaving.iter().copied().collect();
        self.new = state.new.iter().copied().collect();
        self.wanted = self.set.count().saturating_sub(self.leaving.count());
    }
}
