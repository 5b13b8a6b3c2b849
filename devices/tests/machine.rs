//! The devices together, on their buses, as the worker wires them.

#[path = "../fuzz/src/machine.rs"]
mod machine;

use proptest::prelude::*;

use machine::Machine;

proptest! {
    #[test]
    fn no_sequence_of_accesses_breaks_the_machine(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000),
    ) {
        Machine::new().run(&bytes);
    }

    #[test]
    fn no_saved_state_breaks_the_machine(
        unit in 0u8..5,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        Machine::new().restore(&[&[unit], bytes.as_slice()].concat());
    }
}
