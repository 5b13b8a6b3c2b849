//! Virtio devices for the test machine, each with something simple behind it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reeve_devices::block::Layout;
use reeve_devices::block::bounce::Direct;
use reeve_devices::block::cache::CacheMode;
use reeve_devices::block::engine::Engine;
use reeve_devices::block::qcow2::{CreateOptions, Options, Qcow2, create};
use reeve_devices::block::raw::Raw;
use reeve_devices::block::uring::Ring;
use reeve_devices::memory::blocks::Blocks;
use reeve_devices::shared::NoWake;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::{Balloon, BalloonParams, PageReturn};
use reeve_devices::virtio::block::{Block, BlockParams};
use reeve_devices::virtio::console::{Console, PortEnd, PortSpec};
use reeve_devices::virtio::mem::{BlockBacking, Mem};
use reeve_devices::virtio::net::{Net, NetConfig, Offloads, Port};
use reeve_devices::virtio::rng::Entropy;
use reeve_devices::virtio::vsock::Vsock;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

/// A device, and what it is made with.
#[derive(Clone, Debug)]
pub enum Device {
    /// Random bytes without limit.
    Rng,
    /// A raw disk of so many bytes in memory, served by a ring.
    Block(u64),
    /// The same, served by calls that wait.
    BlockWithoutRing(u64),
    /// A qcow2 disk of so many bytes, empty at first, its image in memory.
    Qcow2(u64),
    /// A network interface.
    Net(Arc<Wire>),
    /// A console whose one port nobody reads.
    Console,
    /// A balloon over all of memory.
    Balloon,
    /// A socket device to which nobody listens.
    Vsock,
    /// A memory device of which nobody uses the memory.
    Memory,
}

/// Makes it, for a machine with the memory that `file` is.
pub fn make(device: &Device, memory: u64, file: &File) -> Box<dyn VirtioDevice> {
    match device {
        Device::Rng => Box::new(Entropy::new(None)),
        Device::Block(bytes) => {
            let ring = Ring::new().expect("the host has io_uring");
            Box::new(disk(raw(*bytes), Some(ring)))
        }
        Device::BlockWithoutRing(bytes) => Box::new(disk(raw(*bytes), None)),
        Device::Qcow2(bytes) => Box::new(disk(image(*bytes), Ring::new().ok())),
        Device::Net(wire) => Box::new(net(wire)),
        Device::Console => Box::new(console()),
        Device::Balloon => Box::new(balloon(memory, file)),
        Device::Vsock => Box::new(Vsock::new(3).expect("an address of a guest")),
        Device::Memory => Box::new(mem()),
    }
}

fn memfd(bytes: u64) -> OwnedFd {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a memfd can be made");
    ftruncate(&file, bytes).expect("it can grow");
    file
}

fn raw(bytes: u64) -> Box<dyn Layout> {
    Box::new(Raw::new(memfd(bytes), false, Direct::none()).expect("it has a size"))
}

fn image(size: u64) -> Box<dyn Layout> {
    let file = memfd(0);
    let options = CreateOptions {
        size,
        cluster_bits: 16,
        backing: None,
    };
    let theirs = file.try_clone().expect("a descriptor is free");
    create(theirs, &options).expect("an image can be made");
    Box::new(Qcow2::open(file, Vec::new(), Options::default()).expect("the image is good"))
}

fn disk(layout: Box<dyn Layout>, ring: Option<Ring>) -> Block {
    let engine = Engine::new(layout, ring, CacheMode::Writeback, Direct::none());
    Block::new(BlockParams::default(), vec![engine]).expect("parameters are good")
}

fn console() -> Console {
    let console = Console::new(2, (80, 24), Arc::new(NoWake)).expect("a descriptor is free");
    console
        .control()
        .attach(PortSpec {
            id: 0,
            name: String::new(),
            console: true,
            end: PortEnd::Nothing,
        })
        .expect("the port is free");
    console
}

fn balloon(memory: u64, file: &File) -> Balloon {
    let params = BalloonParams {
        memory_bytes: memory,
        backing_page_bytes: 4096,
        deflate_on_oom: true,
        free_page_reporting: true,
    };
    let file = file.try_clone().expect("a descriptor is free");
    Balloon::new(params, Arc::new(Punched(file)), Arc::new(NoWake)).expect("a descriptor is free")
}

/// Memory is given back by a hole in its file.
#[derive(Debug)]
struct Punched(File);

impl PageReturn for Punched {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.0, hole, address, len)?)
    }
}

/// Of 16 blocks, of which 8 are asked for.
fn mem() -> Mem {
    const BLOCK: u64 = 2 << 20;
    let blocks = Blocks::new(64 << 30, 16 * BLOCK, BLOCK).expect("whole blocks");
    let plugged = Plugged(Mutex::new(BTreeSet::new()));
    let mem = Mem::new(Arc::new(blocks), Arc::new(plugged), Arc::new(NoWake));
    mem.control().request(8 * BLOCK);
    mem
}

/// Which blocks are plugged, and that none is so twice, nor too many.
#[derive(Debug)]
struct Plugged(Mutex<BTreeSet<u64>>);

impl Plugged {
    fn change(&self, plug: bool, address: u64, len: u64) -> io::Result<()> {
        let mut plugged = self.0.lock().expect("nobody panics");
        for block in (address..address + len).step_by(2 << 20) {
            let changed = match plug {
                true => plugged.insert(block),
                false => plugged.remove(&block),
            };
            assert!(changed, "block {block:#x} was so already");
        }
        assert!(plugged.len() <= 8, "more is plugged than was asked for");
        Ok(())
    }
}

impl BlockBacking for Plugged {
    fn plug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(true, address, len)
    }

    fn unplug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(false, address, len)
    }
}

fn net(wire: &Arc<Wire>) -> Net {
    let config = NetConfig {
        mac: [2, 0, 0, 0, 0, 9],
        mac_may_change: true,
        mtu: None,
        speed: None,
        queue_size: 256,
        link_up: true,
        udp_segmentation: false,
    };
    Net::new(config, vec![Arc::clone(wire) as _]).expect("parameters are good")
}

/// What an interface is plugged into: datagrams with a header of 12 bytes and a frame. A thread at the
/// other end counts what comes, and may send.
#[derive(Debug)]
pub struct Wire {
    device: UnixDatagram,
    far: UnixDatagram,
    received: AtomicU64,
    ended: AtomicBool,
}

impl Wire {
    /// A new one, on which nothing is sent of its own accord.
    pub fn new() -> Arc<Self> {
        let (device, far) = UnixDatagram::pair().expect("descriptors are free");
        device.set_nonblocking(true).expect("a socket");
        far.set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a socket");
        let wire = Arc::new(Self {
            device,
            far,
            received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let theirs = Arc::downgrade(&wire);
        std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 17];
            while let Some(wire) = theirs.upgrade().filter(|wire| !wire.ended()) {
                if wire.far.recv(&mut frame).is_ok() {
                    wire.received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        wire
    }

    /// Frames that came out of the machine.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Sends a frame into the machine; false if there is no room.
    pub fn send(&self, frame: &[u8]) -> bool {
        let mut datagram = vec![0; 12];
        datagram.extend(frame);
        self.far.send(&datagram).is_ok()
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Port for Wire {
    fn cuts_udp(&self) -> bool {
        false
    }

    fn set_offloads(&self, _offloads: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn set_attached(&self, _attached: bool) -> io::Result<()> {
        Ok(())
    }
}
