//! The console, with ports of every kind that come and go.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use reeve_devices::console::{ConsoleReader, ConsoleRing};
use reeve_devices::memory::GuestRam;
use reeve_devices::shared::NoWake;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::console::{
    Console, ConsoleControl, PortEnd, PortError, PortInput, PortSpec,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;
use super::sockets::Listening;

/// Ports there can be.
const PORTS: u32 = 4;
/// Bytes of a console's ring.
const RING: usize = 512;

/// The host's end of a port.
#[derive(Debug)]
enum Host {
    Nobody,
    Ring(ConsoleReader, Arc<ConsoleRing>, Arc<PortInput>),
    Stream(UnixStream),
    Listener(Listening),
}

/// The device.
#[derive(Debug)]
pub struct Terminals {
    /// The ports there are, and whether each is a console.
    ports: [Option<bool>; PORTS as usize],
    hosts: [Host; PORTS as usize],
    control: Option<ConsoleControl>,
}

impl Terminals {
    /// A new end for port `id`, with ours kept.
    fn end(&mut self, id: usize, kind: u8, control: &ConsoleControl) -> PortEnd {
        let (host, end) = match kind % 6 {
            0 | 1 => {
                let ring = Arc::new(ConsoleRing::new(RING, Arc::new(NoWake)));
                let input = control.input(Arc::new(NoWake));
                let end = PortEnd::Ring {
                    sink: ring.clone(),
                    input: input.clone(),
                };
                (Host::Ring(ring.reader(), ring, input), end)
            }
            2 => {
                let (ours, theirs) = UnixStream::pair().expect("sockets");
                ours.set_nonblocking(true).expect("a socket");
                (Host::Stream(ours), PortEnd::Stream(theirs.into()))
            }
            3 => {
                let (ours, theirs) = Listening::new();
                (Host::Listener(ours), PortEnd::Listener(theirs.into()))
            }
            4 => {
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
                let master = openpt(flags)
                    .ok()
                    .filter(|master| grantpt(master).and_then(|()| unlockpt(master)).is_ok());
                (Host::Nobody, master.map_or(PortEnd::Nothing, PortEnd::Pty))
            }
            _ => (Host::Nobody, PortEnd::Nothing),
        };
        self.hosts[id] = host;
        end
    }

    fn attach(&mut self, id: usize, console: bool, kind: u8) {
        let Some(control) = self.control.clone() else {
            return;
        };
        let end = self.end(id, kind, &control);
        let taken = control.attach(PortSpec {
            id: u32::try_from(id).expect("small"),
            name: ["", "org.example.0"][id & 1].to_owned(),
            console,
            end,
        });
        let free = self.ports[id].is_none();
        assert_eq!(taken.is_ok(), free);
        if free {
            self.ports[id] = Some(console);
        }
    }
}

impl Subject for Terminals {
    fn new(input: &mut Input<'_>) -> Self {
        let options = input.u8();
        let mut ports = [None; PORTS as usize];
        for (id, port) in ports.iter_mut().enumerate() {
            *port = (options >> id & 1 == 0).then_some(id == 0);
        }
        Self {
            ports,
            hosts: [const { Host::Nobody }; PORTS as usize],
            control: None,
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let console = Console::new(PORTS, (80, 25), Arc::new(NoWake)).expect("a console");
        self.control = Some(console.control());
        for id in 0..self.ports.len() {
            // Which ports there are goes over with the machine, who is at them does not.
            if let Some(is_console) = self.ports[id].take() {
                self.attach(id, is_console, if is_console { 0 } else { 2 });
            }
        }
        Box::new(console)
    }

    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        match queue {
            3 => {
                let id = u32::from(input.u8() % 6).to_le_bytes();
                let (event, value) = (u16::from(input.u8() & 7), u16::from(input.u8() & 1));
                let message = [&id[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
                vec![Piece::Out(message)]
            }
            2 => vec![Piece::In(input.len().min(0x1000))],
            _ if queue % 2 == 0 => (0..=input.below(3))
                .map(|_| Piece::In(input.len()))
                .collect(),
            _ if input.u8() & 7 == 0 => pieces(input),
            _ => {
                let mut text = input.short().to_vec();
                text.resize(text.len() + usize::from(input.u8()) * 16, b'.');
                vec![Piece::Out(text)]
            }
        }
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let Some(control) = self.control.clone() else {
            return;
        };
        let (what, id) = (input.u8(), input.below(self.ports.len()));
        let number = u32::try_from(id).expect("small");
        match what & 15 {
            0..=3 => match &mut self.hosts[id] {
                Host::Ring(_, _, port) => {
                    let bytes = vec![what; usize::from(input.u16() & 0x1fff)];
                    assert!(port.enqueue(&bytes) <= 4096);
                }
                Host::Stream(stream) => {
                    // Refused when too many wait.
                    let _ = stream.write(input.short());
                }
                Host::Listener(listening) => listening.act(input),
                Host::Nobody => {}
            },
            4..=7 => match &mut self.hosts[id] {
                Host::Ring(reader, ..) => {
                    assert!(reader.read(&mut [0; 100]).len <= 100);
                }
                Host::Stream(stream) => drop(stream.read(&mut [0; 3000])),
                Host::Listener(listening) => listening.act(input),
                Host::Nobody => {}
            },
            8 => self.hosts[id] = Host::Nobody,
            9 => {
                if let Host::Stream(stream) = &self.hosts[id] {
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                }
            }
            10 => self.attach(id, what & 0x80 != 0, input.u8()),
            11 => {
                let there = self.ports[id].take().is_some();
                let taken = control.detach(number);
                assert_eq!(
                    taken,
                    if there {
                        Ok(())
                    } else {
                        Err(PortError::Missing(number))
                    }
                );
            }
            12 | 13 => {
                let end = self.end(id, input.u8(), &control);
                assert_eq!(
                    control.connect(number, end).is_ok(),
                    self.ports[id].is_some()
                );
            }
            _ => control.resize(input.u16(), input.u16()),
        }
    }

    fn check(&mut self) {
        for host in &self.hosts {
            if let Host::Ring(_, ring, _) = host {
                let stats = ring.stats();
                assert!(stats.written - stats.discarded <= RING as u64);
            }
        }
        if let Some(control) = &self.control {
            let there = self.ports.iter().flatten().count();
            assert_eq!(control.ports().len(), there);
        }
    }
}
