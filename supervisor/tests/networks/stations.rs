//! Stations that are no Reeve's: each a network namespace of its own, at one end of a cable.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::bench::{SOON, ip, run, until};

/// How long a station waits for what is to come.
const ANSWER: Duration = Duration::from_millis(1500);

/// A network namespace with `eth0`, which lives as long as a process in it.
pub struct Station(Child);

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Station {
    /// One whose cable ends in this namespace as `plug`.
    pub fn at(plug: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "600"]).stdin(Stdio::null());
        let station = Self(command.spawn().unwrap());
        let pid = station.0.id().to_string();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        until("it has no namespace", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own)
        });
        let peer = [
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            pid.as_str(),
        ];
        ip(&[&["link", "add", plug][..], &peer].concat());
        ip(&["link", "set", plug, "up"]);
        station.ip(&["link", "set", "lo", "up"]);
        station.ip(&["link", "set", "eth0", "up"]);
        station
    }

    /// One at a bridge.
    pub fn on(bridge: &str, plug: &str) -> Self {
        let station = Self::at(plug);
        ip(&["link", "set", plug, "master", bridge]);
        until("the port does not forward", || {
            run("bridge", &["link", "show", "dev", plug]).contains("state forwarding")
        });
        station
    }

    pub fn ip(&self, arguments: &[&str]) -> String {
        let pid = self.0.id().to_string();
        let enter = ["-t", pid.as_str(), "-n", "ip"];
        run("nsenter", &[&enter[..], arguments].concat())
    }

    /// Runs something on a thread that is there.
    pub fn inside<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let thread = std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), network).unwrap();
            what()
        });
        thread.join().unwrap()
    }

    pub fn socket(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(move || {
            // A process that another test starts has a copy of the socket before for a moment.
            let begin = Instant::now();
            let socket = loop {
                match UdpSocket::bind(address) {
                    Err(error)
                        if error.kind() == ErrorKind::AddrInUse && begin.elapsed() < SOON =>
                    {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    bound => break bound.unwrap(),
                }
            };
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket.set_broadcast(true).unwrap();
            socket
        })
    }

    /// Asks for an address as a client of DHCP does (RFC 2131), and takes it: the address, the router, the server of
    /// names.
    pub fn lease(&self, name: &str) -> (Ipv4Addr, Option<Ipv4Addr>, Option<Ipv4Addr>) {
        self.ip(&["route", "add", "255.255.255.255", "dev", "eth0"]);
        let socket = self.socket("0.0.0.0:68");
        let (address, answer) = take(&socket, &self.mac(), name, &[]);
        let single = |code: u8| {
            let value: [u8; 4] = option(&answer, code)?.try_into().ok()?;
            Some(Ipv4Addr::from(value))
        };
        let router = single(3);
        self.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        if let Some(router) = router {
            self.ip(&["route", "add", "default", "via", &router.to_string()]);
        }
        (address, router, single(6))
    }

    /// Takes a lease once more as each of so many clients, by what it calls itself; the addresses that it gets.
    pub fn leases_as(&self, clients: u16) -> BTreeSet<Ipv4Addr> {
        let (socket, mac) = (self.socket("0.0.0.0:68"), self.mac());
        let ids = (0..clients).map(|client| [&[0xff, 0][..], &client.to_be_bytes()].concat());
        ids.map(|id| take(&socket, &mac, "many", &id).0).collect()
    }

    /// Asks for as many addresses as a message has room for, by DHCPv6 (RFC 8415), and again as another client until one
    /// gets fewer; how many addresses it gets.
    pub fn all_of_ipv6(&self) -> usize {
        let scope = self.ip(&["-o", "link", "show", "eth0"]);
        let scope = scope.split(':').next().unwrap().trim();
        let servers = format!("[ff02::1:2%{scope}]:547");
        let socket = self.socket("[::]:546");
        let mut had = BTreeSet::new();
        for client in 0..500 {
            let (message, before) = (solicit(client), had.len());
            let begin = Instant::now();
            // Until its own address can be used, which takes a while.
            let answer = loop {
                assert!(begin.elapsed() < SOON, "no server of DHCPv6 answers");
                let mut answer = vec![0; 4096];
                let sent = socket.send_to(&message, &servers);
                match sent.and_then(|_| socket.recv(&mut answer)) {
                    Ok(length) if answer.get(1..4) == message.get(1..4) => {
                        answer.truncate(length);
                        break answer;
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            for association in options_of(&answer[4..], ASSOCIATION) {
                for address in options_of(&association[12..], ADDRESS) {
                    had.insert(address[..16].to_vec());
                }
            }
            if had.len() - before < usize::from(ASSOCIATIONS) {
                return had.len();
            }
        }
        panic!("there is no end of them")
    }

    /// A file of at most 511 bytes by TFTP (RFC 1350), or why not.
    pub fn fetch(&self, server: &str, file: &str) -> Result<Vec<u8>, String> {
        let socket = self.socket("0.0.0.0:0");
        let request = [&[0, 1], file.as_bytes(), b"\0octet\0"].concat();
        socket.send_to(&request, format!("{server}:69")).unwrap();
        let mut answer = [0; 600];
        let (length, from) = socket
            .recv_from(&mut answer)
            .map_err(|error| error.to_string())?;
        match answer.get(..length).unwrap() {
            [0, 3, 0, 1, data @ ..] => {
                socket.send_to(&[0, 4, 0, 1], from).unwrap();
                Ok(data.to_vec())
            }
            [0, 5, _, _, why @ ..] => Err(String::from_utf8_lossy(why).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn mac(&self) -> Vec<u8> {
        let link = self.ip(&["link", "show", "eth0"]);
        let mac = link.split("link/ether ").nth(1).unwrap();
        let octets = mac[..17].split(':');
        octets
            .map(|octet| u8::from_str_radix(octet, 16).unwrap())
            .collect()
    }

    /// The first address of IPv4 that a server has for a name.
    pub fn resolve(&self, server: &str, name: &str) -> Option<Ipv4Addr> {
        let socket = self.socket("0.0.0.0:0");
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for part in name.split('.') {
            query.push(u8::try_from(part.len()).unwrap());
            query.extend(part.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        socket.send_to(&query, format!("{server}:53")).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        // Behind the question: a pointer to the name, kind, class, time, length, address.
        let record = answer.get(query.len()..length)?;
        let address: [u8; 4] = record.get(12..16)?.try_into().ok()?;
        (answers > 0).then(|| address.into())
    }
}

/// An association of addresses that are not temporary (RFC 8415, 21.4).
const ASSOCIATION: u16 = 3;
/// An address of one (21.6).
const ADDRESS: u16 = 5;

/// How many are asked for at once.
const ASSOCIATIONS: u8 = 60;

/// A message that asks for addresses, which are taken at once (21.14, Rapid Commit).
fn solicit(client: u16) -> Vec<u8> {
    let [high, low] = client.to_be_bytes();
    // The client: by a text of a maker of its own (11.3).
    let mut message = vec![
        1, 7, high, low, 0, 1, 0, 8, 0, 2, 0, 0, 0x7f, 0xff, high, low, 0, 14, 0, 0,
    ];
    for number in 0..ASSOCIATIONS {
        message.extend([0, 3, 0, 12, 0, 0, 0, number]);
        message.extend([0; 8]);
    }
    message
}

/// The values of the options of DHCPv6 of that code.
fn options_of(mut rest: &[u8], code: u16) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while let [c1, c2, l1, l2, others @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l1, *l2]));
        let (value, others) = others.split_at(length);
        if u16::from_be_bytes([*c1, *c2]) == code {
            values.push(value);
        }
        rest = others;
    }
    values
}

/// The value of an option of DHCP.
fn option(message: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut rest = message.get(240..)?;
    loop {
        let (found, length) = (*rest.first()?, usize::from(*rest.get(1)?));
        let value = rest.get(2..2 + length)?;
        if found == code {
            return Some(value.to_vec());
        }
        rest = &rest[2 + length..];
    }
}

/// Asks for an address and takes it; with the acknowledgement.
fn take(socket: &UdpSocket, mac: &[u8], name: &str, id: &[u8]) -> (Ipv4Addr, Vec<u8>) {
    let offer = ask(socket, mac, (name, id), 1, None);
    let address = Ipv4Addr::new(offer[16], offer[17], offer[18], offer[19]);
    let wanted = Some((address, option(&offer, 54).unwrap()));
    let answer = ask(socket, mac, (name, id), 3, wanted);
    assert_eq!(option(&answer, 53), Some(vec![5]), "no acknowledgement");
    (address, answer)
}

/// Sends a message of that kind, again where nobody answers, and gives the answer.
fn ask(
    socket: &UdpSocket,
    mac: &[u8],
    (name, id): (&str, &[u8]),
    kind: u8,
    wanted: Option<(Ipv4Addr, Vec<u8>)>,
) -> Vec<u8> {
    let transaction = [7, 7, 7, kind];
    let mut message = vec![1, 1, 6, 0];
    message.extend(transaction);
    // Seconds; to be answered by broadcast, as to a station without an address.
    message.extend([0, 0, 0x80, 0]);
    message.resize(28, 0);
    message.extend(mac);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    if let Some((address, server)) = wanted {
        message.extend([50, 4]);
        message.extend(address.octets());
        message.extend([54, 4]);
        message.extend(server);
    }
    message.extend([12, u8::try_from(name.len()).unwrap()]);
    message.extend(name.bytes());
    if !id.is_empty() {
        message.extend([61, u8::try_from(id.len()).unwrap()]);
        message.extend(id);
    }
    message.extend([55, 3, 1, 3, 6, 255]);
    message.resize(300, 0);
    let (begin, mut errors) = (Instant::now(), Vec::new());
    while begin.elapsed() < 2 * SOON {
        socket.send_to(&message, "255.255.255.255:67").unwrap();
        let mut answer = vec![0; 1500];
        loop {
            match socket.recv(&mut answer) {
                Ok(length) if length > 240 && answer[4..8] == transaction => {
                    answer.truncate(length);
                    return answer;
                }
                Ok(_) => {}
                Err(error) => {
                    errors.push((begin.elapsed(), error));
                    break;
                }
            }
        }
    }
    panic!("no server of DHCP answers message {kind}: {errors:?}")
}
