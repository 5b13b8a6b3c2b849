//! What a client may say before a connection is open, and by which names it opens.

use reeve_ipc::api::Access;
use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainState, RunningReason};

use super::harness::{Act, Client, Got, Said, bytes, handle};
use crate::calls::testing::details;
use crate::wire::call::Call;
use crate::wire::frame::{Kind, Program, Status};
use crate::wire::types::{connect, inspect, lifecycle};

const REMOTE: u32 = 0x2000_8086;
const KEEPALIVE: u32 = 0x6b65_6570;

fn nothing(call: &CallBody) -> Act {
    panic!("the supervisor is asked {call:?}")
}

fn running(call: &CallBody) -> Act {
    match call {
        CallBody::DomainGet(_) => {
            let running = DomainState::Running(RunningReason::Booted);
            Act::Answer(AnswerBody::DomainGet(details("a", running)))
        }
        other => nothing(other),
    }
}

#[test]
fn what_virsh_says_first_is_answered() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    assert_eq!(client.ask(&connect::AuthList {}).0, [0]);
    let keepalive = connect::ConnectSupportsFeature { feature: 10 };
    assert_eq!(client.ask(&keepalive), 1);
    client.open_by("qemu:///system", 0);
    for (feature, answer) in [
        (14, 1),
        (15, 1),
        (9, 1),
        (16, 1),
        (3, 0),
        (8, 0),
        (17, 0),
        (99, 0),
    ] {
        let feature = connect::ConnectSupportsFeature { feature };
        assert_eq!(client.ask(&feature), answer, "{feature:?}");
    }
    client.ask(&connect::ConnectRegisterCloseCallback {});
    assert_eq!(client.ask(&connect::ConnectGetType {}), "QEMU");
    assert!(client.ask(&connect::ConnectGetLibVersion {}) >= 9_000_000);
    assert!(client.ask(&connect::ConnectGetVersion {}) >= 2_011_000);
    client.ask(&connect::ConnectUnregisterCloseCallback {});
    client.ask(&connect::ConnectClose {});
    assert_eq!(client.next(), None);
    client.end().unwrap();
}

#[test]
fn an_answer_has_the_words_of_its_call() {
    let mut client = Client::open(nothing);
    client.packet(REMOTE, 1, 3, 0, 0xdead_beef, 0, b"");
    let Got { header, payload } = client.next().unwrap();
    assert_eq!(
        (header.program, header.version, header.procedure),
        (REMOTE, 1, 3)
    );
    assert_eq!(
        (header.kind, header.serial, header.status),
        (Kind::Reply, 0xdead_beef, Status::Ok)
    );
    assert_eq!(payload, b"\0\0\0\x04QEMU");
}

#[test]
fn a_client_may_open_without_asking_who_it_may_be() {
    for uri in ["qemu:///system", "qemu:///session", "reeve:///system"] {
        let mut client = Client::with(Access::ReadWrite, nothing);
        client.open_by(uri, 0xff00_0006);
        assert_eq!(client.ask(&connect::ConnectGetUri {}), uri);
    }
}

#[test]
fn a_name_that_nothing_answers_to_is_refused_and_another_may_follow() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    for uri in ["xen:///system", "qemu:///foo/bar", "qemu://host/system"] {
        let open = connect::ConnectOpen {
            name: Some(uri.to_owned()),
            flags: 0,
        };
        let Said {
            code,
            domain,
            message,
        } = client.refused(&open);
        assert_eq!((code, domain), (5, 0));
        assert_eq!(message, format!("no connection driver available for {uri}"));
    }
    client.open_by("qemu:///system", 0);
}

#[test]
fn nothing_else_is_answered_before_it_is_open() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    let not_open = |client: &mut Client, serial| {
        let Said {
            code,
            domain,
            message,
        } = client.answer(serial).error();
        let wanted = "internal error: hypervisor connection not open";
        assert_eq!((code, domain, message.as_str()), (1, 7, wanted));
    };
    let serial = client.send(&connect::ConnectGetType {});
    not_open(&mut client, serial);
    let serial = client.send(&connect::ConnectSupportsFeature { feature: 14 });
    not_open(&mut client, serial);
    let serial = client.send(&inspect::DomainIsActive {
        domain: handle("a", 1),
    });
    not_open(&mut client, serial);
}

#[test]
fn a_second_opening_is_refused_and_the_first_stays() {
    let mut client = Client::open(nothing);
    let open = connect::ConnectOpen {
        name: Some("qemu:///system".to_owned()),
        flags: 0,
    };
    let said = client.refused(&open);
    assert_eq!((said.code, said.domain), (1, 7));
    assert_eq!(client.ask(&connect::ConnectGetType {}), "QEMU");
}

#[test]
fn unknown_numbers_have_the_words_that_clients_look_for() {
    let mut client = Client::open(nothing);
    // One that there is not, one below, and an event's.
    for number in [9999, -1, 0, 318] {
        let serial = client.send_raw(REMOTE, 1, number, b"");
        let said = client.answer(serial).error();
        assert_eq!((said.code, said.domain), (39, 7), "{number}");
        assert_eq!(said.message, format!("unknown procedure: {number}"));
    }
    for (program, version) in [(1, 1), (REMOTE, 2), (0x0006_8000, 2)] {
        let serial = client.send_raw(program, version, 1, b"");
        let said = client.answer(serial).error();
        assert_eq!((said.code, said.domain), (39, 7));
        let wanted = format!("Cannot find program {program} version {version}");
        assert_eq!(said.message, wanted);
    }
    // Known, and served by nobody.
    let serial = client.send_raw(REMOTE, 1, 55, &bytes(&handle("a", 1)));
    let said = client.answer(serial).error();
    assert_eq!((said.code, said.domain), (3, 20));
    let wanted = "this function is not supported by the connection driver: virDomainSave";
    assert_eq!(said.message, wanted);
}

#[test]
fn bytes_behind_the_arguments_are_nothing_and_missing_ones_are_an_error() {
    let mut client = Client::open(running);
    let call = inspect::DomainGetState {
        domain: handle("a", 5),
        flags: 0,
    };
    let mut long = bytes(&call);
    long.extend_from_slice(&[0; 40]);
    let number = inspect::DomainGetState::NUMBER;
    let serial = client.send_raw(REMOTE, 1, number, &long);
    let state = client.answer(serial).reply::<inspect::DomainGetState>();
    assert_eq!((state.state, state.reason), (1, 1));
    let serial = client.send_raw(REMOTE, 1, number, &bytes(&call)[..30]);
    let said = client.answer(serial).error();
    assert_eq!((said.code, said.domain), (39, 7));
    assert!(
        said.message.starts_with("Unable to decode message payload"),
        "{said:?}"
    );
}

#[test]
fn a_read_only_connection_changes_nothing_whatever_it_asks_for() {
    // Asked for by the client, or decided by the supervisor.
    for (access, flags) in [(Access::ReadWrite, 1), (Access::ReadOnly, 0)] {
        let mut client = Client::with(access, running);
        client.open_by("qemu:///system", flags);
        let said = client.refused(&lifecycle::DomainDestroy {
            domain: handle("a", 5),
        });
        assert_eq!((said.code, said.domain), (29, 20));
        let wanted = "operation forbidden: read only access prevents virDomainDestroy";
        assert_eq!(said.message, wanted);
        for flags in [1, 8] {
            let xml = inspect::DomainGetXmlDesc {
                domain: handle("a", 5),
                flags,
            };
            assert_eq!(client.refused(&xml).code, 29);
        }
        let active = inspect::DomainIsActive {
            domain: handle("a", 5),
        };
        assert!(client.ask(&active));
        // A second opening loosens nothing.
        let again = connect::ConnectOpen {
            name: Some("qemu:///system".to_owned()),
            flags: 0,
        };
        client.refused(&again);
        let said = client.refused(&lifecycle::DomainSuspend {
            domain: handle("a", 5),
        });
        assert_eq!(said.code, 29);
    }
}

#[test]
fn a_ping_is_answered_at_any_time_and_a_client_that_did_not_ask_gets_none() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    client.packet(KEEPALIVE, 1, 1, 2, 0, 0, b"");
    let Got { header, payload } = client.next().unwrap();
    assert_eq!(header.program, Program::Keepalive.number());
    assert_eq!(
        (header.procedure, header.kind, header.serial),
        (2, Kind::Message, 0)
    );
    assert!(payload.is_empty());
    client.open_by("qemu:///system", 0);
    client.silence(6_000);
}

#[test]
fn a_client_that_asked_for_keepalive_is_asked_after_five_seconds() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    client.ask(&connect::ConnectSupportsFeature { feature: 10 });
    let asked = std::time::Instant::now();
    let Got { header, .. } = client.next().unwrap();
    assert_eq!((header.program, header.procedure), (KEEPALIVE, 1));
    assert!(asked.elapsed() > std::time::Duration::from_millis(4_500));
}

#[test]
fn polkit_and_sasl_are_not_asked_for() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    assert_eq!(client.refused(&connect::AuthPolkit {}).code, 45);
    assert_eq!(client.refused(&connect::AuthSaslInit {}).code, 45);
    client.open_by("qemu:///system", 0);
}

#[test]
fn the_test_hypervisor_is_asked_for_before_anything_else() {
    let mut client = Client::with(Access::ReadWrite, |call| match call {
        CallBody::TestHypervisorUse(_) => Act::Answer(AnswerBody::TestHypervisorUse(())),
        other => nothing(other),
    });
    client.open_by("test:///default", 0);
    assert_eq!(client.supervisor.seen.lock().unwrap().len(), 1);
    assert_eq!(client.ask(&connect::ConnectGetType {}), "Test");
    assert_eq!(client.ask(&connect::ConnectGetUri {}), "test:///default");
    assert_eq!(client.ask(&connect::ConnectGetVersion {}), 2);
    // Whoever asked to look only does so there.
    let mut client = Client::with(Access::ReadWrite, |call| match call {
        CallBody::TestHypervisorUse(_) => Act::Answer(AnswerBody::TestHypervisorUse(())),
        other => nothing(other),
    });
    client.open_by("test:///default", 1);
    let domain = handle("a", 5);
    assert_eq!(
        client.refused(&lifecycle::DomainDestroy { domain }).code,
        29
    );
}

#[test]
fn where_there_is_no_test_hypervisor_a_client_is_told_so_and_may_open_another() {
    let mut client = Client::with(Access::ReadWrite, |call| match call {
        CallBody::TestHypervisorUse(_) => Act::Fail(ApiErrorCode::Unsupported, "it is off"),
        other => nothing(other),
    });
    let open = |uri: &str| connect::ConnectOpen {
        name: Some(uri.to_owned()),
        flags: 0,
    };
    let said = client.refused(&open("test:///default"));
    assert_eq!((said.code, said.domain), (5, 0));
    let wanted = "no connection driver available for test:///default";
    assert_eq!(said.message, wanted);
    client.open_by("qemu:///system", 0);
    assert_eq!(client.ask(&connect::ConnectGetType {}), "QEMU");
}

#[test]
fn no_file_of_a_test_hypervisor_is_read() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    let open = |uri: &str| connect::ConnectOpen {
        name: Some(uri.to_owned()),
        flags: 0,
    };
    let said = client.refused(&open("test:///"));
    assert_eq!((said.code, said.domain), (8, 12));
    let wanted = "invalid argument: testOpen: supply a path or use test:///default";
    assert_eq!(said.message, wanted);
    let said = client.refused(&open("test:///etc/node.xml"));
    assert_eq!((said.code, said.domain), (5, 0));
    let wanted = "no connection driver available for test:///etc/node.xml: no file is read for a client; \
                  use test:///default";
    assert_eq!(said.message, wanted);
    assert_eq!(client.refused(&open("test://host/default")).code, 5);
}
