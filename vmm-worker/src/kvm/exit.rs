//! Why a vCPU stopped running: KVM's exits, as far as a machine of ours can meet them.
//!
//! Decoded here and not by kvm-ioctls, whose exits lose what we need: the width of a string I/O
//! access, and the details of an internal error.

use std::fmt;

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO,
    KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_INTERNAL_ERROR_DELIVERY_EV,
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, kvm_run,
};

/// Why [`Vcpu::run`](super::Vcpu::run) returned.
///
/// The data of a read must be filled in before the vCPU runs again. An access is completed by the
/// next run, even one that returns at once: pause only after that.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in`, or `rep ins`: `data` is one or more accesses of `width` bytes each to the same port.
    IoIn {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: u8,
        /// To be filled in.
        data: &'a mut [u8],
    },
    /// `out`, or `rep outs`: `data` is one or more accesses of `width` bytes each to the same port.
    IoOut {
        /// The port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: u8,
        /// What the guest writes.
        data: &'a [u8],
    },
    /// A read from memory that is not RAM.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// To be filled in; 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A write to memory that is not RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// What the guest writes; 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A local APIC ended an interrupt that came from a level-triggered pin (split mode).
    IoapicEoi {
        /// The vector ended.
        vector: u8,
    },
    /// `hlt`, which a local APIC in the kernel keeps from us unless the guest can never wake.
    Halt,
    /// A triple fault.
    Shutdown,
    /// The guest asked KVM for something that concerns the whole machine.
    SystemEvent(SystemEvent),
    /// KVM could not go on.
    InternalError(InternalError),
    /// The processor refused to enter the guest.
    FailEntry {
        /// The hardware's reason.
        reason: u64,
        /// The host's processor.
        cpu: u32,
    },
    /// A signal or `immediate_exit` ended the run, or an AP got its INIT. Nothing to handle: look
    /// whether the vCPU was kicked, and run again if not.
    Interrupted,
    /// The host could not bring in a page of guest memory (its reason is in the error), or the
    /// guest used memory in a way KVM leaves to us.
    MemoryFault {
        /// Guest-physical address.
        address: u64,
        /// Length in bytes.
        size: u64,
        /// KVM's flags.
        flags: u64,
    },
    /// An exit that a machine of ours cannot cause.
    Unexpected {
        /// KVM's number of it.
        reason: u32,
    },
}

/// A `KVM_EXIT_SYSTEM_EVENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// The guest shut down.
    Shutdown,
    /// The guest asked for a reset.
    Reset,
    /// The guest crashed and says so.
    Crash,
    /// Another one, by KVM's number.
    Other(u32),
}

/// A `KVM_EXIT_INTERNAL_ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InternalError {
    /// KVM's number of what it could not do.
    pub suberror: u32,
    /// Words of `data` that are set.
    count: u32,
    data: [u64; 16],
}

impl InternalError {
    /// What KVM says of it. Of an instruction that could not be emulated only the flags are kept:
    /// what follows them is the instruction's bytes, and guest memory does not belong in a log.
    #[must_use]
    pub fn data(&self) -> &[u64] {
        let count = usize::try_from(self.count).unwrap_or(0);
        self.data.get(..count).unwrap_or(&self.data)
    }
}

impl fmt::Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.suberror {
            KVM_INTERNAL_ERROR_EMULATION => "instruction cannot be emulated",
            KVM_INTERNAL_ERROR_SIMUL_EX => "simultaneous exceptions",
            KVM_INTERNAL_ERROR_DELIVERY_EV => "exit while an event was delivered",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "unexpected exit of the hardware",
            _ => "unknown kind",
        };
        write!(f, "KVM internal error {}: {name}", self.suberror)?;
        for (index, word) in self.data().iter().enumerate() {
            write!(f, "{}{word:#x}", if index == 0 { " (" } else { ", " })?;
        }
        if self.data().is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

/// Reads the exit that a `KVM_RUN` which returned 0 has left in the run structure of `size` bytes.
#[expect(
    unsafe_code,
    reason = "the exit reason says which field of a union is set"
)]
pub(super) fn decode(run: &mut kvm_run, size: usize) -> Exit<'_> {
    match run.exit_reason {
        KVM_EXIT_IO => decode_io(run, size),
        KVM_EXIT_MMIO => {
            // SAFETY: the exit reason says that this is the field that KVM has set; it is plain
            // integers.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let length = usize::try_from(mmio.len).unwrap_or(0).min(mmio.data.len());
            let (data, _) = mmio.data.split_at_mut(length);
            if mmio.is_write != 0 {
                Exit::MmioWrite {
                    address: mmio.phys_addr,
                    data,
                }
            } else {
                Exit::MmioRead {
                    address: mmio.phys_addr,
                    data,
                }
            }
        }
        KVM_EXIT_IOAPIC_EOI => {
            // SAFETY: as above.
            let eoi = unsafe { run.__bindgen_anon_1.eoi };
            Exit::IoapicEoi { vector: eoi.vector }
        }
        KVM_EXIT_HLT => Exit::Halt,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_INTR | KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => Exit::Interrupted,
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: as above.
            let event = unsafe { run.__bindgen_anon_1.system_event };
            Exit::SystemEvent(match event.type_ {
                kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::Shutdown,
                kvm_bindings::KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
                kvm_bindings::KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
                other => SystemEvent::Other(other),
            })
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: as above.
            let internal = unsafe { run.__bindgen_anon_1.internal };
            let mut error = InternalError {
                suberror: internal.suberror,
                count: internal.ndata.min(16),
                data: internal.data,
            };
            if error.suberror == KVM_INTERNAL_ERROR_EMULATION {
                error.count = error.count.min(1);
            }
            Exit::InternalError(error)
        }
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above.
            let fail = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::FailEntry {
                reason: fail.hardware_entry_failure_reason,
                cpu: fail.cpu,
            }
        }
        reason => Exit::Unexpected { reason },
    }
}

/// Reads a port access, whose data is elsewhere in the run structure's mapping.
#[expect(unsafe_code, reason = "the data is at an offset that KVM gives")]
fn decode_io(run: &mut kvm_run, size: usize) -> Exit<'_> {
    // SAFETY: the exit reason says that this is the field that KVM has set.
    let io = unsafe { run.__bindgen_anon_1.io };
    let length = usize::try_from(io.count)
        .unwrap_or(0)
        .saturating_mul(usize::from(io.size));
    let offset = usize::try_from(io.data_offset).unwrap_or(usize::MAX);
    let beyond = size_of::<kvm_run>()..size;
    if !beyond.contains(&offset) || length > size - offset {
        return Exit::Unexpected {
            reason: KVM_EXIT_IO,
        };
    }
    let base: *mut u8 = std::ptr::from_mut(run).cast();
    // SAFETY: the run structure is the start of a mapping of `size` bytes, and the offset is within.
    let data = unsafe { base.add(offset) };
    // SAFETY: `length` bytes from there are within the mapping and behind the structure itself, so
    // that nothing else refers to them; the borrow of `run` keeps the vCPU from running meanwhile.
    let data = unsafe { std::slice::from_raw_parts_mut(data, length) };
    if u32::from(io.direction) == KVM_EXIT_IO_OUT {
        Exit::IoOut {
            port: io.port,
            width: io.size,
            data,
        }
    } else {
        Exit::IoIn {
            port: io.port,
            width: io.size,
            data,
        }
    }
}
