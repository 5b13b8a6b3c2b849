//! The same again and again, where a fault shows once in many: starts, starts beside each other,
//! pauses and destroys at random instants. `REEVE_SOAK=1` has the long counts.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use reeve_tests::control::Place;
use reeve_tests::domain::{assert_nothing_left, unique_name, wait_until_gone};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;
use reeve_tests::soaking;

const SOON: Duration = Duration::from_secs(30);

fn count(usual: u32, soak: u32) -> u32 {
    if soaking() { soak } else { usual }
}

/// Marsaglia's xorshift64, from a seed that is printed.
struct Random(u64);

impl Random {
    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    fn new() -> Random {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seed = now.map_or(1, |time| u64::from(time.subsec_nanos()) | 1);
        println!("seed {seed}");
        Random(seed)
    }

    /// Below `limit`.
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0 % nanoseconds.max(1))
    }
}

fn start_and_end(name: &str) -> Result<()> {
    let mut reeve = Reeve::run()?
        .name(name)
        .memory("32M")
        .cmdline("mode=bench")
        .spawn()?;
    let status = reeve.wait(SOON)?;
    ensure!(status.code() == Some(0), "{status}: {}", reeve.errors());
    ensure!(reeve.output() == "R\n", "{:?}", reeve.output());
    Ok(())
}

#[test]
fn starts_one_after_the_other_all_end_well() -> Result<()> {
    for number in 0..count(40, 200) {
        let before = Snapshot::take();
        let name = unique_name("again");
        start_and_end(&name).with_context(|| format!("start {number}"))?;
        assert_nothing_left(&name, &before);
    }
    Ok(())
}

#[test]
fn starts_beside_each_other_all_end_well() -> Result<()> {
    const AT_ONCE: u32 = 8;
    let before = Snapshot::take();
    let total = count(24, 50);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE)
            .map(|lane| {
                scope.spawn(move || -> Result<Vec<String>> {
                    let mut names = Vec::new();
                    for _ in (lane..total).step_by(AT_ONCE as usize) {
                        let name = unique_name("beside");
                        start_and_end(&name)?;
                        names.push(name);
                    }
                    Ok(names)
                })
            })
            .collect();
        for lane in lanes {
            for name in lane.join().expect("no lane panics")? {
                assert_nothing_left(&name, &before);
            }
        }
        Ok(())
    })
}

/// The clock counts its ticks: none may be lost or come twice, whenever the pause hits.
#[test]
fn pauses_at_random_instants_lose_no_tick_of_a_clock() -> Result<()> {
    let (place, name, before) = (Place::new()?, unique_name("clock"), Snapshot::take());
    let mut random = Random::new();
    let mut reeve = Reeve::run()?
        .name(&name)
        .memory("32M")
        .cmdline("mode=clock")
        .control(&place)
        .spawn()?;
    reeve.expect("tick 1:", SOON)?;
    let mut control = place.connect(SOON)?;
    for _ in 0..count(40, 200) {
        reeve.listen(random.below(Duration::from_millis(60)))?;
        control.order("pause")?;
        reeve.listen(random.below(Duration::from_millis(30)))?;
        control.order("resume")?;
    }
    // It still ticks.
    reeve.listen(Duration::from_millis(20))?;
    let seen = reeve.output().matches("tick ").count();
    reeve.expect(&format!("tick {}:", seen + 3), SOON)?;
    let output = reeve.output();
    let numbers: Vec<u64> = output
        .lines()
        .filter_map(|line| line.strip_prefix("tick ")?.split(':').next()?.parse().ok())
        .collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    ensure!(numbers == expected, "{numbers:?}");
    control.order("destroy")?;
    ensure!(reeve.wait(SOON)?.success(), "{}", reeve.errors());
    assert_nothing_left(&name, &before);
    Ok(())
}

#[test]
fn pauses_at_random_instants_lose_nothing_of_busy_vcpus() -> Result<()> {
    let (place, name, before) = (Place::new()?, unique_name("busy"), Snapshot::take());
    let mut random = Random::new();
    let length = if soaking() { 12_000 } else { 2_500 };
    let mut reeve = Reeve::run()?
        .name(&name)
        .memory("32M")
        .cpus(2)
        .cmdline(&format!("mode=cpu-loop ms={length}"))
        .control(&place)
        .spawn()?;
    reeve.expect("Reeve built-in guest", SOON)?;
    let mut control = place.connect(SOON)?;
    let mut pauses = 0;
    for _ in 0..count(40, 200) {
        std::thread::sleep(random.below(Duration::from_millis(40)));
        // On a busy host the guest may be done first; how it ended is asserted below.
        let paused = control.order("pause").is_ok();
        std::thread::sleep(random.below(Duration::from_millis(5)));
        if !paused || control.order("resume").is_err() {
            break;
        }
        pauses += 1;
    }
    let status = reeve.wait(SOON)?;
    ensure!(pauses > 0, "never paused: {}", reeve.errors());
    let output = reeve.output();
    ensure!(status.code() == Some(0), "{status}: {}", reeve.errors());
    ensure!(output.contains("2 cpus"), "{output}");
    assert_nothing_left(&name, &before);
    Ok(())
}

/// From before the worker is jailed until after the guest has ended.
#[test]
fn destroys_at_random_instants_leave_nothing() -> Result<()> {
    let mut random = Random::new();
    for _ in 0..count(40, 200) {
        let (place, name, before) = (Place::new()?, unique_name("short"), Snapshot::take());
        let begin = Instant::now();
        let mut reeve = Reeve::run()?
            .name(&name)
            .memory("32M")
            .cpus(2)
            .control(&place)
            .spawn()?;
        let moment = random.below(Duration::from_millis(50));
        // The report takes some 10 ms: it may have ended by itself.
        if let Ok(mut control) = place.connect(Duration::from_millis(20)) {
            std::thread::sleep(moment.saturating_sub(begin.elapsed()));
            if let Ok(worker) = control.worker() {
                if control.order("destroy").is_ok() {
                    wait_until_gone(worker, SOON)?;
                }
            }
        }
        let status = reeve.wait(SOON)?;
        ensure!(
            status.code() == Some(0),
            "{moment:?}: {status}: {}",
            reeve.errors()
        );
        assert_nothing_left(&name, &before);
    }
    Ok(())
}
