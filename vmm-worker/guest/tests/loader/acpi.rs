//! ACPI tables of the test machine: RSDP, XSDT, FADT, MADT, MCFG. Only what the guest reads is set.

/// Physical address of the RSDP; the other tables follow it.
pub const RSDP: u64 = 0xe_0000;
/// Where configuration space is.
pub const ECAM: u64 = 0xe000_0000;

/// All tables as one piece of memory to be placed at [`RSDP`].
pub fn tables(cpus: u32) -> Vec<u8> {
    let mut fadt = vec![0; 276 - 36];
    put(&mut fadt, 46, &9u16.to_le_bytes());
    put(&mut fadt, 56, &0x600u32.to_le_bytes());
    put(&mut fadt, 64, &0x604u32.to_le_bytes());
    put(&mut fadt, 76, &0x608u32.to_le_bytes());
    put(&mut fadt, 112, &(1u32 << 10).to_le_bytes());
    put(&mut fadt, 116, &[1, 8, 0, 1]);
    put(&mut fadt, 120, &0xcf9u64.to_le_bytes());
    put(&mut fadt, 128, &[6]);

    let mut madt = 0xfee0_0000u32.to_le_bytes().to_vec();
    madt.extend([0; 4]);
    for cpu in 0..cpus {
        let id = u8::try_from(cpu).expect("the test machine has few vCPUs");
        madt.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    madt.extend([1, 12, 0, 0]);
    madt.extend(0xfec0_0000u32.to_le_bytes());
    madt.extend([0; 4]);
    // Interrupt 9 is level-triggered and active high.
    madt.extend([2, 10, 0, 9, 9, 0, 0, 0, 0b1101, 0]);

    // One segment, bus 0 alone.
    let mut mcfg = vec![0; 8];
    mcfg.extend(ECAM.to_le_bytes());
    mcfg.extend([0; 8]);

    let fadt = table(*b"FACP", &fadt);
    let madt = table(*b"APIC", &madt);
    let mcfg = table(*b"MCFG", &mcfg);
    let fadt_address = RSDP + 0x100;
    let madt_address = fadt_address + 0x200;
    let mcfg_address = RSDP + 0x80;
    let xsdt_address = RSDP + 0x40;
    let pointers = [fadt_address, madt_address, mcfg_address]
        .map(u64::to_le_bytes)
        .concat();
    let xsdt = table(*b"XSDT", &pointers);

    let mut rsdp = b"RSD PTR \0REEVE \x02\0\0\0\0\x24\0\0\0".to_vec();
    rsdp.extend(xsdt_address.to_le_bytes());
    rsdp.extend([0; 4]);
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);

    let mut memory = vec![0; 0x300];
    memory[..36].copy_from_slice(&rsdp);
    memory[0x40..0x40 + xsdt.len()].copy_from_slice(&xsdt);
    memory[0x80..0x80 + mcfg.len()].copy_from_slice(&mcfg);
    memory[0x100..0x100 + fadt.len()].copy_from_slice(&fadt);
    memory.extend(madt);
    memory
}

fn put(body: &mut [u8], offset: usize, bytes: &[u8]) {
    body[offset - 36..][..bytes.len()].copy_from_slice(bytes);
}

fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    let length = u32::try_from(36 + body.len()).expect("tables are short");
    table.extend(length.to_le_bytes());
    table.extend([6, 0]);
    table.extend(b"REEVE REEVTEST\x01\0\0\0RVAT\x01\0\0\0");
    table.extend(body);
    table[9] = checksum(&table);
    table
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}
