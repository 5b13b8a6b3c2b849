//! What the supervisor after this one finds, and servers that end.

use super::*;

#[tokio::test]
async fn active_networks_are_taken_over_and_what_was_unfinished_is_taken_away() {
    let stage = Stage::new();
    let kept = stage.started(&served(1, "kept")).await;
    stage.networks.create(plain(2, "transient")).await.unwrap();
    stage.define(&plain(3, "inactive")).await.unwrap();
    let store = Stage::open(&stage.root);
    let boot_id = crate::host::process::boot_id().to_owned();
    for (number, name, phase) in [
        (4, "starting", NetworkPhase::Starting),
        (5, "stopping", NetworkPhase::Stopping),
    ] {
        let network = plain(number, name);
        if number == 4 {
            let record = NetworkRecord {
                network: network.clone(),
                autostart: false,
            };
            store.write(&record).unwrap();
        }
        let status = NetworkStatus {
            boot_id: boot_id.clone(),
            phase,
            network,
            resources: NetworkResources::default(),
        };
        store.set_status(Operation::NetworkStart, &status).unwrap();
    }
    let next = stage.next().await;
    let mut asked = next.host.take();
    asked.sort();
    assert_eq!(
        asked,
        [
            "adopt kept",
            "adopt transient",
            "stop starting",
            "stop stopping"
        ]
    );
    let page = next.networks.page(None, NetworkFilter::default());
    let standing: Vec<_> = page
        .networks
        .iter()
        .map(|it| (it.name.as_str(), it.active, it.persistent))
        .collect();
    assert_eq!(
        standing,
        [
            ("inactive", false, true),
            ("kept", true, true),
            ("starting", false, true),
            ("transient", true, false),
        ]
    );
    // Its addresses are its own still.
    let mut other = served(6, "other");
    other.addresses.clone_from(&kept.addresses);
    let other = next.define(&other).await.unwrap();
    assert_eq!(
        refusal(next.ask(&other, Request::Start).await).0,
        ApiErrorCode::Host
    );
    next.ask(&kept, Request::Stop).await.unwrap();
    let after = next.next().await;
    assert_eq!(after.host.take(), ["adopt transient"]);
}

#[tokio::test]
async fn ports_are_known_again_and_connected_by_the_next_start() {
    let stage = Stage::new();
    let network = stage.started(&plain(1, "lan")).await;
    let given = stage.networks.connect(PortRequest {
        network: &network.name,
        port_group: None,
        virtual_port: None,
        uuid: DomainUuid(Uuid::from_u128(1)),
        name: &"web".parse().unwrap(),
        mac: mac(1),
    });
    let next = stage.next().await;
    let details = reeve_ipc::api::network::PortDetails {
        port: given.unwrap(),
        domain: DomainUuid(Uuid::from_u128(1)),
        name: "web".parse().unwrap(),
        mac: mac(1),
        interface: Some("vnet1".parse().unwrap()),
        port_group: None,
    };
    next.networks.restore(&network.name, details.clone());
    let named = NetworkRef::Uuid(network.uuid);
    assert_eq!(next.networks.ports(&named, None).unwrap().ports, [details]);
    next.ask(&network, Request::Stop).await.unwrap();
    next.host.take();
    next.ask(&network, Request::Start).await.unwrap();
    let connect = format!("connect vnet1 to {}", network.bridge.name.unwrap());
    assert_eq!(next.host.take(), ["start lan".to_owned(), connect]);
}

#[tokio::test]
async fn a_network_that_cannot_be_taken_over_is_tried_again_and_says_so() {
    let stage = Stage::new();
    let network = stage.started(&served(1, "lan")).await;
    let next = Stage::over(stage.root);
    next.host.refuse("adopt", NetworkFailure::Host);
    next.networks.recover(next.networks.load().unwrap()).await;
    assert!(next.is_active(&network));
    let fault = next.fault(&network).unwrap();
    assert!(
        fault.contains("no adopt today") && fault.contains("in 100ms"),
        "{fault}"
    );
    until(|| next.fault(&network).is_none()).await;
    assert_eq!(next.host.take(), ["adopt lan", "adopt lan"]);
}

#[tokio::test]
async fn a_server_that_ends_is_started_again_later_each_time() {
    let stage = Stage::new();
    let network = stage.started(&served(1, "lan")).await;
    stage.host.take();
    assert_eq!(stage.fault(&network), None);
    for wait in [100, 200, 400] {
        stage.host.end_server(&network);
        until(|| stage.fault(&network).is_some()).await;
        let fault = stage.fault(&network).unwrap();
        assert!(
            fault.contains(&format!("has ended; it is tried again in {wait}ms")),
            "{fault}"
        );
        until(|| stage.fault(&network).is_none()).await;
        assert_eq!(stage.host.take(), ["adopt lan"]);
    }
    // One that has lived for long is started again soon.
    tokio::time::sleep(Duration::from_millis(900)).await;
    stage.host.end_server(&network);
    until(|| stage.fault(&network).is_some()).await;
    assert!(stage.fault(&network).unwrap().contains("in 100ms"));
    // A network that is stopped meanwhile stays so.
    stage.ask(&network, Request::Stop).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.host.take(), ["stop lan"]);
    let run = stage.root.path().join("run/networks");
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
}

#[tokio::test]
async fn a_network_that_does_not_work_is_made_again_and_its_interfaces_connected() {
    let stage = Stage::looking();
    let network = stage.started(&plain(1, "lan")).await;
    until(|| stage.host.take().contains(&"check lan".to_owned())).await;
    assert_eq!(stage.fault(&network), None);
    stage.host.refuse("check", NetworkFailure::Host);
    until(|| stage.fault(&network).is_some()).await;
    let fault = stage.fault(&network).unwrap();
    assert!(
        fault.contains("no check today; it is tried again in 100ms"),
        "{fault}"
    );
    until(|| stage.fault(&network).is_none()).await;
    assert!(stage.host.take().contains(&"adopt lan".to_owned()));
    // And goes on being looked after.
    until(|| stage.host.take().contains(&"check lan".to_owned())).await;
    stage.ask(&network, Request::Stop).await.unwrap();
    stage.host.take();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.host.take(), [""; 0]);
}
