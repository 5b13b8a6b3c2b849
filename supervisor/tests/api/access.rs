//! Who is let in, and what each may call.

use reeve_ipc::api::Access;
use reeve_ipc::api::blocking::{ConnectError, Connection};
use reeve_ipc::api::call::{
    ConfigReload, DomainDefinitionGet, DomainGet, Operation, SupervisorInfoGet,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::judge::GreetingError;

use super::calls::{right, sample};
use super::harness::{
    Instance, READ_ONLY, READ_WRITE, READER, Raw, STRANGER, User, WRITER, as_user, define, named,
};

fn open_as(instance: &Instance, user: User) -> Result<Connection, ConnectError> {
    let path = instance.socket();
    as_user(user, || Connection::open(&path, "test"))
}

#[test]
fn uid_and_groups_decide_at_the_door() {
    let instance = Instance::start("");
    let both = User(4300, &[9, READ_ONLY.1, READ_WRITE.1]);
    let primary = User(4301, &[READ_WRITE.1]);
    let many: &'static [u32] = Box::leak((5000..5500).chain([READ_ONLY.1]).collect());
    for (user, access) in [
        (User(0, &[0]), Access::ReadWrite),
        (WRITER, Access::ReadWrite),
        (both, Access::ReadWrite),
        (primary, Access::ReadWrite),
        (READER, Access::ReadOnly),
        (User(4302, many), Access::ReadOnly),
    ] {
        let connection = open_as(&instance, user).unwrap();
        assert_eq!(connection.access(), access, "{user:?}");
    }
    let root_group = User(4303, &[0]);
    for user in [STRANGER, root_group] {
        let error = open_as(&instance, user).unwrap_err();
        let ConnectError::Greeting(GreetingError::Refused(refusal)) = &error else {
            panic!("{error}");
        };
        assert_eq!(refusal.code, ApiErrorCode::AccessDenied);
        let message = error.to_string();
        assert!(message.contains(&user.0.to_string()), "{message}");
        assert!(message.contains("can add you to the group"), "{message}");
    }
}

#[test]
fn who_is_refused_hears_why_even_where_it_has_spoken_first() {
    let instance = Instance::start("");
    for _ in 0..20 {
        // What it says is never read: the refusal must come to it all the same.
        let raw = instance.frozen(|| {
            as_user(STRANGER, || {
                let raw = Raw::connect(&instance);
                raw.hello(reeve_ipc::api::API);
                raw.body(1, sample(Operation::DomainDefine));
                raw
            })
        });
        assert_eq!(raw.refusal().code, ApiErrorCode::AccessDenied);
        assert!(raw.hear().is_none());
    }
    assert!(instance.connect().domains(false).unwrap().is_empty());
}

#[test]
fn every_call_needs_the_right_that_was_decided_for_it() {
    for operation in Operation::ALL {
        assert_eq!(operation.access(), right(*operation), "{operation:?}");
        assert_eq!(sample(*operation).operation(), *operation);
    }
}

#[test]
fn a_reader_is_refused_every_call_that_changes_or_reveals_and_no_other() {
    let instance = Instance::start("");
    let mut root = instance.connect();
    root.call(define("web")).unwrap();
    let definition = DomainDefinitionGet {
        domain: named("web"),
        persistent: true,
    };
    let before = root.call(definition.clone()).unwrap();
    root.subscribe(None).unwrap();

    let raw = as_user(READER, || Raw::greeted(&instance));
    for (id, operation) in (1..).zip(Operation::ALL) {
        raw.body(id, sample(*operation));
        let (answered, error) = raw.answer();
        assert_eq!(answered, id);
        let denied = error
            .as_ref()
            .is_some_and(|error| error.code == ApiErrorCode::AccessDenied);
        assert_eq!(
            denied,
            right(*operation) == Access::ReadWrite,
            "{operation:?}: {error:?}"
        );
        if denied {
            let message = error.unwrap().message;
            let said = format!("cannot {}: this connection is read-only", operation.name());
            assert_eq!(message, said);
        }
    }
    assert_eq!(root.call(definition).unwrap(), before);
    assert_eq!(root.domains(false).unwrap().len(), 1);
    let event = root.next_event(Some(std::time::Duration::from_millis(50)));
    assert!(event.unwrap().is_none(), "nothing has happened");
}

#[test]
fn a_writer_is_denied_nothing() {
    let instance = Instance::start("");
    instance.connect().call(define("web")).unwrap();
    let raw = as_user(WRITER, || Raw::greeted(&instance));
    for (id, operation) in (1..).zip(Operation::ALL) {
        raw.body(id, sample(*operation));
        loop {
            // Events come between the answers once they are subscribed to.
            match raw.hear() {
                Some(reeve_ipc::api::message::ToClient::Reply {
                    id: answered,
                    result,
                }) => {
                    assert_eq!(answered.0, id);
                    let code = result.err().map(|error| error.code);
                    assert_ne!(code, Some(ApiErrorCode::AccessDenied), "{operation:?}");
                    break;
                }
                Some(reeve_ipc::api::message::ToClient::Event { .. }) => {}
                other => panic!("{operation:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_reload_changes_who_is_let_in_and_leaves_those_who_are() {
    let instance = Instance::start("");
    let mut reader = open_as(&instance, READER).unwrap();
    instance.configure("read_write_group = \"bin\"\nread_only_group = \"\"\n");
    let changes = instance.connect().call(ConfigReload {}).unwrap();
    assert!(
        changes
            .iter()
            .any(|line| line.starts_with("read_only_group")),
        "{changes:?}"
    );
    let error = reader
        .call(super::harness::start("web", false))
        .unwrap_err();
    assert_eq!(
        super::harness::code(&error),
        Some(ApiErrorCode::AccessDenied)
    );
    reader.call(SupervisorInfoGet {}).unwrap();
    let again = open_as(&instance, READER).unwrap();
    assert_eq!(again.access(), Access::ReadWrite);
    assert!(open_as(&instance, WRITER).is_err());
    let error = reader
        .call(DomainGet {
            domain: named("web"),
        })
        .unwrap_err();
    assert_eq!(super::harness::code(&error), Some(ApiErrorCode::NoDomain));
}
