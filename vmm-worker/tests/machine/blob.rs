//! A kernel of 111 bytes, and the ELF file with a PVH note around it.

/// Loaded at 1 MiB, entered there in 32-bit protected mode. The command line is one digit: the
/// number of vCPUs.
#[rustfmt::skip]
const CODE: [u8; 111] = [
    0xba, 0xf8, 0x03, 0x00, 0x00,                               // mov edx, 0x3f8
    0xb0, b'B',                                                 // mov al, 'B'
    0xee,                                                       // out dx, al
    0xbe, 0x5b, 0x00, 0x10, 0x00,                               // mov esi, trampoline
    0xbf, 0x00, 0x80, 0x00, 0x00,                               // mov edi, 0x8000
    0xb9, 0x14, 0x00, 0x00, 0x00,                               // mov ecx, 20
    0xf3, 0xa4,                                                 // rep movsb
    0x0f, 0xb6, 0x2d, 0x00, 0x68, 0x00, 0x00,                   // movzx ebp, byte [0x6800]
    0x83, 0xed, 0x31,                                           // sub ebp, '1'
    0x74, 0x26,                                                 // jz done
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // local APIC on
    0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00, // INIT to all others
    0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00, // SIPI 0x8000 to all others
    0x39, 0x2d, 0x00, 0x90, 0x00, 0x00,                         // wait: cmp [0x9000], ebp
    0x75, 0xf8,                                                 // jne wait
    0xb0, b'D',                                                 // done: mov al, 'D'
    0xee,                                                       // out dx, al
    0xba, 0x04, 0x06, 0x00, 0x00,                               // mov edx, 0x604
    0xb8, 0x00, 0x34, 0x00, 0x00,                               // mov eax, 0x3400
    0x66, 0xef,                                                 // out dx, ax
    0xf4,                                                       // hlt
    // trampoline, real mode
    0xba, 0xf8, 0x03,                                           // mov dx, 0x3f8
    0xb0, b'A',                                                 // mov al, 'A'
    0xee,                                                       // out dx, al
    0x31, 0xc0,                                                 // xor ax, ax
    0x8e, 0xd8,                                                 // mov ds, ax
    0x66, 0xf0, 0xff, 0x06, 0x00, 0x90,                         // lock inc dword [0x9000]
    0xfa,                                                       // cli
    0xf4,                                                       // hlt
    0xeb, 0xfc,                                                 // jmp to cli
];

const LOAD_ADDRESS: u32 = 0x10_0000;

/// The kernel above.
pub fn elf() -> Vec<u8> {
    elf_of(&CODE)
}

/// An ELF file that loads `code` at 1 MiB and names its start as the PVH entry.
pub fn elf_of(code: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4u32, 4, 18] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(&LOAD_ADDRESS.to_le_bytes());

    let headers = 64 + 2 * 56;
    let code_offset = headers + note.len();
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [u64::from(LOAD_ADDRESS), 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    for (kind, offset, size) in [(4u64, headers, note.len()), (1, code_offset, code.len())] {
        let (offset, size) = (offset as u64, size as u64);
        let address = u64::from(LOAD_ADDRESS);
        for word in [kind, offset, address, address, size, size, 4] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    }
    elf.extend_from_slice(&note);
    elf.extend_from_slice(code);
    elf
}
