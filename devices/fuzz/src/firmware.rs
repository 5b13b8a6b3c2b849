//! What only a machine with firmware has: the configuration device, whose transfers the guest describes, the bridges of
//! a Q35 and what they move, port 0x92 and the debug port.

use std::sync::Arc;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::console::ConsoleRing;
use reeve_devices::legacy::debug_port::DebugPort;
use reeve_devices::legacy::fw_cfg::{FwCfg, Items, MAX_TRANSFER, Render};
use reeve_devices::legacy::port92::Port92;
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::memory::GuestRam;
use reeve_devices::pci::Slot;
use reeve_devices::pci::lpc::LpcBridge;
use reeve_devices::pci::root::{ConfigPorts, EcamPlace, Root, Windows};
use reeve_devices::power::Reset;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::Saveable;

use super::bus::{RAM, World, ram};
use super::input::Input;

/// The most steps of one input.
const STEPS: usize = 400;
/// Where BARs of 32 bits may be.
const WINDOW: std::ops::Range<u64> = 0x8000_0000..0xfec0_0000;
const ECAM_BYTES: u64 = 256 << 20;
/// The selector's port.
const FW_CFG: u16 = 0x510;

/// Says where configuration space is.
struct Place(EcamPlace);

impl Render for Place {
    fn render(&self, bytes: &mut [u8]) {
        let base = self.0.base().unwrap_or(0).to_le_bytes();
        for (target, byte) in bytes.iter_mut().zip(base) {
            *target = byte;
        }
    }
}

struct Machine {
    ram: GuestRam,
    ports: PortBus,
    mmio: Arc<MmioBus>,
    root: Root,
    place: EcamPlace,
    fw_cfg: Shared<FwCfg>,
}

impl Machine {
    fn new() -> Self {
        let world = Arc::new(World::default());
        let (ram, ports, mmio) = (ram(), PortBus::new(), Arc::new(MmioBus::new()));
        let windows = Windows {
            memory32: WINDOW,
            memory64: 1 << 33..1 << 40,
        };
        let root = Root::with_memory_controller(Arc::clone(&mmio), windows);
        let place = root.ecam_place().expect("such a bridge");
        let mut items = Items::new();
        items.add_file("etc/long", vec![7; 9000]).expect("a file");
        items.add_file("etc/none", Vec::new()).expect("a file");
        let live = Box::new(Place(place.clone()));
        items
            .add_live_file("etc/place", vec![0; 8], live)
            .expect("a file");
        let mut fw_cfg = FwCfg::new(ram.clone());
        fw_cfg.set_items(items);
        let fw_cfg = share(fw_cfg);
        let reset = share(ResetControl::new(world.clone()));
        let config = share(ConfigPorts::new(root.clone(), reset));
        let console = Arc::new(ConsoleRing::new(256, world.clone()));
        let lpc = Slot::new(LpcBridge::SLOT).expect("a slot");
        root.insert(lpc, share(LpcBridge::new(0x600)))
            .expect("a free slot");
        let insert = |port, len, device| ports.insert(Port(port), len, device).expect("free");
        insert(FW_CFG, FwCfg::PORTS, fw_cfg.clone());
        insert(0xcf8, ConfigPorts::PORTS, config);
        insert(0x92, Port92::PORTS, share(Port92::new(world)));
        insert(0x402, DebugPort::PORTS, share(DebugPort::new(console)));
        Self {
            ram,
            ports,
            mmio,
            root,
            place,
            fw_cfg,
        }
    }

    fn out(&self, port: u16, data: &[u8]) {
        self.ports.write(Port(port), data);
    }

    /// A transfer as a driver describes it: the fields are any, the description is often in RAM.
    fn transfer(&self, input: &mut Input<'_>) {
        let address = match input.u8() {
            0 => input.u64(),
            _ => u64::from(input.u16()),
        };
        let control = u32::from(input.u8() & 0x1f) | u32::from(input.u8() & 0x2f) << 16;
        let len = match input.u8() {
            0 => input.u32(),
            _ => input.len(),
        };
        let target = match input.u8() {
            0 => input.u64(),
            _ => u64::from(input.u16()) << 2,
        };
        let description = [
            control.to_be_bytes().as_slice(),
            &len.to_be_bytes(),
            &target.to_be_bytes(),
        ]
        .concat();
        let described = self.ram.write(address, &description).is_ok();
        let bytes = address.to_be_bytes();
        self.out(FW_CFG + 4, &bytes[..4]);
        self.out(FW_CFG + 8, &bytes[4..]);
        if !described {
            return;
        }
        let mut answer = [0; 4];
        self.ram.read(address, &mut answer).expect("it was there");
        let overwritten = target < address + 16 && address < target.saturating_add(len.into());
        if !overwritten {
            assert!(u32::from_be_bytes(answer) <= 1, "it says how it went");
        }
        if control & 2 != 0 && (len > MAX_TRANSFER || u64::from(len) > RAM) {
            assert_eq!(u32::from_be_bytes(answer), 1);
        }
    }

    fn step(&self, input: &mut Input<'_>) {
        match input.u8() & 7 {
            0 | 1 => self.transfer(input),
            2 => self.out(FW_CFG, &(input.u16() & 0x802f).to_le_bytes()),
            3 => {
                for _ in 0..input.u8() {
                    self.ports.read(Port(FW_CFG + 1), &mut [0]);
                }
            }
            4 => {
                let (port, width) = (FW_CFG + u16::from(input.u8() & 15), 1 << input.below(4));
                let value = input.u64().to_le_bytes();
                self.out(port, &value[..width]);
                self.ports.read(Port(port), &mut vec![0; width]);
            }
            5 => {
                let slot = [0_u32, 31, 1][input.below(3)];
                let address = 1 << 31 | slot << 11 | u32::from(input.u8());
                self.out(0xcf8, &address.to_le_bytes());
                self.out(0xcfc, &input.u32().to_le_bytes());
            }
            6 => {
                let offset = u64::from(input.u32()) % ECAM_BYTES;
                let base = self.place.base().unwrap_or(WINDOW.start);
                let value = input.u32().to_le_bytes();
                self.mmio.write(MmioAddress(base + offset), &value);
                self.mmio.read(MmioAddress(base + offset), &mut [0; 4]);
            }
            _ => match input.below(4) {
                0 => {
                    self.root.clone().reset();
                    lock(&self.fw_cfg).reset();
                    assert_eq!(self.place.base(), None);
                }
                1 => {
                    let mut device = lock(&self.fw_cfg);
                    let saved = device.save();
                    assert_eq!(device.restore(1, &saved), Ok(()));
                    assert_eq!(device.save(), saved);
                }
                2 => {
                    let _ = lock(&self.fw_cfg).restore(1, input.bytes(10));
                }
                _ => {
                    self.out(0x92, &[input.u8()]);
                    self.out(0x402, &[input.u8()]);
                }
            },
        }
        if let Some(base) = self.place.base() {
            assert!(WINDOW.start <= base && base + ECAM_BYTES <= WINDOW.end);
            let mut vendor = [0; 2];
            assert!(self.mmio.read(MmioAddress(base), &mut vendor));
            assert_eq!(u16::from_le_bytes(vendor), 0x8086);
        }
    }
}

/// Does what the bytes say.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let machine = Machine::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
    }
}
