//! Start figures of the built-in guest on this host's KVM: medians over many runs.
//!
//! Times run from the boot vCPU's first KVM_RUN to the first byte on COM1 and to the power-off.
//! `cargo run -p reeve-guest --example measure --release [RUNS]`.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "../tests/loader/mod.rs"]
mod loader;

use std::time::Duration;

use loader::{End, Setup};
use reeve_guest::mode;

fn main() {
    let runs = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(50);
    println!("image: {} bytes", reeve_guest::IMAGE.len());
    println!(
        "{:<14}{:>6}{:>16}{:>16}{:>8}",
        "mode", "cpus", "first byte us", "power off us", "pages"
    );
    for command_line in [mode::BENCH, mode::REPORT] {
        for cpus in [1, 4] {
            let mut first = Vec::new();
            let mut total = Vec::new();
            let mut pages = 0;
            for _ in 0..runs {
                let outcome = Setup::new(command_line).cpus(cpus).run();
                assert_eq!(outcome.end, End::PowerOff, "{}", outcome.output);
                first.push(outcome.first_byte);
                total.push(outcome.total);
                pages = outcome.pages;
            }
            println!(
                "{command_line:<14}{cpus:>6}{:>16}{:>16}{pages:>8}",
                median(first),
                median(total)
            );
        }
    }
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2].as_micros()
}
