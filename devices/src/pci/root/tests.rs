use proptest::prelude::*;

use super::*;
use crate::bus::{AccessError, BusDevice, Port, PortBus};
use crate::legacy::reset::ResetControl;
use crate::pci::Bars;
use crate::pci::config_space::{BarWidth, ConfigSpace, Identity};
use crate::testing::RecordPower;

const ECAM: u64 = 0xb000_0000;
const MEMORY32: Range<u64> = 0xe000_0000..0xe010_0000;
const MEMORY64: Range<u64> = 0x80_0000_0000..0x90_0000_0000;
const BAR0_LEN: u64 = 0x4000;
const BAR2_LEN: u64 = 0x1000;

/// Answers every read with its tag.
struct Tag(u8);

impl BusDevice for Tag {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        data.fill(self.0);
        Ok(())
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), AccessError> {
        Ok(())
    }
}

/// BAR 0 of 64 bits with an odd tag, BAR 2 of 32 bits with the even one after it.
struct TestFunction {
    config: ConfigSpace,
    devices: [Shared<dyn BusDevice>; 2],
    /// Where each BAR is, as the root has told.
    told: [Option<u64>; BARS],
    moves: usize,
}

impl TestFunction {
    fn new(tag: u8, address64: u64, address32: u64) -> Shared<Self> {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1040 + u16::from(tag),
            revision: 1,
            class: 0xff_00_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config
            .add_memory_bar(0, BAR0_LEN, BarWidth::Bits64)
            .unwrap();
        config
            .add_memory_bar(2, BAR2_LEN, BarWidth::Bits32)
            .unwrap();
        config.set_bar_address(0, address64).unwrap();
        config.set_bar_address(2, address32).unwrap();
        share(Self {
            config,
            devices: [share(Tag(tag)), share(Tag(tag + 1))],
            told: [None; BARS],
            moves: 0,
        })
    }
}

impl PciFunction for TestFunction {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        check_access(register, data.len());
        self.config.read(register, data);
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        check_access(register, data.len());
        self.config.write(register, data)
    }

    fn bars(&self) -> Bars {
        let bar = |index, device: &Shared<dyn BusDevice>| {
            Some(Bar {
                size: self.config.bar_size(index).unwrap(),
                address: self.config.bar(index),
                device: device.clone(),
            })
        };
        let [first, second] = &self.devices;
        let mut bars = Bars::default();
        bars[0] = bar(0, first);
        bars[2] = bar(2, second);
        bars
    }

    fn bar_moved(&mut self, bar: u8, address: Option<u64>) {
        let told = &mut self.told[usize::from(bar)];
        assert!(
            told.is_none() || address.is_none(),
            "a BAR goes away before it moves"
        );
        *told = address;
        self.moves += 1;
    }
}

impl Reset for TestFunction {
    fn reset(&mut self) {
        self.config.reset();
    }
}

fn check_access(register: u16, width: usize) {
    assert!(register < 4096, "registers are inside the function");
    assert!(matches!(width, 1 | 2 | 4), "accesses have 1, 2 or 4 bytes");
    assert!(
        usize::from(register) % 4 + width <= 4,
        "accesses are inside a dword"
    );
}

struct Machine {
    mmio: Arc<MmioBus>,
    ports: PortBus,
    root: Root,
    config_ports: Shared<ConfigPorts>,
    power: Arc<RecordPower>,
}

impl Machine {
    fn new() -> Self {
        let mmio = Arc::new(MmioBus::new());
        let windows = Windows {
            memory32: MEMORY32,
            memory64: MEMORY64,
        };
        let root = Root::new(mmio.clone(), windows);
        let ecam = share(Ecam::new(root.clone()));
        mmio.insert(MmioAddress(ECAM), 2 * Ecam::BUS_LEN, ecam)
            .unwrap();
        let power = Arc::new(RecordPower::default());
        let reset_control = share(ResetControl::new(power.clone()));
        let config_ports = share(ConfigPorts::new(root.clone(), reset_control));
        let ports = PortBus::new();
        ports
            .insert(
                Port(ConfigPorts::FIRST_PORT),
                ConfigPorts::PORTS,
                config_ports.clone(),
            )
            .unwrap();
        Self {
            mmio,
            ports,
            root,
            config_ports,
            power,
        }
    }

    /// With functions in the slots 1, 2, …, all at the same addresses.
    fn with<const N: usize>() -> (Self, [Shared<TestFunction>; N]) {
        let machine = Self::new();
        let mut tag = 1;
        let functions = std::array::from_fn(|_| {
            let function = TestFunction::new(tag, MEMORY64.start, MEMORY32.start);
            let slot = machine.root.free_slot().unwrap();
            machine.root.insert(slot, function.clone()).unwrap();
            tag += 2;
            function
        });
        (machine, functions)
    }

    fn read(&self, slot: u64, register: u64) -> u32 {
        let mut data = [0; 4];
        let address = ECAM + (slot << 15) + register;
        assert!(self.mmio.read(MmioAddress(address), &mut data));
        u32::from_le_bytes(data)
    }

    fn write(&self, slot: u64, register: u64, value: u32) {
        let address = ECAM + (slot << 15) + register;
        assert!(self.mmio.write(MmioAddress(address), &value.to_le_bytes()));
    }

    fn enable(&self, slot: u64, on: bool) {
        self.write(slot, 4, if on { 2 } else { 0 });
    }

    /// The tag of what is at `address`.
    fn tag(&self, address: u64) -> Option<u8> {
        let mut data = [0];
        self.mmio
            .read(MmioAddress(address), &mut data)
            .then_some(data[0])
    }

    fn out<const N: usize>(&self, port: u16, data: [u8; N]) -> bool {
        self.ports.write(Port(port), &data)
    }

    fn inl(&self, port: u16) -> u32 {
        let mut data = [0; 4];
        self.ports.read(Port(port), &mut data);
        u32::from_le_bytes(data)
    }
}

fn slot(number: u8) -> Slot {
    Slot::new(number).unwrap()
}

#[test]
fn only_functions_that_exist_answer() {
    let (machine, [_function]) = Machine::with();
    assert_eq!(machine.read(0, 0), 0x0008_1b36);
    assert_eq!(machine.read(0, 8), 0x0600_0000);
    assert_eq!(machine.read(1, 0), 0x1041_1af4);
    assert_eq!(machine.read(2, 0), 0xffff_ffff);
    assert_eq!(machine.read(31, 0), 0xffff_ffff);
    // Function 1 of slot 1, and bus 1.
    assert_eq!(machine.read(1, 0x1000), 0xffff_ffff);
    assert_eq!(machine.read(32 + 1, 0), 0xffff_ffff);
    machine.write(2, 4, 0xffff_ffff);
    machine.write(1, 0x1004, 0xffff_ffff);
    assert_eq!(machine.read(1, 4), 0);
    assert_eq!(machine.read(1, 0xffc), 0);
}

#[test]
fn narrow_accesses_reach_their_bytes() {
    let (machine, [_function]) = Machine::with();
    let at = |register| MmioAddress(ECAM + (1 << 15) + register);
    let (mut byte, mut word) = ([0], [0; 2]);
    assert!(machine.mmio.read(at(1), &mut byte));
    assert!(machine.mmio.read(at(2), &mut word));
    assert_eq!((byte, word), ([0x1a], [0x41, 0x10]));
    for (register, width) in [(1, 4), (2, 4), (3, 2), (0, 8), (4, 8)] {
        let mut data = [0; 8];
        assert!(!machine.mmio.read(at(register), &mut data[..width]));
        assert_eq!(data[..width], [0xff; 8][..width]);
        assert!(!machine.mmio.write(at(register), &data[..width]));
    }
}

#[test]
fn the_ports_reach_the_same_registers() {
    let (machine, [function]) = Machine::with();
    assert!(machine.out(0xcf8, 0x8000_0800_u32.to_le_bytes()));
    assert_eq!(machine.inl(0xcfc), 0x1041_1af4);
    let mut word = [0; 2];
    assert!(machine.ports.read(Port(0xcfe), &mut word));
    assert_eq!(word, [0x41, 0x10]);
    assert!(machine.out(0xcf8, 0x8000_0804_u32.to_le_bytes()));
    assert!(machine.out(0xcfc, [0x02]));
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
    assert_eq!(lock(&function).told[2], Some(MEMORY32.start));
    for target in [0x8000_1000_u32, 0x8001_0800, 0x8000_0900] {
        assert!(machine.out(0xcf8, target.to_le_bytes()));
        assert_eq!(machine.inl(0xcfc), 0xffff_ffff, "target {target:#x}");
        assert!(machine.out(0xcfc, [0; 4]));
    }
}

#[test]
fn linux_finds_mechanism_1_and_not_mechanism_2() {
    let machine = Machine::new();
    let _ = machine.out(0xcfb, [0x01]);
    let _ = machine.out(0xcf8, 0x8000_0000_u32.to_le_bytes());
    assert_eq!(machine.inl(0xcf8), 0x8000_0000);
    assert_eq!(machine.inl(0xcfc), 0x0008_1b36);
    let _ = machine.out(0xcf8, 0xffff_ffff_u32.to_le_bytes());
    assert_eq!(machine.inl(0xcf8), 0x80ff_fffc);
    // Disabled, CONFIG_DATA is no register.
    let _ = machine.out(0xcf8, 0x0000_0000_u32.to_le_bytes());
    assert_eq!(machine.inl(0xcfc), 0xffff_ffff);
    assert!(!machine.out(0xcfc, [0; 4]));
    let mut byte = [0];
    for port in [0xcf8, 0xcfa, 0xcfb] {
        assert!(!machine.ports.read(Port(port), &mut byte));
        assert_eq!(byte, [0xff]);
    }
}

#[test]
fn a_byte_at_cf9_is_the_reset_control_register_s() {
    let machine = Machine::new();
    let _ = machine.out(0xcf8, 0x8000_0600_u32.to_le_bytes());
    assert_eq!(*machine.power.resets(), 0);
    assert!(machine.out(0xcf9, [0x06]));
    assert_eq!(*machine.power.resets(), 1);
    let mut byte = [0];
    assert!(machine.ports.read(Port(0xcf9), &mut byte));
    assert_eq!(byte, [0x02]);
    assert_eq!(machine.inl(0xcf8), 0x8000_0600);
    let mut word = [0; 2];
    assert!(!machine.ports.read(Port(0xcf9), &mut word));
}

#[test]
fn a_bar_is_mapped_while_it_is_decoded() {
    let (machine, [function]) = Machine::with();
    assert_eq!(machine.tag(MEMORY64.start), None);
    machine.enable(1, true);
    assert_eq!(machine.tag(MEMORY64.start), Some(1));
    assert_eq!(machine.tag(MEMORY64.start + BAR0_LEN - 1), Some(1));
    assert_eq!(machine.tag(MEMORY64.start + BAR0_LEN), None);
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
    machine.enable(1, false);
    assert_eq!(machine.tag(MEMORY64.start), None);
    assert_eq!(machine.tag(MEMORY32.start), None);
    assert_eq!(lock(&function).told, [None; BARS]);
    assert_eq!(lock(&function).moves, 4);
}

#[test]
fn sizing_with_memory_space_enabled_leaves_the_bar_where_it_was() {
    let (machine, [function]) = Machine::with();
    machine.enable(1, true);
    for register in [0x10, 0x14, 0x18] {
        let before = machine.read(1, register);
        machine.write(1, register, 0xffff_ffff);
        assert_ne!(machine.read(1, register), before);
        machine.write(1, register, before);
        assert_eq!(machine.read(1, register), before);
    }
    assert_eq!(machine.tag(MEMORY64.start), Some(1));
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
    assert_eq!(lock(&function).told[0], Some(MEMORY64.start));
}

#[test]
fn a_bar_moves() {
    let (machine, [function]) = Machine::with();
    machine.enable(1, true);
    machine.write(1, 0x14, 0x85);
    assert_eq!(machine.tag(MEMORY64.start), None);
    assert_eq!(machine.tag(0x85_0000_0000), Some(1));
    machine.write(1, 0x10, 0x4000);
    assert_eq!(machine.tag(0x85_0000_4000), Some(1));
    assert_eq!(lock(&function).told[0], Some(0x85_0000_4000));
    // A 64-bit BAR may be below 4 GiB.
    machine.write(1, 0x14, 0);
    machine.write(1, 0x10, 0xe000_8000);
    assert_eq!(machine.tag(0xe000_8000), Some(1));
}

#[test]
fn nothing_is_mapped_outside_the_windows() {
    let (machine, [function]) = Machine::with();
    machine.enable(1, true);
    for address in [0, 0xdfff_f000, 0xe010_0000, 0xfee0_0000, 0xb000_0000] {
        machine.write(1, 0x18, address);
        assert_eq!(lock(&function).told[2], None, "address {address:#x}");
    }
    machine.write(1, 0x18, 0xe00f_f000);
    assert_eq!(lock(&function).told[2], Some(0xe00f_f000));
    // Half of it is below the window, or above.
    machine.write(1, 0x14, 0);
    machine.write(1, 0x10, 0xe010_0000);
    assert_eq!(lock(&function).told[0], None);
    machine.write(1, 0x14, 0x90);
    machine.write(1, 0x10, 0);
    assert_eq!(lock(&function).told[0], None);
    machine.write(1, 0x14, 0x8f);
    machine.write(1, 0x10, 0xffff_c000);
    assert_eq!(lock(&function).told[0], Some(0x8f_ffff_c000));
}

#[test]
fn a_bar_on_top_of_another_waits_for_its_place() {
    let (machine, [first, second]) = Machine::with();
    machine.enable(1, true);
    machine.enable(2, true);
    assert_eq!(machine.tag(MEMORY64.start), Some(1));
    assert_eq!(lock(&second).told, [None; BARS]);
    machine.write(1, 0x10, 0x4000);
    assert_eq!(machine.tag(MEMORY64.start), Some(3));
    assert_eq!(machine.tag(MEMORY64.start + 0x4000), Some(1));
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
    assert_eq!(lock(&second).told[0], Some(MEMORY64.start));
    // Back on top of the other, and it is the first that waits.
    machine.write(1, 0x10, 0);
    assert_eq!(lock(&first).told[0], None);
    machine.root.remove(slot(2)).unwrap();
    assert_eq!(machine.tag(MEMORY64.start), Some(1));
}

#[test]
fn two_bars_of_a_function_may_change_places() {
    let (machine, [function]) = Machine::with();
    machine.write(1, 0x14, 0);
    machine.write(1, 0x10, 0xe000_0000);
    machine.write(1, 0x18, 0xe000_4000);
    machine.enable(1, true);
    assert_eq!(machine.tag(0xe000_0000), Some(1));
    assert_eq!(machine.tag(0xe000_4000), Some(2));
    let _ = lock(&function)
        .config
        .write(0x10, &0xe000_4000_u32.to_le_bytes());
    let _ = lock(&function)
        .config
        .write(0x18, &0xe000_0000_u32.to_le_bytes());
    machine.root.remap(slot(1));
    assert_eq!(machine.tag(0xe000_0000), Some(2));
    assert_eq!(machine.tag(0xe000_4000), Some(1));
}

#[test]
fn functions_come_and_go() {
    let (machine, [first]) = Machine::with();
    machine.enable(1, true);
    let refusal = Err(SlotError::Taken(slot(1)));
    assert_eq!(machine.root.insert(slot(1), first.clone()), refusal);
    assert_eq!(machine.root.free_slot(), Some(slot(2)));
    assert!(machine.root.remove(slot(1)).is_some());
    assert!(machine.root.remove(slot(1)).is_none());
    assert_eq!(machine.read(1, 0), 0xffff_ffff);
    assert_eq!(machine.tag(MEMORY32.start), None);
    assert_eq!(lock(&first).told, [None; BARS]);
    assert_eq!(machine.root.free_slot(), Some(slot(1)));
    // It decodes its BARs still.
    assert_eq!(machine.root.insert(slot(9), first.clone()), Ok(()));
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
    assert_eq!(machine.read(9, 0), 0x1041_1af4);
}

#[test]
fn the_host_bridge_stays_and_slots_run_out() {
    let machine = Machine::new();
    assert!(machine.root.remove(Slot::HOST_BRIDGE).is_none());
    for number in 1..32 {
        let function = TestFunction::new(1, 0, 0);
        assert_eq!(machine.root.free_slot(), Some(slot(number)));
        assert_eq!(machine.root.insert(slot(number), function), Ok(()));
    }
    assert_eq!(machine.root.free_slot(), None);
    assert_eq!(Slot::new(32), None);
    assert_eq!(slot(31).to_string(), "00:1f.0");
}

#[test]
fn reset_takes_every_bar_away_and_gives_it_its_first_address() {
    let (mut machine, [first, second]) = Machine::with();
    machine.write(1, 0x18, 0xe000_8000);
    machine.enable(1, true);
    machine.enable(2, true);
    machine.root.reset();
    for function in [&first, &second] {
        assert_eq!(lock(function).told, [None; BARS]);
    }
    assert_eq!(machine.tag(0xe000_8000), None);
    assert_eq!(machine.tag(MEMORY32.start), None);
    assert_eq!(machine.read(1, 0x18), 0xe000_0000);
    machine.enable(1, true);
    assert_eq!(machine.tag(MEMORY32.start), Some(2));
}

#[test]
fn a_restored_function_is_remapped() {
    let (machine, [function]) = Machine::with();
    machine.enable(1, true);
    let mut other = lock(&function).config.clone();
    let _ = other.write(0x18, &0xe000_8000_u32.to_le_bytes());
    lock(&function).config.set_state(&other.state());
    machine.root.remap(slot(1));
    assert_eq!(machine.tag(0xe000_8000), Some(2));
    assert_eq!(machine.tag(MEMORY32.start), None);
    let moves = lock(&function).moves;
    machine.root.remap(slot(1));
    assert_eq!(lock(&function).moves, moves);
}

#[test]
fn the_host_bridge_is_saved_and_checked() {
    let mut machine = Machine::new();
    machine.write(0, 4, 0x0406);
    let saved = machine.root.save();
    machine.root.reset();
    assert_eq!(machine.read(0, 4), 0);
    assert_eq!(machine.root.restore(1, &saved), Ok(()));
    assert_eq!(machine.read(0, 4), 0x0406);
    let mut hostile = saved.clone();
    hostile[0x10] = 1;
    let refusal = Err(StateError::Invalid { field: "registers" });
    assert_eq!(machine.root.restore(1, &hostile), refusal);
    assert_eq!(
        machine.root.restore(2, &saved),
        Err(StateError::UnknownVersion {
            schema: "pci-host-bridge",
            version: 2
        })
    );
}

#[test]
fn the_ports_are_saved_and_checked() {
    let machine = Machine::new();
    let _ = machine.out(0xcf8, 0x8000_0804_u32.to_le_bytes());
    let mut ports = lock(&machine.config_ports);
    let saved = ports.save();
    assert_eq!(saved, [0x04, 0x08, 0x00, 0x80]);
    ports.reset();
    assert_eq!(ports.save(), [0; 4]);
    let refusal = Err(StateError::Invalid { field: "address" });
    assert_eq!(ports.restore(1, &[1, 0, 0, 0x80]), refusal);
    assert_eq!(ports.restore(1, &[0; 3]), Err(StateError::Truncated));
    assert_eq!(ports.save(), [0; 4]);
    assert_eq!(ports.restore(1, &saved), Ok(()));
    assert_eq!(ports.save(), saved);
}

#[test]
fn vcpus_that_fight_over_a_place_end_with_one_consistent_map() {
    let (machine, functions) = Machine::with::<3>();
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let machine = &machine;
            scope.spawn(move || {
                // Not through the ECAM, where one would wait for the other.
                let write = |register, value: u32| {
                    machine
                        .root
                        .write_config(slot(number), register, &value.to_le_bytes());
                };
                for round in 0..500 {
                    write(0x18, 0xe000_0000 + (round % 3) * 0x1000);
                    write(4, if round % 5 != 0 { 2 } else { 0 });
                }
                write(4, 2);
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                let function = machine.root.remove(slot(2)).unwrap();
                machine.root.insert(slot(2), function).unwrap();
            }
        });
    });
    check_map(&machine, &functions);
}

/// What the functions were told is what is mapped; what is not mapped is rightly so.
fn check_map(machine: &Machine, functions: &[Shared<TestFunction>]) {
    let mut mapped = Vec::new();
    let mut unmapped = Vec::new();
    for function in functions {
        let function = lock(function);
        for (bar, size, tag) in [(0, BAR0_LEN, 0), (2, BAR2_LEN, 1)] {
            let tag = tag + function.config_tag();
            let decoded = function.config.bar(bar);
            match function.told[usize::from(bar)] {
                Some(address) => {
                    assert_eq!(decoded, Some(address));
                    assert_eq!(machine.tag(address), Some(tag));
                    assert_eq!(machine.tag(address + size - 1), Some(tag));
                    mapped.push(address..address + size);
                }
                None => unmapped.extend(decoded.map(|address| (address, size))),
            }
        }
    }
    for (address, size) in unmapped {
        let overlaps = mapped
            .iter()
            .any(|region| address < region.end && region.start < address.saturating_add(size));
        let windows = &machine.root.0.windows;
        assert!(
            overlaps || !windows.contain(address, size),
            "a BAR at {address:#x} has a free place"
        );
    }
    let count = format!("{:?}", machine.mmio).matches("..=").count();
    assert_eq!(count, mapped.len() + 1, "regions: the BARs and the ECAM");
}

impl TestFunction {
    fn config_tag(&self) -> u8 {
        let mut id = [0; 1];
        self.config.read(2, &mut id);
        id[0] - 0x40
    }
}

proptest! {
    #[test]
    fn accesses_of_any_width_and_place_are_answered_or_refused(
        offset in prop_oneof![0_u64..0x2_0000, any::<u64>()],
        width in 0_usize..=9,
        byte: u8,
        address: u32,
    ) {
        let (machine, [_function]) = Machine::with();
        let aligned = matches!(width, 1 | 2 | 4) && offset % 4 + width as u64 <= 4;
        let mut data = vec![byte; width];
        let mut ecam = Ecam::new(machine.root.clone());
        prop_assert_eq!(ecam.write(offset, &data).is_ok(), aligned);
        prop_assert_eq!(ecam.read(offset, &mut data).is_ok(), aligned);
        let mut ports = lock(&machine.config_ports);
        ports.write(0, &address.to_le_bytes()).unwrap();
        for offset in [offset, offset % 8] {
            let _ = ports.write(offset, &data);
            let _ = ports.read(offset, &mut data);
        }
    }

    #[test]
    fn whatever_is_written_the_map_is_what_the_functions_decode(
        writes in proptest::collection::vec(
            (1_u64..=3, 0_usize..6, 0_u32..4, any::<bool>()),
            1..80,
        ),
    ) {
        let (mut machine, functions) = Machine::with::<3>();
        for (slot, what, value, flag) in writes {
            match what {
                0 => machine.enable(slot, flag),
                1 if flag => machine.write(slot, 0x10, 0xe000_0000 + value * 0x4000),
                1 => machine.write(slot, 0x10, value * 0x4000),
                2 => machine.write(slot, 0x14, if flag { 0 } else { 0x7f + value }),
                3 => machine.write(slot, 0x18, 0xe000_0000 + value * 0x2000),
                4 if flag => machine.write(slot, 0x18, 0xffff_ffff),
                4 => machine.enable(slot, true),
                _ if value == 0 => machine.root.reset(),
                _ => {
                    let slot = Slot::new(u8::try_from(slot).unwrap()).unwrap();
                    let function = machine.root.remove(slot).unwrap();
                    machine.root.insert(slot, function).unwrap();
                }
            }
            check_map(&machine, &functions);
        }
    }

    #[test]
    fn hostile_saved_state_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        version in 0_u32..3,
    ) {
        let mut machine = Machine::new();
        let before = machine.root.save();
        if machine.root.restore(version, &bytes).is_err() {
            prop_assert_eq!(machine.root.save(), before);
        }
        let _ = lock(&machine.config_ports).restore(version, &bytes);
    }
}
