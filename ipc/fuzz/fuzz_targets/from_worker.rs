//! Any bytes as what a worker, or a reader of an image, may send, as the supervisor decodes it: refused, or a value that is encoded and decoded
//! again to the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_ipc::codec::{decode, encode};
use reeve_ipc::image::ImageAnswer;
use reeve_ipc::message::FromWorker;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = decode::<FromWorker>(bytes) {
        // The bytes themselves may differ: a number has more than one form on the wire.
        let again = encode(&message).expect("what was decoded fits a message");
        let same: FromWorker = decode(&again).expect("what was encoded is decoded");
        assert_eq!(same, message);
    }
    if let Ok(answer) = decode::<ImageAnswer>(bytes) {
        let again = encode(&answer).expect("what was decoded fits a message");
        let same: ImageAnswer = decode(&again).expect("what was encoded is decoded");
        assert_eq!(same, answer);
    }
});
