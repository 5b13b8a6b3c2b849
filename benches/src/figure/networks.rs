//! `network_*` and `nic_*`: virtual networks and what is connected to them, at Reeve's door and at libvirtd's in turns,
//! each in a network namespace of its own.
//!
//! | figure | what is timed | beside |
//! |---|---|---|
//! | `network_start`, `network_stop` | `virNetworkCreate` and `virNetworkDestroy` of a network that translates, with a server of names and addresses | its network driver |
//! | `nic_attach` | `virDomainAttachDeviceFlags` of an interface on that network, of the built-in guest that runs | its QEMU driver, machine `pc` |
//! | `nic_1000` | `virDomainCreateXML` of a guest with one interface while 999 others are on 100 networks; the floor is the same while there are none, before they come and after they have gone | |
//!
//! What a host does by itself for some seconds when a thousand interfaces have come or gone, above all each bridge, which
//! learns who is at a port before it forwards, is waited for: others would have come long before.
//!
//! The client is Debian's Python binding for both ([`crate::libvirt`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;

use super::{Figure, Group, Kind, Target};
use crate::daemon::Instance;
use crate::libvirt::{Client, Hypervisor, Libvirtd, Order, pluggable};
use crate::load::{Load, Span};
use crate::stats::Samples;

/// The network that is started and stopped.
const NETWORK: &str = "timed";
/// The domain that is connected to it.
const NAME: &str = "runs";
const PEER: &str = "libvirtd";
/// Networks of the crowd.
const NETWORKS: usize = 100;
/// Interfaces of each domain of the crowd.
const EACH: usize = 27;
/// Domains of the crowd: 999 interfaces.
const DOMAINS: usize = 37;
/// How often the crowd comes and goes, so that what else the machine does in the meantime is beside both.
const CROWDS: usize = 2;
/// How long the host is left alone after that.
const SETTLING: Duration = Duration::from_secs(8);

const fn kind(name: &'static str, target: Target) -> Kind {
    Kind {
        name,
        unit: "us",
        less_is_better: true,
        target: Some(target),
    }
}

const START: Kind = kind("network_start", Target::AtMostTimesPeers(0.5));
const STOP: Kind = kind("network_stop", Target::AtMostTimesPeers(0.5));
const ATTACH: Kind = kind("nic_attach", Target::AtMostTimesPeers(0.5));
const AMONG: Kind = kind("nic_1000", Target::TimesFloor(1.2));

/// One network and one interface.
pub const ONE: Group = Group {
    kinds: &[START, STOP, ATTACH],
    take: |_, samples| {
        let before = Load::now()?;
        let instance = Instance::start_in_namespace()?;
        let kernel = instance.guest()?;
        let mut reeve = Side::new(
            Client::connect("qemu:///system", &instance.libvirt_socket())?,
            Hypervisor::Reeve,
        )?;
        let libvirtd = Libvirtd::start()?;
        let mut peer = match &libvirtd {
            Some(libvirtd) => Some(Side::new(
                libvirtd.client("qemu:///system")?,
                Hypervisor::Qemu,
            )?),
            None => None,
        };
        for round in 0..=samples.div_ceil(10) {
            reeve.round(&kernel, round > 0)?;
            if let Some(peer) = &mut peer {
                peer.round(&kernel, round > 0)?;
            }
        }
        let (ours, theirs) = (reeve.taken, peer.map(|peer| peer.taken).unwrap_or_default());
        drop(libvirtd);
        drop(instance);
        let span = Load::now()?.since(&before);
        let [start, stop, attach] = ours;
        let [their_start, their_stop, their_attach] = theirs;
        Ok(vec![
            beside(START, start, their_start, span)?,
            beside(STOP, stop, their_stop, span)?,
            beside(ATTACH, attach, their_attach, span)?,
        ])
    },
};

/// One among a thousand.
pub const THOUSAND: Group = Group {
    kinds: &[AMONG],
    take: |_, samples| {
        let before = Load::now()?;
        let instance = Instance::start_in_namespace()?;
        let kernel = instance.guest()?;
        let mut client = Client::connect("qemu:///system", &instance.libvirt_socket())?;
        let documents: Vec<String> = (0..NETWORKS).map(plain).collect();
        client.take(&Order::NetworkDefine {
            documents: &documents,
        })?;
        for number in 0..NETWORKS {
            let name = named(number);
            client.take(&Order::NetworkStart { name: &name })?;
        }
        let one = pluggable(NAME, Hypervisor::Reeve, &kernel, &interface(&named(0)));
        let ask = |client: &mut Client, into: &mut Samples| -> anyhow::Result<()> {
            for round in 0..=samples.div_ceil(5 * CROWDS) {
                let taken = client.take(&Order::Create { document: &one })?;
                client.take(&Order::Destroy { name: NAME })?;
                if round > 0 {
                    taken.into_iter().for_each(|sample| into.push(sample));
                }
            }
            Ok(())
        };
        let (mut first, mut last) = (Samples::default(), Samples::default());
        ask(&mut client, &mut first)?;
        for _ in 0..CROWDS {
            let mut network = 0;
            for domain in 0..DOMAINS {
                let mut devices = String::new();
                for _ in 0..EACH {
                    devices.push_str(&interface(&named(network % NETWORKS)));
                    network += 1;
                }
                let document = pluggable(&named(domain), Hypervisor::Reeve, &kernel, &devices);
                client.take(&Order::Create {
                    document: &document,
                })?;
            }
            sleep(SETTLING);
            ask(&mut client, &mut last)?;
            for domain in 0..DOMAINS {
                client.take(&Order::Destroy {
                    name: &named(domain),
                })?;
            }
            sleep(SETTLING);
            ask(&mut client, &mut first)?;
        }
        drop(client);
        drop(instance);
        let span = Load::now()?.since(&before);
        let mut figure = Figure::alone(AMONG, &last, span)?;
        figure.floor = first.summary(AMONG.less_is_better);
        Ok(vec![figure])
    },
};

/// One of both, and what it took: starts, stops, attachments.
struct Side {
    client: Client,
    hypervisor: Hypervisor,
    taken: [Vec<f64>; 3],
}

impl Side {
    fn new(mut client: Client, hypervisor: Hypervisor) -> anyhow::Result<Self> {
        let documents = [format!(
            "<network><name>{NETWORK}</name><forward mode='nat'/><bridge name='virbr77'/>\
             <ip address='10.77.77.1' netmask='255.255.255.0'>\
             <dhcp><range start='10.77.77.2' end='10.77.77.254'/></dhcp></ip></network>"
        )];
        client.take(&Order::NetworkDefine {
            documents: &documents,
        })?;
        Ok(Self {
            client,
            hypervisor,
            taken: Default::default(),
        })
    }

    fn round(&mut self, kernel: &Path, counts: bool) -> anyhow::Result<()> {
        let start = self.client.take(&Order::NetworkStart { name: NETWORK })?;
        let document = pluggable(NAME, self.hypervisor, kernel, "");
        self.client.take(&Order::Create {
            document: &document,
        })?;
        let attach = self.client.take(&Order::Attach {
            name: NAME,
            document: &interface(NETWORK),
        })?;
        self.client.take(&Order::Destroy { name: NAME })?;
        let stop = self.client.take(&Order::NetworkStop { name: NETWORK })?;
        if counts {
            for (all, mut taken) in self.taken.iter_mut().zip([start, stop, attach]) {
                all.append(&mut taken);
            }
        }
        Ok(())
    }
}

fn named(number: usize) -> String {
    format!("crowd-{number}")
}

/// A network of the crowd: isolated, without a server.
fn plain(number: usize) -> String {
    let name = named(number);
    format!("<network><name>{name}</name><bridge name='crowd{number}'/></network>")
}

fn interface(network: &str) -> String {
    format!(
        "<interface type='network'><source network='{network}'/><model type='virtio'/></interface>"
    )
}

fn beside(kind: Kind, ours: Vec<f64>, theirs: Vec<f64>, span: Span) -> anyhow::Result<Figure> {
    let summary = |times: Vec<f64>| Samples::from_iter(times).summary(kind.less_is_better);
    Ok(Figure {
        kind,
        reeve: summary(ours).context("no samples")?,
        floor: None,
        peers: summary(theirs)
            .map(|theirs| (PEER, theirs))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        span,
        notes: Vec::new(),
    })
}
