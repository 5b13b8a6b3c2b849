//! Devices: what is opened and how, what is refused, and in which order they come.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use reeve_ipc::model::{
    Balloon, Channel, DirectMode, Disk, DiskTarget, InterfaceName, Layer, NetworkPort, Nic,
    NicSource, PortConsole, PortLink, PortUuid, Rng, Vsock,
};
use reeve_ipc::spec::{CacheMode, DiskFormat, DiskSpec, PortKind, Rate};
use rustix::fs::OFlags;

use super::super::devices::{completed, plan_devices, plan_listeners};
use super::super::directs::Directs;
use super::super::nics::as_connected;
use super::*;
use crate::host::filter::Hook;
use crate::nwfilter::tests::reference;

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["image", "base"] {
            let file = std::fs::File::create(directory.path().join(name)).unwrap();
            file.set_len(1 << 20).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn layer(&self, name: &str, format: DiskFormat) -> Layer {
        let path = self.path(name);
        Layer { path, format }
    }

    fn disk(&self, name: &str) -> Disk {
        let image = self.layer(name, DiskFormat::Raw);
        Disk::new(DiskTarget::at(0).unwrap(), Some(image))
    }
}

fn planned(devices: Devices) -> Result<(Vec<DeviceSpec>, FdTable), PlanError> {
    let mut domain = domain(built_in());
    domain.devices = devices;
    domain.validate()?;
    let mut fds = FdTable::new();
    let devices = plan_devices(
        &completed(&domain)?,
        files(&AnyPath),
        &NicPolicy::default(),
        &mut fds,
    )?;
    Ok((devices, fds))
}

fn planned_disk(disk: Disk) -> Result<(DiskSpec, FdTable), PlanError> {
    let (mut devices, fds) = planned(Devices {
        disks: vec![disk],
        ..Devices::default()
    })?;
    match devices.pop() {
        Some(DeviceSpec::Disk(disk)) => Ok((disk, fds)),
        other => panic!("{other:?}"),
    }
}

fn line(error: &PlanError) -> String {
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn an_image_is_opened_for_writing_and_what_it_builds_upon_is_not() {
    let world = World::new();
    let mut disk = world.disk("image");
    disk.image = Some(world.layer("image", DiskFormat::Qcow2));
    disk.backing = vec![world.layer("base", DiskFormat::Raw)];
    let (spec, mut fds) = planned_disk(disk).unwrap();
    assert_eq!(spec.layers.len(), 2);
    for (depth, layer) in spec.layers.iter().enumerate() {
        let fd = fds.take(layer.fd).unwrap();
        assert!(is_close_on_exec(&fd));
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        assert_eq!(flags.contains(OFlags::RDWR), depth == 0);
    }
    assert_eq!(spec.layers[1].format, DiskFormat::Raw);
}

#[test]
fn a_disk_is_one_machines_at_a_time() {
    let world = World::new();
    let (_, held) = planned_disk(world.disk("image")).unwrap();
    let error = planned_disk(world.disk("image")).unwrap_err();
    assert!(matches!(error, PlanError::Disk(DiskError::Locked { .. })));
    let line = line(&error);
    assert!(
        line.contains("disk 'vda'") && line.contains("in use elsewhere"),
        "{line}"
    );
    drop(held);
    let mut read_only = world.disk("image");
    read_only.read_only = true;
    let _one = planned_disk(read_only.clone()).unwrap();
    let _two = planned_disk(read_only).unwrap();
    planned_disk(world.disk("image")).unwrap_err();
}

#[test]
fn a_file_that_may_only_be_read_is_a_read_only_disk() {
    let world = World::new();
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(world.path("image"), read_only).unwrap();
    let mut disk = world.disk("image");
    // Root may write whatever the mode says.
    if !rustix::process::geteuid().is_root() {
        let error = planned_disk(disk.clone()).unwrap_err();
        assert!(line(&error).contains("a disk that is read-only"), "{error}");
    }
    disk.read_only = true;
    let (spec, mut fds) = planned_disk(disk).unwrap();
    let fd = fds.take(spec.layers[0].fd).unwrap();
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    assert!(!flags.intersects(OFlags::RDWR | OFlags::WRONLY));
}

#[test]
fn past_the_page_cache_means_so() {
    let world = World::new();
    for (cache, direct) in [(CacheMode::None, true), (CacheMode::WriteBack, false)] {
        let mut disk = world.disk("image");
        disk.cache = cache;
        match planned_disk(disk) {
            Ok((spec, mut fds)) => {
                let fd = fds.take(spec.layers[0].fd).unwrap();
                let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
                assert_eq!(flags.contains(OFlags::DIRECT), direct);
            }
            // A file system without it, as tmpfs was.
            Err(error) => assert!(line(&error).contains("set cache to writeback"), "{error}"),
        }
    }
}

#[test]
fn what_is_no_image_is_named_with_what_it_is() {
    let world = World::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("pipe"), Mode::RWXU).unwrap();
    std::fs::create_dir(world.path("directory")).unwrap();
    let refused = |name: &str, read_only: bool| {
        let mut disk = world.disk(name);
        disk.read_only = read_only;
        line(&planned_disk(disk).unwrap_err())
    };
    assert!(refused("pipe", false).contains("is a pipe, not a file or block device"));
    assert!(refused("directory", true).contains("is a directory"));
    let missing = refused("missing", true);
    assert!(
        missing.contains("disk 'vda'") && missing.contains("no such file"),
        "{missing}"
    );
    let mut null = world.disk("image");
    null.image = Some(Layer {
        path: "/dev/null".into(),
        format: DiskFormat::Raw,
    });
    assert!(line(&planned_disk(null).unwrap_err()).contains("a device or socket"));
}

#[test]
fn devices_come_by_their_place_on_the_bus() {
    let world = World::new();
    let mut disk = world.disk("image");
    disk.address = Some(9.try_into().unwrap());
    let (devices, _) = planned(Devices {
        disks: vec![disk],
        rng: Some(Rng::default()),
        balloon: Some(Balloon::default()),
        ..Devices::default()
    })
    .unwrap();
    let places: Vec<(u8, &str)> = devices
        .iter()
        .map(|device| (device.slot().number(), device.kind()))
        .collect();
    assert_eq!(places, [(1, "entropy device"), (2, "balloon"), (9, "disk")]);
}

#[test]
fn what_listens_is_bound_and_consoles_come_first() {
    let world = World::new();
    let mut domain = domain(built_in());
    domain.devices = Devices {
        vsock: Some(Vsock {
            cid: None,
            path: world.path("vsock"),
            address: None,
        }),
        channels: vec![Channel {
            name: "a".to_owned(),
            path: world.path("a"),
            port: None,
        }],
        ..Devices::default()
    };
    let numbers = |domain: &Domain| {
        let mut fds = FdTable::new();
        let mut sockets = DeviceSockets::default();
        let devices = completed(domain).unwrap();
        let specs = plan_listeners(&devices, &AnyPath, &mut fds, &mut sockets).unwrap();
        for (_, path) in domain.devices.sockets() {
            std::os::unix::net::UnixStream::connect(path).unwrap();
        }
        drop(sockets);
        assert!(!world.path("a").exists());
        let [DeviceSpec::Vsock(vsock), DeviceSpec::Ports(ports)] = &specs[..] else {
            panic!("{specs:?}")
        };
        assert_eq!(vsock.cid, 3);
        let listener = fds.take(vsock.listener).unwrap();
        assert!(rustix::net::sockopt::socket_acceptconn(listener.as_fd()).unwrap());
        let acceptor = fds.take(vsock.acceptor.unwrap()).unwrap();
        let kind = rustix::net::sockopt::socket_type(acceptor).unwrap();
        assert_eq!(kind, rustix::net::SocketType::SEQPACKET);
        let ports = ports.ports.iter();
        ports
            .map(|port| (port.number, port.kind == PortKind::Console))
            .collect::<Vec<_>>()
    };
    // Port 0 is no channel's.
    assert_eq!(numbers(&domain), [(1, false)]);
    domain.devices.consoles = ["h", "i"]
        .map(|name| PortConsole {
            path: world.path(name),
            port: None,
        })
        .to_vec();
    assert_eq!(numbers(&domain), [(0, true), (1, true), (2, false)]);
}

#[test]
fn one_socket_that_cannot_be_had_leaves_none() {
    let world = World::new();
    let mut domain = domain(built_in());
    domain.devices.channels = ["a", "none/b"]
        .map(|name| Channel {
            name: name.replace('/', "-"),
            path: world.path(name),
            port: None,
        })
        .to_vec();
    let mut sockets = DeviceSockets::default();
    let devices = completed(&domain).unwrap();
    let error = plan_listeners(&devices, &AnyPath, &mut FdTable::new(), &mut sockets).unwrap_err();
    assert!(line(&error).contains("none/b"), "{error}");
    drop(sockets);
    assert!(!world.path("a").exists());
}

#[test]
fn what_the_policy_forbids_is_said_in_its_words() {
    let world = World::new();
    let mut all = Devices {
        disks: vec![world.disk("image")],
        ..Devices::default()
    };
    all.complete(DomainUuid(Uuid::nil())).unwrap();
    let network = NicPolicy::default();
    let error = plan_devices(&all, files(&Nowhere), &network, &mut FdTable::new()).unwrap_err();
    assert!(matches!(error, PlanError::Forbidden(_)));
    assert!(
        line(&error).starts_with("the image of disk 'vda' "),
        "{error}"
    );
}

/// Says what the first image builds upon, and that nothing else builds upon anything.
#[derive(Debug)]
struct Names(std::sync::Mutex<Vec<reeve_ipc::image::BackingNote>>);

impl Names {
    fn of(notes: &[(&str, &str)]) -> Self {
        let notes = notes.iter().rev().map(|(name, format)| {
            let (name, format) = ((*name).to_owned(), Some((*format).to_owned()));
            reeve_ipc::image::BackingNote { name, format }
        });
        Self(std::sync::Mutex::new(notes.collect()))
    }
}

impl BackingReader for Names {
    fn backing(
        &self,
        image: std::os::fd::BorrowedFd<'_>,
    ) -> Result<Option<reeve_ipc::image::BackingNote>, ReadError> {
        assert!(rustix::fs::fstat(image).is_ok());
        Ok(self.0.lock().unwrap().pop())
    }
}

#[test]
fn what_an_image_names_is_opened_as_if_the_definition_had() {
    let world = World::new();
    std::fs::write(world.path("middle"), [0; 512]).unwrap();
    let mut disk = world.disk("image");
    disk.image = Some(world.layer("image", DiskFormat::Qcow2));
    disk.from_image = true;
    let names = Names::of(&[("middle", "qcow2"), ("base", "raw")]);
    let files = Files {
        paths: &AnyPath,
        images: &names,
    };
    let mut domain = domain(built_in());
    domain.devices.disks = vec![disk.clone()];
    let mut fds = FdTable::new();
    let specs = plan_devices(
        &completed(&domain).unwrap(),
        files,
        &NicPolicy::default(),
        &mut fds,
    )
    .unwrap();
    let [DeviceSpec::Disk(spec)] = &specs[..] else {
        panic!("{specs:?}")
    };
    let formats: Vec<DiskFormat> = spec.layers.iter().map(|layer| layer.format).collect();
    assert_eq!(
        formats,
        [DiskFormat::Qcow2, DiskFormat::Qcow2, DiskFormat::Raw]
    );
    for (layer, writes) in spec.layers.iter().zip([true, false, false]) {
        let flags = rustix::fs::fcntl_getfl(fds.get(layer.fd).unwrap()).unwrap();
        assert_eq!(flags.contains(OFlags::RDWR), writes);
    }
    drop(fds);
    // A definition that says something is believed, and its image not asked.
    domain.devices.disks[0].from_image = false;
    for backing in [vec![world.layer("base", DiskFormat::Raw)], vec![]] {
        let names = Names::of(&[("missing", "raw")]);
        let files = Files {
            paths: &AnyPath,
            images: &names,
        };
        domain.devices.disks[0].backing = backing;
        let all = completed(&domain).unwrap();
        plan_devices(&all, files, &NicPolicy::default(), &mut FdTable::new()).unwrap();
    }
}

#[test]
fn what_an_image_may_not_name_is_refused_by_its_name() {
    let world = World::new();
    let mut disk = world.disk("image");
    disk.image = Some(world.layer("image", DiskFormat::Qcow2));
    disk.from_image = true;
    let allowed = crate::host::paths::AllowedPaths::new(vec![world.directory.path().to_owned()]);
    let mut domain = domain(built_in());
    domain.devices.disks = vec![disk];
    let all = completed(&domain).unwrap();
    for (name, says) in [
        (
            "/etc/shadow",
            "'/etc/shadow' is outside the allowed directories",
        ),
        ("../image", "must be an absolute path without '..'"),
        ("image", "it is in the chain twice"),
        ("none", "no such file"),
    ] {
        let names = Names::of(&[(name, "qcow2")]);
        let files = Files {
            paths: &allowed,
            images: &names,
        };
        let error =
            plan_devices(&all, files, &NicPolicy::default(), &mut FdTable::new()).unwrap_err();
        let line = line(&error);
        assert!(line.contains(says), "{line}");
        assert!(line.contains("disk 'vda'"), "{line}");
    }
}

#[test]
fn a_disk_without_a_medium_is_a_removable_one() {
    let world = World::new();
    let mut disk = world.disk("image");
    disk.image = None;
    let error = planned_disk(disk.clone()).unwrap_err();
    assert!(line(&error).contains("removable = true"), "{error}");
    (disk.removable, disk.read_only) = (true, true);
    let (spec, fds) = planned_disk(disk).unwrap();
    assert!(spec.layers.is_empty() && fds.remaining() == 0);
}

#[test]
fn an_interface_on_a_bridge_that_is_not_there_makes_no_domain() {
    let error = planned(Devices {
        nics: vec![Nic::new(NicSource::Bridge("no-such-br0".parse().unwrap()))],
        ..Devices::default()
    })
    .unwrap_err();
    let line = line(&error);
    let why = ["no-such-br0", "takes root", "/dev/net/tun"];
    assert!(why.iter().any(|why| line.contains(why)), "{line}");
}

fn on_network(link: Option<PortLink>) -> Nic {
    let rate = |per_second| {
        Some(Rate {
            per_second,
            burst: None,
        })
    };
    let port = link.map(|link| {
        Box::new(NetworkPort {
            uuid: PortUuid(Uuid::from_u128(1)),
            link,
            mtu: Some(9000),
            inbound: rate(1000),
            outbound: rate(2000),
            trust_guest: true,
            isolated: true,
        })
    });
    Nic::new(NicSource::Network {
        network: "lan".parse().unwrap(),
        port_group: None,
        port,
    })
}

#[test]
fn an_interface_on_a_network_is_connected_as_its_port_says() {
    let bridge: InterfaceName = "no-such-br0".parse().unwrap();
    let connected = as_connected(&on_network(Some(PortLink::Bridge(bridge.clone())))).into_owned();
    assert_eq!(connected.source, NicSource::Bridge(bridge.clone()));
    assert_eq!(connected.mtu, Some(9000));
    assert_eq!(connected.inbound.unwrap().per_second, 1000);
    assert_eq!(connected.outbound.unwrap().per_second, 2000);
    assert!(connected.trust_guest && connected.isolated);
    // What it says itself stands.
    let mut own = on_network(Some(PortLink::Bridge(bridge.clone())));
    own.mtu = Some(1400);
    own.inbound = connected.outbound;
    let connected = as_connected(&own);
    assert_eq!(connected.mtu, Some(1400));
    assert_eq!(connected.inbound.unwrap().per_second, 2000);
    // It has a filter wherever one on a bridge has, also when it is taken over.
    let mac = "52:54:00:01:02:03".parse().unwrap();
    let mut policy = NicPolicy::default();
    let is_guarded = |policy: &NicPolicy, nic: &Nic| {
        let guarded = policy.guarded(nic, mac, &policy.book.read()).unwrap();
        guarded.is_some_and(|guarded| guarded.sender.is_some())
    };
    assert!(!is_guarded(&policy, &own), "its network trusts it");
    policy.multi_tenant = true;
    assert!(is_guarded(&policy, &own));
    if let NicSource::Network {
        port: Some(port), ..
    } = &mut own.source
    {
        port.trust_guest = false;
    }
    policy.multi_tenant = false;
    assert!(is_guarded(&policy, &own));
    // A network filter that is not there is asked for by its name.
    own.filter = Some(Box::new(crate::nwfilter::tests::reference("nova", &[])));
    let refused = policy.guarded(&own, mac, &policy.book.read()).unwrap_err();
    assert!(
        refused.to_string().contains("'nova' is missing"),
        "{refused}"
    );
}

#[test]
fn an_interface_without_a_port_is_not_provided() {
    let error = planned(Devices {
        nics: vec![on_network(None)],
        ..Devices::default()
    })
    .unwrap_err();
    let line = line(&error);
    let says = ["'network'", "not provided"];
    assert!(says.iter().all(|say| line.contains(say)), "{line}");
}

fn direct(device: &str, mode: DirectMode) -> PortLink {
    PortLink::Direct {
        device: device.parse().unwrap(),
        mode,
    }
}

#[test]
fn an_interface_upon_a_device_has_a_filter_where_what_it_sends_leaves_by_it() {
    let mut nic = on_network(Some(direct("eth0", DirectMode::Vepa)));
    let mac = "52:54:00:01:02:03".parse().unwrap();
    let mut policy = NicPolicy::default();
    let hook = |nic: &Nic, policy: &NicPolicy| {
        let guarded = policy.guarded(nic, mac, &policy.book.read()).unwrap();
        Some(guarded?.sender?.hook)
    };
    assert_eq!(hook(&nic, &policy), None, "its network trusts it");
    policy.multi_tenant = true;
    assert_eq!(hook(&nic, &policy), Some(Hook::Egress));
    policy.multi_tenant = false;
    nic = Nic::new(NicSource::Direct {
        device: "eth0".parse().unwrap(),
        mode: DirectMode::Passthrough,
    });
    assert_eq!(hook(&nic, &policy), Some(Hook::Egress));
}

#[test]
fn guests_that_are_kept_apart_are_not_upon_one_device_in_mode_bridge() {
    let mut policy = NicPolicy::default();
    let refused = |mode, policy: &NicPolicy| {
        let mut devices = Devices {
            nics: vec![on_network(Some(direct("no-such0", mode)))],
            ..Devices::default()
        };
        devices.complete(DomainUuid(Uuid::nil())).unwrap();
        line(&Directs::plan(&devices, policy.clone()).unwrap_err())
    };
    // Its network isolates its ports.
    let isolated = refused(DirectMode::Bridge, &policy);
    assert!(isolated.contains("isolated"), "{isolated}");
    assert!(refused(DirectMode::Vepa, &policy).contains("'no-such0'"));
    policy.multi_tenant = true;
    let tenants = refused(DirectMode::Bridge, &policy);
    let says = ["'no-such0'", "multi_tenant", "private, vepa or passthrough"];
    assert!(says.iter().all(|say| tenants.contains(say)), "{tenants}");
    assert!(refused(DirectMode::Private, &policy).contains("there is no network interface"));
}

#[test]
fn a_network_filter_is_refused_upon_a_device_whoever_says_the_device() {
    let own = Nic::new(NicSource::Direct {
        device: "no-such0".parse().unwrap(),
        mode: DirectMode::Passthrough,
    });
    for mut nic in [own, on_network(Some(direct("no-such0", DirectMode::Vepa)))] {
        nic.filter = Some(Box::new(reference("clean-traffic", &[])));
        let mut devices = Devices {
            nics: vec![nic],
            ..Devices::default()
        };
        devices.complete(DomainUuid(Uuid::nil())).unwrap();
        let refused = line(&Directs::plan(&devices, NicPolicy::default()).unwrap_err());
        let says = [
            "'clean-traffic'",
            "upon a device of the host",
            "no filterref",
        ];
        assert!(says.iter().all(|say| refused.contains(say)), "{refused}");
    }
}

#[test]
fn an_interface_that_the_kernel_is_to_serve_is_refused_where_it_does_not_or_may_not() {
    let mac = "52:54:00:01:02:03";
    let mut nic = Nic::new(NicSource::Bridge("no-such-br0".parse().unwrap()));
    nic.driver = reeve_ipc::spec::NicDriver::Vhost;
    nic.mac = Some(mac.parse().unwrap());
    nic.trust_guest = true;
    let mut devices = Devices {
        nics: vec![nic],
        ..Devices::default()
    };
    devices.complete(DomainUuid(Uuid::nil())).unwrap();
    let plan = |without_vhost_net, multi_tenant| {
        let mut network = NicPolicy::default();
        network.without_vhost_net = without_vhost_net;
        network.multi_tenant = multi_tenant;
        let mut fds = FdTable::new();
        let error = plan_devices(&devices, files(&AnyPath), &network, &mut fds).unwrap_err();
        line(&error)
    };
    // A host that keeps its guests apart gives every one a filter.
    for refused in [plan(true, false), plan(false, true)] {
        let says = [
            mac,
            "this host lets no guest have it",
            "reeve.toml",
            "driver=user",
        ];
        assert!(says.iter().all(|say| refused.contains(say)), "{refused}");
    }
    if !std::path::Path::new("/dev/vhost-net").exists() {
        let missing = plan(false, false);
        let says = [
            mac,
            "/dev/vhost-net",
            "sudo modprobe vhost_net",
            "driver=user",
        ];
        assert!(says.iter().all(|say| missing.contains(say)), "{missing}");
    }
}
