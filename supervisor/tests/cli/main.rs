//! The command line from outside: a copy of the real `reeve` with the hostile worker in the place of
//! its worker, so that a domain's name says what happens to it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod control;
mod faults;
mod harness;
mod input;
mod session;
mod terminal;
