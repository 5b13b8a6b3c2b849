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
        changes in 0u8..6,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        Machine::new().restore(&[&[unit, changes], bytes.as_slice()].concat());
        Machine::new().restore(&[&[unit, 255], bytes.as_slice()].concat());
    }
}

/// Several vCPUs, the I/O thread and the control thread at once: nothing deadlocks or panics.
#[test]
fn threads_share_the_devices() {
    let machine = Machine::new();
    std::thread::scope(|scope| {
        for seed in 0..6_u32 {
            let machine = &machine;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9) | 1;
                for _ in 0..20_000 {
                    // xorshift32
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let [op, place, ..] = random.to_le_bytes();
                    machine.access(op, place, random.rotate_left(16));
                }
            });
        }
    });
}
