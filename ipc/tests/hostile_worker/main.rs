//! A worker that breaks the rules ends its own connection, with the right reason, and nothing else.
//! The worker's end of a real socketpair is played by the test.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod calls;
mod fake;
mod violations;
