//! The figures: one file each, which says what exactly is timed or counted.

mod api_roundtrip;
mod daemon_start;
mod destroy;
mod domains_per_second;
mod host_memory;
mod io;
mod libvirt;
mod list_1000;
mod networks;
mod running;
mod start_to_output;
mod worker_memory;

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::contender::{Contender, Field};
use crate::load::{Load, Span};
use crate::stats::{Samples, Summary};

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// So many times the floor of the same run, at most.
    TimesFloor(f64),
    /// At most so much, in the figure's unit.
    AtMost(f64),
    /// At least so much, in the figure's unit.
    AtLeast(f64),
    /// So many times the best peer of the same run, at least; for a figure of which more is better.
    TimesPeers(f64),
    /// So many times the best peer of the same run, at most; for a figure of which less is better.
    AtMostTimesPeers(f64),
}

/// What a figure is, before it is taken.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in `bench.json`.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether a smaller value is the better one.
    pub less_is_better: bool,
    /// What is wanted of it.
    pub target: Option<Target>,
}

/// A figure that was taken.
#[derive(Debug)]
pub struct Figure {
    /// What it is.
    pub kind: Kind,
    /// Reeve.
    pub reeve: Summary,
    /// The floor, where there is one: nothing less than a supervisor can list a thousand domains.
    pub floor: Option<Summary>,
    /// The peers that are installed and could be measured.
    pub peers: BTreeMap<&'static str, Summary>,
    /// What the machine did beside it.
    pub span: Span,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Figure {
    /// Reeve alone, with nothing to put beside it.
    fn alone(kind: Kind, samples: &Samples, span: Span) -> anyhow::Result<Self> {
        let reeve = samples.summary(kind.less_is_better);
        Ok(Self {
            kind,
            reeve: reeve.context("no samples")?,
            floor: None,
            peers: BTreeMap::new(),
            span,
            notes: Vec::new(),
        })
    }

    /// Reeve by the floor; by the best peer where there is none.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let other = match self.floor {
            Some(floor) => floor.median,
            None => self.best_peer()?,
        };
        Some(self.reeve.median / other)
    }

    fn best_peer(&self) -> Option<f64> {
        let medians = self.peers.values().map(|peer| peer.median);
        if self.kind.less_is_better {
            medians.min_by(f64::total_cmp)
        } else {
            medians.max_by(f64::total_cmp)
        }
    }

    /// Whether the target is met, where there is one.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        Some(match self.kind.target? {
            Target::TimesFloor(times) | Target::AtMostTimesPeers(times) => self.ratio()? <= times,
            Target::AtMost(most) => self.reeve.median <= most,
            Target::AtLeast(least) => self.reeve.median >= least,
            Target::TimesPeers(times) => self.ratio()? >= times,
        })
    }
}

/// Figures that are taken together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// What it gives.
    pub kinds: &'static [Kind],
    /// Takes them, with about so many samples of a start.
    pub take: fn(&mut Field, usize) -> anyhow::Result<Vec<Figure>>,
}

/// All figures.
pub const ALL: &[Group] = &[
    start_to_output::GROUP,
    destroy::GROUP,
    domains_per_second::ONE,
    domains_per_second::EIGHT,
    worker_memory::GROUP,
    host_memory::GROUP,
    daemon_start::GROUP,
    api_roundtrip::GROUP,
    list_1000::GROUP,
    running::TWENTY,
    running::HUNDRED,
    libvirt::CALLS,
    libvirt::LIFE,
    libvirt::MANY,
    libvirt::AMONG_OTHERS,
    libvirt::WEIGHT,
    networks::ONE,
    networks::THOUSAND,
    io::READ_1,
    io::READ_32,
    io::WRITE_1,
    io::WRITE_32,
    io::TX,
    io::RX,
    io::RTT,
    io::PAIR,
];

/// How often each contender is sampled.
#[derive(Debug, Clone, Copy)]
struct Rounds {
    /// Rounds that count.
    count: usize,
    /// Peers take part in every so many of them: they are slow.
    peers_every: usize,
    /// Rounds ahead that do not count, in which caches fill.
    warm_up: usize,
}

/// Takes samples in rounds; each sample has one value for each of `kinds`. The order within a round
/// changes, so that nobody always comes after the same one. A peer that fails is left out and named;
/// Reeve and the floor must not.
fn interleave(
    field: &mut Field,
    kinds: &[Kind],
    rounds: Rounds,
    mut sample: impl FnMut(&mut dyn Contender) -> anyhow::Result<Vec<f64>>,
) -> anyhow::Result<Vec<Figure>> {
    let before = Load::now()?;
    let mut samples = vec![(Samples::default(), Samples::default()); kinds.len()];
    let mut peers: BTreeMap<&'static str, Vec<Samples>> = BTreeMap::new();
    let mut failed: BTreeMap<&'static str, String> = BTreeMap::new();
    for round in 0..rounds.warm_up + rounds.count {
        let counts = round >= rounds.warm_up;
        let mut both = |reeve_turn: bool| -> anyhow::Result<()> {
            let contender = if reeve_turn {
                &mut field.reeve
            } else {
                &mut field.floor
            };
            let values = sample(contender.as_mut())?;
            for ((reeve, floor), value) in samples.iter_mut().zip(values) {
                if counts {
                    if reeve_turn {
                        reeve.push(value)
                    } else {
                        floor.push(value)
                    }
                }
            }
            Ok(())
        };
        both(round % 2 == 0)?;
        both(round % 2 != 0)?;
        // In the first round that counts, and in every so many after it.
        if !counts || (round - rounds.warm_up) % rounds.peers_every != 0 {
            continue;
        }
        for peer in &mut field.peers {
            let name = peer.name();
            if failed.contains_key(name) {
                continue;
            }
            match sample(peer.as_mut()) {
                Ok(values) => {
                    let samples = peers
                        .entry(name)
                        .or_insert_with(|| vec![Samples::default(); kinds.len()]);
                    for (samples, value) in samples.iter_mut().zip(values) {
                        samples.push(value);
                    }
                }
                Err(error) => {
                    failed.insert(name, format!("{name} is left out: {error:#}"));
                }
            }
        }
    }
    peers.retain(|name, _| !failed.contains_key(name));
    let span = Load::now()?.since(&before);
    kinds
        .iter()
        .enumerate()
        .zip(&samples)
        .map(|((index, kind), (reeve, floor))| {
            let summary = |samples: &Samples| samples.summary(kind.less_is_better);
            let taken = |samples| summary(samples).ok_or_else(|| anyhow::anyhow!("no samples"));
            Ok(Figure {
                kind: *kind,
                reeve: taken(reeve)?,
                floor: Some(taken(floor)?),
                peers: peers
                    .iter()
                    .filter_map(|(name, samples)| Some((*name, summary(samples.get(index)?)?)))
                    .collect(),
                span,
                notes: failed.values().cloned().collect(),
            })
        })
        .collect()
}

/// A duration in milliseconds.
fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
