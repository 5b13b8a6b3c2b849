//! `daemon_start` and `daemon_rss`: a daemon with nothing to do.
//!
//! `daemon_start` is the time from the spawn of `reeved`, whose directories are there and empty, until
//! a client has connected and has its first answer. `daemon_rss` is the resident set (`VmRSS`) after
//! that answer: shared pages count in full, so that it compares with what `ps` says of others.

use super::{Figure, Group, Kind, Target, milliseconds};
use crate::daemon::Instance;
use crate::load::Load;
use crate::memory::resident_kib;
use crate::stats::Samples;

const START: Kind = Kind {
    name: "daemon_start",
    unit: "ms",
    less_is_better: true,
    target: Some(Target::AtMost(5.0)),
};

const RESIDENT: Kind = Kind {
    name: "daemon_rss",
    unit: "KiB",
    less_is_better: true,
    target: Some(Target::AtMost(8192.0)),
};

/// The figures.
pub const GROUP: Group = Group {
    kinds: &[START, RESIDENT],
    take: |_, samples| {
        let before = Load::now()?;
        let mut instance = Instance::start()?;
        let (mut starts, mut resident) = (Samples::default(), Samples::default());
        for _ in 0..samples.div_ceil(2) {
            starts.push(milliseconds(instance.restart()?));
            resident.push(resident_kib(instance.pid())?);
        }
        drop(instance);
        let span = Load::now()?.since(&before);
        Ok(vec![
            Figure::alone(START, &starts, span)?,
            Figure::alone(RESIDENT, &resident, span)?,
        ])
    },
};
