//! The built-in guest as a document of libvirt's, for whoever runs it.

use std::path::Path;

use reeve_guest::mode;

use crate::GUEST_MEMORY_BYTES;

/// Who runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// Reeve.
    Reeve,
    /// QEMU's quickest machine under libvirtd.
    Qemu,
}

/// A domain that prints two bytes and sleeps until it is destroyed: one vCPU, a console, and nothing else.
#[must_use]
pub fn document(name: &str, hypervisor: Hypervisor, kernel: &Path) -> String {
    let machine = match hypervisor {
        Hypervisor::Reeve => "reeve-1.0",
        Hypervisor::Qemu => "microvm",
    };
    on_machine(name, hypervisor, machine, kernel, "")
}

/// The same on a machine that devices can be plugged into, with `devices` in it.
#[must_use]
pub fn pluggable(name: &str, hypervisor: Hypervisor, kernel: &Path, devices: &str) -> String {
    let machine = match hypervisor {
        Hypervisor::Reeve => "reeve-1.0",
        Hypervisor::Qemu => "pc",
    };
    on_machine(name, hypervisor, machine, kernel, devices)
}

fn on_machine(
    name: &str,
    hypervisor: Hypervisor,
    machine: &str,
    kernel: &Path,
    devices: &str,
) -> String {
    format!(
        "<domain type='kvm'>
  <name>{name}</name>
  <memory unit='b'>{GUEST_MEMORY_BYTES}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel>
    <cmdline>{mode}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'>{without}</cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <console type='pty'/>
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>
",
        kernel = kernel.display(),
        mode = mode::HOLD,
        // Some KVMs refuse IA32_ARCH_CAPABILITIES, which QEMU takes for fatal.
        without = match hypervisor {
            Hypervisor::Reeve => "",
            Hypervisor::Qemu => "<feature policy='disable' name='arch-capabilities'/>",
        },
    )
}
