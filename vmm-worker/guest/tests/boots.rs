//! The built-in guest on this host's KVM: each mode does what it says.

mod loader;

use std::time::Duration;

use loader::{End, Irqchip, Machine, Outcome, Setup};
use reeve_guest::mode;

const BANNER: &str = "Reeve built-in guest\n";

fn run(command_line: &str) -> Outcome {
    Setup::new(command_line).run()
}

/// Asserts the end and the whole output.
fn assert_outcome(outcome: &Outcome, end: End, output: &str) {
    assert_eq!((outcome.end, outcome.output.as_str()), (end, output));
}

fn assert_report(outcome: &Outcome, cpus: u32) {
    let lines: Vec<&str> = outcome.output.lines().collect();
    let [banner, memory, found, timer, date, cpu, time, last] = lines[..] else {
        panic!("{:?} {}", outcome.end, outcome.output);
    };
    assert_eq!(format!("{banner}\n"), BANNER);
    assert_eq!(memory, "memory: 128 MiB");
    assert_eq!(found, format!("cpus: {cpus} found, {cpus} up"));
    assert!(timer.starts_with("timer: ok "), "{timer}");
    assert_eq!(date, "date: 2024-02-29 23:58:07");
    assert!(
        cpu.starts_with("cpu: ") && cpu.ends_with(" on KVMKVMKVM"),
        "{cpu}"
    );
    assert!(
        time.starts_with("time: ") && time.ends_with(" us"),
        "{time}"
    );
    assert_eq!(last, "power off");
    assert_eq!(outcome.end, End::PowerOff);
}

#[test]
fn bench_prints_one_line_and_powers_off() {
    assert_outcome(&run(mode::BENCH), End::PowerOff, "R\n");
}

#[test]
fn bench_works_behind_other_words() {
    assert_outcome(&run("quiet mode=bench"), End::PowerOff, "R\n");
}

#[test]
fn bench_anywhere_ends_a_machine_by_reset() {
    // The test machine takes the first reset as a restart and ends at the second.
    assert_outcome(&run(mode::BENCH_ANYWHERE), End::Reset, "R\nR\n");
    assert_outcome(&run("quiet mode=bench-anywhere"), End::Reset, "R\nR\n");
}

#[test]
fn words_that_only_begin_like_a_quick_mode_are_unknown() {
    for line in [
        "mode=benchmark",
        "mode=bench-",
        "mode=bend",
        "mode=holds",
        "mode=hole",
        "mode=",
    ] {
        let expected = format!("{BANNER}error: unknown mode\n");
        assert_outcome(&run(line), End::PowerOff, &expected);
    }
}

#[test]
fn hold_sleeps_without_using_processor_time() {
    for line in [mode::HOLD, "quiet mode=hold"] {
        let machine = Machine::start(Setup::new(line));
        machine.wait_for("R\n");
        std::thread::sleep(Duration::from_millis(300));
        let outcome = machine.stop();
        assert_outcome(&outcome, End::Stopped, "R\n");
        assert!(outcome.cpu_time < Duration::from_millis(100), "{outcome:?}");
    }
}

#[test]
fn report_finds_nothing_wrong() {
    assert_report(&run(mode::REPORT), 1);
}

#[test]
fn report_is_the_default() {
    assert_report(&run(""), 1);
}

#[test]
fn report_brings_up_every_cpu() {
    for cpus in [2, 4, 16] {
        assert_report(&Setup::new("").cpus(cpus).run(), cpus);
    }
}

#[test]
fn report_works_with_the_kernels_interrupt_controller() {
    assert_report(&Setup::new("").cpus(2).irqchip(Irqchip::InKernel).run(), 2);
}

#[test]
fn cpu_loop_keeps_every_cpu_busy() {
    let outcome = Setup::new(&mode::cpu_loop(50)).cpus(3).run();
    assert_eq!(outcome.end, End::PowerOff, "{}", outcome.output);
    assert!(
        outcome.output.contains("cpu-loop: 3 cpus, 50 ms, "),
        "{}",
        outcome.output
    );
    assert!(outcome.total >= Duration::from_millis(50));
}

#[test]
fn echo_gives_back_what_is_typed_until_q() {
    let machine = Machine::start(Setup::new(mode::ECHO).irqchip(Irqchip::InKernel));
    machine.wait_for("powers off\n");
    machine.type_in(b"hello");
    machine.wait_for("hello");
    machine.type_in(b" again");
    machine.wait_for(" again");
    machine.type_in(b"\nq");
    let expected = format!("{BANNER}echo: ready, q powers off\nhello again\npower off\n");
    assert_outcome(&machine.wait(), End::PowerOff, &expected);
}

#[test]
fn echo_powers_off_by_the_button() {
    let machine = Machine::start(Setup::new(mode::ECHO).irqchip(Irqchip::InKernel));
    machine.wait_for("powers off\n");
    machine.press_power_button();
    let expected = format!("{BANNER}echo: ready, q powers off\npower button\n");
    assert_outcome(&machine.wait(), End::PowerOff, &expected);
}

#[test]
fn clock_ticks_until_the_button() {
    let machine = Machine::start(Setup::new(mode::CLOCK).irqchip(Irqchip::InKernel));
    machine.wait_for("tick 3: ");
    machine.press_power_button();
    let outcome = machine.wait();
    assert_eq!(outcome.end, End::PowerOff);
    assert!(
        outcome.output.ends_with("power button\n"),
        "{}",
        outcome.output
    );
    assert!(outcome.total >= Duration::from_millis(300), "{outcome:?}");
    assert!(outcome.cpu_time < Duration::from_millis(150), "{outcome:?}");
}

#[test]
fn spinning_guests_only_end_by_being_stopped() {
    for line in [mode::SPIN, mode::SPIN_USER] {
        let machine = Machine::start(Setup::new(line));
        machine.wait_for("spinning\n");
        assert_outcome(
            &machine.stop(),
            End::Stopped,
            &format!("{BANNER}spinning\n"),
        );
    }
}

#[test]
fn triple_fault_shuts_the_processor_down() {
    assert_outcome(&run(mode::TRIPLE_FAULT), End::TripleFault, BANNER);
}

#[test]
fn flood_prints_without_end() {
    let outcome = Setup::new(mode::FLOOD)
        .deadline(Duration::from_millis(200))
        .run();
    assert_eq!(outcome.end, End::Stopped);
    assert!(outcome.output.len() > 1000);
}

#[test]
fn resets_ask_for_a_reset() {
    for line in [mode::RESET, mode::RESET_I8042] {
        assert_outcome(&run(line), End::Reset, &BANNER.repeat(2));
    }
}

#[test]
fn reset_once_boots_twice() {
    let outcome = run(mode::RESET_ONCE);
    let expected = format!("{BANNER}first boot\n{BANNER}second boot\n");
    assert_outcome(&outcome, End::PowerOff, &expected);
    assert_eq!(outcome.resets, 1);
}

#[test]
fn bad_accesses_are_survived() {
    let expected = format!("{BANNER}memory: survived\nports: survived\n");
    let short = format!("{} ports=4096", mode::BAD_MMIO);
    for (line, irqchip) in [
        (short.as_str(), Irqchip::Split),
        (mode::BAD_MMIO, Irqchip::InKernel),
    ] {
        let setup = Setup::new(line)
            .irqchip(irqchip)
            .deadline(Duration::from_secs(60));
        assert_outcome(&setup.run(), End::PowerOff, &expected);
    }
}

#[test]
fn emulation_failure_is_an_internal_error() {
    assert_outcome(&run(mode::EMULATION_FAILURE), End::InternalError, BANNER);
}

#[test]
fn fuzzing_is_survived() {
    let expected = format!("{BANNER}survived\n");
    for seed in 0..4 {
        for irqchip in [Irqchip::Split, Irqchip::InKernel] {
            let setup = Setup::new(&mode::fuzz_ports(seed, 20_000)).irqchip(irqchip);
            let setup = setup.deadline(Duration::from_secs(60));
            assert_outcome(&setup.run(), End::PowerOff, &expected);
        }
    }
}
