//! What is fixed of it.

use reeve_ipc::api::host::HostTopology;
use reeve_ipc::changes::Changes;

use super::*;

#[test]
fn the_first_domain_is_that_of_libvirts_test_driver() {
    let mut domain = first().unwrap();
    domain.accept().unwrap();
    domain.complete().unwrap();
    domain.validate().unwrap();
    assert_eq!(
        domain.uuid.to_string(),
        "6695eb01-f6a4-8304-79aa-97f2502e193f"
    );
    assert_eq!(domain.memory.bytes() >> 10, 8_388_608);
    assert_eq!(
        domain.tuning.current_memory.unwrap().bytes() >> 10,
        2_097_152
    );
}

fn empty(most: usize) -> Registry {
    let world = World {
        driver: Arc::new(TestDriver::new()),
        storage: Arc::new(InMemory),
        clock: Arc::new(HostClock),
        events: Arc::new(EventLog::new(1)),
        logs: None,
        ids: Arc::new(AtomicU32::new(1)),
        changes: Arc::new(ChangeCount::new().unwrap()),
        networks: None,
    };
    Registry::bounded(Arc::new(world), most)
}

/// A client that is told of a change must not be shown what was before it, by whoever remembers that.
#[tokio::test]
async fn whatever_a_look_shows_is_counted_before_it_is_told() {
    use crate::domain::actor::Request;
    let registry = empty(2);
    let changes = Changes::of(registry.world().changes.file()).unwrap();
    let seen = std::cell::Cell::new(changes.number());
    let counted = |what: &str| {
        let before = seen.replace(changes.number());
        assert!(seen.get() > before, "{what}");
    };
    let domain = first().unwrap();
    let of = DomainRef::Uuid(domain.uuid);
    registry.define(domain, true).await.unwrap();
    counted("defined");
    let started = registry.start(&of, StartOptions::default(), NOBODY).await;
    counted("started");
    registry
        .view(&DomainRef::Id(started.unwrap().id.unwrap()))
        .unwrap();
    assert_eq!(changes.number(), seen.get(), "a look is no change");
    for (what, request) in [
        ("paused", Request::Pause),
        ("resumed", Request::Resume),
        ("destroyed", Request::Destroy),
    ] {
        registry.ask(&of, request).await.unwrap();
        counted(what);
    }
    registry
        .rename(&of, "other".parse().unwrap())
        .await
        .unwrap();
    counted("renamed");
    let request = Request::SetAutostart(Some(1));
    registry.ask(&of, request).await.unwrap();
    counted("marked for autostart");
    registry.ask(&of, Request::Undefine).await.unwrap();
    counted("undefined");
    assert!(registry.view(&of).is_err());
}

#[tokio::test]
async fn what_is_full_takes_no_more_until_something_goes() {
    let registry = empty(2);
    populate(&registry).await.unwrap();
    let other = |number: u128| {
        let mut domain = first().unwrap();
        domain.name = format!("other{number}").parse().unwrap();
        domain.uuid = DomainUuid(Uuid::from_u128(number));
        domain
    };
    registry.define(other(1), true).await.unwrap();
    let full = registry.define(other(2), true).await.unwrap_err();
    assert_eq!(full.code, ApiErrorCode::Host);
    let created = registry.create(other(2), StartOptions::default(), NOBODY);
    assert_eq!(created.await.unwrap_err().code, ApiErrorCode::Host);
    // One that is there is defined again all the same.
    registry.define(other(1), false).await.unwrap();
    let of = |number| DomainRef::Uuid(DomainUuid(Uuid::from_u128(number)));
    let undefine = crate::domain::actor::Request::Undefine;
    registry.ask(&of(1), undefine).await.unwrap();
    registry.define(other(2), true).await.unwrap();
    assert_eq!(registry.count(), (1, 1));
}

#[test]
fn its_host_adds_up() {
    use crate::host::node::HostBooks as _;
    let info = TestHost.fresh();
    let nodes: u64 = info.nodes.iter().map(|node| node.memory.bytes()).sum();
    assert_eq!(nodes, info.memory.bytes());
    assert_eq!(info.memory.bytes() >> 10, 3_145_728);
    let HostTopology {
        nodes,
        sockets,
        cores,
        threads,
    } = info.topology;
    assert_eq!(nodes * sockets * cores * threads, 16);
    let cpus = TestHost.cpus(None).cpus;
    assert_eq!(cpus.len(), info.online.iter().count());
    assert_eq!(TestHost.cpus(Some(14)).cpus.len(), 1);
    assert_eq!(TestHost.cpus(Some(u32::MAX)).cpus.len(), 0);
    assert_eq!(TestHost.cpu_stats(15, u32::MAX).cpus.len(), 1);
    assert_eq!(TestHost.cpu_stats(16, 1).cpus.len(), 0);
}
