//! Building a machine from its records, over the memory it had.

use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::MachineSpec;

use super::{BuildError, Entry, Parts};
use crate::arch::x86_64::regs::EntryState;
use crate::boot::BootPlan;
use crate::machine::Machine;
use crate::state::{MachineStateV1, Origin, Records, RestoreError, Tsc, VcpusStateV1};

/// What a machine that is made of records is to the one that was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// It itself, in another worker: nobody else goes on from there, now or later.
    Same,
    /// One that goes on from a moment from which others may have gone on, or may yet: restored, or
    /// copied. Its guest gets a new generation id and is told, if it has one; whatever the specification
    /// says of the id, it only says that there is one.
    Again,
}

/// Builds the machine that `spec` describes from the descriptors its slots name, and puts the state in
/// `saved` into it ([`Machine::save`]). Its memory is taken as it is; the boot images are kept for
/// resets, not read. It stands: nothing has been asked of a disk or a network, and nothing is until
/// [`Machine::resume`].
///
/// `origin` says where the state was taken, by which its clocks are set; `lineage` what has come of the
/// machine since.
///
/// # Errors
/// [`RestoreError`] says what and why. Nothing of the machine is left, and its memory is as it was, but
/// for a time of day that KVM may have written where the guest asked to see it: the machine that was
/// saved may go on.
pub fn restore(
    mut spec: MachineSpec,
    saved: &[u8],
    origin: Origin,
    lineage: Lineage,
    descriptors: &mut FdTable,
) -> Result<Machine, RestoreError> {
    let mut records = Records::open(saved)?;
    let general = MachineStateV1::take(&mut records, &spec)?;
    let vcpus = VcpusStateV1::take(&mut records, &spec, &general)?;
    let tsc_khz = Some(general.tsc_khz).filter(|khz| *khz != 0);
    let parts = Parts::assemble(&mut spec, &vcpus.present, descriptors, tsc_khz, true, None)?;
    let fresh = match parts.vcpus.first() {
        Some(vcpu) => vcpu.tsc().map_err(BuildError::Kvm)?,
        None => Tsc::default(),
    };
    let mut machine = parts.start(spec, entry(&general))?;
    match machine.take_over(records, &general, &vcpus, (origin, lineage), fresh) {
        Ok(()) => Ok(machine),
        Err(error) => {
            machine.close();
            Err(error)
        }
    }
}

/// How a kernel was entered that has long been running: a reset makes it anew.
fn entry(general: &MachineStateV1) -> Entry {
    let plan = BootPlan {
        protocol: general.protocol,
        entry: 0,
        boot_info: 0,
        kernel: 0..0,
        initrd: None,
    };
    Entry {
        entry: EntryState::new(&plan),
        protocol: general.protocol,
    }
}
