//! Any text as a domain's record in the state directory: refused with one line that says why, or a
//! valid definition that is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeved::store::{decode, encode};

fuzz_target!(|text: &[u8]| match decode(text) {
    Ok(record) => {
        record.domain.validate().expect("what is loaded is valid");
        let written = encode(&record).expect("what was read can be written");
        let again = decode(&written).expect("what was written can be read");
        assert_eq!(again, record);
    }
    Err(error) => assert!(!error.to_string().contains('\n')),
});
