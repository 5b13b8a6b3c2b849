//! Any text as a domain's run-time status in the run directory: refused with one line that says why,
//! or a status that is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeved::store::{decode_status, encode_status};

fuzz_target!(|text: &[u8]| match decode_status(text) {
    Ok(status) => {
        let written = encode_status(&status).expect("what was read can be written");
        let again = decode_status(&written).expect("what was written can be read");
        assert_eq!(again, status);
    }
    Err(error) => assert!(!error.to_string().contains('\n')),
});
