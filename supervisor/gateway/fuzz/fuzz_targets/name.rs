//! Any bytes as the name in a certificate: none, or text of a bounded length in which nothing is that a terminal obeys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_gateway::remote::name::text;
use reeve_ipc::gateway::MAX_NAME_BYTES;

fuzz_target!(|bytes: &[u8]| {
    if let Some(text) = text(bytes) {
        assert!(!text.is_empty() && text.len() <= MAX_NAME_BYTES);
        assert!(!text.chars().any(char::is_control));
    }
});
