//! Takes the figures, prints their table and writes `bench.json`.
//!
//! One thread takes all figures, one after the other; the process exits with 1 when a figure could
//! not be taken. A missed target is told and is no failure: machines differ.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use reeve_benches::contender::Field;
use reeve_benches::figure::{self, Figure, Group};
use reeve_benches::report;

/// Measures Reeve beside the floor and the installed peers
#[derive(Debug, Parser)]
struct Args {
    /// How many starts to time; the other figures take their share of it
    #[arg(long, value_name = "N", default_value_t = 200)]
    samples: usize,
    /// Take only this figure, or those that begin so: 'net' or 'block_read_1' (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where the JSON goes [default: target/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all figures could be taken.
fn run(args: &Args) -> anyhow::Result<bool> {
    let groups = choose(&args.only)?;
    ensure!(args.samples > 0, "--samples must be at least 1");
    let directory = tempfile::tempdir().context("cannot make a directory for files")?;
    let mut field = Field::find(directory.path())?;
    let begun = Instant::now();
    let mut figures: Vec<Figure> = Vec::new();
    let mut complete = true;
    for group in groups {
        match (group.take)(&mut field, args.samples) {
            Ok(taken) => figures.extend(
                taken
                    .into_iter()
                    .filter(|figure| is_wanted(&args.only, figure.kind.name)),
            ),
            Err(error) => {
                complete = false;
                let name = group.kinds.first().map_or("", |kind| kind.name);
                writeln!(io::stderr(), "bench: {name} could not be taken: {error:#}")?;
            }
        }
    }
    let mut out = io::stdout().lock();
    report::write_table(&mut out, &figures)?;
    let path = args
        .json
        .clone()
        .unwrap_or_else(|| PathBuf::from("target/bench.json"));
    report::write_json(&path, &figures)?;
    writeln!(
        out,
        "{} figures in {:.0} s, written to {}",
        figures.len(),
        begun.elapsed().as_secs_f64(),
        path.display()
    )?;
    Ok(complete)
}

/// The groups that give the figures of these names; all, for none.
fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Group>> {
    let names = || {
        figure::ALL
            .iter()
            .flat_map(|group| group.kinds)
            .map(|kind| kind.name)
    };
    for name in only {
        ensure!(
            names().any(|known| is_meant(name, known)),
            "no figure is named '{name}'; there are {}",
            names().collect::<Vec<_>>().join(", ")
        );
    }
    Ok(figure::ALL
        .iter()
        .filter(|group| group.kinds.iter().any(|kind| is_wanted(only, kind.name)))
        .collect())
}

/// Whether the figure `name` is among those asked for; all are where none is.
fn is_wanted(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|asked| is_meant(asked, name))
}

/// Whether `asked` is the figure `name`, or its first words.
fn is_meant(asked: &str, name: &str) -> bool {
    name.strip_prefix(asked)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}
