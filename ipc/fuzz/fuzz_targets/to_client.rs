//! Any bytes as what a supervisor may send, as a client decodes and judges it: refused, or a value that
//! is encoded and decoded again to the same value; and no answer is taken but to a call that waits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_ipc::api::call::Operation;
use reeve_ipc::api::judge::{self, Told, Waiting};
use reeve_ipc::api::message::ToClient;
use reeve_ipc::codec::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode::<ToClient>(bytes) else {
        return;
    };
    let again = encode(&message).expect("what was decoded fits a message");
    let same: ToClient = decode(&again).expect("what was encoded is decoded");
    assert_eq!(same, message);
    let _ = judge::greeting(message.clone()).map_err(|error| error.to_string());
    // Calls 1 to 24, one of each operation.
    let mut waiting = Waiting::default();
    for operation in Operation::ALL {
        waiting.begin(*operation, *operation);
    }
    if let Ok(Told::Answer(operation, Ok(body))) = waiting.judge(message) {
        assert_eq!(body.operation(), operation);
    }
});
