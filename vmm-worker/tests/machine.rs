//! The machine's parts put together on the host's KVM: memory, interrupt controller, CPUID, boot
//! structures and vCPUs, running a small handwritten kernel.

#[path = "machine/blob.rs"]
mod blob;
#[path = "machine/harness.rs"]
mod harness;

use reeve_worker::kvm::ControllerKind;

use self::harness::{Ending, Machine};

/// The blob prints B, one A for each application processor, D, and switches off.
fn runs_to_power_off(vcpus: u32, kind: ControllerKind) {
    let machine = Machine::build(vcpus, 16 << 20, kind, &blob::elf(), &vcpus.to_string());
    let outcome = machine.run();
    let aps = "A".repeat(usize::try_from(vcpus - 1).expect("small"));
    assert_eq!(outcome.console, format!("B{aps}D"));
    assert_eq!(outcome.ending, Ending::PowerOff);
}

#[test]
fn one_vcpu_runs_on_a_split_controller() {
    runs_to_power_off(1, ControllerKind::Split);
}

#[test]
fn one_vcpu_runs_on_the_in_kernel_controller() {
    runs_to_power_off(1, ControllerKind::InKernel);
}

#[test]
fn four_vcpus_start_each_other_on_a_split_controller() {
    runs_to_power_off(4, ControllerKind::Split);
}

#[test]
fn four_vcpus_start_each_other_on_the_in_kernel_controller() {
    runs_to_power_off(4, ControllerKind::InKernel);
}

#[test]
fn memory_on_both_sides_of_the_gap_runs() {
    let machine = Machine::build(1, 5 << 30, ControllerKind::Split, &blob::elf(), "1");
    assert_eq!(machine.run().console, "BD");
}

#[test]
fn reset_machine_runs_again_from_the_start() {
    for kind in [ControllerKind::Split, ControllerKind::InKernel] {
        let machine = Machine::build(2, 16 << 20, kind, &blob::elf(), "2");
        let first = machine.run();
        assert_eq!(first.console, "BAD");
        let second = first.machine.reset(&blob::elf(), "2").run();
        assert_eq!(second.console, "BAD", "{kind:?}");
        assert_eq!(second.ending, Ending::PowerOff);
    }
}

#[test]
fn triple_fault_is_a_shutdown_with_registers() {
    // With no IDT, `ud2` is a triple fault.
    let machine = Machine::build(
        1,
        16 << 20,
        ControllerKind::Split,
        &blob::elf_of(&[0x0F, 0x0B]),
        "1",
    );
    let outcome = machine.run();
    let Ending::Fault(what, registers) = outcome.ending else {
        panic!("{:?}", outcome.ending);
    };
    assert_eq!(what, "Shutdown");
    assert!(registers.contains("rip="), "{registers}");
}

#[test]
fn vcpu_that_spins_is_stopped_by_a_kick() {
    // jmp $
    let machine = Machine::build(
        1,
        16 << 20,
        ControllerKind::Split,
        &blob::elf_of(&[0xEB, 0xFE]),
        "1",
    );
    let outcome = machine.run_for(std::time::Duration::from_millis(50));
    assert_eq!(outcome.ending, Ending::Kicked);
}
