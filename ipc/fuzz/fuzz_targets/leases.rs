//! Any bytes as what a network's server has lent: leases of which every text is one of names and numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_ipc::leases::parse;

fuzz_target!(|bytes: &[u8]| {
    for lease in parse(bytes, 1) {
        assert_ne!(lease.expiry_unix_s, Some(0));
        assert!(lease.iaid.is_none() || lease.address.is_ipv6());
        let texts = [lease.hostname, lease.client_id, lease.iaid];
        for text in texts.into_iter().flatten() {
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 765);
        }
    }
});
