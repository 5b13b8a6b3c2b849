//! The built-in guest on this machine, in every mode that tells something about the worker: what it
//! finds, how it misbehaves, and that it can be stopped whatever it does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::control::{Control, Place};
use reeve_tests::domain::{assert_nothing_left, own_memory_kib, unique_name, wait_until_gone};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::{Builder, Reeve};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);
const MACHINES: [&str; 2] = ["reeve-1.0", "reeve-legacy-1.0"];

/// How a run to the end went.
struct Run {
    /// What the guest printed.
    console: String,
    /// Everything `reeve` and the worker said.
    said: String,
    code: Option<i32>,
}

fn run(change: impl FnOnce(Builder) -> Builder) -> Result<Run> {
    let before = Snapshot::take();
    let name = unique_name("guest");
    let mut reeve = change(Reeve::run()?.name(&name)).spawn()?;
    let status = reeve.wait(LIMIT)?;
    assert_nothing_left(&name, &before);
    Ok(Run {
        console: reeve.output(),
        said: reeve.errors(),
        code: status.code(),
    })
}

/// Runs to an end in good order and returns what the guest printed.
fn console_of(change: impl FnOnce(Builder) -> Builder) -> Result<String> {
    let run = run(change)?;
    ensure!(run.code == Some(0), "{:?}: {}", run.code, run.said);
    ensure!(run.said.contains("the guest powered off"), "{}", run.said);
    Ok(run.console)
}

/// A guest that does not end by itself, and its control socket.
struct Endless {
    reeve: Reeve,
    control: Control,
    name: String,
    before: Snapshot,
    _place: Place,
}

impl Endless {
    fn start(machine: &str, command_line: &str, vcpus: u32) -> Result<Endless> {
        let before = Snapshot::take();
        let (place, name) = (Place::new()?, unique_name("guest"));
        let reeve = Reeve::run()?
            .name(&name)
            .machine(machine)
            .cpus(vcpus)
            .memory("64M")
            .cmdline(command_line)
            .control(&place)
            .spawn()?;
        Ok(Endless {
            reeve,
            control: place.connect(SOON)?,
            name,
            before,
            _place: place,
        })
    }

    /// Destroys it; the process must be gone at once, not when the guest agrees.
    fn destroy(mut self) -> Result<()> {
        let worker = self.control.worker()?;
        let begin = Instant::now();
        self.control.order("destroy")?;
        wait_until_gone(worker, Duration::from_secs(4))?;
        let took = begin.elapsed();
        let status = self.reeve.wait(SOON)?;
        ensure!(
            status.code() == Some(0),
            "{status}: {}",
            self.reeve.errors()
        );
        ensure!(took < Duration::from_secs(4), "destroy took {took:?}");
        assert_nothing_left(&self.name, &self.before);
        Ok(())
    }
}

/// The one line with which `reeve` ends.
fn result_line(run: &Run) -> Result<&str> {
    let mut lines = run.said.lines().filter(|line| line.starts_with("reeve: "));
    let line = lines.next().with_context(|| run.said.clone())?;
    ensure!(lines.next().is_none(), "more than one line: {}", run.said);
    Ok(line)
}

#[test]
fn the_report_is_right_for_one_two_and_four_vcpus_on_both_machines() -> Result<()> {
    for machine in MACHINES {
        for vcpus in [1, 2, 4] {
            let console = console_of(|reeve| reeve.machine(machine).cpus(vcpus).memory("128M"))?;
            let cpus = format!("cpus: {vcpus} found, {vcpus} up");
            for line in [
                "Reeve built-in guest",
                "memory: 128 MiB",
                &cpus,
                "power off",
            ] {
                ensure!(
                    console.lines().any(|printed| printed == line),
                    "no '{line}' on {machine}:\n{console}"
                );
            }
            for start in ["timer: ok ", "date: 20", "cpu: ", "time: "] {
                ensure!(
                    console.lines().any(|printed| printed.starts_with(start)),
                    "no '{start}' on {machine}:\n{console}"
                );
            }
            ensure!(!console.contains("FAILED"), "{machine}:\n{console}");
        }
    }
    Ok(())
}

#[test]
fn sixteen_vcpus_all_come_up() -> Result<()> {
    for machine in MACHINES {
        let console = console_of(|reeve| reeve.machine(machine).cpus(16))?;
        ensure!(console.contains("cpus: 16 found, 16 up"), "{console}");
    }
    Ok(())
}

/// From the least there is, up to and over the hole below 4 GiB.
#[test]
fn every_size_of_memory_is_seen_whole() -> Result<()> {
    for mebibytes in [2, 3, 64, 1023, 3071, 3072, 3073, 4096, 5120] {
        let console = console_of(|reeve| reeve.memory(&format!("{mebibytes}M")))?;
        ensure!(
            console.contains(&format!("memory: {mebibytes} MiB\n")),
            "{mebibytes}: {console}"
        );
    }
    Ok(())
}

#[test]
fn a_triple_fault_is_a_crash_with_registers() -> Result<()> {
    for machine in MACHINES {
        let run = self::run(|reeve| reeve.machine(machine).cmdline("mode=triple-fault"))?;
        ensure!(run.code == Some(3), "{:?}: {}", run.code, run.said);
        let line = result_line(&run)?;
        for part in [
            "the guest crashed on vCPU 0: triple fault",
            "rip=0x",
            "cr3=0x",
        ] {
            ensure!(line.contains(part), "no '{part}' in: {line}");
        }
        ensure!(run.said.lines().count() == 1, "{}", run.said);
        // The worker's own log has them too: that is what is kept of a domain.
        let run = self::run(|reeve| {
            let reeve = reeve.machine(machine).cmdline("mode=triple-fault");
            reeve.arg("--verbose")
        })?;
        let log = run.said.lines().find(|line| line.contains("reeve_worker"));
        ensure!(
            log.is_some_and(|line| line.contains("rip=0x")),
            "{}",
            run.said
        );
    }
    Ok(())
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_a_crash_of_its_own_kind() -> Result<()> {
    for machine in MACHINES {
        let run = run(|reeve| {
            reeve
                .machine(machine)
                .cmdline("mode=emulation-failure")
                .json()
        })?;
        ensure!(run.code == Some(3), "{:?}: {}", run.code, run.said);
        let report: Value = serde_json::from_str(run.console.lines().last().context("report")?)?;
        ensure!(report["outcome"] == "crashed", "{report}");
        let crash = &report["crash"];
        let cause = crash["cause"].as_str().context("cause")?;
        ensure!(cause.contains("cannot emulate"), "{cause}");
        ensure!(crash["vcpu"] == 0, "{crash}");
        // Where it ran to.
        let registers = crash["registers"].as_str().context("registers")?;
        ensure!(registers.contains("rip=0xd0000000"), "{registers}");
    }
    Ok(())
}

/// In ring 0 the host of development emulates it, in ring 3 it runs at full speed everywhere.
#[test]
fn a_loop_with_interrupts_off_is_paused_resumed_and_destroyed_at_once() -> Result<()> {
    for machine in MACHINES {
        for mode in ["mode=spin", "mode=spin-user"] {
            let mut guest = Endless::start(machine, mode, 1)?;
            guest.reeve.expect("spinning\n", SOON)?;
            let took = guest.control.order("pause")?;
            ensure!(took < Duration::from_secs(4), "pause took {took:?}");
            ensure!(guest.control.phase()? == "paused", "not paused");
            guest.control.order("resume")?;
            ensure!(guest.control.phase()? == "running", "not running");
            guest.destroy()?;
        }
    }
    Ok(())
}

#[test]
fn a_flood_that_nobody_reads_costs_no_memory_and_delays_no_destroy() -> Result<()> {
    const GROWTH_KIB: u64 = 8 << 10;
    let mut guest = Endless::start("reeve-1.0", "mode=flood", 1)?;
    let (worker, reeve) = (guest.control.worker()?, guest.reeve.pid());
    let now = || Ok::<_, anyhow::Error>((own_memory_kib(worker)?, own_memory_kib(reeve)?));
    let first = now()?;
    std::thread::sleep(Duration::from_secs(3));
    // The guest is not held up by it: what it prints is dropped.
    let dropped = guest.control.number("console_dropped_bytes")?;
    let deadline = Instant::now() + LIMIT;
    while guest.control.number("console_dropped_bytes")? <= dropped {
        ensure!(Instant::now() < deadline, "it stands");
        std::thread::sleep(Duration::from_millis(50));
    }
    let last = now()?;
    ensure!(
        last.0 < first.0 + GROWTH_KIB,
        "worker: {first:?} KiB to {last:?}"
    );
    ensure!(
        last.1 < first.1 + GROWTH_KIB,
        "reeve: {first:?} KiB to {last:?}"
    );
    guest.destroy()
}

#[test]
fn a_flood_that_is_read_arrives_whole_lines_and_is_destroyed_at_once() -> Result<()> {
    let mut guest = Endless::start("reeve-1.0", "mode=flood", 1)?;
    for _ in 0..100 {
        let line = guest.reeve.expect("\n", SOON)?;
        let whole = line.split(' ').all(|word| word == "flood") || line.contains("guest");
        ensure!(whole, "{line:?}");
    }
    guest.destroy()
}

#[test]
fn a_guest_that_resets_once_boots_twice_and_is_reported_so() -> Result<()> {
    for machine in MACHINES {
        let run = run(|reeve| reeve.machine(machine).cmdline("mode=reset-once").json())?;
        ensure!(run.code == Some(0), "{:?}: {}", run.code, run.said);
        let (first, second) = (run.said.find("first boot"), run.said.find("second boot"));
        ensure!(first.is_some() && first < second, "{}", run.said);
        let report: Value = serde_json::from_str(run.console.lines().last().context("report")?)?;
        ensure!(report["resets"] == 1, "{report}");
        ensure!(report["outcome"] == "powered-off", "{report}");
    }
    Ok(())
}

#[test]
fn resets_without_end_by_either_way_go_on_and_are_destroyed_at_once() -> Result<()> {
    for mode in ["mode=reset", "mode=reset-i8042"] {
        let mut guest = Endless::start("reeve-1.0", mode, 2)?;
        let deadline = Instant::now() + LIMIT;
        while guest.control.number("resets")? < 20 {
            ensure!(Instant::now() < deadline, "{mode}: it does not reset");
            guest.reeve.listen(Duration::from_millis(5))?;
        }
        guest.destroy()?;
    }
    Ok(())
}

#[test]
fn accesses_where_nothing_is_are_survived() -> Result<()> {
    for machine in MACHINES {
        let console =
            console_of(|reeve| reeve.machine(machine).cmdline("mode=bad-mmio ports=4096"))?;
        for line in ["memory: survived", "ports: survived"] {
            ensure!(console.contains(line), "{machine}: {console}");
        }
    }
    Ok(())
}

#[test]
fn random_device_accesses_are_survived() -> Result<()> {
    for machine in MACHINES {
        for seed in 1..=6 {
            let line = format!("mode=fuzz-ports seed={seed} count=4000");
            let console = console_of(|reeve| reeve.machine(machine).cmdline(&line))?;
            ensure!(console.contains("survived"), "{machine} {line}: {console}");
        }
    }
    Ok(())
}

#[test]
fn every_byte_typed_comes_back_and_the_power_button_ends_it() -> Result<()> {
    for machine in MACHINES {
        let mut guest = Endless::start(machine, "mode=echo", 1)?;
        guest.reeve.expect("echo: ready, q powers off\n", SOON)?;
        // All but the q.
        let typed: Vec<u8> = (0..=255).filter(|&byte| byte != b'q').collect();
        guest.reeve.send(&typed)?;
        let before = guest.reeve.expect_bytes(&typed, SOON)?;
        ensure!(before.is_empty(), "{before:?} before it");
        guest.control.order("power-button")?;
        let status = guest.reeve.wait(SOON)?;
        ensure!(status.code() == Some(0), "{status}");
        ensure!(guest.reeve.output().contains("power button"), "no button");
        assert_nothing_left(&guest.name, &guest.before);
    }
    Ok(())
}

#[test]
fn a_long_paste_arrives_whole_and_in_order() -> Result<()> {
    const BYTES: usize = 100 << 10;
    let mut guest = Endless::start("reeve-1.0", "mode=echo", 1)?;
    guest.reeve.expect("echo: ready, q powers off\n", SOON)?;
    let pasted: Vec<u8> = (0..BYTES / 8)
        .flat_map(|number| format!("{number:07}\n").into_bytes())
        .collect();
    for chunk in pasted.chunks(4 << 10) {
        guest.reeve.send(chunk)?;
        guest.reeve.listen(Duration::from_millis(1))?;
    }
    // One after the other: this host's KVM takes some 0.2 ms for a byte there and back.
    let before = guest
        .reeve
        .expect_bytes(&pasted, Duration::from_secs(120))?;
    ensure!(before.is_empty(), "{} bytes before", before.len());
    guest.reeve.send(b"q")?;
    let status = guest.reeve.wait(SOON)?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[test]
fn a_paused_clock_stands_and_goes_on() -> Result<()> {
    let mut guest = Endless::start("reeve-1.0", "mode=clock", 1)?;
    guest.reeve.expect("tick 3:", LIMIT)?;
    guest.control.order("pause")?;
    // What is on its way comes. A clock that runs never says nothing for so long.
    let deadline = Instant::now() + SOON;
    loop {
        let printed = guest.reeve.output().len();
        guest.reeve.listen(Duration::from_millis(800))?;
        if guest.reeve.output().len() == printed {
            break;
        }
        ensure!(Instant::now() < deadline, "a paused guest prints");
    }
    guest.control.order("resume")?;
    guest.reeve.expect("tick ", SOON)?;
    guest.destroy()
}
