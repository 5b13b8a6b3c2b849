use proptest::prelude::*;

use super::*;
use crate::pci::config_space::Identity;
use crate::state::{StateError, StateReader, StateWriter};

#[derive(Debug, Default)]
struct RecordSink(Mutex<Vec<MsiMessage>>);

impl RecordSink {
    fn take(&self) -> Vec<u32> {
        let sent = std::mem::take(&mut *lock(&self.0));
        sent.iter().map(|message| message.data).collect()
    }
}

impl MsiSink for RecordSink {
    fn send(&self, message: MsiMessage) -> bool {
        lock(&self.0).push(message);
        true
    }
}

const ADDRESS: u64 = 0xfee0_1000;
const NONE: [u32; 0] = [];

/// A function with MSI-X as its driver sees it.
struct Function {
    config: ConfigSpace,
    capability: u8,
    msix: Arc<Msix>,
    sink: Arc<RecordSink>,
}

impl Function {
    fn new(count: u16) -> Self {
        let sink = Arc::new(RecordSink::default());
        let msix = Msix::new(count, sink.clone()).unwrap();
        let mut config = ConfigSpace::new(Identity {
            vendor: 1,
            device: 2,
            revision: 0,
            class: 0,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        let place = |offset| BarOffset { bar: 4, offset };
        let capability = msix
            .add_capability(&mut config, place(0x8000), place(0x1_0000))
            .unwrap();
        Self {
            config,
            capability,
            msix,
            sink,
        }
    }

    /// With MSI-X on, and each vector unmasked with its number as data.
    fn running(count: u16) -> Self {
        let mut function = Self::new(count);
        function.set_bus_master(true);
        function.set_control(CONTROL_ENABLE);
        for vector in 0..count {
            function.set_message(vector, ADDRESS, vector.into());
            function.mask(vector, false);
        }
        function
    }

    fn set_bus_master(&mut self, on: bool) {
        let _ = self.config.write(4, &[if on { 4 } else { 0 }]);
        self.msix.follow(&self.config, self.capability);
    }

    fn set_control(&mut self, control: u16) {
        let register = u16::from(self.capability) + 2;
        let _ = self.config.write(register, &control.to_le_bytes());
        self.msix.follow(&self.config, self.capability);
    }

    fn set_message(&self, vector: u16, address: u64, data: u32) {
        let entry = u64::from(vector) * Msix::ENTRY_LEN;
        self.msix
            .write_table(entry, &address.to_le_bytes())
            .unwrap();
        self.msix
            .write_table(entry + 8, &data.to_le_bytes())
            .unwrap();
    }

    fn mask(&self, vector: u16, masked: bool) {
        let entry = u64::from(vector) * Msix::ENTRY_LEN;
        self.msix
            .write_table(entry + 12, &u32::from(masked).to_le_bytes())
            .unwrap();
    }

    fn pending(&self, word: u64) -> u64 {
        let mut data = [0; 8];
        self.msix.read_pba(word * 8, &mut data).unwrap();
        u64::from_le_bytes(data)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        self.msix.state().encode(&mut writer);
        writer.finish()
    }

    fn decode(&self, bytes: &[u8]) -> Result<MsixStateV1, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = MsixStateV1::decode(&mut reader, &self.msix)?;
        reader.finish()?;
        Ok(state)
    }
}

#[test]
fn the_capability_says_where_the_table_is() {
    let mut function = Function::new(33);
    let dword = |function: &Function, index: u16| {
        let mut data = [0; 4];
        let register = u16::from(function.capability) + 4 * index;
        function.config.read(register, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(dword(&function, 0), 32 << 16 | 0x11);
    assert_eq!(dword(&function, 1), 0x8004);
    assert_eq!(dword(&function, 2), 0x1_0004);
    function.set_control(0xffff);
    assert_eq!(dword(&function, 0), 0xc020_0011);
    assert_eq!(function.msix.table_len(), 33 * 16);
    assert_eq!(function.msix.pba_len(), 8);
    assert_eq!(Function::new(65).msix.pba_len(), 16);
}

#[test]
fn the_number_of_vectors_has_bounds() {
    for count in [0, 2049, 0xffff] {
        let sink = Arc::new(RecordSink::default());
        let refusal = LayoutError::Vectors { count };
        assert_eq!(Msix::new(count, sink).err(), Some(refusal));
    }
}

#[test]
fn a_vector_sends_its_message() {
    let function = Function::running(4);
    function.msix.trigger(2);
    let message = MsiMessage {
        address: ADDRESS,
        data: 2,
    };
    assert_eq!(*lock(&function.sink.0), [message]);
    assert_eq!(function.msix.message(2), Some(message));
    assert_eq!(function.pending(0), 0);
}

#[test]
fn a_vector_that_does_not_exist_is_ignored() {
    let function = Function::running(4);
    for vector in [4, 63, 64, 2048, 0xffff] {
        function.msix.trigger(vector);
        assert_eq!(function.msix.message(vector), None);
    }
    assert_eq!(function.sink.take(), NONE);
    assert_eq!(function.pending(0), 0);
}

#[test]
fn a_masked_vector_is_pending_and_sent_once_when_unmasked() {
    let function = Function::running(70);
    function.mask(65, true);
    function.msix.trigger(65);
    function.msix.trigger(65);
    assert_eq!(function.sink.take(), NONE);
    assert_eq!((function.pending(0), function.pending(1)), (0, 1 << 1));
    assert_eq!(function.msix.message(65), None);
    function.set_message(65, ADDRESS, 0x99);
    assert_eq!(function.sink.take(), NONE);
    function.mask(65, false);
    assert_eq!(function.sink.take(), [0x99]);
    assert_eq!(function.pending(1), 0);
    function.mask(65, false);
    assert_eq!(function.sink.take(), NONE);
}

#[test]
fn data_and_unmasking_in_one_access_send_the_new_data() {
    let function = Function::running(1);
    function.mask(0, true);
    function.msix.trigger(0);
    function
        .msix
        .write_table(8, &0x77_u64.to_le_bytes())
        .unwrap();
    assert_eq!(function.sink.take(), [0x77]);
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    let mut function = Function::running(130);
    function.set_control(CONTROL_ENABLE | CONTROL_MASK);
    function.mask(1, true);
    for vector in [129, 1, 0] {
        function.msix.trigger(vector);
    }
    assert_eq!(function.sink.take(), NONE);
    assert_eq!([0, 1, 2].map(|word| function.pending(word)), [3, 0, 2]);
    function.set_control(CONTROL_ENABLE);
    assert_eq!(function.sink.take(), [0, 129]);
    assert_eq!([0, 1, 2].map(|word| function.pending(word)), [2, 0, 0]);
}

#[test]
fn what_happened_while_off_or_without_bus_master_is_sent_when_on() {
    let mut function = Function::running(1);
    function.set_control(0);
    function.msix.trigger(0);
    assert_eq!(function.sink.take(), NONE);
    function.set_control(CONTROL_ENABLE);
    assert_eq!(function.sink.take(), [0]);
    function.set_bus_master(false);
    function.msix.trigger(0);
    assert_eq!(function.sink.take(), NONE);
    function.set_bus_master(true);
    assert_eq!(function.sink.take(), [0]);
}

#[test]
fn the_table_keeps_what_exists_of_an_entry() {
    let function = Function::new(2);
    let mut entry = [0; 8];
    function.msix.read_table(24, &mut entry).unwrap();
    assert_eq!(u64::from_le_bytes(entry), 1 << 32);
    function.msix.write_table(16, &[0xff; 8]).unwrap();
    function.msix.write_table(24, &[0xff; 8]).unwrap();
    function.msix.read_table(16, &mut entry).unwrap();
    assert_eq!(u64::from_le_bytes(entry), !3);
    function.msix.read_table(24, &mut entry).unwrap();
    assert_eq!(u64::from_le_bytes(entry), 0x1_ffff_ffff);
    let mut half = [0; 4];
    function.msix.read_table(20, &mut half).unwrap();
    assert_eq!(half, [0xff; 4]);
    function.msix.read_table(0, &mut entry).unwrap();
    assert_eq!(entry, [0; 8]);
}

#[test]
fn reset_masks_everything_and_forgets_what_was_pending() {
    let mut function = Function::running(3);
    function.mask(1, true);
    function.msix.trigger(1);
    function.config.reset();
    function.msix.reset();
    assert_eq!(function.msix.state(), Function::new(3).msix.state());
    function.set_bus_master(true);
    function.set_control(CONTROL_ENABLE);
    assert_eq!(function.sink.take(), NONE);
}

#[test]
fn saved_state_comes_back_and_what_is_pending_is_sent_only_when_it_may() {
    let saved = Function::running(65);
    saved.mask(64, true);
    saved.msix.trigger(64);
    let mut restored = Function::new(65);
    let state = restored.decode(&saved.encode()).unwrap();
    restored.msix.set_state(state);
    restored.set_bus_master(true);
    restored.set_control(CONTROL_ENABLE);
    assert_eq!(restored.msix.state(), saved.msix.state());
    assert_eq!(restored.sink.take(), NONE);
    restored.mask(64, false);
    assert_eq!(restored.sink.take(), [64]);
}

#[test]
fn impossible_saved_state_is_refused() {
    let function = Function::new(65);
    let good = function.encode();
    assert_eq!(good.len(), 65 * 13 + 16);
    let pending = 65 * 13;
    for (place, value, field) in [
        (0, 1, "address"),
        (12, 2, "masked"),
        (pending + 8, 2, "pending"),
        (pending + 15, 0x80, "pending"),
    ] {
        let mut bytes = good.clone();
        bytes[place] = value;
        assert_eq!(function.decode(&bytes), Err(StateError::Invalid { field }));
    }
    let mut all_pending = good.clone();
    all_pending[pending..pending + 8].fill(0xff);
    all_pending[pending + 8] = 1;
    assert!(function.decode(&all_pending).is_ok());
    let other = Function::new(64).encode();
    assert_eq!(function.decode(&other), Err(StateError::Truncated));
}

proptest! {
    #[test]
    fn accesses_of_any_width_and_place_are_answered_or_refused(
        count in 1_u16..=130,
        offset in prop_oneof![0_u64..2200, any::<u64>()],
        width in 0_usize..=17,
        byte: u8,
    ) {
        let function = Function::running(count);
        function.msix.trigger(0);
        let aligned = matches!(width, 4 | 8) && offset % width as u64 == 0;
        let in_table = aligned && offset < function.msix.table_len();
        let in_pba = aligned && offset < function.msix.pba_len();
        let mut data = vec![byte; width];
        prop_assert_eq!(function.msix.write_table(offset, &data).is_ok(), in_table);
        prop_assert_eq!(function.msix.read_table(offset, &mut data).is_ok(), in_table);
        prop_assert_eq!(function.msix.read_pba(offset, &mut data).is_ok(), in_pba);
    }

    #[test]
    fn no_interrupt_is_lost_or_sent_against_the_driver_s_wish(
        steps in proptest::collection::vec((0_u8..7, 0_u16..5), 1..60),
    ) {
        let mut function = Function::running(5);
        let mut control = CONTROL_ENABLE;
        let mut bus_master = true;
        let mut masked = [false; 5];
        let mut owed = [false; 5];
        for (step, vector) in steps {
            let index = usize::from(vector);
            match step {
                0 | 1 => {
                    owed[index] = true;
                    function.msix.trigger(vector);
                }
                2 | 3 => {
                    masked[index] = step == 2;
                    function.mask(vector, step == 2);
                }
                4 => {
                    control ^= CONTROL_MASK;
                    function.set_control(control);
                }
                5 => {
                    control ^= CONTROL_ENABLE;
                    function.set_control(control);
                }
                _ => {
                    bus_master = !bus_master;
                    function.set_bus_master(bus_master);
                }
            }
            let open = control == CONTROL_ENABLE && bus_master;
            let expected: Vec<u32> = (0..5_u16)
                .filter(|vector| {
                    let index = usize::from(*vector);
                    open && !masked[index] && std::mem::take(&mut owed[index])
                })
                .map(u32::from)
                .collect();
            prop_assert_eq!(function.sink.take(), expected);
            let pending = (0..5).fold(0, |bits, index| bits | u64::from(owed[index]) << index);
            prop_assert_eq!(function.pending(0), pending);
        }
    }

    #[test]
    fn hostile_saved_state_never_panics(
        count in 1_u16..70,
        bytes in proptest::collection::vec(any::<u8>(), 0..1000),
    ) {
        let function = Function::new(count);
        if let Ok(state) = function.decode(&bytes) {
            function.msix.set_state(state.clone());
            prop_assert_eq!(function.msix.state(), state);
        }
    }
}
