//! A socket device between the guest and the host.
#![no_main]

use reeve_devices_fuzz::{guest, vsock};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<vsock::Sockets>(bytes);
});
