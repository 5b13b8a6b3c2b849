//! Any bytes as the saved state of a machine: the container, and the record of each of its units.
//!
//! The input is what the checksum covers; the header before it is put there, so that the fuzzer need
//! not find a checksum.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_worker::state::{ClockStateV1, IrqchipStateV1, MachineStateV1, Records, VcpuStateV1};

fuzz_target!(|sealed: &[u8]| {
    let mut container = b"REEVEVM\0\x01\0\0\0".to_vec();
    container.extend(checksum(sealed).to_le_bytes());
    container.extend(sealed);
    let Ok(mut records) = Records::open(&container) else {
        return;
    };
    if let Ok((version, bytes)) = records.take("machine", "machine") {
        let _ = MachineStateV1::decode(version, bytes);
    }
    if let Ok((version, bytes)) = records.take("clock", "kvm-clock") {
        let _ = ClockStateV1::decode(version, bytes);
    }
    if let Ok((version, bytes)) = records.take("interrupt-controllers", "kvm-irqchip") {
        let _ = IrqchipStateV1::decode(version, bytes);
    }
    if let Ok((version, bytes)) = records.take("vcpu/0", "vcpu") {
        if let Ok(state) = VcpuStateV1::decode(version, bytes) {
            assert_eq!(state.encode(), bytes, "a record has one form");
        }
    }
    let _ = records.finish();
});

fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32| crc >> 1 ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    })
}
