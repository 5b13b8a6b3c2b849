//! Real jailed processes, seen from outside and attacked from inside.

mod attacks;
mod harness;
mod layers;
mod view;
