//! Machines that start in firmware, as Debian packages it: in a whole machine on the host's KVM.

#[path = "firmware/harness.rs"]
mod harness;

use self::harness::{SEABIOS, Setup};

/// What the boot sectors of these tests say on COM1.
const MARKER: &str = "The boot sector runs.";

#[test]
fn seabios_starts_a_boot_sector_from_a_disk() {
    let mut rig = Setup::new(SEABIOS).disk(4, MARKER).start();
    rig.wait_for("Booting from Hard Disk...");
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
    for line in ["WARNING", "Unable", "internal error"] {
        assert!(!told.contains(line), "{line} is in {told}");
    }
}
