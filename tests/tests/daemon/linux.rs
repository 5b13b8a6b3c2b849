//! Stock Linux under a daemon that is killed at the worst moments, in the lab: while the domain is
//! defined, started, rebooted, power-cycled by its policy and shut down. Afterwards `list`, `console`
//! and `shutdown` do what they always do.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::DomainGet;
use reeve_ipc::api::view::{DomainDetails, DomainState, ShutOffReason};
use reeve_tests::daemon::{Daemon, named, wait_for};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER, PROMPT, UP_MARKER};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

use super::{assert_at_rest, wait_until_off};

/// A boot takes 5 s to 15 s; the rest is for a machine under heavy load.
const BOOT: Duration = Duration::from_secs(100);
const SHELL: Duration = Duration::from_secs(30);
/// When the daemon dies, counted from the command's start: before it has read it, while it works on it.
const MOMENTS_MS: [u64; 5] = [0, 10, 30, 60, 120];
pub(super) const NAME: &str = "linux";

/// A daemon that allows the lab's kernels, with a definition file beside it.
pub(super) struct Host {
    pub(super) daemon: Daemon,
    file: String,
}

impl Host {
    pub(super) fn new(policies: &str) -> Result<Self> {
        Self::with("", |_| Ok(policies.to_owned()))
    }

    /// With `words` on the guest's command line, and a definition that may name files of a directory that it
    /// is given.
    pub(super) fn with(
        words: &str,
        definition: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<Self> {
        Self::of(&assets().vmlinux, &assets().initramfs, words, definition)
    }

    /// With another kernel than usual, from the same directory.
    pub(super) fn of(
        kernel: &Path,
        initramfs: &Path,
        words: &str,
        definition: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<Self> {
        let mut daemon = Daemon::prepare()?;
        let directory = daemon.state().with_file_name("files");
        fs::create_dir(&directory)?;
        let allowed = kernel.parent().context("a directory")?;
        let configuration = directory.join("reeve.toml");
        fs::write(
            &configuration,
            format!("allowed_directories = [{allowed:?}, {directory:?}]\n"),
        )?;
        let file = directory.join("linux.toml");
        // The lab's line makes a reboot a triple fault, which is a crash; here Linux chooses.
        fs::write(
            &file,
            format!(
                "name = \"{NAME}\"\nuuid = \"{}\"\nmemory = \"256M\"\nkernel = \"{}\"\n\
                 initrd = \"{}\"\ncmdline = \"{} {words}\"\n{}",
                uuid::Uuid::new_v4(),
                kernel.display(),
                initramfs.display(),
                COMMAND_LINE.replace("reboot=t ", ""),
                definition(&directory)?,
            ),
        )?;
        daemon.argument("--config");
        daemon.argument(&configuration.display().to_string());
        daemon.spawn()?;
        Ok(Self {
            daemon,
            file: file.display().to_string(),
        })
    }

    /// Runs a command and kills the daemon meanwhile; starts it again when the command has ended.
    /// Whether the command was acknowledged.
    fn kill_during(&mut self, arguments: &[&str], after: Duration) -> Result<bool> {
        let mut command = self.daemon.reeve_command(arguments)?;
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(after);
        self.daemon.kill()?;
        let acknowledged = child.wait()?.success();
        self.daemon.spawn()?;
        Ok(acknowledged)
    }

    pub(super) fn define(&self) -> Result<()> {
        self.daemon.reeve(&["define", "--file", &self.file])?;
        Ok(())
    }

    /// Defines, starts, and waits for the shell.
    pub(super) fn boot(&self) -> Result<Reeve> {
        self.define()?;
        self.daemon.reeve(&["start", NAME])?;
        let mut console = self.console()?;
        expect_up(&mut console)?;
        Ok(console)
    }

    pub(super) fn console(&self) -> Result<Reeve> {
        Reeve::command()?
            .arg("--socket")
            .arg(self.daemon.socket())
            .arg("console")
            .arg(NAME)
            .spawn()
    }

    pub(super) fn details(&self) -> Result<DomainDetails> {
        let domain = named(NAME);
        Ok(self.daemon.connect()?.call(DomainGet { domain })?)
    }

    fn listed(&self) -> Result<String> {
        self.daemon.reeve(&["list", "--all"])
    }

    /// It is listed as running, one worker runs it, and a new console reaches its shell.
    fn expect_well(&self) -> Result<()> {
        let listed = self.listed()?;
        ensure!(
            listed.contains(NAME) && listed.contains("running"),
            "{listed}"
        );
        ensure!(
            self.daemon.workers().len() == 1,
            "{:?}",
            self.daemon.workers()
        );
        let mut console = self.console()?;
        console.send(b"\necho well''come\n")?;
        console.expect("wellcome", SHELL)?;
        Ok(())
    }

    /// Asks it to shut down, and waits until it has.
    pub(super) fn shut_down(&self) -> Result<()> {
        self.daemon.reeve(&["shutdown", "--wait", NAME])?;
        let details = self.details()?;
        ensure!(
            details.summary.state == DomainState::ShutOff(ShutOffReason::Shutdown),
            "{details:?}"
        );
        self.expect_at_rest()
    }

    fn expect_at_rest(&self) -> Result<()> {
        wait_until_off(&mut self.daemon.connect()?, NAME)?;
        assert_at_rest(&self.daemon);
        Ok(())
    }
}

pub(super) fn expect_up(console: &mut Reeve) -> Result<()> {
    console.expect(UP_MARKER, BOOT)?;
    console.expect(PROMPT, SHELL)?;
    Ok(())
}

#[reeve_tests::in_lab(timeout = "400s", root)]
fn linux_is_defined_started_and_shut_down_by_daemons_that_die_meanwhile() -> Result<()> {
    let before = Snapshot::take();
    let mut host = Host::new("")?;
    let file = host.file.clone();
    for moment in MOMENTS_MS {
        let acknowledged =
            host.kill_during(&["define", "--file", &file], Duration::from_millis(moment))?;
        let defined = host.listed()?.contains(NAME);
        ensure!(
            defined || !acknowledged,
            "a definition is lost ({moment} ms)"
        );
        if defined {
            host.daemon.reeve(&["undefine", NAME])?;
        }
    }
    host.define()?;
    for moment in MOMENTS_MS {
        let acknowledged = host.kill_during(&["start", NAME], Duration::from_millis(moment))?;
        let workers = host.daemon.workers();
        if host.details()?.summary.state.is_active() {
            ensure!(workers.len() == 1, "{workers:?} ({moment} ms)");
            host.daemon.reeve(&["destroy", NAME])?;
        } else {
            ensure!(!acknowledged, "a running domain is lost ({moment} ms)");
        }
        host.expect_at_rest()?;
    }
    host.daemon.reeve(&["start", NAME])?;
    // And once more while Linux boots.
    std::thread::sleep(Duration::from_secs(1));
    host.daemon.crash()?;
    let mut console = host.console()?;
    expect_up(&mut console)?;
    ensure!(console.shell("hostname", SHELL)?.trim() == "guest");
    host.daemon.crash()?;
    ensure!(
        console.shell("nproc", SHELL)?.trim() == "1",
        "the same console"
    );
    host.expect_well()?;

    // It powers off while nobody is there to hear of it.
    host.daemon.reeve(&["shutdown", NAME])?;
    host.daemon.kill()?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    console.listen(Duration::from_secs(2))?;
    host.daemon.spawn()?;
    wait_until_off(&mut host.daemon.connect()?, NAME)?;
    let details = host.details()?;
    ensure!(
        details.summary.state == DomainState::ShutOff(ShutOffReason::Shutdown),
        "{details:?}"
    );
    host.expect_at_rest()?;

    // Nothing is in the way of its next life.
    drop(console);
    drop(host.boot()?);
    host.expect_well()?;
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}

#[reeve_tests::in_lab(timeout = "300s", root)]
fn linux_is_rebooted_by_daemons_that_die_meanwhile() -> Result<()> {
    let before = Snapshot::take();
    let mut host = Host::new("")?;
    let mut console = host.boot()?;

    // Dead while the guest shuts down and until it has.
    host.daemon.reeve(&["reboot", NAME])?;
    host.daemon.kill()?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    console.listen(Duration::from_secs(2))?;
    host.daemon.spawn()?;
    expect_up(&mut console)?;
    host.expect_well()?;

    // Back before the guest has ended.
    host.daemon.reeve(&["reboot", NAME])?;
    host.daemon.crash()?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    expect_up(&mut console)?;
    host.daemon.crash()?;
    host.expect_well()?;
    ensure!(host.details()?.resets == 2, "{:?}", host.details()?);

    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}

#[reeve_tests::in_lab(timeout = "300s", root)]
fn linux_is_power_cycled_by_its_policy_under_daemons_that_die_meanwhile() -> Result<()> {
    let before = Snapshot::take();
    let mut host = Host::new("on-poweroff = \"restart\"\non-reboot = \"restart\"\n")?;
    let mut console = host.boot()?;

    // By its own reboot, with nobody there.
    host.daemon.kill()?;
    console.send(b"reboot -f\n")?;
    console.listen(Duration::from_secs(1))?;
    host.daemon.spawn()?;
    expect_up(&mut console)?;
    host.expect_well()?;

    // By its own power-off, with nobody there.
    host.daemon.kill()?;
    console.send(b"poweroff -f\n")?;
    console.listen(Duration::from_secs(2))?;
    host.daemon.spawn()?;
    expect_up(&mut console)?;
    host.expect_well()?;

    // By a shutdown, the daemon dying as the guest ends; as in libvirt, the policy holds for it too.
    host.daemon.reeve(&["shutdown", NAME])?;
    console.expect(POWER_BUTTON_MARKER, SHELL)?;
    host.daemon.crash()?;
    expect_up(&mut console)?;
    host.expect_well()?;

    drop(console);
    host.daemon.reeve(&["destroy", NAME])?;
    wait_for(&mut host.daemon.connect()?, &named(NAME), |details| {
        details.is_some_and(|details| {
            details.summary.state == DomainState::ShutOff(ShutOffReason::Destroyed)
        })
    })?;
    host.expect_at_rest()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}
