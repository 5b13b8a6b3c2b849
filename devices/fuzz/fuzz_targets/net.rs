//! A network device between its driver and the host.
#![no_main]

use reeve_devices_fuzz::{guest, net};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<net::Interface>(bytes);
});
