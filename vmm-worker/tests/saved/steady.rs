//! What the lines of the busy guest must say, save after save.

use std::time::{Duration, Instant};

use reeve_worker::state::Origin;

use super::harness::Rig;

/// `steady N: D us, pm P us, C busy, R rounds`.
#[derive(Debug, Clone, Copy)]
struct Line {
    number: u64,
    tsc: Duration,
    pm: Duration,
    busy: u64,
    rounds: u64,
}

fn parse(line: &str) -> Option<Line> {
    let numbers: Vec<u64> = line
        .strip_prefix("steady ")?
        .split(|byte: char| !byte.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().expect("a number"))
        .collect();
    let [number, tsc, pm, busy, rounds] = numbers[..] else {
        panic!("{line}");
    };
    Some(Line {
        number,
        tsc: Duration::from_micros(tsc),
        pm: Duration::from_micros(pm),
        busy,
        rounds,
    })
}

/// The next line, which follows `before`.
fn next(rig: &mut Rig, before: Option<Line>) -> Line {
    loop {
        let text = rig.line();
        assert!(!text.contains("FAILED"), "{text}");
        let Some(line) = parse(&text) else { continue };
        if let Some(before) = before {
            assert_eq!(line.number, before.number + 1, "{before:?} {line:?}");
            assert!(line.rounds >= before.rounds, "{before:?} {line:?}");
        }
        return line;
    }
}

/// Saves a machine of four vCPUs `times` times. Its lines follow each other, each processor works
/// between two saves, and its clocks agree with each other and with the host's.
#[expect(clippy::print_stdout, reason = "figures for whoever wants them")]
pub fn go_on(rig: &mut Rig, times: usize, origin: Origin) {
    let mut line = next(rig, None);
    let start = Instant::now();
    let (mut tsc, mut pm) = (Duration::ZERO, Duration::ZERO);
    let mut hops = Vec::new();
    for _ in 0..times {
        hops.push(rig.hop(origin));
        let patience = Instant::now() + Duration::from_secs(20);
        let mut all_busy = false;
        for counted in 1.. {
            line = next(rig, Some(line));
            tsc += line.tsc;
            pm += line.pm;
            all_busy |= line.busy == 3;
            // The first line after a save is about both sides of it.
            if counted > 1 && all_busy {
                break;
            }
            assert!(Instant::now() < patience, "{line:?}");
        }
    }
    let host = start.elapsed();
    let near = |a: Duration, b: Duration| a.abs_diff(b) < host / 50 + Duration::from_millis(60);
    assert!(near(tsc, host), "TSC {tsc:?}, host {host:?}");
    assert!(near(pm, host), "PM timer {pm:?}, host {host:?}");
    assert!(near(pm, tsc), "PM timer {pm:?}, TSC {tsc:?}");

    let median = |part: fn(&super::harness::Hop) -> Duration| {
        let mut parts: Vec<_> = hops.iter().map(part).collect();
        parts.sort_unstable();
        parts[parts.len() / 2]
    };
    println!(
        "{origin:?}, {} bytes: stand {:?}, save {:?}, build and restore {:?}, go on {:?}; in all {:?}",
        hops[0].bytes,
        median(|hop| hop.stand),
        median(|hop| hop.save),
        median(|hop| hop.restore),
        median(|hop| hop.resume),
        median(|hop| hop.stand + hop.save + hop.restore + hop.resume),
    );
}
