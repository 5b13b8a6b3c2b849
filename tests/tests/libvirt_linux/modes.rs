//! Every mode of networks and every type of interface, between two guests and what is outside of their host: sessions
//! over IPv4 and IPv6 where a mode lets them, and nothing where it does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, drivers};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

use super::cables::{Cables, LAN, NEAR, Party, Sums, UP, WORLD, pair};
use super::host::{Host, SHELL, expect_up, guest};
use super::networks::{install_dnsmasq, install_passt};

/// The interfaces of each guest, in the order that they have there. One is up at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nic {
    Nat,
    Route,
    Open,
    Isolated,
    Bridge,
    Switch,
    Ethernet,
    Macvtap,
    Private,
    Vepa,
    Passthrough,
    User,
}

const NICS: [Nic; 12] = [
    Nic::Nat,
    Nic::Route,
    Nic::Open,
    Nic::Isolated,
    Nic::Bridge,
    Nic::Switch,
    Nic::Ethernet,
    Nic::Macvtap,
    Nic::Private,
    Nic::Vepa,
    Nic::Passthrough,
    Nic::User,
];

impl Nic {
    fn number(self) -> u8 {
        self as u8
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn link(self) -> String {
        format!("eth{}", self.number())
    }

    /// Whether the host has a network of its own for it.
    fn is_of_host(self) -> bool {
        matches!(self, Nic::Nat | Nic::Route | Nic::Open | Nic::Isolated)
    }

    /// The host's addresses on its network.
    fn gateway(self) -> [IpAddr; 2] {
        self.addresses(1)
    }

    /// Those of a number on its link.
    fn addresses(self, host: u8) -> [IpAddr; 2] {
        let (third, fourth) = match self {
            Nic::Switch => (83, 0),
            nic if nic.is_of_host() => (81, nic.number()),
            _ => (82, 0),
        };
        let prefix = 0xfd00 | u16::from(third / 10 * 16 + third % 10);
        [
            Ipv4Addr::new(10, third, fourth, host).into(),
            Ipv6Addr::new(prefix, 0, 0, u16::from(fourth), 0, 0, 0, u16::from(host)).into(),
        ]
    }

    /// A guest's.
    fn of(self, guest: u8) -> [IpAddr; 2] {
        let [v4, v6] = self.addresses(16 * (self.number() + 1) + guest);
        match (self, v6) {
            // It gives itself one that goes by its Ethernet address, as a router says (RFC 4862).
            (Nic::Nat | Nic::Macvtap, IpAddr::V6(v6)) => {
                let own = [0x50, 0x54, 0, 0xff, 0xfe, 0x0a, 0x10 + guest, self.number()];
                let prefix = v6.to_bits() >> 64 << 64;
                [
                    v4,
                    Ipv6Addr::from_bits(prefix | u128::from(u64::from_be_bytes(own))).into(),
                ]
            }
            _ => [v4, v6],
        }
    }

    fn mac(self, guest: u8) -> String {
        format!("52:54:00:0a:{:02x}:{:02x}", 0x10 + guest, self.number())
    }

    /// The first guest's is connected by itself, the second's by a network where there can be one.
    fn interface(self, guest: u8) -> String {
        let (kind, source) = match (self, guest) {
            (Nic::Bridge, 1) => ("bridge", "<source bridge='hostbr'/>".to_owned()),
            (Nic::Switch, 1) => ("bridge", switched(BLUE)),
            (Nic::Switch, _) => (
                "network",
                "<source network='switch' portgroup='blue'/>".to_owned(),
            ),
            (Nic::Ethernet, _) => (
                "ethernet",
                format!("<target dev='tap{guest}' managed='no'/>"),
            ),
            (Nic::Macvtap, 1) => ("direct", "<source dev='near0' mode='bridge'/>".to_owned()),
            (Nic::Private | Nic::Vepa, 1) => (
                "direct",
                format!("<source dev='near0' mode='{}'/>", self.name()),
            ),
            (Nic::Passthrough, 1) => (
                "direct",
                "<source dev='near1' mode='passthrough'/>".to_owned(),
            ),
            (Nic::User, _) => ("user", String::new()),
            _ => ("network", format!("<source network='{}'/>", self.name())),
        };
        format!(
            "<interface type='{kind}'><mac address='{}'/>{source}<model type='virtio'/></interface>",
            self.mac(guest)
        )
    }

    /// The network that it is of.
    fn network(self) -> Option<String> {
        let ([v4, v6], name) = (self.gateway(), self.name());
        let addresses = |dhcp: &str| {
            format!(
                "<bridge name='r{name}'/><ip address='{v4}' netmask='255.255.255.0'>{dhcp}</ip>\
                 <ip family='ipv6' address='{v6}' prefix='64'/>"
            )
        };
        let upon = |mode: &str, device: &str| {
            format!("<forward mode='{mode}'><interface dev='{device}'/></forward>")
        };
        let inner = match self {
            Nic::Nat => {
                let hosts: String = [1, 2]
                    .map(|guest| {
                        let [v4, _] = self.of(guest);
                        format!("<host mac='{}' ip='{v4}'/>", self.mac(guest))
                    })
                    .concat();
                let dhcp = format!("<dhcp>{hosts}</dhcp>");
                format!(
                    "<forward mode='nat'><nat ipv6='yes'/></forward>{}",
                    addresses(&dhcp)
                )
            }
            Nic::Route => format!("<forward mode='route' dev='up0'/>{}", addresses("")),
            Nic::Open => format!("<forward mode='open'/>{}", addresses("")),
            Nic::Isolated => addresses(""),
            Nic::Bridge => "<forward mode='bridge'/><bridge name='hostbr'/>".to_owned(),
            Nic::Switch => format!(
                "<forward mode='bridge'/><bridge name='ovsbr'/><virtualport type='openvswitch'/>\
                 <portgroup name='blue'><vlan><tag id='{BLUE}'/></vlan></portgroup>"
            ),
            Nic::Macvtap => upon("bridge", "near0"),
            Nic::Private | Nic::Vepa => upon(&name, "near0"),
            Nic::Passthrough => upon("passthrough", "near2"),
            Nic::Ethernet | Nic::User => return None,
        };
        Some(format!("<network><name>{name}</name>{inner}</network>"))
    }
}

/// Tags of frames.
const BLUE: u16 = 42;
const RED: u16 = 43;

fn switched(tag: u16) -> String {
    format!(
        "<source bridge='ovsbr'/><virtualport type='openvswitch'/><vlan><tag id='{tag}'/></vlan>"
    )
}

fn document(number: u8) -> String {
    // What passt does it does for one guest as for two.
    let nics = NICS
        .into_iter()
        .filter(|nic| number == 1 || *nic != Nic::User);
    let interfaces: String = nics.map(|nic| nic.interface(number)).collect();
    format!(
        "<domain type='kvm'><name>guest-{number}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='reeve'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\
         <cmdline>{COMMAND_LINE} {}</cmdline></os><features><acpi/><apic/></features>\
         <devices>{interfaces}<console type='pty'/></devices></domain>",
        assets().vmlinux.display(),
        assets().initramfs.display(),
        drivers(&["virtio_net"]),
    )
}

struct Guest {
    number: u8,
    console: Reeve,
}

impl Party for Guest {
    fn run(&mut self, line: &str) -> Result<String> {
        guest(&mut self.console, line).with_context(|| format!("guest {}", self.number))
    }
}

impl Guest {
    fn start(host: &Host, number: u8) -> Result<Self> {
        let file = host.file(&format!("guest-{number}.xml"), &document(number))?;
        host.virsh(&format!("create {file}"))?;
        let console = host.virsh_on_terminal(&format!("console guest-{number}"))?;
        Ok(Self { number, console })
    }

    /// It has a shell, an address by DHCP on the first of its interfaces, the functions, an address by a router's word,
    /// and serves the file, which it has fetched over IPv6.
    fn expect_up(&mut self) -> Result<()> {
        expect_up(&mut self.console)?;
        let nic = Nic::Nat;
        self.run(&format!(
            "ip link set {0} up; udhcpc -q -n -t 20 -i {0}",
            nic.link()
        ))?;
        self.run(&format!(
            "cd /tmp; wget -q http://{}/functions; . ./functions",
            WORLD[0]
        ))?;
        self.run(&format!("hears && wget -q http://[{}]/file", WORLD[1]))?;
        Ok(())
    }

    /// Goes over to that interface with its addresses, and the host as its router where it is one.
    fn goes_to(&mut self, nic: Nic) -> Result<()> {
        let [v4, v6] = nic.of(self.number);
        let mut line = format!("to {} {v4} {v6}", nic.number());
        if nic.is_of_host() {
            let [v4, v6] = nic.gateway();
            line.push_str(&format!(" {v4} {v6}"));
        }
        self.run(&line)?;
        Ok(())
    }
}

/// Both guests.
struct Guests(Guest, Guest);

impl Guests {
    fn go_to(&mut self, nic: Nic) -> Result<()> {
        self.0.goes_to(nic)?;
        self.1.goes_to(nic)
    }
}

#[reeve_tests::in_lab(timeout = "900s", root)]
fn every_mode_carries_both_protocols_and_nothing_that_it_forbids() -> Result<()> {
    install_dnsmasq()?;
    install_passt()?;
    let mut cables = Cables::lay()?;
    let before = Snapshot::take();
    let links = cables.state()?;
    let socket = cables.switch.socket();
    let config = format!("open_vswitch = {socket:?}\n");
    let host = Host::start_in(Some(&cables.host), &config)?;
    for nic in NICS {
        if let Some(network) = nic.network() {
            let file = host.file("network.xml", &network)?;
            host.virsh(&format!("net-create {file}"))?;
        }
    }
    let mut guests = Guests(Guest::start(&host, 1)?, Guest::start(&host, 2)?);
    guests.0.expect_up()?;
    guests.1.expect_up()?;

    networks_of_the_host(&mut guests, &mut cables)?;
    bridges(&host, &mut guests, &cables.sums)?;
    devices(&host, &mut guests, &mut cables)?;
    host_s_own_address(&mut guests.0, &mut cables)?;

    for number in [1, 2] {
        host.virsh(&format!("destroy guest-{number}"))?;
    }
    for nic in NICS.into_iter().filter(|nic| nic.network().is_some()) {
        host.virsh(&format!("net-destroy {}", nic.name()))?;
    }
    drop((guests, host));
    before.assert_nothing_new(SHELL);
    cables.is_as(&links)
}

/// Those with NAT, with routes, open and isolated.
fn networks_of_the_host(guests: &mut Guests, cables: &mut Cables) -> Result<()> {
    let (sums, outside) = (&cables.sums, &mut cables.outside);
    let (world, lan) = (pair(WORLD)?, pair(LAN)?);
    // The world knows of no network yet, and so answers the host alone. Of their addresses the guests were told.
    guests.0.gets(sums, &[world, Nic::Nat.of(2)])?;
    guests.0.reaches(&[world])?;
    outside.knows_networks()?;
    outside.misses(&[Nic::Nat.of(1)])?;

    guests.go_to(Nic::Route)?;
    guests.0.gets(sums, &[world, Nic::Route.of(2)])?;
    outside.gets(sums, &[Nic::Route.of(1)])?;
    // It leads to one device only.
    guests.0.misses(&[lan])?;

    guests.go_to(Nic::Open)?;
    guests.0.gets(sums, &[world, Nic::Open.of(2), lan])?;
    outside.gets(sums, &[Nic::Open.of(1)])?;

    guests.go_to(Nic::Isolated)?;
    guests.0.gets(sums, &[Nic::Isolated.of(2)])?;
    guests.0.reaches(&[Nic::Isolated.gateway()])?;
    guests.0.misses(&[world])?;
    outside.misses(&[Nic::Isolated.of(1)])
}

/// The kernel's, a switch's, and with taps that were there before.
fn bridges(host: &Host, guests: &mut Guests, sums: &Sums) -> Result<()> {
    let lan = pair(LAN)?;
    for nic in [Nic::Bridge, Nic::Ethernet] {
        guests.go_to(nic)?;
        guests.0.gets(sums, &[lan, nic.of(2)])?;
    }

    guests.go_to(Nic::Switch)?;
    let other = Nic::Switch.of(2);
    guests.0.gets(sums, &[other])?;
    let blue = Nic::Switch.interface(1);
    let red = blue.replace(&switched(BLUE), &switched(RED));
    let red = host.file("red.xml", &red)?;
    let blue = host.file("blue.xml", &blue)?;
    host.virsh(&format!("update-device guest-1 {red} --live"))?;
    guests.0.misses(&[other])?;
    host.virsh(&format!("update-device guest-1 {blue} --live"))?;
    guests.0.gets(sums, &[other])
}

/// Upon devices of the host's.
fn devices(host: &Host, guests: &mut Guests, cables: &mut Cables) -> Result<()> {
    let (sums, outside) = (&cables.sums, &mut cables.outside);
    let (lan, near) = (pair(LAN)?, pair(NEAR)?);

    // A router on the LAN tells them of IPv6.
    for guest in [&mut guests.0, &mut guests.1] {
        let (nic, [v4, _]) = (Nic::Macvtap, Nic::Macvtap.of(guest.number));
        guest.run(&format!("to {} {v4} && hears", nic.number()))?;
    }
    guests.0.gets(sums, &[lan, Nic::Macvtap.of(2)])?;
    outside.gets(sums, &[Nic::Macvtap.of(1)])?;
    outside.reaches(&[near])?;
    guests.0.misses(&[near])?;

    outside.sends_back(true)?;
    guests.go_to(Nic::Private)?;
    guests.0.gets(sums, &[lan])?;
    guests.1.gets(sums, &[lan])?;
    guests.0.misses(&[Nic::Private.of(2)])?;

    guests.go_to(Nic::Vepa)?;
    guests.0.gets(sums, &[lan, Nic::Vepa.of(2)])?;
    outside.sends_back(false)?;
    guests.0.gets(sums, &[lan])?;
    guests.0.misses(&[Nic::Vepa.of(2)])?;

    guests.go_to(Nic::Passthrough)?;
    guests.0.gets(sums, &[lan, Nic::Passthrough.of(2)])?;
    outside.gets(sums, &[Nic::Passthrough.of(1)])?;
    let second = Nic::Passthrough.interface(1);
    let second = second.replace(&Nic::Passthrough.mac(1), "52:54:00:0a:13:01");
    let second = host.file("second.xml", &second)?;
    let refused = host.virsh(&format!("attach-device guest-2 {second} --live"));
    let refused = refused.err().context("a device is let be used twice")?;
    ensure!(refused.to_string().contains("near1"), "{refused}");
    Ok(())
}

/// What passt does for a guest.
fn host_s_own_address(guest: &mut Guest, cables: &mut Cables) -> Result<()> {
    guest.run(&format!("asks {}", Nic::User.number()))?;
    guest.gets(&cables.sums, &[pair(WORLD)?])?;
    for address in [UP[0].to_owned(), format!("[{}]", UP[1])] {
        let line = format!("! wget -q -O /dev/null 'http://{address}/file'");
        cables.outside.run(&line)?;
    }
    Ok(())
}
