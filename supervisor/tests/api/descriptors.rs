//! Descriptors that do not belong: refused, and closed whatever becomes of the message.

use std::fs::File;
use std::os::fd::OwnedFd;

use reeve_ipc::MAX_MESSAGE_FDS;
use reeve_ipc::api::API;
use reeve_ipc::api::call::{Operation, SupervisorInfoGet};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::message::{CallId, FromClient};
use reeve_ipc::codec;

use super::calls::sample;
use super::harness::{Instance, Raw};

fn strays(count: usize) -> Vec<OwnedFd> {
    let open = || File::open("/dev/null").unwrap().into();
    (0..count).map(|_| open()).collect()
}

#[test]
fn no_call_takes_descriptors_and_the_connection_goes_on() {
    let instance = Instance::start("");
    let raw = Raw::greeted(&instance);
    let before = instance.descriptors();
    let mut id = 0;
    for operation in Operation::ALL {
        for count in [1, MAX_MESSAGE_FDS] {
            id += 1;
            let message = FromClient::Call {
                id: CallId(id),
                body: sample(*operation),
            };
            if !raw.strays(&codec::encode(&message).unwrap(), &strays(count)) {
                continue;
            }
            let (answered, error) = raw.answer();
            let error = error.unwrap();
            assert_eq!((answered, error.code), (id, ApiErrorCode::InvalidArgument));
            assert_eq!(
                error.message,
                format!("cannot {}: it takes no descriptors", operation.name())
            );
        }
    }
    instance.eventually("they are closed", |instance| {
        instance.descriptors() <= before
    });
    raw.call(id + 1, SupervisorInfoGet {});
    assert_eq!(raw.answer().1, None);
    assert!(instance.connect().domains(false).unwrap().is_empty());
}

#[test]
fn those_of_a_message_that_ends_its_connection_are_closed_as_well() {
    let instance = Instance::start("");
    let before = instance.descriptors();
    let client = "raw".to_owned();
    let hello = codec::encode(&FromClient::Hello { api: API, client }).unwrap();
    for _ in 0..20 {
        let raw = Raw::connect(&instance);
        if raw.strays(&hello, &strays(3)) {
            assert!(raw.hear().is_none(), "a hello takes none");
        }
        let raw = Raw::greeted(&instance);
        if raw.strays(&[0xff; 40], &strays(MAX_MESSAGE_FDS)) {
            assert!(raw.hear().is_none());
        }
        // Never read: they die with the socket.
        let raw = Raw::greeted(&instance);
        instance.frozen(|| {
            for id in 0..5 {
                let body = sample(Operation::DomainGet);
                let id = CallId(id);
                let call = codec::encode(&FromClient::Call { id, body }).unwrap();
                raw.bytes(&call, &strays(10));
            }
            raw.shut();
        });
    }
    // Nothing is left; the first client may even have been on its way out.
    instance.eventually("its descriptors are those of before", |instance| {
        instance.descriptors() <= before
    });
}
