//! Rounds: who is sampled how often, and what a failure means.

use std::time::Duration;

use anyhow::bail;

use super::*;
use crate::contender::{Guest, Running};

/// A contender that is never started: the sample function looks at its name alone.
struct Named(&'static str);

impl Contender for Named {
    fn name(&self) -> &'static str {
        self.0
    }
    fn start(&mut self, _: Guest) -> anyhow::Result<Box<dyn Running>> {
        bail!("not in this test")
    }
    fn run_many(&mut self, _: usize, _: usize) -> anyhow::Result<Duration> {
        bail!("not in this test")
    }
}

fn field() -> Field {
    Field {
        reeve: Box::new(Named("reeve")),
        floor: Box::new(Named("floor")),
        peers: vec![Box::new(Named("good")), Box::new(Named("bad"))],
    }
}

const KIND: Kind = Kind {
    name: "figure",
    unit: "ms",
    less_is_better: true,
    target: Some(Target::TimesFloor(2.5)),
};

const ROUNDS: Rounds = Rounds {
    count: 10,
    peers_every: 3,
    warm_up: 2,
};

#[test]
fn rounds_interleave_and_the_first_do_not_count() {
    let mut order = Vec::new();
    let figures = interleave(&mut field(), &[KIND], ROUNDS, |contender| {
        order.push(contender.name());
        Ok(vec![if contender.name() == "reeve" {
            2.0
        } else {
            1.0
        }])
    })
    .unwrap();
    assert_eq!(
        order[..8],
        [
            "reeve", "floor", "floor", "reeve", "reeve", "floor", "good", "bad"
        ]
    );
    let figure = &figures[0];
    assert_eq!(
        (figure.reeve.count, figure.floor.map(|floor| floor.count)),
        (10, Some(10))
    );
    // The first, fourth, seventh and tenth of those that count.
    assert_eq!(figure.peers["good"].count, 4);
    assert_eq!(figure.ratio(), Some(2.0));
    assert_eq!(figure.is_met(), Some(true));
}

#[test]
fn a_peer_that_fails_is_left_out_and_named() {
    let mut asked = 0;
    let figures = interleave(&mut field(), &[KIND], ROUNDS, |contender| {
        if contender.name() == "bad" {
            asked += 1;
            bail!("prints nothing");
        }
        Ok(vec![1.0])
    })
    .unwrap();
    assert_eq!(asked, 1);
    assert_eq!(
        figures[0].peers.keys().copied().collect::<Vec<_>>(),
        ["good"]
    );
    assert_eq!(figures[0].notes, ["bad is left out: prints nothing"]);
}

#[test]
fn without_reeve_or_the_floor_there_is_no_figure() {
    for missing in ["reeve", "floor"] {
        let result = interleave(&mut field(), &[KIND], ROUNDS, |contender| {
            if contender.name() == missing {
                bail!("missing");
            }
            Ok(vec![1.0])
        });
        assert!(result.is_err(), "{missing}");
    }
}

#[test]
fn without_a_floor_the_ratio_is_to_the_best_peer() {
    let summary = |median| Summary {
        median,
        p90: median,
        count: 1,
    };
    let mut figure = Figure {
        kind: Kind {
            less_is_better: false,
            target: Some(Target::TimesPeers(1.1)),
            ..KIND
        },
        reeve: summary(12.0),
        floor: None,
        peers: [("slow", summary(6.0)), ("quick", summary(10.0))].into(),
        span: Span {
            foreign_percent: 0.0,
            seconds: 1.0,
        },
        notes: Vec::new(),
    };
    assert_eq!((figure.ratio(), figure.is_met()), (Some(1.2), Some(true)));
    figure.kind.less_is_better = true;
    assert_eq!(figure.ratio(), Some(2.0));
    figure.peers.clear();
    assert_eq!((figure.ratio(), figure.is_met()), (None, None));
}

#[test]
fn figures_have_names_of_their_own() {
    let mut names: Vec<_> = ALL
        .iter()
        .flat_map(|group| group.kinds)
        .map(|kind| kind.name)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
