//! Machines that start in firmware, as Debian packages it: in a whole machine on the host's KVM.
//!
//! A KVM without the processor's help runs all of a firmware in its emulator, so there are few of them. UEFI firmware it
//! cannot run: that has floating-point instructions in its first stage (docs/firmware.md).

#[path = "firmware/harness.rs"]
mod harness;

use reeve_display::{Screen, Size};
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
    let setup = Setup::new(SEABIOS).memory(3 << 30).vcpus(2).display();
    let disks = setup.disk(4, "The wrong disk.").disk(5, MARKER);
    let mut rig = disks.order(vec![BootTarget::Disk(5)]).start();
    rig.wait_for("Booting from Hard Disk");
    rig.wait_for(MARKER);
    // The same is on the screen: its first lines are not all black.
    let mut screen = rig.screen();
    assert_eq!(screen.look(), Size::new(1024, 768));
    let mut line = [0; 1024];
    let mut is_lit = |number| {
        screen.read_line(number, &mut line);
        line.iter().any(|pixel| *pixel != 0)
    };
    assert!((0..16).any(&mut is_lit));
    assert!(!(700..768).any(is_lit));
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
            "bochs-display: using 1024x768, 32 bpp",
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

/// What a guest does that draws: one thing after the other, and stops for good where memory is not what it shall be.
enum Step {
    /// Writes a register of the display's configuration space.
    Config(u8, u32),
    /// Writes memory.
    Write(u32, u32),
    /// The same, of 16 bits.
    Write16(u32, u32),
    /// Looks at memory.
    Expect(u32, u32),
}

/// An image that does that, in protected mode, and then resets the machine.
fn drawing(steps: &[Step]) -> Vec<u8> {
    let mut image = vec![0; 64 << 10];
    let places = image.chunks_mut(12);
    for (place, step) in places.zip(steps) {
        let (kind, address, value) = match step {
            Step::Config(register, value) => (1, 0x8000_1000 | u32::from(*register), value),
            Step::Write(address, value) => (2, *address, value),
            Step::Write16(address, value) => (3, *address, value),
            Step::Expect(address, value) => (4, *address, value),
        };
        let words = [kind, address, *value].map(u32::to_le_bytes);
        place.copy_from_slice(words.as_flattened());
    }
    let start = image.len() - 0x100;
    #[rustfmt::skip]
    let code = [
        0xfa,                               // cli
        0x2e, 0x66, 0x0f, 0x01, 0x16, 0x5a, // lgdtl cs:[0xff5a]
        0xff,
        0x0f, 0x20, 0xc0, 0x0c, 0x01,       // cr0 |= 1
        0x0f, 0x22, 0xc0,
        0x66, 0xea, 0x18, 0xff, 0xff, 0xff, // ljmpl 8, 0xffffff18
        0x08, 0x00,
        0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, // mov ds, 16
        0xbe, 0x00, 0x00, 0xff, 0xff,       // mov esi, 0xffff0000: the steps
        0xad, 0x89, 0xc3,                   // next: lodsd; mov ebx, eax: the kind
        0xad, 0x89, 0xc1,                   // lodsd; mov ecx, eax: the address
        0xad,                               // lodsd: the value
        0x4b, 0x74, 0x11,                   // 1: config
        0x4b, 0x74, 0x1c,                   // 2: write
        0x4b, 0x74, 0x1d,                   // 3: write16
        0x4b, 0x74, 0x1f,                   // 4: expect
        0x66, 0xba, 0xf9, 0x0c,             // 0: mov dx, 0xcf9
        0xb0, 0x06, 0xee, 0xf4,             // mov al, 6; out dx, al; hlt
        0x91, 0x66, 0xba, 0xf8, 0x0c, 0xef, // config: out 0xcf8, ecx
        0x91, 0x66, 0xba, 0xfc, 0x0c, 0xef, // out 0xcfc, eax
        0xeb, 0xd7,                         // jmp next
        0x89, 0x01, 0xeb, 0xd3,             // write: mov [ecx], eax; jmp next
        0x66, 0x89, 0x01, 0xeb, 0xce,       // write16: mov [ecx], ax; jmp next
        0x39, 0x01, 0x74, 0xca, 0xf4,       // expect: cmp [ecx], eax; je next; hlt
        0x17, 0x00, 0x60, 0xff, 0xff, 0xff, // three descriptors: none,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00, // flat code,
        0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, // flat data
    ];
    image[start..start + code.len()].copy_from_slice(&code);
    let entry = image.len() - 16;
    // jmp near to the code
    image[entry..entry + 3].copy_from_slice(&[0xe9, 0x0d, 0xff]);
    image
}

/// Its video memory is memory of the guest wherever that puts it, by the time it has put it there.
#[test]
fn what_a_guest_draws_is_seen_wherever_it_puts_the_display() {
    use Step::{Config, Expect, Write, Write16};
    const FIRST: u32 = 0xc100_0000;
    const SECOND: u32 = 0xc500_0000;
    const REGISTERS: u32 = 0xc300_0500;
    let steps = [
        Config(0x10, FIRST),
        Config(0x18, 0xc300_0000),
        Config(4, 2),
        Write16(REGISTERS + 2, 1024),
        Write16(REGISTERS + 4, 768),
        Write16(REGISTERS + 6, 32),
        Write16(REGISTERS + 12, 1024),
        Write16(REGISTERS + 8, 0x41),
        Write(FIRST, 0x11_2233),
        Write(FIRST + 4 * (1024 * 768 - 1), 0x77_8899),
        Config(0x10, SECOND),
        Expect(SECOND, 0x11_2233),
        Expect(FIRST, u32::MAX),
        Write(SECOND + 4, 0x44_5566),
        Config(4, 0),
        Expect(SECOND + 4, u32::MAX),
        Config(0x10, FIRST),
        Config(4, 2),
        Expect(FIRST + 4, 0x44_5566),
        Write(FIRST + 8, 0x0a_0b0c),
    ];
    let mut rig = Setup::of(&drawing(&steps)).display().start();
    for _ in 0..2 {
        assert_eq!(rig.wait_for_end(), "Reset");
        let mut screen = rig.screen();
        assert_eq!(screen.look(), Size::new(1024, 768));
        let mut line = [0; 1024];
        screen.read_line(0, &mut line);
        assert_eq!(line[..4], [0x11_2233, 0x44_5566, 0x0a_0b0c, 0]);
        screen.read_line(767, &mut line);
        assert_eq!(line[1022..], [0, 0x77_8899]);
        rig.reset();
    }
}
