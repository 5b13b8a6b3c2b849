//! Machines that start in firmware, as Debian packages it: in a whole machine on the host's KVM.
//!
//! A KVM without the processor's help runs all of a firmware in its emulator, so there are few of them. UEFI firmware it
//! cannot run: that has floating-point instructions in its first stage (docs/firmware.md).

#[path = "firmware/harness.rs"]
mod harness;

use reeve_worker::firmware::BootTarget;

use self::harness::{SEABIOS, Setup};

/// What the boot sectors of these tests say on COM1.
const MARKER: &str = "The boot sector runs.";

fn assert_told(told: &str, lines: &[&str]) {
    for line in lines {
        assert!(told.contains(line), "{line} is not in {told}");
    }
}

/// The first in the order is the second on the bus; memory is on both sides of the gap.
#[test]
fn seabios_boots_from_the_first_disk_in_the_order() {
    let setup = Setup::new(SEABIOS).memory(3 << 30).vcpus(2);
    let disks = setup.disk(4, "The wrong disk.").disk(5, MARKER);
    let mut rig = disks.order(vec![BootTarget::Disk(5)]).start();
    rig.wait_for("Booting from Hard Disk");
    rig.wait_for(MARKER);
    let told = rig.debug_text();
    assert_told(
        &told,
        &[
            "Running on QEMU (q35)",
            "Running on KVM",
            "QEMU fw_cfg DMA interface supported",
            "addr 0x0000000000000000 len 0x0000000080000000 [RAM]",
            "addr 0x0000000100000000 len 0x0000000040000000 [RAM]",
            "PCIe: using q35 mmconfig at 0xb0000000",
            "Found 2 cpu(s) max supported 2 cpu(s)",
            "(via xsdt)",
            "ACPI: no PS/2 keyboard present",
            "found virtio-blk at 00:04.0",
            "found virtio-blk at 00:05.0",
            "Booting from 0000:7c00",
        ],
    );
}

#[test]
fn what_is_no_image_is_refused() {
    for bytes in [0, 4095, (16 << 20) + 4096] {
        let refusal = Setup::of(&vec![0; bytes]).refusal();
        assert!(refusal.contains("cannot be mapped"), "{refusal}");
    }
}

#[test]
fn the_slot_of_the_bridge_is_no_device_s() {
    let refusal = Setup::of(&[0xf4; 4096]).disk(31, "").refusal();
    assert!(refusal.contains("00:1f.0 is taken"), "{refusal}");
}

/// The end of an image is where the first instruction is: this one resets the machine by port 0x92.
#[test]
fn the_first_instruction_is_sixteen_bytes_before_the_end_of_the_image() {
    let mut image = vec![0xf4; 4096];
    // in al, 0x92; or al, 1; out 0x92, al; hlt
    image[4080..4087].copy_from_slice(&[0xe4, 0x92, 0x0c, 0x01, 0xe6, 0x92, 0xf4]);
    let mut rig = Setup::of(&image).start();
    assert_eq!(rig.wait_for_end(), "Reset");
}

/// The image cannot be written, and its copy in the first MiB can, until a reset makes it anew. The code looks at both
/// before and after writing them; it resets the machine if all is so, and stops if not.
#[test]
fn the_image_cannot_be_written_and_its_copy_is_made_anew_by_a_reset() {
    let mut image = vec![0xf4; 64 << 10];
    let start = image.len() - 0x100;
    #[rustfmt::skip]
    let code = [
        0xb8, 0x00, 0xf0,             // mov ax, 0xf000
        0x8e, 0xd8,                   // mov ds, ax
        0x80, 0x3e, 0x00, 0xe0, 0xf4, // cmp byte [0xe000], 0xf4: the copy
        0x75, 0x20,                   // jne bad
        0x2e, 0xc6, 0x06, 0x00, 0xe0, // mov byte cs:[0xe000], 0x5a: the image
        0x5a,
        0x2e, 0x80, 0x3e, 0x00, 0xe0, // cmp byte cs:[0xe000], 0xf4
        0xf4,
        0x75, 0x12,                   // jne bad
        0xc6, 0x06, 0x00, 0xe0, 0x5a, // mov byte [0xe000], 0x5a
        0x80, 0x3e, 0x00, 0xe0, 0x5a, // cmp byte [0xe000], 0x5a
        0x75, 0x06,                   // jne bad
        0xb0, 0x06,                   // mov al, 6
        0xba, 0xf9, 0x0c,             // mov dx, 0xcf9
        0xee,                         // out dx, al
        0xf4,                         // bad: hlt
        0xeb, 0xfd,                   // jmp bad
    ];
    image[start..start + code.len()].copy_from_slice(&code);
    let entry = image.len() - 16;
    // jmp near to the code
    image[entry..entry + 3].copy_from_slice(&[0xe9, 0x0d, 0xff]);
    let mut rig = Setup::of(&image).start();
    for _ in 0..3 {
        assert_eq!(rig.wait_for_end(), "Reset");
        rig.reset();
    }
}
