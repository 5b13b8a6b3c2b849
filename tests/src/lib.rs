//! The harness of Reeve's cross-process tests: the lab, where stock Linux guests boot, and what a
//! test needs to drive `reeve` and to see that nothing is left behind.
//!
//! ```text
//! use std::time::Duration;
//! use reeve_tests::lab::assets;
//! use reeve_tests::reeve::Reeve;
//!
//! #[reeve_tests::in_lab(timeout = "120s")]
//! fn stock_linux_boots() -> anyhow::Result<()> {
//!     let mut reeve = Reeve::run()?.kernel(&assets().vmlinux).initrd(&assets().initramfs)
//!         .cmdline("console=ttyS0").spawn()?;
//!     reeve.expect("REEVE-GUEST-UP", Duration::from_secs(60))?;
//!     Ok(())
//! }
//! ```
//!
//! The body of such a test runs inside the lab as an ordinary test of the same binary; its output
//! and its failure come out as those of the test. See [`lab`] for how, what it costs and the
//! environment variables.

pub use reeve_tests_macros::in_lab;

pub mod clients;
pub mod conformance;
pub mod control;
pub mod daemon;
pub mod documents;
pub mod domain;
pub mod frames;
pub mod injected;
pub mod lab;
pub mod leftovers;
pub mod libvirt;
pub mod managed;
pub mod namespace;
pub mod network;
pub mod open_vswitch;
pub mod package;
mod process;
pub mod reeve;
pub mod remote;
pub mod switch;
pub mod tool;
pub mod virsh;
pub mod world;

/// Whether the long forms of tests run: counts and pauses as `make soak` has them.
#[must_use]
pub fn soaking() -> bool {
    std::env::var_os("REEVE_SOAK").is_some()
}
