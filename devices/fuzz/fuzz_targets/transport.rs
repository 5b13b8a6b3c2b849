//! Configuration space, BARs, MSI-X and the common configuration of several functions.
#![no_main]

use reeve_devices_fuzz::transport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    transport::run(bytes);
});
