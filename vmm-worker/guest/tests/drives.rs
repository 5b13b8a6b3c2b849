//! The built-in guest's drivers on Reeve's virtio devices, on this host's KVM.

mod loader;

use std::sync::Arc;
use std::time::Duration;

use loader::{Device, End, Irqchip, Machine, Outcome, Setup, Wire};
use reeve_guest::mode::{self, BlockBench, NetMeasure, Wait, Way};

const DISK: u64 = 16 << 20;

fn run(command_line: &str, devices: &[Device]) -> Outcome {
    let outcome = Setup::new(command_line)
        .virtio(devices)
        .deadline(Duration::from_secs(60))
        .run();
    assert_eq!(outcome.end, End::PowerOff, "{}", outcome.output);
    assert!(
        outcome.output.ends_with("power off\n") && !outcome.output.contains("FAILED"),
        "{}",
        outcome.output
    );
    outcome
}

/// The number in the line that begins with `name`.
fn figure(outcome: &Outcome, name: &str) -> u64 {
    let prefix = format!("{name}: ");
    outcome
        .output
        .lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {}", outcome.output))
}

fn all() -> Vec<Device> {
    vec![
        Device::Rng,
        Device::Block(DISK),
        Device::Net(Wire::new()),
        Device::Console,
        Device::Balloon,
        Device::Vsock,
    ]
}

#[test]
fn every_device_is_found() {
    let outcome = run(mode::VIRTIO_REPORT, &all());
    for (slot, name) in ["rng", "block", "net", "console", "balloon", "vsock"]
        .iter()
        .enumerate()
    {
        let line = format!("virtio {}: {name}, id ", slot + 1);
        assert!(outcome.output.contains(&line), "{}", outcome.output);
    }
    assert_eq!(figure(&outcome, "virtio devices"), 6);
    assert_eq!(figure(&outcome, "sectors"), DISK / 512);
}

#[test]
fn a_machine_without_a_bus_or_device_is_an_error() {
    for (line, devices, problem) in [
        (mode::VIRTIO_REPORT.to_owned(), vec![], "no PCI bus"),
        (
            mode::rng_read(1, Wait::Poll),
            vec![Device::Vsock],
            "no entropy device",
        ),
        (
            mode::attack("loop", "block", 1, None),
            vec![Device::Rng],
            "no such device",
        ),
    ] {
        let outcome = Setup::new(&line).virtio(&devices).run();
        assert_eq!(outcome.end, End::PowerOff, "{}", outcome.output);
        assert!(outcome.output.contains(problem), "{}", outcome.output);
    }
}

#[test]
fn random_bytes_are_read_by_looking_and_by_sleeping() {
    for wait in [Wait::Poll, Wait::Interrupt] {
        let outcome = run(&mode::rng_read(300_000, wait), &[Device::Rng]);
        let ones = figure(&outcome, "ones");
        assert_eq!(figure(&outcome, "bytes"), 300_000);
        assert!((1_190_000..1_210_000).contains(&ones), "{ones} ones");
    }
}

#[test]
fn what_is_written_to_a_disk_is_read_again() {
    for (disk, wait) in [
        (Device::Block(DISK), Wait::Poll),
        (Device::Block(DISK), Wait::Interrupt),
        (Device::BlockWithoutRing(3 << 30), Wait::Poll),
        (Device::Block(512), Wait::Poll),
        (Device::Qcow2(300 << 20), Wait::Poll),
        (Device::Qcow2(2 << 40), Wait::Interrupt),
    ] {
        let outcome = run(&mode::block_verify(1, 600, wait), &[disk]);
        assert!(figure(&outcome, "block") >= 600, "{}", outcome.output);
    }
}

#[test]
fn a_disk_is_kept_busy() {
    for (depth, write, wait) in [
        (1, false, Wait::Poll),
        (16, true, Wait::Interrupt),
        (200, false, Wait::Poll),
    ] {
        let bench = BlockBench {
            depth,
            size: 4096,
            write,
            sequential: write,
            milliseconds: 100,
            wait,
        };
        let outcome = run(&mode::block_bench(bench), &[Device::Block(DISK)]);
        assert_eq!(figure(&outcome, "errors"), 0);
        assert!(figure(&outcome, "requests") > depth.into());
        assert!(figure(&outcome, "elapsed") >= 100_000);
    }
}

#[test]
fn doorbells_are_as_good_as_exits() {
    let setup = Setup::new(&mode::block_verify(2, 300, Wait::Interrupt))
        .virtio(&[Device::Block(DISK)])
        .irqchip(Irqchip::InKernel)
        .doorbells();
    let outcome = setup.run();
    assert!(figure(&outcome, "block") >= 300, "{}", outcome.output);
}

#[test]
fn frames_are_sent() {
    for wait in [Wait::Poll, Wait::Interrupt] {
        let wire = Wire::new();
        let outcome = run(
            &mode::net_transmit(1000, 16, 100, wait),
            &[Device::Net(Arc::clone(&wire))],
        );
        let packets = figure(&outcome, "packets");
        assert!(packets > 16, "{}", outcome.output);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(wire.received(), packets);
    }
}

/// The figure of that name in the line of `mode=measure`.
fn measured(outcome: &Outcome, name: &str) -> u64 {
    let line = outcome.output.lines().find_map(|line| {
        let (_, rest) = line.strip_prefix("measure: ")?.split_once(name)?;
        rest.split(", ").next()?.trim().parse().ok()
    });
    line.unwrap_or_else(|| panic!("no {name} in {}", outcome.output))
}

#[test]
fn a_disk_is_measured_after_a_pause() {
    for (depth, wait) in [(1, Wait::Interrupt), (32, Wait::Poll)] {
        let line = mode::measure_block(BlockBench {
            depth,
            size: 4096,
            write: false,
            sequential: false,
            milliseconds: 100,
            wait,
        });
        let outcome = run(&line, &[Device::Block(DISK)]);
        assert!(
            outcome
                .output
                .contains("\nmeasure: ready\nmeasure: operations ")
        );
        assert_eq!(measured(&outcome, "errors"), 0);
        assert!(measured(&outcome, "operations") > 0, "{}", outcome.output);
        assert!(measured(&outcome, ", ns") >= 100_000_000);
        let times = ["min", "p50", "p99"].map(|name| measured(&outcome, name));
        assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    }
}

#[test]
fn an_interface_is_measured_by_what_is_sent() {
    for wait in [Wait::Poll, Wait::Interrupt] {
        let wire = Wire::new();
        let line = mode::measure_net(NetMeasure {
            way: Way::Transmit,
            depth: 64,
            size: 60,
            milliseconds: 100,
            wait,
        });
        let outcome = run(&line, &[Device::Net(Arc::clone(&wire))]);
        let frames = measured(&outcome, "operations");
        std::thread::sleep(Duration::from_millis(50));
        // Those of the warm-up came too.
        assert!(
            frames > 64 && wire.received() > frames,
            "{}",
            outcome.output
        );
    }
}

#[test]
fn frames_are_received_and_sent_back() {
    let wire = Wire::new();
    let devices = [Device::Net(Arc::clone(&wire))];
    let line = mode::net_receive(5, 16, 20_000, Wait::Interrupt);
    let machine = Machine::start(Setup::new(&line).virtio(&devices));
    machine.wait_for("net-bench: ready\n");
    for _ in 0..5 {
        assert!(wire.send(&[7; 60]));
    }
    let outcome = machine.wait();
    assert_eq!(
        (figure(&outcome, "packets"), figure(&outcome, "bytes")),
        (5, 300)
    );

    let wire = Wire::new();
    let devices = [Device::Net(Arc::clone(&wire))];
    let line = mode::net_echo(4, 700, Wait::Interrupt);
    let machine = Machine::start(Setup::new(&line).virtio(&devices));
    machine.wait_for("net-echo: ready\n");
    for _ in 0..10 {
        assert!(wire.send(&[9; 1514]));
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = machine.wait();
    assert_eq!(figure(&outcome, "packets"), 10, "{}", outcome.output);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(wire.received(), 10);
}
