//! What a domain is asked for that no domain has: I/O threads, events of processors, security labels.

use reeve_ipc::api::call::CallBody;

use super::one::{One, definition};
use crate::wire::frame::Program;
use crate::wire::types::params::Param;
use crate::wire::types::{host, inspect, tuning};

const LIVE: u32 = 1;
const CONFIG: u32 = 2;

#[test]
fn a_domain_has_no_iothreads_to_be_asked_for_pinned_or_removed() {
    let (mut client, domain, _) = One::running(definition("", "")).client();
    let of = |flags| tuning::DomainGetIothreadInfo {
        domain: domain.clone(),
        flags,
    };
    let told = client.ask(&of(0));
    assert_eq!((told.info.0.len(), told.ret), (0, 0));
    assert_eq!(client.refused(&of(LIVE | CONFIG)).code, 8);
    let domain = domain.clone();
    let pin = tuning::DomainPinIothread {
        domain: domain.clone(),
        id: 3,
        cpumap: vec![1].into(),
        flags: 0,
    };
    let said = client.refused(&pin);
    assert_eq!(
        (said.code, said.message.as_str()),
        (8, "invalid argument: iothread 3 not found")
    );
    let add = tuning::DomainAddIothread {
        domain: domain.clone(),
        id: 3,
        flags: CONFIG,
    };
    assert_eq!(client.refused(&add).code, 67);
    let remove = tuning::DomainDelIothread {
        domain: domain.clone(),
        id: 3,
        flags: 0,
    };
    assert_eq!(client.refused(&remove).code, 8);
    let set = |flags| tuning::DomainSetIothreadParams {
        domain: domain.clone(),
        id: 3,
        params: vec![Param::new("poll_max_ns", 5_u64)].into(),
        flags,
    };
    assert_eq!(client.refused(&set(LIVE)).code, 8);
    assert_eq!(client.refused(&set(CONFIG)).code, 84);
}

#[test]
fn nothing_is_measured_by_events_of_the_hosts_processors() {
    let (mut client, domain, _) = One::running(definition("", "")).client();
    let events = client.ask(&inspect::DomainGetPerfEvents {
        domain: domain.clone(),
        flags: 0,
    });
    assert_eq!(events.0.first(), Some(&Param::new("cmt", false)));
    let set = |name: &str, is: bool| tuning::DomainSetPerfEvents {
        domain: domain.clone(),
        params: vec![Param::new(name, is)].into(),
        flags: 0,
    };
    client.ask(&set("cpu_cycles", false));
    let said = client.refused(&set("cpu_cycles", true));
    assert_eq!(said.code, 74);
    assert!(
        said.message
            .ends_with("unable to enable host cpu perf event for cpu_cycles")
    );
    assert_eq!(client.refused(&set("nothing", true)).code, 74);
    let rate = |seconds| inspect::DomainStartDirtyRateCalc {
        domain: domain.clone(),
        seconds,
        flags: 0,
    };
    assert_eq!(client.refused(&rate(0)).code, 67);
    assert_eq!(client.refused(&rate(1)).code, 84);
}

#[test]
fn no_driver_labels_what_a_domain_uses() {
    let (mut client, domain, _) = One::running(definition("", "")).client();
    let model = client.ask(&host::NodeGetSecurityModel {});
    assert_eq!(
        (model.model.0.as_slice(), model.doi.0.as_slice()),
        (&b"none\0"[..], &b"0\0"[..])
    );
    let label = client.ask(&inspect::DomainGetSecurityLabel {
        domain: domain.clone(),
    });
    assert_eq!((label.label.0.as_slice(), label.enforcing), (&b"\0"[..], 0));
    let labels = client.ask(&inspect::DomainGetSecurityLabelList { domain });
    assert_eq!((labels.labels.0.len(), labels.ret), (0, 0));
}

#[test]
fn a_program_for_containers_is_refused_as_a_function_that_is_not_there() {
    let (mut client, _, _) = One::running(definition("", "")).client();
    let serial = client.send_raw(Program::Lxc.number(), 1, 1, &[]);
    let said = client.answer(serial).error();
    assert_eq!(said.code, 3);
    assert!(
        said.message.ends_with("virDomainLxcOpenNamespace"),
        "{}",
        said.message
    );
}

#[test]
fn one_vcpu_more_is_had_by_its_number() {
    let (mut client, domain, _) = One::running(definition("", "")).client();
    let set = |cpumap: &str, state, flags| tuning::DomainSetVcpu {
        domain: domain.clone(),
        cpumap: cpumap.to_owned(),
        state,
        flags,
    };
    client.ask(&set("2", 1, LIVE | CONFIG));
    client.ask(&set("1", 0, CONFIG));
    assert_eq!(client.refused(&set("0", 0, LIVE)).code, 84);
    assert_eq!(client.refused(&set("9", 1, LIVE)).code, 8);
    let seen = client.supervisor.seen.lock().unwrap();
    let counts = seen.iter().filter_map(|call| match call {
        CallBody::DomainVcpusSet(set) => Some((set.vcpus.count(), set.live, set.persistent)),
        _ => None,
    });
    let counts: Vec<_> = counts.collect();
    assert_eq!(counts, [(3, true, true), (1, false, true)]);
}
