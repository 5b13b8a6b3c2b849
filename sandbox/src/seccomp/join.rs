//! Join: what stage B still does after its base filter is in place, and takes away at its end.
//!
//! Installing the base filter takes a good part of the time for which the worker waits for its
//! network namespace, so it is installed first, with these calls added ([`OPEN`]), and a second,
//! short filter denies them once the namespace is joined ([`SEALED`]). Together they are Base.

use super::rule::{Rule, allow_if, deny, one_of};

/// `CLONE_NEWNET`.
const NEWNET: u32 = 0x4000_0000;

/// Added to Base while the jail is being closed.
pub const OPEN: &[Rule] = &[
    allow_if(
        libc::SYS_setns,
        &[one_of(1, &[NEWNET])],
        "joins the network namespace",
    ),
    allow_if(libc::SYS_wait4, &[], "reaps the helper that made it"),
    allow_if(libc::SYS_capset, &[], "gives up the capability to join it"),
];

/// Denied from then on; everything else is left to Base.
pub const SEALED: &[Rule] = &[
    deny(libc::SYS_setns, "the namespace is joined"),
    deny(libc::SYS_wait4, "the helper is reaped"),
    deny(libc::SYS_capset, "no capability is left"),
];
