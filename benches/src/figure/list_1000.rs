//! `list_1000`: all of 1,000 defined domains, listed with their states over one connection.

use std::time::Instant;

use anyhow::ensure;

use super::{Figure, Group, Kind, Target, milliseconds};
use crate::daemon::{Instance, define};
use crate::load::Load;
use crate::stats::Samples;

/// Domains.
const DEFINED: u32 = 1000;

const KIND: Kind = Kind {
    name: "list_1000",
    unit: "ms",
    less_is_better: true,
    target: Some(Target::AtMost(5.0)),
};

/// The figure.
pub const GROUP: Group = Group {
    kinds: &[KIND],
    take: |_, samples| {
        let before = Load::now()?;
        let instance = Instance::start()?;
        let mut connection = instance.connect()?;
        define(&mut connection, DEFINED)?;
        let mut times = Samples::default();
        for _ in 0..samples {
            let begun = Instant::now();
            let listed = connection.domains(false)?;
            times.push(milliseconds(begun.elapsed()));
            ensure!(listed.len() == 1000, "{} domains", listed.len());
        }
        drop(instance);
        let span = Load::now()?.since(&before);
        Ok(vec![Figure::alone(KIND, &times, span)?])
    },
};
