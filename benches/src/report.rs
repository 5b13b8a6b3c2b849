//! The table for people and `bench.json` for programs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::figure::{Figure, Target};
use crate::stats::Summary;

/// One object of `bench.json`. The first five fields are what the file promises; the rest explains
/// them.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    unit: &'a str,
    /// Reeve's median.
    value: f64,
    /// The floor's median, where there is one.
    floor: Option<f64>,
    /// The peers' medians; a peer that is not installed is absent.
    peers: BTreeMap<&'a str, f64>,
    /// `value` by `floor`; by the best of `peers` where there is no floor.
    ratio: Option<f64>,
    /// A tenth of Reeve's samples is worse than this.
    p90: f64,
    floor_p90: Option<f64>,
    peers_p90: BTreeMap<&'a str, f64>,
    samples: usize,
    /// What was wanted, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    /// CPU time of others while this was measured, in percent of the machine.
    foreign_load_percent: f64,
    beside_foreign_load: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

impl<'a> Entry<'a> {
    fn new(figure: &'a Figure) -> Self {
        let peers = |value: fn(&Summary) -> f64| {
            figure
                .peers
                .iter()
                .map(|(name, summary)| (*name, rounded(value(summary))))
                .collect()
        };
        Self {
            name: figure.kind.name,
            unit: figure.kind.unit,
            value: rounded(figure.reeve.median),
            floor: figure.floor.map(|floor| rounded(floor.median)),
            peers: peers(|summary| summary.median),
            ratio: figure.ratio().map(rounded),
            p90: rounded(figure.reeve.p90),
            floor_p90: figure.floor.map(|floor| rounded(floor.p90)),
            peers_p90: peers(|summary| summary.p90),
            samples: figure.reeve.count,
            target: figure
                .kind
                .target
                .map(|target| describe(target, figure.kind.unit)),
            met: figure.is_met(),
            foreign_load_percent: rounded(figure.span.foreign_percent),
            beside_foreign_load: figure.span.is_beside_foreign_load(),
            notes: &figure.notes,
        }
    }
}

/// To three decimals: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn describe(target: Target, unit: &str) -> String {
    match target {
        Target::TimesFloor(times) => format!("<= {times} x floor"),
        Target::AtMost(most) => format!("<= {most} {unit}"),
        Target::AtLeast(least) => format!(">= {least} {unit}"),
        Target::TimesPeers(times) => format!(">= {times} x peers"),
        Target::AtMostTimesPeers(times) => format!("<= {times} x peers"),
    }
}

/// Writes `bench.json` whole or not at all: a temporary beside it, renamed.
///
/// # Errors
/// The file system's.
pub fn write_json(path: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    let entries: Vec<_> = figures.iter().map(Entry::new).collect();
    let mut json = serde_json::to_vec_pretty(&entries)?;
    json.push(b'\n');
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create(&temporary)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the table.
///
/// # Errors
/// Standard output's.
pub fn write_table(mut out: impl Write, figures: &[Figure]) -> io::Result<()> {
    let mut peers: Vec<&str> = figures
        .iter()
        .flat_map(|f| f.peers.keys().copied())
        .collect();
    peers.sort_unstable();
    peers.dedup();
    let mut head = ["figure", "unit", "reeve", "p90", "floor", "p90", "ratio"]
        .map(str::to_owned)
        .to_vec();
    head.extend(peers.iter().map(|peer| (*peer).to_owned()));
    head.extend(["target", "", "others"].map(str::to_owned));
    let mut rows = vec![head];
    for figure in figures {
        let mut row = vec![
            figure.kind.name.to_owned(),
            figure.kind.unit.to_owned(),
            number(figure.reeve.median),
            number(figure.reeve.p90),
            optional(figure.floor.map(|floor| floor.median)),
            optional(figure.floor.map(|floor| floor.p90)),
            optional(figure.ratio()),
        ];
        row.extend(peers.iter().map(|peer| {
            figure
                .peers
                .get(peer)
                .map_or_else(|| "-".to_owned(), |peer| number(peer.median))
        }));
        let target = figure.kind.target;
        row.push(target.map_or_else(String::new, |target| describe(target, figure.kind.unit)));
        row.push(match figure.is_met() {
            Some(true) => "met".to_owned(),
            Some(false) => "MISSED".to_owned(),
            None => String::new(),
        });
        row.push(format!("{:.0}%", figure.span.foreign_percent));
        rows.push(row);
    }
    print_rows(&mut out, &rows)?;
    print_notes(&mut out, figures)
}

fn print_rows(out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let is_word = column < 2 || column + 3 == columns || column + 2 == columns;
            line.push_str(&if is_word {
                format!("{cell:<width$}  ")
            } else {
                format!("{cell:>width$}  ")
            });
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn print_notes(out: &mut impl Write, figures: &[Figure]) -> io::Result<()> {
    let mut notes: Vec<&str> = figures
        .iter()
        .flat_map(|f| &f.notes)
        .map(String::as_str)
        .collect();
    notes.sort_unstable();
    notes.dedup();
    for note in notes {
        writeln!(out, "{note}")?;
    }
    let beside: Vec<&str> = figures
        .iter()
        .filter(|figure| figure.span.is_beside_foreign_load())
        .map(|figure| figure.kind.name)
        .collect();
    if !beside.is_empty() {
        writeln!(
            out,
            "stood beside foreign load (others used more than {:.0} % of the CPUs): {}",
            crate::load::FOREIGN_LIMIT_PERCENT,
            beside.join(", ")
        )?;
    }
    Ok(())
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Kind;
    use crate::load::Span;

    fn figure() -> Figure {
        let summary = |median| Summary {
            median,
            p90: median * 2.0,
            count: 9,
        };
        Figure {
            kind: Kind {
                name: "start_to_output",
                unit: "ms",
                less_is_better: true,
                target: Some(Target::TimesFloor(2.5)),
            },
            reeve: summary(1.5),
            floor: Some(summary(0.75)),
            peers: [("qemu-microvm", summary(36.0))].into(),
            span: Span {
                foreign_percent: 30.0,
                seconds: 1.0,
            },
            notes: vec!["firecracker is left out: no".to_owned()],
        }
    }

    #[test]
    fn the_file_has_the_promised_fields_and_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("target/bench.json");
        write_json(&path, &[]).unwrap();
        write_json(&path, &[figure()]).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let entry = &json[0];
        assert_eq!(entry["name"], "start_to_output");
        assert_eq!(entry["unit"], "ms");
        assert_eq!(entry["value"], 1.5);
        assert_eq!(entry["floor"], 0.75);
        assert_eq!(entry["peers"], serde_json::json!({"qemu-microvm": 36.0}));
        assert_eq!(entry["ratio"], 2.0);
        assert_eq!(entry["met"], true);
        assert_eq!(entry["beside_foreign_load"], true);
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary is left");
    }

    #[test]
    fn the_table_tells_ratio_target_and_foreign_load() {
        let mut table = Vec::new();
        write_table(&mut table, &[figure()]).unwrap();
        let table = String::from_utf8(table).unwrap();
        for text in [
            "2.00",
            "<= 2.5 x floor  met",
            "36.00",
            "30%",
            "firecracker is left out",
            "stood beside foreign load",
        ] {
            assert!(table.contains(text), "{text} in\n{table}");
        }
    }
}
