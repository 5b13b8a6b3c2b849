//! Drives all devices through their buses.
#![no_main]

use reeve_devices_fuzz::machine::Machine;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Machine::new().run(bytes);
});
