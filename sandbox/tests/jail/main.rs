//! Real jailed processes, seen from outside and attacked from inside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod harness;
mod layers;
mod lifetime;
mod view;
