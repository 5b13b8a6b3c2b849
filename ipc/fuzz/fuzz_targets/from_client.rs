//! Any bytes as what a client of the native API may send, as the supervisor decodes it: refused, or a
//! value that is encoded and decoded again to the same value, and whose definition can be judged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_ipc::api::call::CallBody;
use reeve_ipc::api::message::FromClient;
use reeve_ipc::codec::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode::<FromClient>(bytes) else {
        return;
    };
    // The bytes themselves may differ: a number has more than one form on the wire.
    let again = encode(&message).expect("what was decoded fits a message");
    let same: FromClient = decode(&again).expect("what was encoded is decoded");
    assert_eq!(same, message);
    let FromClient::Call { body, .. } = message else {
        return;
    };
    let definition = match body {
        CallBody::DomainDefine(define) => define.definition,
        CallBody::DomainCreate(create) => create.definition,
        _ => return,
    };
    // An error names what is wrong; all of its texts are made from what came.
    let _ = definition.validate().map_err(|error| error.to_string());
    for pin in &definition.pinning {
        assert!(pin.cpus.iter().count() > 0);
        assert_eq!(pin.cpus.to_string().parse(), Ok(pin.cpus.clone()));
    }
});
