//! What a domain's state leaves of a call, in libvirt's words; and what of a host there is none of.

use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainState, PausedReason, RunningReason};
use reeve_ipc::model::{DeviceName, Vcpus};

use super::harness::{Act, Client, Said, handle};
use super::one::{One, definition};
use crate::calls::testing::details;
use crate::wire::call::Call;
use crate::wire::types::handles::Domain as Handle;
use crate::wire::types::network as net;
use crate::wire::types::{device, inspect, lifecycle, tuning};

const LIVE: u32 = 1;
const CONFIG: u32 = 2;
const NIC: &str = "<interface type='bridge'><mac address='52:54:00:00:00:01'/>\
    <source bridge='br0'/><model type='virtio'/></interface>";

/// A client of a host whose domain `a` stands so, and whose supervisor takes no change of it.
fn refusing(state: DomainState) -> (Client, Handle) {
    let client = Client::open(move |call| match call {
        CallBody::DomainGet(_) => Act::Answer(AnswerBody::DomainGet(details("a", state))),
        _ => Act::Fail(ApiErrorCode::WrongState, "the supervisor's own words"),
    });
    (client, handle("a", 5))
}

fn invalid(said: &Said, why: &str) {
    let wanted = format!("Requested operation is not valid: {why}");
    assert_eq!((said.code, said.message.as_str()), (55, wanted.as_str()));
}

#[test]
fn a_domain_in_the_wrong_state_is_refused_in_libvirts_words() {
    let off = DomainState::ShutOff(reeve_ipc::api::view::ShutOffReason::Shutdown);
    let (mut client, domain) = refusing(off);
    let suspend = lifecycle::DomainSuspend {
        domain: domain.clone(),
    };
    let resume = lifecycle::DomainResume {
        domain: domain.clone(),
    };
    let shutdown = lifecycle::DomainShutdown {
        domain: domain.clone(),
    };
    let destroy = lifecycle::DomainDestroy {
        domain: domain.clone(),
    };
    let start = lifecycle::DomainCreate {
        domain: domain.clone(),
    };
    let rename = lifecycle::DomainRename {
        domain: domain.clone(),
        name: Some("b".to_owned()),
        flags: 0,
    };
    let not_running = "domain is not running";
    invalid(&client.refused(&suspend), not_running);
    invalid(&client.refused(&resume), not_running);
    invalid(&client.refused(&shutdown), not_running);
    invalid(&client.refused(&destroy), not_running);
    // Of what its state does not say, the supervisor's reason is told.
    invalid(&client.refused(&start), "the supervisor's own words");
    let (mut client, _) = refusing(DomainState::Running(RunningReason::Booted));
    invalid(&client.refused(&start), "domain is already running");
    invalid(&client.refused(&resume), "domain is already running");
    invalid(&client.refused(&rename), "cannot rename active domain");
    let (mut client, _) = refusing(DomainState::Paused(PausedReason::User));
    invalid(&client.refused(&shutdown), not_running);
    invalid(&client.refused(&suspend), "the supervisor's own words");
    let create = lifecycle::DomainCreateXml {
        xml: "<domain type='kvm'><name>a</name><memory>65536</memory>\
              <os><type>hvm</type><kernel>/k</kernel></os></domain>"
            .to_owned(),
        flags: 0,
    };
    let mut client = Client::open(|call| match call {
        CallBody::SupervisorInfoGet(_) => {
            Act::Answer(AnswerBody::SupervisorInfoGet(super::host::supervisor_info()))
        }
        _ => Act::Fail(ApiErrorCode::WrongState, "it is running already"),
    });
    invalid(&client.refused(&create), "domain 'a' is already active");
}

/// A client of a supervisor that has domain `a` end at once, and tells so often that its worker is not released yet.
fn lingering(times: usize) -> Client {
    let mut left = times;
    Client::open(move |call| match call {
        CallBody::DomainDestroy(_) => Act::Answer(AnswerBody::DomainDestroy(())),
        CallBody::DomainUndefine(_) => Act::Answer(AnswerBody::DomainUndefine(())),
        CallBody::DomainGet(_) => {
            let off = DomainState::ShutOff(reeve_ipc::api::view::ShutOffReason::Destroyed);
            let mut found = details("a", off);
            found.summary.reaping = left > 0;
            left = left.saturating_sub(1);
            Act::Answer(AnswerBody::DomainGet(found))
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_domain_has_ended_once_its_worker_is_released() {
    let domain = handle("a", 5);
    let mut client = lingering(3);
    client.ask(&lifecycle::DomainDestroy {
        domain: domain.clone(),
    });
    let seen = std::mem::take(&mut *client.supervisor.seen.lock().unwrap());
    let looks = |call: &CallBody| matches!(call, CallBody::DomainGet(_));
    assert_eq!(seen.iter().filter(|call| looks(call)).count(), 4);
    assert!(looks(seen.last().unwrap()));
    // One that its guest has ended is forgotten then, and not before.
    let mut client = lingering(3);
    client.ask(&lifecycle::DomainUndefine { domain });
    let seen = client.supervisor.seen.lock().unwrap();
    assert!(matches!(seen.last(), Some(CallBody::DomainUndefine(_))));
    assert_eq!(seen.iter().filter(|call| looks(call)).count(), 4);
}

/// A client of a domain that runs, whose guest never lets go of a device in time; whether its worker answers.
fn reluctant(answers: bool) -> (Client, Handle, Arc<Mutex<One>>) {
    let one = Arc::new(Mutex::new(One::running(definition("", NIC))));
    let script = Arc::clone(&one);
    let client = Client::open(move |call| match call {
        CallBody::DomainDeviceDetach(_) => Act::Fail(
            ApiErrorCode::Timeout,
            "its guest has not let go of it within 10 s, and may do so yet",
        ),
        call => match script.lock().unwrap().act(call) {
            Act::Answer(AnswerBody::DomainFiguresList(mut page)) => {
                page.domains
                    .iter_mut()
                    .for_each(|domain| domain.answered = answers);
                Act::Answer(AnswerBody::DomainFiguresList(page))
            }
            act => act,
        },
    });
    (client, handle("a", 5), one)
}

#[test]
fn a_guest_that_takes_its_time_over_a_device_fails_no_detach() {
    let detach = |domain: &Handle, flags| device::DomainDetachDeviceFlags {
        domain: domain.clone(),
        xml: NIC.to_owned(),
        flags,
    };
    let (mut client, domain, one) = reluctant(true);
    client.ask(&detach(&domain, LIVE));
    client.ask(&detach(&domain, LIVE | CONFIG));
    let slot = {
        let one = one.lock().unwrap();
        let devices = &one.running.as_ref().unwrap().devices;
        let nic = DeviceName::Nic("52:54:00:00:00:01".parse().unwrap());
        devices.find(&nic).unwrap().0
    };
    client.ask(&device::DomainDetachDeviceAlias {
        domain: domain.clone(),
        alias: format!("net{}", slot.number()),
        flags: LIVE,
    });
    // A worker that does not answer has asked no guest.
    let (mut client, domain, _) = reluctant(false);
    assert_eq!(client.refused(&detach(&domain, LIVE)).code, 68);
}

#[test]
fn what_a_guest_would_be_asked_for_is_in_no_document() {
    let mut one = One::running(definition("", NIC));
    one.stats = super::devices::stats(one.running.as_ref().unwrap());
    let (mut client, domain, _) = one.client();
    let xml = client.ask(&inspect::DomainGetXmlDesc { domain, flags: 0 });
    assert!(xml.contains("<target dev='vnet0'/>"), "{xml}");
    let seen = client.supervisor.seen.lock().unwrap();
    let asks_guest = |call: &CallBody| matches!(call, CallBody::DomainDeviceStatsGet(_));
    assert!(!seen.iter().any(asks_guest));
}

#[test]
fn the_most_vcpus_are_those_of_the_topology_that_is_said() {
    let elements =
        "<cpu mode='host-passthrough'><topology sockets='2' cores='2' threads='1'/></cpu>";
    let (mut client, domain, one) = One::off(definition(elements, "")).client();
    let set = |nvcpus| tuning::DomainSetVcpusFlags {
        domain: domain.clone(),
        nvcpus,
        flags: CONFIG | 4,
    };
    let said = client.refused(&set(6));
    assert_eq!(said.code, 8);
    let why = "CPU topology doesn't match the desired vcpu count";
    assert!(said.message.ends_with(why), "{said:?}");
    client.ask(&set(4));
    let kept = one.lock().unwrap().kept.clone().unwrap();
    assert_eq!(kept.max_vcpus, Vcpus::try_from(4).unwrap());
}

#[test]
fn an_element_is_set_got_and_taken_away_by_its_namespace() {
    let (mut client, domain, one) = One::running(definition("", "")).client();
    let set = |metadata: Option<&str>, key: Option<&str>, flags| lifecycle::DomainSetMetadata {
        domain: domain.clone(),
        kind: 2,
        metadata: metadata.map(str::to_owned),
        key: key.map(str::to_owned),
        uri: Some("urn:x".to_owned()),
        flags,
    };
    let get = |flags| lifecycle::DomainGetMetadata {
        domain: domain.clone(),
        kind: 2,
        uri: Some("urn:x".to_owned()),
        flags,
    };
    client.ask(&set(Some("<a><b c='1'/></a>"), Some("k"), LIVE | CONFIG));
    let both = one.lock().unwrap().clone();
    for domain in [&both.running, &both.kept] {
        let metadata = &domain.as_ref().unwrap().labels.metadata;
        assert_eq!(
            metadata[0].content,
            "<k:a xmlns:k='urn:x'><k:b c='1'/></k:a>"
        );
    }
    for flags in [0, LIVE, CONFIG] {
        assert_eq!(client.ask(&get(flags)), "<a><b c='1'/></a>");
    }
    assert_eq!(client.refused(&get(LIVE | CONFIG)).code, 8);
    // A text of nothing is no element, and no text takes away.
    assert_eq!(client.refused(&set(Some(""), Some("k"), 0)).code, 35);
    assert_eq!(client.refused(&set(Some("<a/>"), None, 0)).code, 8);
    assert_eq!(client.refused(&set(Some("<a/>"), Some("1"), 0)).code, 27);
    client.ask(&set(None, None, LIVE));
    let said = client.refused(&get(LIVE));
    let wanted = "metadata not found: Requested metadata element is not present";
    assert_eq!((said.code, said.message.as_str()), (80, wanted));
    assert_eq!(client.ask(&get(CONFIG)), "<a><b c='1'/></a>");
    // What is not there goes as well.
    client.ask(&set(None, None, LIVE | CONFIG));
    assert_eq!(client.refused(&get(CONFIG)).code, 80);
}

#[test]
fn a_title_is_one_line_of_both_definitions_and_of_no_namespace() {
    let (mut client, domain, one) = One::running(definition("", "")).client();
    let mut set = lifecycle::DomainSetMetadata {
        domain: domain.clone(),
        kind: 1,
        metadata: Some("words".to_owned()),
        key: None,
        uri: None,
        flags: LIVE | CONFIG,
    };
    client.ask(&set);
    {
        let one = one.lock().unwrap();
        for domain in [&one.running, &one.kept] {
            let title = domain.as_ref().unwrap().labels.title.as_deref();
            assert_eq!(title, Some("words"));
        }
    }
    let get = lifecycle::DomainGetMetadata {
        domain,
        kind: 1,
        uri: None,
        flags: 0,
    };
    assert_eq!(client.ask(&get), "words");
    set.metadata = Some("two\nlines".to_owned());
    assert!(client.refused(&set).message.contains("newlines"));
    set.uri = Some("urn:x".to_owned());
    assert!(client.refused(&set).message.contains("must be NULL"));
    (set.uri, set.metadata) = (None, Some(String::new()));
    client.ask(&set);
    assert_eq!(client.refused(&get).code, 80);
}

#[test]
fn of_what_there_is_none_lists_are_empty_and_look_ups_find_nothing() {
    fn missing<C: Call>(client: &mut Client, call: &C, code: i32, origin: i32) {
        let said = client.refused(call);
        assert_eq!((said.code, said.domain), (code, origin), "{said:?}");
    }
    let mut client = Client::open(|call| panic!("the supervisor is asked {call:?}"));
    let (need_results, flags) = (true, 0);
    let all = net::ConnectListAllNodeDevices {
        need_results,
        flags,
    };
    assert_eq!(client.ask(&all).ret, 0);
    let all = net::ConnectListAllSecrets {
        need_results,
        flags,
    };
    assert_eq!(client.ask(&all).ret, 0);
    let capability = Some("pci".to_owned());
    let count = net::NodeNumOfDevices {
        capability: capability.clone(),
        flags,
    };
    assert_eq!(client.ask(&count), 0);
    let names = net::NodeListDevices {
        capability,
        maxnames: 9,
        flags,
    };
    assert!(client.ask(&names).0.is_empty());
    assert_eq!(client.ask(&net::ConnectNumOfSecrets {}), 0);
    let (name, uuid) = ("x".to_owned(), [7; 16]);
    let client = &mut client;
    missing(
        client,
        &net::NodeDeviceLookupByName { name: name.clone() },
        53,
        22,
    );
    missing(client, &net::SecretLookupByUuid { uuid }, 66, 30);
    let usage = net::SecretLookupByUsage {
        usage_type: 1,
        usage_id: name,
    };
    missing(client, &usage, 66, 30);
}
