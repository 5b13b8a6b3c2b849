//! The lab: where the bodies of `#[in_lab]` tests run, with stock Linux guests.
//!
//! ```text
//!  this machine                    outer guest (QEMU, TCG)           inner guest
//!  ┌──────────────────┐  control   ┌───────────────────────────┐     ┌──────────────────┐
//!  │ test binary      │───────────▶│ init: waits, runs, reports│     │ stock Debian     │
//!  │ #[in_lab] fn     │◀───────────│ test binary --exact fn    │────▶│ kernel, busybox  │
//!  └──────────────────┘   output   │  └ reeve, reeve-worker    │ KVM └──────────────────┘
//!                                  └───────────────────────────┘
//! ```
//!
//! On a machine whose own `/dev/kvm` boots Linux the outer guest is left out and the body runs in a
//! child process ([`place`] decides). Either way it is the same binary, started with
//! `--exact <test>` and `REEVE_IN_LAB=1`, so a body is an ordinary test to whoever reads results,
//! has its own process, and a hard limit. In the outer guest it is root on a machine with cgroup v2,
//! Landlock (ABI 2), shared mounts, `/lib/modules` for `modprobe`, and an ordinary user `user`
//! (uid 1000, in group kvm, which owns `/dev/kvm`); the file system of the source tree is not there. Programs
//! of this machine are copied there ([`tools`]); virsh, virt-install and Python with libvirt's bindings come out
//! of packages ([`clients`], [`crate::clients`]).
//!
//! # What it costs
//! `REEVE_LAB_VERBOSE=1 cargo test -p reeve-tests --test lab -- --nocapture kvm_is_there`, medians
//! of six on two processors that three other builds kept busy:
//!
//! | step | time |
//! |---|---|
//! | resume (start QEMU, load the state) | 0.09 s |
//! | command to first output (mount the payload, start a test binary of 10 MB) | 0.53 s |
//! | a trivial test, all in all | 0.73 s |
//! | cold boot to waiting (`REEVE_LAB_COLD=1`) | 7.1 s; 3 s to 4 s on an idle machine |
//! | saving | 0.04 s, 220 MB |
//! | the very first test: unpack, extract the kernel, images, boot, save | 20 s, and the download |
//! | a new payload after a build | 0.3 s for each 50 MB of binaries |
//! | 20 MB of output from a test | 0.8 s |
//!
//! A stock kernel as inner guest needs 5 s to 10 s of an idle processor to userspace, and more with
//! more processors or a talkative console: give tests that boot one a `timeout` of minutes. The
//! limit is for hangs; it costs nothing.
//!
//! # Environment
//! - `REEVE_LAB=direct|qemu`: overrides where.
//! - `REEVE_LAB_CACHE=DIR`: where packages, images and saved guests are kept (default `target/lab`).
//! - `REEVE_LAB_SLOTS=N`: how many outer guests at once (default: one for each processor).
//! - `REEVE_LAB_COLD=1`: boot each outer guest instead of resuming it.
//! - `REEVE_LAB_VERBOSE=1`: print what each step took.
//! - `REEVE_BIN_DIR=DIR`: where the products are.

pub mod assets;
pub mod cache;
pub mod clients;
pub mod cpio;
pub mod debian;
mod direct;
pub mod guests;
pub mod image;
pub mod kernel;
pub mod modules;
pub mod outer;
pub mod packages;
mod payload;
pub mod place;
pub mod probe;
pub mod qemu;
pub mod qmp;
pub mod session;
pub mod tools;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use assets::assets;
use cache::Cache;
use outer::{Outer, System};
use place::Place;
use session::End;

/// Set where a body runs.
const INSIDE: &str = "REEVE_IN_LAB";
/// Names the file that a body's process makes first, so that "no test matched" is no success.
const ENTERED: &str = "REEVE_LAB_ENTERED";
/// Set in outer guests only.
const OUTER_GUEST: &str = "REEVE_LAB_OUTER_GUEST";

/// What the attribute knows of its function.
#[derive(Debug)]
pub struct Test {
    /// `crate::module::function`.
    pub path: &'static str,
    /// Hard limit of the body, in its short form: it has ten times as long in the soak.
    pub limit: Duration,
    /// Whether the body needs root.
    pub needs_root: bool,
}

impl Test {
    fn limit(&self) -> Duration {
        let factor = if crate::soaking() { 10 } else { 1 };
        self.limit.saturating_mul(factor)
    }

    /// The name that libtest gives it: without the crate.
    fn name(&self) -> &'static str {
        self.path
            .split_once("::")
            .map_or(self.path, |(_, name)| name)
    }
}

/// What a lab test may return.
pub trait Outcome {
    /// The value that stands for success.
    fn success() -> Self;
}

impl Outcome for () {
    fn success() -> Self {}
}

impl<E> Outcome for Result<(), E> {
    fn success() -> Self {
        Ok(())
    }
}

/// Whether this process is one that the lab started for a body.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether this process runs in an outer guest, where nothing but the test is going on.
#[must_use]
pub fn inside_outer_guest() -> bool {
    std::env::var_os(OUTER_GUEST).is_some()
}

/// What `#[in_lab]` makes of a test: inside, its body; outside, a run of it inside.
///
/// # Panics
/// When the body failed there, or the lab did; its output has been printed by then.
pub fn dispatch<O: Outcome>(test: &Test, body: fn() -> O) -> O {
    if inside() {
        enter();
        return body();
    }
    match run_inside(test, &mut |output| say(&String::from_utf8_lossy(output))) {
        Ok(()) => O::success(),
        Err(error) => panic!("{error:#}"),
    }
}

/// Runs a test of this binary where lab tests run; `sink` gets its output as it comes. An error says
/// how the test failed, or the lab.
pub fn run_inside(test: &Test, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    match place::place(test.needs_root) {
        Place::Direct => direct::run(test, sink),
        Place::Qemu => run_in_qemu(test, sink),
    }
}

/// Runs a test of this binary in an outer guest with Debian, wherever other lab tests run: it may
/// change that system as it likes. The files in `extra` are in `/payload`. Gives how it ended, with
/// which the caller is to be content or not ([`verdict`]).
pub fn run_in_debian(test: &Test, extra: &Path, sink: &mut dyn FnMut(&[u8])) -> Result<End> {
    in_fresh_guest(
        System::Debian,
        &command(test),
        Some(extra),
        test.limit(),
        sink,
    )
}

/// Marks that a body began: for tests that do not come through [`dispatch`].
pub fn enter() {
    if let Some(file) = std::env::var_os(ENTERED) {
        std::fs::write(file, b"").expect("the lab's directory for this is writable");
    }
}

fn run_in_qemu(test: &Test, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let end = in_fresh_guest(System::Busybox, &command(test), None, test.limit(), sink)?;
    verdict(test, end).with_context(|| format!("{} in the outer guest", test.name()))
}

/// Runs a shell command in a fresh outer guest, for trying things by hand (`examples/lab.rs`). The
/// products and the files in `extra` are in `/payload`, which is on the search path.
pub fn run_command(
    system: System,
    command: &str,
    extra: Option<&Path>,
    limit: Duration,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<End> {
    let command = format!(
        "export PATH=/payload:$PATH {}=/assets REEVE_BIN_DIR=/payload HOME=/root; {command}",
        assets::DIRECTORY
    );
    in_fresh_guest(system, &command, extra, limit, sink)
}

fn in_fresh_guest(
    system: System,
    command: &str,
    extra: Option<&Path>,
    limit: Duration,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<End> {
    let mut clock = Clock::start();
    let cache = Cache::open()?;
    let outer = Outer::prepare(&cache, system)?;
    clock.lap("prepare");
    // The limit counts from the start of the guest, not from the wait for a place.
    let _slot = cache.slot(slots())?;
    clock.lap("wait for a place");
    let payload = payload::image(&cache, extra)?;
    clock.lap("payload");
    let mut machine = outer.start(&payload)?;
    clock.lap("start");
    let mut first = true;
    let end = session::run(&mut machine, command, limit, |output| {
        if std::mem::take(&mut first) {
            clock.lap("first output");
        }
        sink(output);
    })?;
    clock.lap("run");
    if end == End::Silent || end == End::Gone {
        let console = machine.console_tail();
        sink(format!("lab: the outer guest's console:\n{console}\n").as_bytes());
    }
    drop(machine);
    clock.lap("end");
    Ok(end)
}

/// The command line that runs a test in the outer guest.
fn command(test: &Test) -> String {
    let mut command = format!(
        "exec env {INSIDE}=1 {OUTER_GUEST}=1 {ENTERED}=/run/lab/entered {}=/assets \
         REEVE_BIN_DIR=/payload HOME=/root TMPDIR=/tmp",
        assets::DIRECTORY
    );
    for variable in ["RUST_BACKTRACE", "RUST_LOG", "REEVE_SOAK"] {
        if let Ok(value) = std::env::var(variable) {
            command.push_str(&format!(" {variable}={}", session::word(&value)));
        }
    }
    command.push_str(&format!(" /payload/{}", payload::TEST));
    for argument in arguments(test) {
        command.push(' ');
        command.push_str(&session::word(argument));
    }
    command
}

/// What makes a test binary run one test and nothing else, showing all it prints.
fn arguments(test: &Test) -> [&str; 5] {
    [
        "--exact",
        test.name(),
        "--nocapture",
        "--include-ignored",
        "--test-threads=1",
    ]
}

/// An error unless the body ran to its end and succeeded.
pub fn verdict(test: &Test, end: End) -> Result<()> {
    match end {
        End::Exited {
            status: 0,
            entered: true,
        } => Ok(()),
        End::Exited {
            status: 0,
            entered: false,
        } => bail!("no test of this name ran"),
        End::Exited { status, .. } => bail!("failed with status {status}; its output is above"),
        End::Limit => bail!(
            "cut: it took longer than its limit of {} s",
            test.limit().as_secs()
        ),
        End::Silent => bail!("the lab stopped answering"),
        End::Gone => bail!("the outer guest ended"),
    }
}

fn slots() -> usize {
    let chosen = std::env::var("REEVE_LAB_SLOTS")
        .ok()
        .and_then(|text| text.parse().ok());
    chosen.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Prints as the test itself would: libtest keeps it and shows it when the test fails.
#[expect(clippy::print_stdout, reason = "this is the output of the test")]
pub fn say(text: &str) {
    print!("{text}");
}

/// Prints what each step took when `REEVE_LAB_VERBOSE` is set.
struct Clock {
    verbose: bool,
    last: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            verbose: std::env::var_os("REEVE_LAB_VERBOSE").is_some(),
            last: Instant::now(),
        }
    }

    fn lap(&mut self, step: &str) {
        if self.verbose {
            say(&format!(
                "lab: {step}: {} ms\n",
                self.last.elapsed().as_millis()
            ));
        }
        self.last = Instant::now();
    }
}
