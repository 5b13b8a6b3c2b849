//! The state of a whole machine, in records: what makes the same machine again over the same memory.
//!
//! The one primitive under hand-over to a new worker, save, snapshot and migration. Guest memory is no
//! part of it: that stays where it is, or goes another way. Nor is what belongs to the host: the
//! console's output so far, counters, limits, descriptors.
//!
//! ```text
//!  save, on the control thread                     restore, on the thread that builds
//!  ───────────────────────────                     ──────────────────────────────────
//!  vCPUs stand, no access half done                memory mapped as it is, nothing loaded
//!  devices stopped, their requests finished        machine built, vCPU threads standing
//!  clock ─► chipset ─► vCPUs (own threads)         clock ─► vCPUs (own threads: local APICs)
//!    ─► interrupt controllers ─► devices             ─► interrupt controllers ─► chipset ─► devices
//!           │                                               ▲        └─► ends of interrupts made up for
//!           └────► records, sealed (container) ─────────────┘
//! ```
//!
//! After either the machine stands: [`resume`](crate::machine::Machine::resume) lets devices and vCPUs
//! go on, so that of two machines over one memory only the one that is resumed ever touches it, or
//! takes anything from a disk, a network or a client of the console.
//!
//! # Records
//! | unit | schema | how many |
//! |---|---|---|
//! | `machine` | `machine` 1 | one; taken first, checked against the specification |
//! | `vcpus` | `vcpus` 1 | one; which vCPUs are there, of those that the specification leaves room for |
//! | `clock` | `kvm-clock` 1 | one |
//! | `vcpu/N` | `vcpu` 1 | one for each vCPU that is there |
//! | `ioapic` | `ioapic` 1 | `reeve-1.0` |
//! | `interrupt-controllers` | `kvm-irqchip` 1 | `reeve-legacy-1.0` |
//! | `serial`, `acpi-pm`, `rtc`, `reset-control`, `pci-ports`, `pci-host-bridge`, `pci-hotplug`, `cpu-hotplug` | the device's | one each |
//! | `pvpanic`, `watchdog` | `pvpanic` 1, `i6300esb` 1 | one, where the specification has the device |
//! | `generation-id` | `generation-id` 1 | one, where the specification has one: what the guest had by then |
//! | `plugged-memory` | `plugged-blocks` 1 | one, where the specification has memory to be plugged in; put back before all that may lie in it |
//! | `KIND/SLOT` | `virtio-pci` | one for each device of the specification |
//! | `console-input` | `bytes` 1 | one: what clients have sent and the guest has not yet had |
//!
//! Records are hostile input: every length is checked against what is there, every field by its
//! decoder, and what only KVM can judge by KVM, whose refusal is an error. Each record is wanted
//! exactly once. What a hostile record can say at most is a state of its own guest.
//!
//! # Time
//! It goes on between save and restore, on every clock alike: TSC, kvmclock, PM timer, real-time clock
//! (`time`). Only a timer that counts down stands still meanwhile; its interrupt is as much later, as
//! if the host had been busy. So does a watchdog, all the time that the vCPUs stand.

pub mod container;
mod error;
mod machine;
#[cfg(test)]
mod tests;
pub(crate) mod time;
mod vcpu;
mod vm;

pub use self::container::{ContainerError, Recorder, Records};
pub use self::error::{RestoreError, SaveError};
pub(crate) use self::machine::{Fixture, restore, save};
pub use self::machine::{MachineStateV1, VcpusStateV1};
pub use self::time::Origin;
pub use self::vcpu::{MAX_MSRS, MAX_XSAVE_BYTES, Tsc, VcpuStateV1};
pub use self::vm::{ClockStateV1, IrqchipStateV1};
