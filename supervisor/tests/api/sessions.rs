//! What becomes of domains and calls when a client goes, at whatever moment.

use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainCreate, DomainDestroy, DomainGet, DomainUndefine, StartOptions,
    SupervisorInfoGet, TestHypervisorUse,
};
use reeve_ipc::api::error::ApiErrorCode::{NoDomain, WrongState};
use reeve_ipc::api::view::{DomainState, DomainSummary, ShutOffReason};

use super::harness::{Instance, Raw, code, define, domain, named, start};

fn create(name: &str, auto_destroy: bool) -> DomainCreate {
    DomainCreate {
        definition: Box::new(domain(name)),
        options: StartOptions {
            paused: false,
            auto_destroy,
        },
    }
}

fn state(connection: &mut Connection, name: &str) -> DomainState {
    let domain = named(name);
    let details = connection.call(DomainGet { domain }).unwrap();
    details.summary.state
}

fn none_is_active(instance: &Instance) {
    instance.eventually("no domain runs", |instance| {
        instance.connect().domains(true).unwrap().is_empty()
    });
}

#[test]
fn a_client_that_dies_before_its_start_is_answered_leaves_no_bound_domain() {
    let instance = Instance::start("");
    let mut root = instance.connect();
    root.call(define("kept")).unwrap();
    for round in 0..30 {
        let raw = Raw::greeted(&instance);
        let say = |raw: &Raw| {
            raw.call(1, create(&format!("once-{round}"), true));
            raw.call(2, start("kept", true));
        };
        // Gone before the call is read, and gone somewhere in its middle.
        if round % 2 == 0 {
            instance.frozen(|| {
                say(&raw);
                raw.shut();
            });
        } else {
            say(&raw);
            std::thread::sleep(std::time::Duration::from_micros(round * 20));
            raw.shut();
        }
        none_is_active(&instance);
    }
    let left = root.domains(false).unwrap();
    assert_eq!(left.len(), 1, "only the one that is kept: {left:?}");
    // It is as free as ever.
    root.call(start("kept", false)).unwrap();
    let domain = named("kept");
    root.call(DomainDestroy { domain }).unwrap();
}

#[test]
fn a_bound_domain_goes_with_its_own_client_and_with_no_other() {
    let instance = Instance::start("");
    let mut owner = instance.connect();
    owner.call(create("bound", true)).unwrap();
    owner.call(create("free", false)).unwrap();
    owner.call(define("kept")).unwrap();
    owner.call(start("kept", true)).unwrap();
    let mut other = instance.connect();
    other.call(create("others", true)).unwrap();
    drop(instance.connect());
    assert!(state(&mut other, "bound").is_active());
    drop(owner);
    instance.eventually("two are left", |instance| {
        instance.connect().domains(true).unwrap().len() == 2
    });
    assert!(state(&mut other, "free").is_active());
    assert!(state(&mut other, "others").is_active());
    assert_eq!(
        state(&mut other, "kept"),
        DomainState::ShutOff(ShutOffReason::Destroyed),
        "its definition is kept"
    );
}

#[test]
fn a_bound_domain_that_was_started_again_is_bound_no_more() {
    let instance = Instance::start("");
    let mut owner = instance.connect();
    let mut other = instance.connect();
    owner.call(define("web")).unwrap();
    owner.call(start("web", true)).unwrap();
    let domain = named("web");
    other.call(DomainDestroy { domain }).unwrap();
    instance.eventually("it is off", |instance| {
        instance.connect().domains(true).unwrap().is_empty()
    });
    other.call(start("web", false)).unwrap();
    drop(owner);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(state(&mut other, "web").is_active());
}

#[test]
fn a_client_that_dies_in_the_middle_of_any_call_leaves_nothing_half_made() {
    let instance = Instance::start("");
    let mut root = instance.connect();
    for round in 0..40_u64 {
        let name = format!("d{round}");
        let raw = Raw::greeted(&instance);
        raw.call(1, define(&name));
        raw.call(2, start(&name, false));
        let domain = named(&name);
        raw.call(3, DomainDestroy { domain });
        let domain = named(&name);
        raw.call(4, DomainUndefine { domain });
        std::thread::sleep(std::time::Duration::from_micros(round * 25));
        raw.shut();
    }
    instance.eventually("all clients are gone", |instance| {
        let info = instance.connect().call(SupervisorInfoGet {}).unwrap();
        info.clients <= 2
    });
    // What was asked for goes on without its client, and shows as nothing while it waits or is written:
    // whatever comes up is whole, and is cleared away until there is nothing on disk either.
    let mut whole = 0;
    let records = || {
        let records = std::fs::read_dir(instance.state().join("domains")).unwrap();
        records.count()
    };
    let deadline = std::time::Instant::now() + super::harness::PATIENCE;
    while records() > 0 || !root.domains(false).unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "some are half made");
        for summary in root.domains(false).unwrap() {
            whole += usize::from(clear_away(&mut root, &summary));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(whole > 0, "not one call was made in time");
}

/// Uses a domain once more and removes it; false while a job of it has not ended.
fn clear_away(connection: &mut Connection, summary: &DomainSummary) -> bool {
    if summary.job.is_some() || summary.reaping {
        return false;
    }
    let name = summary.name.as_str();
    let domain = || named(name);
    // What is asked for may be done already by a call that was waiting.
    let settled = |error: CallError| matches!(code(&error), Some(NoDomain | WrongState));
    let used = match summary.state.is_active() {
        true => connection.call(DomainDestroy { domain: domain() }),
        false => connection.call(start(name, false)).map(drop),
    };
    assert!(used.is_ok() || used.is_err_and(settled), "{summary:?}");
    let undefined = connection.call(DomainUndefine { domain: domain() });
    undefined.is_ok() || undefined.is_err_and(settled)
}

#[test]
fn a_console_outlives_the_connection_that_attached_to_it_and_is_closed_with_its_domain() {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    let instance = Instance::start("");
    let mut root = instance.connect();
    root.call(create("web", false)).unwrap();
    let console = || DomainConsole {
        domain: named("web"),
        input: true,
    };
    let mut client = instance.connect();
    let (attached, mut fds) = client.call_with_fds(console()).unwrap();
    assert_eq!((attached.position, fds.len()), (0, 1));
    drop(client);
    let mut stream = UnixStream::from(fds.pop().unwrap());
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(super::harness::PATIENCE))
        .unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"reeve");
    // A client that attaches and goes before it is answered costs nothing.
    let before = instance.descriptors();
    for _ in 0..20 {
        let raw = Raw::greeted(&instance);
        raw.call(1, console());
        raw.shut();
    }
    let domain = named("web");
    root.call(DomainDestroy { domain }).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    instance.eventually("its descriptors are no more than before", |instance| {
        instance.descriptors() <= before
    });
}

#[test]
fn where_no_domain_is_real_the_test_hypervisor_serves_already() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    client.call(define("web")).unwrap();
    client.call(TestHypervisorUse {}).unwrap();
    state(&mut client, "web");
    client.call(TestHypervisorUse {}).unwrap();
}
