//! The supervisor under a simulated world: random schedules of clients, guests, workers, faults and
//! deaths, each from one seed.
//!
//! What runs is the real thing - actors, shells, registry, recovery - over simulated implementations
//! of the traits it acts through. A schedule is one thread's; seeds run side by side.
//!
//! ```text
//!   REEVE_SEEDS=1000000 cargo test -p reeved --release --test simulation seeds
//!   REEVE_SEED=4711 cargo test -p reeved --test simulation replay -- --nocapture
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod between;
mod clients;
mod clock;
mod disk;
mod driver;
mod events;
mod expectation;
mod host;
mod invariants;
mod life;
mod machine;
mod moves;
mod planted;
mod random;
mod schedule;
mod universe;

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use reeve_ipc::model::DomainUuid;

use self::planted::Planted;
use self::schedule::{Failure, PANICKED};

/// Seeds without `REEVE_SEEDS`.
const SEEDS: u64 = 10_000;

/// A domain in a line of the trace.
fn short(uuid: DomainUuid) -> String {
    format!("domain {}", uuid.0.as_u128())
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a seed, or a number of seeds"))
}

/// A panic in a task is caught by the runtime: it is seen by this.
fn watch_for_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.set(true);
            before(panic);
        }));
    });
}

/// The first of `seeds` to fail, if one does within `range`; on every CPU there is.
fn first_failure(range: std::ops::Range<u64>, planted: Option<Planted>) -> Option<(u64, Failure)> {
    watch_for_panics();
    let next = AtomicU64::new(range.start);
    let failed = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    if schedule::run(seed, planted, false).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = failed.into_inner();
    if seed == u64::MAX {
        return None;
    }
    let failure = schedule::run(seed, planted, true).err();
    let failure = failure.unwrap_or_else(|| Failure {
        what: "it failed, and does not fail again: the schedule is not only of the seed".to_owned(),
        trace: Vec::new(),
    });
    Some((seed, failure))
}

/// A planted bug breaks an invariant within so many seeds: a schedule that has it cannot pass for
/// good. The same schedule without it holds, so that it is the bug which was found.
#[expect(clippy::print_stdout, reason = "how soon it is found is of interest")]
fn must_find(bug: Planted, within: u64) {
    let found = first_failure(0..within, Some(bug));
    let Some((seed, failure)) = found else {
        panic!("{bug:?} was not found within {within} seeds");
    };
    if let Err(without) = schedule::run(seed, None, false) {
        panic!("seed {seed} fails without {bug:?} too: {}", without.what);
    }
    println!("{bug:?}: found by seed {seed}: {}", failure.what);
}

fn report(seed: u64, failure: &Failure) -> String {
    format!(
        "{}\n\nseed {seed}: {}\nreplay: REEVE_SEED={seed} cargo test -p reeved --test simulation \
         replay -- --nocapture",
        failure.trace.join("\n"),
        failure.what
    )
}

#[test]
fn seeds_hold_every_invariant() {
    let seeds = number("REEVE_SEEDS").unwrap_or(SEEDS);
    let begin = Instant::now();
    if let Some((seed, failure)) = first_failure(0..seeds, None) {
        panic!("{}", report(seed, &failure));
    }
    println!(
        "{seeds} seeds held in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
}

/// The schedule of `REEVE_SEED` with all that happens in it; of seed 0 without.
#[test]
fn replay() {
    watch_for_panics();
    let seed = number("REEVE_SEED").unwrap_or(0);
    if let Err(failure) = schedule::run(seed, None, true) {
        panic!("{}", report(seed, &failure));
    }
}
