//! Offers hostile saved state to every device, then drives the machine.
#![no_main]

use reeve_devices_fuzz::machine::Machine;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Machine::new().restore(bytes);
});
