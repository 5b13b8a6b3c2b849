//! Calls in flight: each is answered by itself, in any order.

use reeve_ipc::api::call::{AnswerBody, CallBody, DomainPage, DomainRef};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::figures::{DomainFigures, DomainUsage, FiguresOf, FiguresPage};
use reeve_ipc::api::view::{DomainDefinition, DomainState, RunningReason, ShutOffReason};

use super::harness::{Act, Client, Said, handle};
use crate::calls::testing::{details, summary};
use crate::wire::types::{connect, inspect, lifecycle};

const RUNNING: DomainState = DomainState::Running(RunningReason::Booted);
const OFF: DomainState = DomainState::ShutOff(ShutOffReason::Destroyed);

/// A host with a running domain `a` and a defined one `b`.
fn host(call: &CallBody) -> Act {
    let found = |name: &str| match name {
        "a" => Some(RUNNING),
        "b" => Some(OFF),
        _ => None,
    };
    let get = |domain: &DomainRef| {
        let name = match domain {
            DomainRef::Name(name) => name.as_str().to_owned(),
            DomainRef::Uuid(uuid) => char::from(uuid.0.as_bytes()[0]).to_string(),
            DomainRef::Id(5) => "a".to_owned(),
            DomainRef::Id(_) => String::new(),
        };
        match found(&name) {
            Some(state) => Act::Answer(AnswerBody::DomainGet(details(&name, state))),
            None => Act::Fail(ApiErrorCode::NoDomain, "there is no such domain"),
        }
    };
    match call {
        CallBody::DomainGet(get_call) => get(&get_call.domain),
        CallBody::DomainList(list) => {
            let mut domains = vec![summary("a", RUNNING)];
            if !list.active_only {
                domains.push(summary("b", OFF));
            }
            Act::Answer(AnswerBody::DomainList(DomainPage {
                domains,
                more: false,
            }))
        }
        CallBody::DomainFiguresList(list) => {
            let FiguresOf::Named(named) = &list.of else {
                panic!("of all");
            };
            let DomainRef::Uuid(uuid) = &named[0] else {
                panic!("by another name");
            };
            let name = char::from(uuid.0.as_bytes()[0]).to_string();
            let figures = |state: DomainState| DomainFigures {
                summary: summary(&name, state),
                usage: state.is_active().then_some(DomainUsage {
                    cpu_time_ns: 1_500_000,
                    ..DomainUsage::default()
                }),
                vcpus: Vec::new(),
                devices: Vec::new(),
                answered: true,
            };
            Act::Answer(AnswerBody::DomainFiguresList(FiguresPage {
                domains: found(&name).map(figures).into_iter().collect(),
                of: 1,
                more: false,
            }))
        }
        CallBody::DomainDefinitionGet(_) => {
            let domain = super::one::definition("", "");
            let autostart = None;
            let definition = DomainDefinition { domain, autostart };
            Act::Answer(AnswerBody::DomainDefinitionGet(Box::new(definition)))
        }
        CallBody::DomainShutdown(_) => Act::Hold,
        CallBody::DomainPause(_) => Act::Fail(ApiErrorCode::WrongState, "it is not running"),
        other => panic!("the supervisor is asked {other:?}"),
    }
}

#[test]
fn what_is_known_of_a_domain_is_asked_for_again_once_something_has_changed() {
    let mut client = Client::open(host);
    let supervisor = client.supervisor.clone();
    supervisor
        .stands
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let asked = || {
        let seen = supervisor.seen.lock().unwrap();
        let gets = seen
            .iter()
            .filter(|call| matches!(call, CallBody::DomainGet(_)));
        gets.count()
    };
    let name = lifecycle::DomainLookupByName {
        name: "a".to_owned(),
    };
    let uuid = lifecycle::DomainLookupByUuid {
        uuid: handle("a", 0).uuid,
    };
    let found = client.ask(&name);
    assert_eq!(client.ask(&uuid), found);
    let before = asked();
    for _ in 0..3 {
        assert_eq!(client.ask(&name), found);
        assert_eq!(client.ask(&uuid), found);
    }
    assert_eq!(asked(), before);
    supervisor.changes.raise();
    assert_eq!(client.ask(&name), found);
    assert_eq!(asked(), before + 1);
    assert_eq!(client.ask(&uuid), found);
    assert_eq!(client.ask(&name), found);
    assert_eq!(asked(), before + 2);
    // That there is none is asked each time.
    let none = lifecycle::DomainLookupByName {
        name: "c".to_owned(),
    };
    for more in 3..5 {
        client.refused(&none);
        assert_eq!(asked(), before + more);
    }
}

#[test]
fn domains_are_found_by_name_uuid_and_number() {
    let mut client = Client::open(host);
    let a = client.ask(&lifecycle::DomainLookupByName {
        name: "a".to_owned(),
    });
    assert_eq!(a, handle("a", 5));
    let b = client.ask(&lifecycle::DomainLookupByUuid {
        uuid: handle("b", 0).uuid,
    });
    assert_eq!(b, handle("b", -1));
    assert_eq!(client.ask(&lifecycle::DomainLookupById { id: 5 }), a);
    for name in ["c", "", "no/name", "5"] {
        let Said {
            code,
            domain,
            message,
        } = client.refused(&lifecycle::DomainLookupByName {
            name: name.to_owned(),
        });
        assert_eq!((code, domain), (42, 10));
        let wanted = format!("Domain not found: no domain with matching name '{name}'");
        assert_eq!(message, wanted);
    }
    assert_eq!(
        client.refused(&lifecycle::DomainLookupById { id: -1 }).code,
        42
    );
}

#[test]
fn domains_are_listed_counted_and_described() {
    let mut client = Client::open(host);
    let mut list = lifecycle::ConnectListAllDomains {
        need_results: true,
        flags: 0,
    };
    let all = client.ask(&list);
    assert_eq!(
        (all.domains.0.as_slice(), all.ret),
        ([handle("a", 5), handle("b", -1)].as_slice(), 2)
    );
    list.flags = 2;
    assert_eq!(client.ask(&list).domains.0, [handle("b", -1)]);
    list.need_results = false;
    let counted = client.ask(&list);
    assert_eq!((counted.domains.0.len(), counted.ret), (0, 1));
    assert_eq!(
        client.ask(&lifecycle::ConnectListDomains { maxids: 10 }).0,
        [5]
    );
    assert_eq!(client.ask(&lifecycle::ConnectNumOfDomains {}), 1);
    let names = client.ask(&lifecycle::ConnectListDefinedDomains { maxnames: 10 });
    assert_eq!(names.0, ["b"]);
    let none = client.ask(&lifecycle::ConnectListDomains { maxids: -1 });
    assert!(none.0.is_empty());
    let info = client.ask(&inspect::DomainGetInfo {
        domain: handle("a", 5),
    });
    assert_eq!((info.state, info.vcpus, info.cpu_time), (1, 2, 1_500_000));
    assert_eq!((info.max_memory, info.memory), (65536, 65536));
    let info = client.ask(&inspect::DomainGetInfo {
        domain: handle("b", -1),
    });
    assert_eq!((info.state, info.cpu_time), (5, 0));
}

#[test]
fn what_the_supervisor_refuses_is_said_in_libvirts_words() {
    let mut client = Client::open(host);
    let said = client.refused(&lifecycle::DomainSuspend {
        domain: handle("b", -1),
    });
    assert_eq!((said.code, said.domain), (55, 10));
    assert_eq!(
        said.message,
        "Requested operation is not valid: domain is not running"
    );
    let said = client.refused(&inspect::DomainIsActive {
        domain: handle("z", -1),
    });
    assert_eq!(said.code, 42);
    assert!(
        said.message
            .contains("no domain with matching uuid '7a0707"),
        "{said:?}"
    );
    assert!(said.message.ends_with("(z)"), "{said:?}");
}

#[test]
fn a_call_that_takes_time_holds_no_other_up_and_answers_come_in_any_order() {
    let mut client = Client::open(host);
    let slow: Vec<u32> = (0..3)
        .map(|_| {
            client.send(&lifecycle::DomainShutdown {
                domain: handle("a", 5),
            })
        })
        .collect();
    client.supervisor.holds(3);
    assert_eq!(client.ask(&connect::ConnectGetType {}), "QEMU");
    assert!(client.ask(&inspect::DomainIsActive {
        domain: handle("a", 5)
    }));
    client.packet(0x6b65_6570, 1, 1, 2, 0, 0, b"");
    assert_eq!(client.next().unwrap().header.procedure, 2);
    let held = std::mem::take(&mut *client.supervisor.held.lock().unwrap());
    for (index, (id, _)) in held.into_iter().enumerate().rev() {
        let answer = AnswerBody::DomainShutdown(());
        client.supervisor.answer(id, Ok(answer));
        client
            .answer(slow[index])
            .reply::<lifecycle::DomainShutdown>();
    }
}

#[test]
fn beyond_so_many_calls_nothing_more_is_read_and_nothing_is_lost() {
    let mut client = Client::open(host);
    let most = crate::session::run::MAX_CALLS;
    for _ in 0..most {
        client.send(&lifecycle::DomainShutdown {
            domain: handle("a", 5),
        });
    }
    client.supervisor.holds(most);
    let behind = client.send(&connect::ConnectGetType {});
    client.silence(200);
    let (id, _) = client.supervisor.held.lock().unwrap().remove(0);
    client
        .supervisor
        .answer(id, Ok(AnswerBody::DomainShutdown(())));
    let first = client.next().unwrap();
    first.reply::<lifecycle::DomainShutdown>();
    client.answer(behind).reply::<connect::ConnectGetType>();
}

#[test]
fn a_domain_that_is_busy_is_waited_for() {
    let mut refusals = 3;
    let mut client = Client::open(move |call| match call {
        CallBody::DomainPause(_) if refusals > 0 => {
            refusals -= 1;
            Act::Fail(ApiErrorCode::Busy, "another job is running")
        }
        CallBody::DomainPause(_) => Act::Answer(AnswerBody::DomainPause(())),
        other => host(other),
    });
    client.ask(&lifecycle::DomainSuspend {
        domain: handle("a", 5),
    });
    assert_eq!(client.supervisor.seen.lock().unwrap().len(), 4);
}

#[test]
fn ten_calls_in_one_write_are_ten_answers() {
    let mut client = Client::open(host);
    let mut all = Vec::new();
    for serial in 100..110 {
        let call = inspect::DomainGetState {
            domain: handle("a", 5),
            flags: 0,
        };
        crate::wire::frame::call(&mut all, serial, &call).unwrap();
    }
    client.write(&all);
    let mut serials: Vec<u32> = (0..10)
        .map(|_| client.next().unwrap().header.serial)
        .collect();
    serials.sort_unstable();
    assert_eq!(serials, (100..110).collect::<Vec<_>>());
}
