//! A host with cables, in network namespaces of its own: what the modes of networks and interfaces lead to.
//!
//! ```text
//!   host                                       outside
//!   ┌──────────────────────────────┐           ┌──────────────────────────────┐
//!   │ up0 203.0.113.2  2001:db8::2 ├───────────┤ eth0 203.0.113.1 2001:db8::1 │ a server of files
//!   │ near0 10.82.0.2  fd82::2     ├───────────┤ far0 ┐                       │
//!   │ near1                        ├───────────┤ far1 ├ lan 10.82.0.1 fd82::1 │ the same, and a router of IPv6
//!   │ near2                        ├───────────┤ far2 │                       │
//!   │ hostbr: near3, tap1, tap2    ├───────────┤ far3 ┘                       │
//!   │ ovsbr of Open vSwitch        │           └──────────────────────────────┘
//!   └──────────────────────────────┘
//! ```

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::inside_outer_guest;
use reeve_tests::namespace::NetNamespace;
use reeve_tests::open_vswitch::OpenVswitch;
use reeve_tests::tool::{md5, output};
use tempfile::TempDir;

use super::host::SHELL;

/// The world, the host's own addresses towards it, what is on the LAN.
pub const WORLD: [&str; 2] = ["203.0.113.1", "2001:db8::1"];
pub const UP: [&str; 2] = ["203.0.113.2", "2001:db8::2"];
pub const LAN: [&str; 2] = ["10.82.0.1", "fd82::1"];
pub const NEAR: [&str; 2] = ["10.82.0.2", "fd82::2"];
/// How many bytes the file has that everybody serves, and is fetched of each.
const BYTES: u32 = 256 << 10;

/// What everybody has to try with. `get` fetches the file of each over TCP and prints the sum of all; `reached` prints
/// those that answer.
const FUNCTIONS: &str = r#"
get() { urls=; for a; do urls="$urls http://$a/file"; done; wget -q -O - $urls | md5sum; }
reached() { (for a; do { ping -c 2 -W 1 $a >/dev/null 2>&1 && echo $a; } & done; wait); }
"#;
/// What guests have besides: every byte that is typed at one takes milliseconds. `to NUMBER IPV4 [IPV6 [ROUTER ROUTER]]`
/// goes over to another interface, and does not ask whether others have its addresses; `asks NUMBER` has DHCP and a
/// router say them; `hears` waits for the latter.
const OF_GUESTS: &str = r#"
up=0
hears() {
    n=0
    until ip -6 addr show dev eth$up | grep -q 'global dynamic'; do
        n=$((n + 1)); [ $n -lt 300 ] || return 1
        usleep 100000
    done
}
leave() { ifconfig eth$up down; up=$1; echo 0 >/proc/sys/net/ipv6/conf/eth$up/accept_dad; }
to() {
    leave $1
    ifconfig eth$up $2 netmask 255.255.255.0 up || return
    [ -z "$3" ] || ip addr add $3/64 dev eth$up || return
    # A router that is told of has a metric of 1024.
    [ -z "$4" ] || { ip route add default via $4 && ip -6 route add default via $5 dev eth$up metric 10; }
}
asks() { leave $1; ifconfig eth$up up; udhcpc -q -n -t 8 -i eth$up && hears; }
httpd -p 80 -h /tmp
"#;

/// A pair of addresses, of IPv4 and of IPv6.
pub fn pair(addresses: [&str; 2]) -> Result<[IpAddr; 2]> {
    Ok([addresses[0].parse()?, addresses[1].parse()?])
}

/// Who has a shell with these functions.
pub trait Party {
    /// What a command prints; an error if it fails.
    fn run(&mut self, line: &str) -> Result<String>;

    /// Fetches the file from each of them, over TCP.
    fn gets(&mut self, sums: &Sums, addresses: &[[IpAddr; 2]]) -> Result<()> {
        let names = addresses
            .as_flattened()
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            });
        let names: Vec<String> = names.collect();
        let printed = self.run(&format!("get {}", names.join(" ")))?;
        let sum = sums.of_pairs(addresses.len())?;
        ensure!(printed.contains(sum), "files of {names:?}: {printed}");
        Ok(())
    }

    /// Which of them answer.
    fn reached(&mut self, addresses: &[[IpAddr; 2]]) -> Result<Vec<IpAddr>> {
        let names: Vec<String> = addresses
            .as_flattened()
            .iter()
            .map(IpAddr::to_string)
            .collect();
        let printed = self.run(&format!("reached {}", names.join(" ")))?;
        let mut reached = Vec::new();
        for line in printed.lines() {
            reached.push(line.trim().parse()?);
        }
        Ok(reached)
    }

    /// All of them answer.
    fn reaches(&mut self, addresses: &[[IpAddr; 2]]) -> Result<()> {
        let deadline = Instant::now() + SHELL;
        loop {
            let reached = self.reached(addresses)?;
            if reached.len() == 2 * addresses.len() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "of {addresses:?} only {reached:?} are reached"
            );
        }
    }

    /// None of them does.
    fn misses(&mut self, addresses: &[[IpAddr; 2]]) -> Result<()> {
        let reached = self.reached(addresses)?;
        ensure!(reached.is_empty(), "{reached:?} are reached");
        Ok(())
    }
}

/// Those of the files of pairs of addresses, one behind the other.
pub struct Sums(Vec<String>);

impl Sums {
    fn of(file: &[u8], place: &Path) -> Result<Self> {
        let mut sums = Vec::new();
        for pairs in 1..=3 {
            fs::write(place, file.repeat(2 * pairs))?;
            sums.push(md5(place)?);
        }
        Ok(Self(sums))
    }

    fn of_pairs(&self, pairs: usize) -> Result<&str> {
        let sum = pairs.checked_sub(1).and_then(|at| self.0.get(at));
        Ok(sum.context("so many files")?)
    }
}

/// The host and what is outside.
pub struct Cables {
    /// Where the daemon is to be.
    pub host: NetNamespace,
    pub switch: OpenVswitch,
    pub outside: Outside,
    pub sums: Sums,
    _files: TempDir,
}

impl Cables {
    pub fn lay() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let word = |at: u32| at.wrapping_mul(0x9e37_79b1).to_le_bytes();
        let file: Vec<u8> = (0..BYTES / 4).flat_map(word).collect();
        let place = files.path().join("place");
        let sums = Sums::of(&file, &place)?;
        fs::write(files.path().join("file"), file)?;
        let functions = format!("{FUNCTIONS}{OF_GUESTS}");
        fs::write(files.path().join("functions"), functions)?;

        let host = NetNamespace::new('m')?;
        let outside = NetNamespace::new('c')?;
        for namespace in [&host, &outside] {
            quiet(namespace)?;
        }
        for (namespace, lines) in [(&host, own(outside.name())), (&outside, theirs())] {
            fs::write(&place, lines)?;
            namespace.ip(&["-batch", &place.display().to_string()])?;
        }

        // Once there has been a guest on them, they would have routes of IPv6.
        let script =
            "for tap in tap1 tap2; do echo 1 >/proc/sys/net/ipv6/conf/$tap/disable_ipv6; done";
        output(host.command("sh").args(["-c", script]))?;

        let switch = OpenVswitch::start(&host)?;
        switch.control("add-br ovsbr -- set bridge ovsbr datapath_type=netdev")?;
        let mut outside = Outside(outside);
        outside.serve(files.path())?;
        Ok(Self {
            host,
            switch,
            outside,
            sums,
            _files: files,
        })
    }

    /// Links, addresses, routes and rules of the host, but for how a link gets on, which the kernel finds out by and by.
    pub fn state(&self) -> Result<String> {
        let all = self.host.state()?;
        let lines = all.lines().map(|line| match line.split_once(" qdisc ") {
            Some((link, rest)) => {
                let (_, rest) = rest.split_once(" mode ").unwrap_or(("", rest));
                format!("{link} {rest}\n")
            }
            None => format!("{line}\n"),
        });
        Ok(lines.collect())
    }

    /// Waits until the host is as it was.
    pub fn is_as(&self, before: &str) -> Result<()> {
        let deadline = Instant::now() + SHELL;
        loop {
            let now = self.state()?;
            if now == before {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "before:\n{before}\nnow:\n{now}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// The host's ends of cables to that namespace, its bridge and its taps.
fn own(outside: &str) -> String {
    let mut lines = String::from("link add hostbr type bridge mcast_snooping 0\n");
    let cables = [
        ("up0", "eth0"),
        ("near0", "far0"),
        ("near1", "far1"),
        ("near2", "far2"),
        ("near3", "far3"),
    ];
    for (near, far) in cables {
        lines += &format!("link add {near} type veth peer name {far} netns {outside}\n");
    }
    for tap in ["tap1", "tap2"] {
        lines += &format!("tuntap add {tap} mode tap vnet_hdr\n");
    }
    for link in [
        "hostbr", "up0", "near0", "near1", "near2", "near3", "tap1", "tap2",
    ] {
        lines += &format!("link set {link} addrgenmode none\n");
        if matches!(link, "near3" | "tap1" | "tap2") {
            lines += &format!("link set {link} master hostbr\n");
        }
        lines += &format!("link set {link} up\n");
    }
    for (link, addresses) in [("up0", UP), ("near0", NEAR)] {
        lines += &address(link, addresses);
        // To forward, and for passt, it has one of the link.
        lines += &format!("addr add fe80::2/64 dev {link} nodad\n");
    }
    lines
        + &format!(
            "route add default via {}\nroute add default via {}\n",
            WORLD[0], WORLD[1]
        )
}

fn theirs() -> String {
    let mut lines = String::from("link add lan type bridge mcast_snooping 0\n");
    for far in ["far0", "far1", "far2", "far3"] {
        lines += &format!("link set {far} master lan\nlink set {far} up\n");
    }
    lines += "link set eth0 up\nlink set lan up\n";
    lines + &address("eth0", WORLD) + &address("lan", LAN)
}

fn address(link: &str, [v4, v6]: [&str; 2]) -> String {
    format!("addr add {v4}/24 dev {link}\naddr add {v6}/64 dev {link} nodad\n")
}

/// No link of it hears a router or answers for another, and a reply may come from elsewhere than a question went to.
fn quiet(namespace: &NetNamespace) -> Result<()> {
    let script = "for link in all default; do echo 0 >/proc/sys/net/ipv6/conf/$link/accept_ra; \
         echo 0 >/proc/sys/net/ipv4/conf/$link/rp_filter; \
         echo 1 >/proc/sys/net/ipv4/conf/$link/arp_ignore; done";
    output(namespace.command("sh").args(["-c", script]))?;
    Ok(())
}

/// What is not the host's.
pub struct Outside(NetNamespace);

impl Outside {
    fn serve(&mut self, files: &Path) -> Result<()> {
        let busybox = assets().tool("busybox").display().to_string();
        let files = files.display().to_string();
        self.0
            .serve(&busybox, &["httpd", "-f", "-h", &files, "-p", "80"])?;
        let dnsmasq = match inside_outer_guest() {
            true => assets().tool("dnsmasq").display().to_string(),
            false => "dnsmasq".to_owned(),
        };
        let router = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=root",
            "--pid-file=",
            "--port=0",
            "--leasefile-ro",
            "--interface=lan",
            "--enable-ra",
            "--dhcp-range=fd82::,ra-only",
        ];
        self.0.serve(&dnsmasq, &router)
    }

    /// It knows a way to the host's networks now.
    pub fn knows_networks(&self) -> Result<()> {
        self.0.ip(&["route", "add", "10.81.0.0/16", "via", UP[0]])?;
        self.0
            .ip(&["-6", "route", "add", "fd81::/32", "via", UP[1]])?;
        Ok(())
    }

    /// Whether what comes from the host's first cable to the LAN may go back by it.
    pub fn sends_back(&self, whether: bool) -> Result<()> {
        let hairpin = if whether { "on" } else { "off" };
        self.0.ip(&[
            "link",
            "set",
            "far0",
            "type",
            "bridge_slave",
            "hairpin",
            hairpin,
        ])?;
        Ok(())
    }
}

impl Party for Outside {
    fn run(&mut self, line: &str) -> Result<String> {
        let mut command = self
            .0
            .command(&assets().tool("busybox").display().to_string());
        command.args(["sh", "-c", &format!("{FUNCTIONS}{line}")]);
        output(&mut command).context("outside")
    }
}
