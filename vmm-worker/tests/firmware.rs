//! Machines that start in firmware, as Debian packages it: in a whole machine on the host's KVM.

#[path = "firmware/harness.rs"]
mod harness;

use reeve_worker::firmware::BootTarget;

use self::harness::{SEABIOS, Setup};

/// What the boot sectors of these tests say on COM1.
const MARKER: &str = "The boot sector runs.";

#[test]
fn seabios_starts_a_boot_sector_from_a_disk() {
    let mut rig = Setup::new(SEABIOS).disk(4, MARKER).start();
    rig.wait_for("Booting from Hard Disk");
    rig.wait_for(MARKER);
    let told = rig.debug_text();
    for line in [
        "Running on QEMU (q35)",
        "Running on KVM",
        "QEMU fw_cfg DMA interface supported",
        "[RAM]",
        "PCIe: using q35 mmconfig at 0xb0000000",
        "(via xsdt)",
        "found virtio-blk at 00:04.0",
        "Booting from 0000:7c00",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    for line in ["WARNING", "Unable", "rror"] {
        assert!(!told.contains(line), "{line} is in {told}");
    }
}

#[test]
fn seabios_boots_from_the_disk_that_is_first_in_the_order_and_again_after_a_reset() {
    let setup = Setup::new(SEABIOS).disk(4, "The other one.").disk(5, MARKER);
    let mut rig = setup.order(vec![BootTarget::Disk(5)]).start();
    rig.wait_for(MARKER);
    let told = rig.debug_text();
    rig.reset();
    rig.wait_for(MARKER);
    // The same again, but for addresses and times.
    let again = rig.debug_text();
    let again = again.strip_prefix(&told).expect("more of it");
    for line in ["SeaBIOS (version", "(via xsdt)", "Booting from 0000:7c00"] {
        assert!(again.contains(line), "{line} is not in {again}");
    }
}

#[test]
fn seabios_finds_memory_on_both_sides_of_the_gap_and_every_processor() {
    let setup = Setup::new(SEABIOS).disk(4, MARKER);
    let mut rig = setup.memory(3 << 30).vcpus(2).start();
    rig.wait_for(MARKER);
    let told = rig.debug_text();
    for line in [
        "addr 0x0000000000000000 len 0x0000000080000000 [RAM]",
        "addr 0x0000000100000000 len 0x0000000040000000 [RAM]",
        "Found 2 cpu(s) max supported 2 cpu(s)",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
}
