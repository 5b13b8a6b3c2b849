//! Virtual networks by the native API, and machines that are on them: over the driver whose machines, and networks,
//! only look like some.

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDefine, DomainDefinitionGet, DomainDestroy, DomainDeviceAttach, DomainDeviceDetach,
    DomainStart, NetworkAutostartSet, NetworkCreate, NetworkDefine, NetworkDefinitionGet,
    NetworkFilter, NetworkGet, NetworkLeasesGet, NetworkList, NetworkPortList, NetworkRef,
    NetworkStart, NetworkStop, NetworkUndefine, NetworkUpdate, StartOptions,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::{Event, NetworkEventKind};
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::model::{
    Device, Domain, EditCommand, Network, NetworkEdit, NetworkPart, NetworkPort, NetworkUuid, Nic,
    NicSource, PortGroup, PortLink, PortUuid,
};
use uuid::Uuid;

use super::harness::{Instance, code, domain, named};

fn lan() -> Network {
    let uuid = NetworkUuid(Uuid::from_u128(7));
    Network::new("lan".parse().unwrap(), uuid)
}

fn by_name() -> NetworkRef {
    NetworkRef::Name("lan".parse().unwrap())
}

fn define(connection: &mut Connection, network: &Network) {
    let network = Box::new(network.clone());
    let only_new = false;
    connection
        .call(NetworkDefine { network, only_new })
        .unwrap();
}

fn nic() -> Nic {
    Nic::new(NicSource::Network {
        network: "lan".parse().unwrap(),
        port_group: None,
        port: None,
    })
}

fn on_lan(name: &str) -> Domain {
    let mut definition = domain(name);
    definition.devices.nics.push(nic());
    definition
}

fn ports(connection: &mut Connection) -> Vec<PortDetails> {
    let (network, after) = (by_name(), None);
    let page = connection.call(NetworkPortList { network, after });
    page.unwrap().ports
}

/// What the interfaces of a domain were given, in the definition that it runs with, or in the one that is kept.
fn given(connection: &mut Connection, name: &str, persistent: bool) -> Vec<Option<NetworkPort>> {
    let definition = connection.call(DomainDefinitionGet {
        domain: named(name),
        persistent,
    });
    let nics = definition.unwrap().domain.devices.nics.into_iter();
    nics.map(|nic| match nic.source {
        NicSource::Network { port, .. } => port.map(|port| *port),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn start(name: &str) -> DomainStart {
    DomainStart {
        domain: named(name),
        options: StartOptions::default(),
    }
}

#[test]
fn a_machine_is_on_a_network_from_its_start_to_its_end() {
    let instance = Instance::start("");
    let mut connection = instance.connect();
    let mut wanted = on_lan("web");
    // What is not a client's to say.
    if let NicSource::Network { port, .. } = &mut wanted.devices.nics[0].source {
        *port = Some(Box::new(NetworkPort {
            uuid: PortUuid(Uuid::from_u128(1)),
            link: PortLink::Bridge("br-other".parse().unwrap()),
            mtu: None,
            inbound: None,
            outbound: None,
            trust_guest: true,
            isolated: false,
        }));
    }
    let definition = Box::new(wanted);
    let only_new = true;
    connection
        .call(DomainDefine {
            definition,
            only_new,
        })
        .unwrap();
    assert_eq!(given(&mut connection, "web", true), [None]);
    let refused = connection.call(start("web")).unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::NoNetwork), "{refused}");
    define(&mut connection, &lan());
    let refused = connection.call(start("web")).unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::WrongState));
    assert!(
        refused.to_string().contains("network 'lan' is not active"),
        "{refused}"
    );
    connection
        .call(NetworkStart { network: by_name() })
        .unwrap();
    connection.call(start("web")).unwrap();
    let network = connection
        .call(NetworkDefinitionGet {
            network: by_name(),
            persistent: false,
        })
        .unwrap();
    let bridge = network.bridge.name.unwrap();
    let live = given(&mut connection, "web", false);
    let [Some(port)] = live.as_slice() else {
        panic!("{live:?}")
    };
    assert_eq!(port.link, PortLink::Bridge(bridge));
    assert!(!port.trust_guest);
    assert_eq!(given(&mut connection, "web", true), [None]);
    let listed = ports(&mut connection);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].port, *port);
    assert_eq!(listed[0].name.as_str(), "web");
    connection
        .call(DomainDestroy {
            domain: named("web"),
        })
        .unwrap();
    assert_eq!(ports(&mut connection), []);
    // Each start has a port of its own.
    connection.call(start("web")).unwrap();
    assert_ne!(ports(&mut connection)[0].port.uuid, port.uuid);
}

#[test]
fn an_interface_that_comes_and_goes_has_a_port_meanwhile() {
    let instance = Instance::start("");
    let mut connection = instance.connect();
    let mut definition = domain("web");
    definition.devices.nics.clear();
    let definition = Box::new(definition);
    let only_new = true;
    connection
        .call(DomainDefine {
            definition,
            only_new,
        })
        .unwrap();
    connection.call(start("web")).unwrap();
    let attach = || DomainDeviceAttach {
        domain: named("web"),
        device: Box::new(Device::Nic(nic())),
        live: true,
        persistent: true,
    };
    let refused = connection.call(attach()).unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::NoNetwork), "{refused}");
    for persistent in [false, true] {
        assert_eq!(given(&mut connection, "web", persistent), []);
    }
    let network = Box::new(lan());
    connection.call(NetworkCreate { network }).unwrap();
    connection.call(attach()).unwrap();
    let port = ports(&mut connection).remove(0).port;
    assert_eq!(given(&mut connection, "web", false), [Some(port)]);
    assert_eq!(given(&mut connection, "web", true), [None]);
    // A group that is not there leaves nothing of the interface either.
    let mut silver = nic();
    if let NicSource::Network { port_group, .. } = &mut silver.source {
        *port_group = Some("silver".to_owned());
    }
    let mut wrong = attach();
    wrong.device = Box::new(Device::Nic(silver));
    let refused = connection.call(wrong).unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::InvalidArgument));
    assert_eq!(given(&mut connection, "web", false).len(), 1);
    assert_eq!(ports(&mut connection).len(), 1);
    let mac = connection
        .call(DomainDefinitionGet {
            domain: named("web"),
            persistent: false,
        })
        .unwrap()
        .domain
        .devices
        .nics[0]
        .mac
        .unwrap();
    connection
        .call(DomainDeviceDetach {
            domain: named("web"),
            device: mac.to_string().parse().unwrap(),
            force: true,
            live: true,
            persistent: true,
        })
        .unwrap();
    assert_eq!(ports(&mut connection), []);
}

#[test]
fn networks_are_there_again_after_a_crash_of_the_daemon() {
    let mut instance = Instance::start("");
    let mut connection = instance.connect();
    define(&mut connection, &lan());
    let mut other = lan();
    (other.name, other.uuid) = ("other".parse().unwrap(), NetworkUuid(Uuid::from_u128(8)));
    let network = Box::new(other);
    connection.call(NetworkCreate { network }).unwrap();
    connection
        .call(NetworkStart { network: by_name() })
        .unwrap();
    connection
        .call(NetworkAutostartSet {
            network: by_name(),
            autostart: true,
        })
        .unwrap();
    let list = NetworkList {
        after: None,
        filter: NetworkFilter::default(),
    };
    let before = connection.call(list.clone()).unwrap();
    assert_eq!(before.networks.len(), 2);
    assert!(before.networks.iter().all(|network| network.active));
    instance.crash();
    let mut connection = instance.connect();
    assert_eq!(connection.call(list).unwrap(), before);
    // What an administrator undefined stays so, and there is no network that nobody asked for.
    connection.call(NetworkStop { network: by_name() }).unwrap();
    connection
        .call(NetworkUndefine { network: by_name() })
        .unwrap();
    instance.crash();
    let mut connection = instance.connect();
    let refused = connection
        .call(NetworkGet { network: by_name() })
        .unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::NoNetwork));
}

#[test]
fn what_happens_to_a_network_is_told_and_its_parts_change() {
    let instance = Instance::start("");
    let mut connection = instance.connect();
    let mut events = instance.connect();
    events.subscribe(None).unwrap();
    define(&mut connection, &lan());
    connection
        .call(NetworkStart { network: by_name() })
        .unwrap();
    let leases = connection.call(NetworkLeasesGet { network: by_name() });
    assert!(!leases.unwrap(), "it keeps no book");
    let edit = |name: &str| NetworkUpdate {
        network: by_name(),
        edit: Box::new(NetworkEdit {
            command: EditCommand::AddLast,
            part: NetworkPart::PortGroup(PortGroup {
                name: name.to_owned(),
                default: false,
                inbound: None,
                outbound: None,
                vlan: None,
                trust_guest: None,
                isolated: Some(true),
            }),
        }),
        live: true,
        persistent: true,
    };
    connection.call(edit("silver")).unwrap();
    let refused = connection.call(edit("silver")).unwrap_err();
    assert_eq!(code(&refused), Some(ApiErrorCode::WrongState));
    for persistent in [false, true] {
        let network = by_name();
        let definition = connection.call(NetworkDefinitionGet {
            network,
            persistent,
        });
        assert_eq!(definition.unwrap().port_groups.len(), 1);
    }
    connection.call(NetworkStop { network: by_name() }).unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&NetworkEventKind::Stopped) {
        let event = events.next_event(Some(super::harness::PATIENCE)).unwrap();
        let (_, event) = event.expect("an event");
        told.extend(Event::of_network(event).map(|event| event.kind));
    }
    assert_eq!(
        told,
        [
            NetworkEventKind::Defined { changed: false },
            NetworkEventKind::Started,
            NetworkEventKind::Updated,
            NetworkEventKind::Stopped,
        ]
    );
}

/// What `reeve network` prints, or says where it fails.
fn reeve(instance: &Instance, arguments: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_reeve"))
        .arg("--socket")
        .arg(instance.socket())
        .arg("network")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

#[test]
fn a_network_lives_as_its_administrator_types() {
    let instance = Instance::start("");
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("lan.toml");
    let file = file.to_str().unwrap();
    let toml = "
name = 'lan'
mtu = 1400

[forward.nat]
ports = { first = 2000, last = 3000 }

[bridge]
name = 'virbr77'

[[addresses]]
address = '10.77.0.1'
prefix = 24

[addresses.dhcp]
ranges = [{ first = '10.77.0.10', last = '10.77.0.20', lease = { minutes = 5 } }]
hosts = [{ mac = '52:54:00:00:00:01', name = 'web', address = '10.77.0.2' }]
";
    std::fs::write(file, toml).unwrap();
    let reeve = |arguments: &[&str]| reeve(&instance, arguments);
    assert_eq!(reeve(&["define", file]).unwrap(), "");
    assert_eq!(reeve(&["list", "--quiet"]).unwrap(), "");
    assert_eq!(reeve(&["list", "--quiet", "--all"]).unwrap(), "lan\n");
    reeve(&["start", "lan"]).unwrap();
    reeve(&["autostart", "lan"]).unwrap();
    let table = reeve(&["list"]).unwrap();
    for part in ["NAME", "lan", "active", "nat", "virbr77"] {
        assert!(table.contains(part), "{table}");
    }
    let details = reeve(&["show", "lan"]).unwrap();
    assert!(
        details.contains("virbr77") && details.contains("Autostart"),
        "{details}"
    );
    // What is written is what is read, and the same network.
    let written = reeve(&["export", "lan"]).unwrap();
    assert!(written.contains("[forward.nat"), "{written}");
    let again = files.path().join("again.toml");
    std::fs::write(&again, &written).unwrap();
    reeve(&["define", again.to_str().unwrap()]).unwrap();
    assert_eq!(reeve(&["export", "lan"]).unwrap(), written);
    let part = files.path().join("part.toml");
    std::fs::write(
        &part,
        "dns_host = { address = '10.77.0.2', names = ['web'] }",
    )
    .unwrap();
    let part = part.to_str().unwrap();
    reeve(&["update", "lan", "add", part]).unwrap();
    assert!(reeve(&["export", "lan"]).unwrap().contains("[[dns.hosts]]"));
    let refused = reeve(&["update", "lan", "add-first", part]).unwrap_err();
    assert!(
        refused.contains("host 10.77.0.2 of DNS already"),
        "{refused}"
    );
    reeve(&["update", "lan", "delete", "--live", part]).unwrap();
    let kept = reeve(&["export", "--kept", "lan"]).unwrap();
    assert!(kept.contains("[[dns.hosts]]"), "{kept}");
    assert_eq!(reeve(&["export", "lan"]).unwrap(), written);
    std::fs::write(part, "address = 1").unwrap();
    let refused = reeve(&["update", "lan", "add", part]).unwrap_err();
    assert!(
        refused.contains("part.toml: it says one of dhcp_host"),
        "{refused}"
    );
    // A file without a UUID means the network of its name.
    std::fs::write(file, toml.replace("1400", "9000")).unwrap();
    reeve(&["define", file]).unwrap();
    let details = reeve(&["show", "lan", "--json"]).unwrap();
    assert!(details.contains("\"redefined\": true"), "{details}");
    let kept = reeve(&["export", "--kept", "lan"]).unwrap();
    assert!(kept.contains("mtu = 9000"), "{kept}");
    let refused = reeve(&["define", "--new", file]).unwrap_err();
    assert!(
        refused.contains("network 'lan' already exists"),
        "{refused}"
    );
    std::fs::write(file, toml.replace("prefix = 24", "prefix = 33")).unwrap();
    let refused = reeve(&["define", file]).unwrap_err();
    assert!(refused.contains("lan.toml: 10.77.0.1/33"), "{refused}");
    std::fs::write(file, toml.replace("mtu", "mtv")).unwrap();
    let refused = reeve(&["define", file]).unwrap_err();
    assert!(
        refused.contains("line 3") && refused.contains("mtv"),
        "{refused}"
    );
    assert!(reeve(&["ports", "lan"]).unwrap().starts_with("DOMAIN"));
    reeve(&["stop", "lan"]).unwrap();
    reeve(&["autostart", "--off", "lan"]).unwrap();
    reeve(&["undefine", "lan"]).unwrap();
    let refused = reeve(&["show", "lan"]).unwrap_err();
    assert!(refused.contains("there is no network 'lan'"), "{refused}");
}
