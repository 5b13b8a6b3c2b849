//! `libvirt_*`: what a client of libvirt's waits for, at Reeve's door and at libvirtd's in turns.
//!
//! | figure | what is timed | beside |
//! |---|---|---|
//! | `libvirt_call` | `virConnectGetLibVersion` | libvirtd's test driver |
//! | `libvirt_lookup`, `libvirt_info` | `virDomainLookupByName`, `virDomainGetInfo` of a guest that runs | its QEMU driver |
//! | `libvirt_stats_1` | `virConnectGetAllDomainStats` with one guest that runs | its QEMU driver |
//! | `libvirt_create`, `libvirt_destroy` | `virDomainCreateXML` of the built-in guest until the call says that it runs, `virDomainDestroy` | its QEMU driver, machine `microvm` |
//! | `libvirt_refresh_300` | `virConnectListAllDomains` and `virConnectGetAllDomainStats` with 300 that are defined, as what shows domains asks for both | its QEMU driver |
//! | `libvirt_list_300`, `libvirt_stats_300` | each of the two alone | its QEMU driver |
//! | `libvirt_crowd` | `virDomainLookupByName` while 15 others are connected: one asks as fast as it is answered, one reads neither the console that it has opened nor what it is answered, one leaves in the middle of its calls again and again, twelve ask now and then; the floor is the same call before they come | |
//! | `gateway_pss` | the proportional set size of the process that serves a connection, the mean over 16 at once, each of which has listed, looked and asked for figures | |
//!
//! The client is Debian's Python binding for both ([`crate::libvirt`]), so each time holds the same client's
//! share. Without libvirtd Reeve is measured alone, and the targets, which are ratios, are not told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use reeve_guest::mode;

use super::{Figure, Group, Kind, Target};
use crate::daemon::Instance;
use crate::libvirt::{Client, Crowd, Hypervisor, Libvirtd, Order, document};
use crate::load::Load;
use crate::memory::pss_kib;
use crate::stats::Samples;

/// Calls in a row, before the other's turn.
const BATCH: usize = 100;
/// Calls in a row that take milliseconds.
const SHORT_BATCH: usize = 10;
/// Domains of a list.
const DEFINED: usize = 300;
/// Connections whose processes are weighed.
const CONNECTIONS: usize = 16;
/// The domain that runs.
const NAME: &str = "runs";

const QEMU: &str = "libvirtd-qemu";
const TEST: &str = "libvirtd-test";

const fn kind(name: &'static str, unit: &'static str, target: Target) -> Kind {
    Kind {
        name,
        unit,
        less_is_better: true,
        target: Some(target),
    }
}

const CALL: Kind = kind("libvirt_call", "us", Target::AtMostTimesPeers(0.8));
const LOOKUP: Kind = kind("libvirt_lookup", "us", Target::AtMostTimesPeers(0.7));
const INFO: Kind = kind("libvirt_info", "us", Target::AtMostTimesPeers(0.7));
const STATS_1: Kind = kind("libvirt_stats_1", "us", Target::AtMostTimesPeers(0.1));
const CREATE: Kind = kind("libvirt_create", "us", Target::AtMostTimesPeers(0.1));
const DESTROY: Kind = kind("libvirt_destroy", "us", Target::AtMostTimesPeers(0.1));
const REFRESH_300: Kind = kind("libvirt_refresh_300", "us", Target::AtMostTimesPeers(0.5));
/// Without a target: most of it is the client's own work at 300 objects, which is the same for both.
const LIST_300: Kind = Kind {
    name: "libvirt_list_300",
    unit: "us",
    less_is_better: true,
    target: None,
};
const STATS_300: Kind = kind("libvirt_stats_300", "us", Target::AtMostTimesPeers(0.5));
const CROWD: Kind = kind("libvirt_crowd", "us", Target::TimesFloor(2.0));
const MEMORY: Kind = kind("gateway_pss", "KiB", Target::AtMost(2048.0));

/// Single calls.
pub const CALLS: Group = Group {
    kinds: &[CALL, LOOKUP, INFO, STATS_1],
    take: |_, samples| {
        let mut sides = Sides::start()?;
        let rounds = samples.div_ceil(10);
        let mut test = sides.libvirtd_client("test:///default")?;
        let version = Order::Version { count: BATCH };
        let mut figures = vec![sides.turns(CALL, TEST, &version, &version, rounds, &mut test)?];
        sides.create(NAME)?;
        let mut qemu = sides.qemu.take();
        for (kind, order) in [
            (
                LOOKUP,
                Order::Lookup {
                    name: NAME,
                    count: BATCH,
                },
            ),
            (
                INFO,
                Order::Info {
                    name: NAME,
                    count: BATCH,
                },
            ),
            (STATS_1, Order::Statistics { count: SHORT_BATCH }),
        ] {
            figures.push(sides.turns(kind, QEMU, &order, &order, rounds, &mut qemu)?);
        }
        Ok(figures)
    },
};

/// A domain's beginning and end.
pub const LIFE: Group = Group {
    kinds: &[CREATE, DESTROY],
    take: |_, samples| {
        let mut sides = Sides::start()?;
        let before = Load::now()?;
        let (mut create, mut destroy) = (Taken::default(), Taken::default());
        let end = Order::Destroy { name: NAME };
        for round in 0..=samples.div_ceil(5) {
            // Libvirtd takes hundreds of milliseconds for each, and is asked less often.
            let peer_too = round % 4 == 0;
            let [ours, theirs] = [
                sides.document(Hypervisor::Reeve, NAME),
                sides.document(Hypervisor::Qemu, NAME),
            ];
            let mut reeve = (
                sides.reeve.take(&Order::Create { document: &ours })?,
                sides.reeve.take(&end)?,
            );
            let peer = match (&mut sides.qemu, peer_too) {
                (Some(qemu), true) => Some((
                    qemu.take(&Order::Create { document: &theirs })?,
                    qemu.take(&end)?,
                )),
                _ => None,
            };
            if round == 0 {
                continue;
            }
            create.reeve.append(&mut reeve.0);
            destroy.reeve.append(&mut reeve.1);
            if let Some(mut peer) = peer {
                create.peer.append(&mut peer.0);
                destroy.peer.append(&mut peer.1);
            }
        }
        drop(sides);
        let span = Load::now()?.since(&before);
        Ok(vec![
            create.figure(CREATE, QEMU, span)?,
            destroy.figure(DESTROY, QEMU, span)?,
        ])
    },
};

/// Many domains.
pub const MANY: Group = Group {
    kinds: &[REFRESH_300, LIST_300, STATS_300],
    take: |_, samples| {
        let mut sides = Sides::start()?;
        sides.define()?;
        let rounds = samples.div_ceil(20);
        let mut qemu = sides.qemu.take();
        let mut figures = Vec::new();
        for (kind, order) in [
            (REFRESH_300, Order::Refresh { count: SHORT_BATCH }),
            (LIST_300, Order::List { count: SHORT_BATCH }),
            (STATS_300, Order::Statistics { count: SHORT_BATCH }),
        ] {
            figures.push(sides.turns(kind, QEMU, &order, &order, rounds, &mut qemu)?);
        }
        Ok(figures)
    },
};

/// One of many clients, some of which do not behave.
pub const AMONG_OTHERS: Group = Group {
    kinds: &[CROWD],
    take: |_, samples| {
        let before = Load::now()?;
        let instance = Instance::start()?;
        let mut client = Client::connect("qemu:///system", &instance.libvirt_socket())?;
        let shown =
            document(NAME, Hypervisor::Reeve, &instance.guest()?).replace(mode::HOLD, mode::CLOCK);
        client.take(&Order::Create { document: &shown })?;
        let order = Order::Lookup {
            name: NAME,
            count: BATCH,
        };
        let rounds = samples.div_ceil(10);
        let mut ask = || -> anyhow::Result<Samples> {
            client.take(&order)?;
            let batches = (0..rounds).map(|_| client.take(&order));
            Ok(batches
                .collect::<anyhow::Result<Vec<_>>>()?
                .concat()
                .into_iter()
                .collect())
        };
        let alone = ask()?;
        let crowd = Crowd::gather(&instance.libvirt_socket(), NAME)?;
        let among = ask()?;
        crowd.leave()?;
        drop(client);
        drop(instance);
        let span = Load::now()?.since(&before);
        let mut figure = Figure::alone(CROWD, &among, span)?;
        figure.floor = alone.summary(CROWD.less_is_better);
        Ok(vec![figure])
    },
};

/// The processes of connections.
pub const WEIGHT: Group = Group {
    kinds: &[MEMORY],
    take: |_, _| {
        let before = Load::now()?;
        let instance = Instance::start()?;
        let socket = instance.libvirt_socket();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect("qemu:///system", &socket)?);
        }
        let kernel = instance.guest()?;
        let shown = document(NAME, Hypervisor::Reeve, &kernel);
        clients[0].take(&Order::Create { document: &shown })?;
        for client in &mut clients {
            client.take(&Order::List { count: SHORT_BATCH })?;
            client.take(&Order::Info {
                name: NAME,
                count: SHORT_BATCH,
            })?;
            client.take(&Order::Statistics { count: SHORT_BATCH })?;
        }
        let mut samples = Samples::default();
        for pid in instance.gateways()? {
            samples.push(pss_kib(pid)?);
        }
        ensure!(
            samples.count() >= CONNECTIONS,
            "{} gateways",
            samples.count()
        );
        drop(clients);
        drop(instance);
        let span = Load::now()?.since(&before);
        Ok(vec![Figure::alone(MEMORY, &samples, span)?])
    },
};

/// Reeve, and libvirtd where it is installed.
struct Sides {
    reeve: Client,
    qemu: Option<Client>,
    libvirtd: Option<Libvirtd>,
    kernel: PathBuf,
    // Last, so that it outlives its client.
    _instance: Instance,
}

impl Sides {
    fn start() -> anyhow::Result<Self> {
        let instance = Instance::start()?;
        let libvirtd = Libvirtd::start()?;
        let qemu = libvirtd
            .as_ref()
            .map(|daemon| daemon.client("qemu:///system"));
        Ok(Self {
            reeve: Client::connect("qemu:///system", &instance.libvirt_socket())?,
            qemu: qemu.transpose()?,
            libvirtd,
            kernel: instance.guest()?,
            _instance: instance,
        })
    }

    fn libvirtd_client(&self, name: &str) -> anyhow::Result<Option<Client>> {
        self.libvirtd
            .as_ref()
            .map(|daemon| daemon.client(name))
            .transpose()
    }

    fn document(&self, hypervisor: Hypervisor, name: &str) -> String {
        document(name, hypervisor, &self.kernel)
    }

    /// Starts the same guest on both.
    fn create(&mut self, name: &str) -> anyhow::Result<()> {
        let [ours, theirs] =
            [Hypervisor::Reeve, Hypervisor::Qemu].map(|hypervisor| self.document(hypervisor, name));
        self.reeve.take(&Order::Create { document: &ours })?;
        if let Some(qemu) = &mut self.qemu {
            qemu.take(&Order::Create { document: &theirs })?;
        }
        Ok(())
    }

    /// Defines as many on both as are listed.
    fn define(&mut self) -> anyhow::Result<()> {
        let documents = |hypervisor| -> Vec<String> {
            (0..DEFINED)
                .map(|number| self.document(hypervisor, &format!("domain-{number}")))
                .collect()
        };
        let [ours, theirs] = [Hypervisor::Reeve, Hypervisor::Qemu].map(documents);
        self.reeve.take(&Order::Define { documents: &ours })?;
        let listed = self.reeve.take(&Order::Count)?;
        ensure!(listed == [300.0], "{listed:?} are listed");
        if let Some(qemu) = &mut self.qemu {
            qemu.take(&Order::Define { documents: &theirs })?;
        }
        Ok(())
    }

    /// Batches in turns, the first of which fill caches and do not count.
    fn turns(
        &mut self,
        kind: Kind,
        peer: &'static str,
        ours: &Order<'_>,
        theirs: &Order<'_>,
        rounds: usize,
        other: &mut Option<Client>,
    ) -> anyhow::Result<Figure> {
        let before = Load::now()?;
        let mut taken = Taken::default();
        for round in 0..=rounds {
            let mut reeve = self.reeve.take(ours)?;
            let mut others = match other {
                Some(client) => client.take(theirs)?,
                None => Vec::new(),
            };
            if round > 0 {
                taken.reeve.append(&mut reeve);
                taken.peer.append(&mut others);
            }
        }
        let span = Load::now()?.since(&before);
        taken.figure(kind, peer, span)
    }
}

/// Times in microseconds.
#[derive(Default)]
struct Taken {
    reeve: Vec<f64>,
    peer: Vec<f64>,
}

impl Taken {
    fn figure(
        self,
        kind: Kind,
        peer: &'static str,
        span: crate::load::Span,
    ) -> anyhow::Result<Figure> {
        let summary = |times: Vec<f64>| Samples::from_iter(times).summary(kind.less_is_better);
        Ok(Figure {
            kind,
            reeve: summary(self.reeve).context("no samples")?,
            floor: None,
            peers: summary(self.peer)
                .map(|theirs| (peer, theirs))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            span,
            notes: Vec::new(),
        })
    }
}
