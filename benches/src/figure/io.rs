//! `block_read_1`, `block_read_32`, `block_write_1`, `block_write_32`, `net_tx`, `net_rx`, `net_rtt` and `net_pair`:
//! what a guest gets through a disk and a network interface, beside QEMU.
//!
//! `_per_core` is operations a second of CPU time of the monitor's whole process, its vCPU's included;
//! `_rate` is operations a second of the clock; `_device_us` is the CPU time of all of the process but the
//! vCPU for one operation; `_p50` and `_p99` are how long the guest's driver waits for an operation, where
//! that says something of the device and not of how many are in flight. What is run, and how it is read, is in [`crate::io`]: one second a sample, Reeve and the peers
//! by turns, in an order that changes.
//!
//! The disk is a raw file of 256 MiB on tmpfs, all written, used at random in 4096 bytes, one request or 32
//! in flight. `net_tx` sends frames of 60 bytes with 128 in flight, which the host's stack takes and drops; `net_rx`
//! receives such frames into 256 buffers, as many as come; `net_rtt` sends one, which a thread of the
//! benchmark sends back, and the operation is there and back; `net_pair` is two guests on a bridge, one of which
//! sends as in `net_tx` what the other receives as in `net_rx`. The driver sleeps until it is interrupted, for
//! each request, for the first of frames that have come, and when three quarters of what it sent has gone.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use reeve_guest::mode::{self, BlockBench, NetMeasure, Wait, Way};

use super::{Figure, Group, Kind, Target};
use crate::contender::{DEADLINE, Reeve};
use crate::io::console::Console;
use crate::io::network::{OTHER_TAP, TAP, frames_from_guest, within, within_bridge};
use crate::io::qemu::{Engine, Qemu};
use crate::io::traffic::Traffic;
use crate::io::{Device, MemoryDisk, Monitor, RUN, Sample, run};
use crate::load::Load;
use crate::stats::Samples;

/// Figures of a load, at most.
const FIGURES: usize = 5;
/// MiB of the disk.
const DISK: u16 = 256;
/// Bytes of a frame: the shortest of Ethernet, without its check sequence.
const FRAME: u32 = 60;
/// Frames in flight from the guest, and buffers for those to it.
const SENT: u16 = 128;
const BUFFERS: u16 = 256;
/// How many times as long the one of a pair sends as the other measures, which has to boot meanwhile.
const LONGER: u64 = 8;

const fn more(name: &'static str, target: Option<Target>) -> Kind {
    Kind {
        name,
        unit: "1/s",
        less_is_better: false,
        target,
    }
}

const fn less(name: &'static str) -> Kind {
    Kind {
        name,
        unit: "us",
        less_is_better: true,
        target: None,
    }
}

macro_rules! group {
    ($name:ident, $text:literal, $rate:expr, $take:expr, $($time:literal),*) => {
        #[doc = concat!("`", $text, "`.")]
        pub const $name: Group = Group {
            kinds: &[
                more(concat!($text, "_per_core"), Some(Target::TimesPeers(1.1))),
                more(concat!($text, "_rate"), $rate),
                less(concat!($text, "_device_us")),
                $(less(concat!($text, $time)),)*
            ],
            take: |_, samples| $take($name.kinds, samples),
        };
    };
}

group!(
    READ_1,
    "block_read_1",
    None,
    |k, n| block(k, n, 1, false),
    "_p50",
    "_p99"
);
group!(
    READ_32,
    "block_read_32",
    None,
    |k, n| block(k, n, 32, false),
    "_p50",
    "_p99"
);
group!(
    WRITE_1,
    "block_write_1",
    None,
    |k, n| block(k, n, 1, true),
    "_p50",
    "_p99"
);
group!(
    WRITE_32,
    "block_write_32",
    None,
    |k, n| block(k, n, 32, true),
    "_p50",
    "_p99"
);
group!(TX, "net_tx", Some(Target::TimesPeers(0.9)), |k, n| net(
    k,
    n,
    Way::Transmit,
    SENT
),);
group!(RX, "net_rx", Some(Target::TimesPeers(0.9)), |k, n| net(
    k,
    n,
    Way::Receive,
    BUFFERS
),);

/// `net_pair_rate`: what one guest receives of what another sends.
pub const PAIR: Group = Group {
    kinds: &[more("net_pair_rate", Some(Target::TimesPeers(0.9)))],
    take: |_, samples| pair(samples),
};

group!(
    RTT,
    "net_rtt",
    None,
    |k, n| net(k, n, Way::RoundTrip, 1),
    "_p50",
    "_p99"
);

const fn milliseconds() -> u64 {
    RUN.as_secs() * 1000
}

fn block(kinds: &[Kind], samples: usize, depth: u16, write: bool) -> anyhow::Result<Vec<Figure>> {
    let disk = MemoryDisk::make(DISK)?;
    let command_line = mode::measure_block(BlockBench {
        depth,
        size: 4096,
        write,
        sequential: false,
        milliseconds: milliseconds(),
        wait: Wait::Interrupt,
    });
    let device = Device::Disk(disk.path());
    let engines = [Engine::IoUring, Engine::Threads];
    interleave(kinds, samples, &engines, |monitor| {
        run(monitor, &command_line, device)
    })
}

fn net(kinds: &[Kind], samples: usize, way: Way, depth: u16) -> anyhow::Result<Vec<Figure>> {
    let command_line = mode::measure_net(NetMeasure {
        way,
        depth,
        size: FRAME,
        milliseconds: milliseconds(),
        wait: Wait::Interrupt,
    });
    let device = Device::Tap(TAP);
    within(|| {
        interleave(kinds, samples, &[Engine::Tap], |monitor| {
            let _traffic = match way {
                Way::Transmit => None,
                Way::Receive => Some(Traffic::flood(FRAME.try_into()?)?),
                Way::RoundTrip => Some(Traffic::echo()?),
            };
            let before = frames_from_guest()?;
            let sample = run(monitor, &command_line, device)?;
            let sent = u32::try_from(frames_from_guest()? - before)?;
            // All of the run's, and those of the warm-up.
            let claimed = sample.rate * RUN.as_secs_f64();
            ensure!(
                way == Way::Receive || f64::from(sent) >= claimed * 0.99,
                "the host has seen {sent} frames of {claimed:.0}"
            );
            Ok(sample)
        })
    })
}

/// Two guests on a bridge, of one monitor each: the first receives what the second sends, which sends for longer.
fn pair(samples: usize) -> anyhow::Result<Vec<Figure>> {
    let command_line = |way, depth, milliseconds| {
        mode::measure_net(NetMeasure {
            way,
            depth,
            size: FRAME,
            milliseconds,
            wait: Wait::Interrupt,
        })
    };
    let receives = command_line(Way::Receive, BUFFERS, milliseconds());
    let sends = command_line(Way::Transmit, SENT, milliseconds() * LONGER);
    within_bridge(|| {
        interleave(PAIR.kinds, samples, &[Engine::Tap], |monitor| {
            let sender = monitor.start(&sends, Device::Tap(OTHER_TAP))?;
            let mut console = Console::new(sender.console());
            let ready = console.wait_for("measure: ready", DEADLINE);
            let sample = ready.and_then(|_| run(monitor, &receives, Device::Tap(TAP)));
            drop(console);
            sender.destroy()?;
            let sample = sample?;
            Ok(Sample {
                // In the place of a group's first figure.
                per_core: sample.rate,
                ..sample
            })
        })
    })
}

/// Takes samples of Reeve and of QEMU with each of these, by turns.
fn interleave(
    kinds: &[Kind],
    samples: usize,
    engines: &[Engine],
    mut sample: impl FnMut(&mut dyn Monitor) -> anyhow::Result<Sample>,
) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    let kernel = directory.path().join("guest.elf");
    std::fs::write(&kernel, reeve_guest::DRIVERS_IMAGE)?;
    let mut monitors: Vec<Box<dyn Monitor>> = vec![Box::new(Reeve::open()?)];
    for engine in engines {
        if let Some(qemu) = Qemu::find(&kernel, *engine) {
            monitors.push(Box::new(qemu));
        }
    }
    let mut notes: Vec<String> = monitors
        .iter()
        .map(|monitor| format!("{}: {}", monitor.name(), monitor.way()))
        .collect();

    let before = Load::now()?;
    let mut taken: BTreeMap<&'static str, Vec<Samples>> = BTreeMap::new();
    let rounds = samples.div_ceil(20);
    for round in 0..rounds {
        // Nobody always comes after the same one.
        let first = round % monitors.len();
        monitors.rotate_left(first);
        for monitor in &mut monitors {
            let name = monitor.name();
            match sample(monitor.as_mut()) {
                Ok(sample) => {
                    let values = taken
                        .entry(name)
                        .or_insert_with(|| vec![Samples::default(); FIGURES]);
                    for (samples, value) in values.iter_mut().zip(figures(sample)) {
                        samples.push(value);
                    }
                }
                Err(error) if name == "reeve" => return Err(error),
                Err(error) => notes.push(format!("{name} has a sample less: {error:#}")),
            }
        }
    }
    let span = Load::now()?.since(&before);
    kinds
        .iter()
        .enumerate()
        .map(|(index, kind)| {
            let mut peers: BTreeMap<_, _> = taken
                .iter()
                .filter_map(|(name, samples)| {
                    let summary = samples.get(index)?.summary(kind.less_is_better)?;
                    Some((*name, summary))
                })
                .collect();
            Ok(Figure {
                kind: *kind,
                reeve: peers.remove("reeve").context("no samples")?,
                floor: None,
                peers,
                span,
                notes: notes.clone(),
            })
        })
        .collect()
}

/// In the order of a group's kinds.
const fn figures(sample: Sample) -> [f64; FIGURES] {
    [
        sample.per_core,
        sample.rate,
        sample.device_us,
        sample.p50_us,
        sample.p99_us,
    ]
}
