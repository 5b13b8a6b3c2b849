//! What the lines of the busy guest must say, save after save.

use std::time::{Duration, Instant};

use reeve_worker::state::Origin;

use super::harness::{Hop, Rig};

/// `steady N: T cycles, pm P us, C busy, R rounds`.
#[derive(Debug, Clone, Copy)]
struct Line {
    number: u64,
    cycles: u64,
    pm: Duration,
    busy: u64,
    rounds: u64,
}

fn parse(line: &str) -> Line {
    let text = line
        .strip_prefix("steady ")
        .unwrap_or_else(|| panic!("{line}"));
    let numbers: Vec<u64> = text
        .split(|byte: char| !byte.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().expect("a number"))
        .collect();
    let [number, cycles, pm, busy, rounds] = numbers[..] else {
        panic!("{line}");
    };
    Line {
        number,
        cycles,
        pm: Duration::from_micros(pm),
        busy,
        rounds,
    }
}

/// What was counted over some lines.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    cycles: u64,
    pm: Duration,
}

struct Watch<'a> {
    rig: &'a mut Rig,
    last: Line,
    sum: Sum,
}

impl Watch<'_> {
    /// The next line, which must follow the last.
    fn next(&mut self) -> Line {
        let line = parse(&self.rig.line());
        let last = std::mem::replace(&mut self.last, line);
        assert_eq!(line.number, last.number + 1, "{last:?} {line:?}");
        assert!(line.rounds >= last.rounds, "{last:?} {line:?}");
        self.sum.cycles += line.cycles;
        self.sum.pm += line.pm;
        line
    }

    /// Lines until every processor was at work between two of them.
    fn until_all_are_busy(&mut self) {
        let patience = Instant::now() + Duration::from_secs(30);
        // The first line after a save is about both sides of it.
        self.next();
        while self.next().busy != 3 {
            assert!(Instant::now() < patience, "{:?}", self.last);
        }
    }
}

/// Saves a machine of four vCPUs `times` times, and lets it be away for a while. Its lines follow each other, each processor works
/// between two saves, and its clocks agree with each other and with the host's.
#[expect(clippy::print_stdout, reason = "figures for whoever wants them")]
pub fn go_on(rig: &mut Rig, times: usize, away: Duration, origin: Origin) {
    let last = parse(&rig.line());
    let mut watch = Watch {
        rig,
        last,
        sum: Sum::default(),
    };
    // What the counter's frequency is, by the other one.
    let before = Instant::now();
    while before.elapsed() < Duration::from_millis(500) {
        watch.next();
    }
    let Sum { cycles, pm } = std::mem::take(&mut watch.sum);
    let cycles_a_second = cycles as f64 / pm.as_secs_f64();

    let start = Instant::now();
    let mut hops = Vec::new();
    for _ in 0..times {
        hops.push(watch.rig.hop_changed(origin, |_| std::thread::sleep(away)));
        watch.until_all_are_busy();
    }
    let host = start.elapsed();
    let pm = watch.sum.pm;
    let tsc = Duration::from_secs_f64(watch.sum.cycles as f64 / cycles_a_second);
    assert!(pm.abs_diff(tsc) < host / 20, "PM timer {pm:?}, TSC {tsc:?}");
    // The guest's are read at one moment, the host's when a line has made its way here.
    let late = away * u32::try_from(times).expect("few") / 2;
    assert!(tsc.abs_diff(host) < late, "TSC {tsc:?}, host {host:?}");
    println!(
        "{origin:?}, {} bytes: stand {:?}, save {:?}, build and restore {:?}, go on {:?}; in all {:?}",
        hops[0].bytes,
        median(&hops, |hop| hop.stand),
        median(&hops, |hop| hop.save),
        median(&hops, |hop| hop.restore),
        median(&hops, |hop| hop.resume),
        median(&hops, |hop| hop.stand + hop.save + hop.restore + hop.resume),
    );
}

fn median(hops: &[Hop], part: fn(&Hop) -> Duration) -> Duration {
    let mut parts: Vec<_> = hops.iter().map(part).collect();
    parts.sort_unstable();
    parts[parts.len() / 2]
}

/// Has a machine of four vCPUs taken over `times` times by one worker after the other: no line of it is lost
/// or said twice, and each processor works between two of them.
#[expect(clippy::print_stdout, reason = "figures for whoever wants them")]
pub fn go_over(rig: &mut Rig, times: usize) {
    let last = parse(&rig.line());
    let mut watch = Watch {
        rig,
        last,
        sum: Sum::default(),
    };
    let mut stood: Vec<Duration> = Vec::new();
    for _ in 0..times {
        stood.push(watch.rig.hand_over(true));
        watch.until_all_are_busy();
    }
    stood.sort_unstable();
    println!(
        "stood {:?} of {times} times, at most {:?}",
        stood[times / 2],
        stood[times - 1]
    );
}
