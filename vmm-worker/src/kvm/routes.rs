//! The interrupt routing table of a VM: which message each GSI stands for.
//!
//! KVM takes the whole table at once and waits until every vCPU has seen it, so a change that leaves
//! the table as it was is not sent. Only split mode has one: the in-kernel controller comes with its
//! own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_irq_routing_msi__bindgen_ty_1,
};
use reeve_devices::irq::MsiMessage;

use super::irqchip::kvm_address;
use super::{KvmError, Vm};

/// The table, shared by whoever has a GSI.
#[derive(Debug)]
pub(super) struct Routes {
    vm: Arc<Vm>,
    table: Mutex<BTreeMap<u32, MsiMessage>>,
}

impl Routes {
    pub(super) fn new(vm: Arc<Vm>) -> Self {
        Self {
            vm,
            table: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sets or removes the message of one GSI.
    pub(super) fn set(&self, gsi: u32, message: Option<MsiMessage>) -> Result<(), KvmError> {
        // A panic while the table is held leaves it whole: it is changed in single steps.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match message {
            Some(message) => table.insert(gsi, message),
            None => table.remove(&gsi),
        };
        if before == message {
            return Ok(());
        }
        let entries: Vec<_> = table
            .iter()
            .map(|(gsi, message)| route(&self.vm, *gsi, *message))
            .collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::Ioctl {
            call: "KVM_SET_GSI_ROUTING",
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        self.vm
            .fd()
            .set_gsi_routing(&routing)
            .map_err(KvmError::ioctl("KVM_SET_GSI_ROUTING"))
    }
}

fn route(vm: &Vm, gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let (address_lo, address_hi) = kvm_address(message.address, vm.wide_apic_ids());
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo,
                address_hi,
                data: message.data,
                __bindgen_anon_1: kvm_irq_routing_msi__bindgen_ty_1::default(),
            },
        },
        ..Default::default()
    }
}
