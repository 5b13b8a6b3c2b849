//! Doorbells: guest writes that KVM turns into the signal of an event, without an exit to us.
//!
//! Bound when a driver starts a device and unbound when it stops: a machine whose guest uses no device
//! has none, and some hosts take 15 ms to close a VM that has one. Called on vCPU threads and the control
//! thread, devices' locks held.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use reeve_devices::event::Event;
use reeve_devices::virtio::transport::registers::Doorbells;
use vmm_sys_util::eventfd::EventFd;

use super::Vm;

/// The doorbells of a VM.
#[derive(Debug)]
pub struct KvmDoorbells {
    vm: Arc<Vm>,
}

impl KvmDoorbells {
    /// Those of `vm`.
    #[must_use]
    pub fn new(vm: Arc<Vm>) -> Self {
        Self { vm }
    }
}

impl Doorbells for KvmDoorbells {
    fn bind(&self, address: u64, event: &Event) -> bool {
        let place = IoEventAddress::Mmio(address);
        let bound = self
            .vm
            .fd()
            .register_ioevent(&borrowed(event), &place, NoDatamatch);
        if let Err(error) = &bound {
            // The notification then comes as a register write.
            tracing::debug!(%error, "no doorbell at {address:#x}");
        }
        bound.is_ok()
    }

    fn unbind(&self, address: u64, event: &Event) {
        let place = IoEventAddress::Mmio(address);
        let unbound = self
            .vm
            .fd()
            .unregister_ioevent(&borrowed(event), &place, NoDatamatch);
        if let Err(error) = unbound {
            tracing::warn!(%error, "doorbell at {address:#x} stays");
        }
    }
}

/// `event` as kvm-ioctls wants it, not owned.
#[expect(unsafe_code, reason = "kvm-ioctls takes its own type of eventfd")]
fn borrowed(event: &Event) -> ManuallyDrop<EventFd> {
    // SAFETY: the descriptor stays open for as long as `event` is borrowed, which is longer than the
    // one call the result is made for, and is not closed by the result, which is never dropped.
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(event.as_fd().as_raw_fd()) })
}
