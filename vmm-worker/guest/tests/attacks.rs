//! Each attack of the built-in guest on each of Reeve's virtio devices, on this host's KVM: whatever a
//! driver does, the device resets and works afterwards.

mod loader;

use std::time::Duration;

use loader::{Device, End, Setup, Wire};
use reeve_guest::mode;

const DISK: u64 = 16 << 20;

fn all() -> Vec<Device> {
    vec![
        Device::Rng,
        Device::Block(DISK),
        Device::Net(Wire::new()),
        Device::Console,
        Device::Balloon,
        Device::Vsock,
        Device::Memory,
    ]
}

fn is_survived(name: &str, seed: u64) {
    let outcome = Setup::new(&mode::attack(name, "any", seed, None))
        .cpus(2)
        .virtio(&all())
        .deadline(Duration::from_secs(120))
        .run();
    assert_eq!(outcome.end, End::PowerOff, "{name}: {}", outcome.output);
    let survived = format!("attack {name}: survived\n");
    assert!(
        outcome.output.contains(&survived) && !outcome.output.contains("FAILED"),
        "{name}: {}",
        outcome.output
    );
}

macro_rules! attacks {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                is_survived($name, 1);
            }
        )*

        const TESTED: &[&str] = &[$($name),*];
    };
}

attacks! {
    config_after_start: "config-after-start",
    queue_size: "queue-size",
    queue_address: "queue-address",
    select_range: "select-range",
    features: "features",
    status_order: "status-order",
    reset_in_flight: "reset-in-flight",
    reset_storm: "reset-storm",
    same_head: "same-head",
    double_fetch: "double-fetch",
    descriptor_length: "descriptor-length",
    descriptor_address: "descriptor-address",
    device_windows: "device-windows",
    circles: "loop",
    indirect: "indirect",
    zero_length: "zero-length",
    direction: "direction",
    long_chain: "long-chain",
    head_range: "head-range",
    available_jump: "available-jump",
    giant: "giant",
    kick_storm: "kick-storm",
    interrupt_storm: "interrupt-storm",
    access_sizes: "access-sizes",
    device_config: "device-config",
    notify_range: "notify-range",
    bar_move: "bar-move",
    msix_garbage: "msix-garbage",
    bus_master: "bus-master",
    hotplug_registers: "hotplug-registers",
    config_space: "config-space",
    config_ports: "config-ports",
    config_window: "config-window",
    event_index: "event-index",
    ring_overwrite: "ring-overwrite",
    bad_requests: "bad-requests",
    format_probe: "format-probe",
    memory_blocks: "memory-blocks",
    random: "random",
}

/// The tester's own test. Whether what is written falls behind the reset is chance, which a busy machine has
/// little of.
#[test]
fn a_device_that_outlives_its_reset_is_found() {
    let mut output = String::new();
    let found = (0..5).any(|_| {
        output = Setup::new(&mode::attack("reset-in-flight", "any", 1, None))
            .virtio(&[Device::Rng])
            .outlives_resets()
            .run()
            .output;
        output.contains("FAILED, memory is written after a reset")
    });
    assert!(found, "{output}");
}

#[test]
fn every_attack_is_tried() {
    assert_eq!(TESTED, mode::ATTACKS);
}
