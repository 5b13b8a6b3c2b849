//! Stock Linux under `reeve run`, in the lab: booted both ways with one and with four vCPUs, spoken
//! to, paused, resumed, shut down, reset and destroyed. With `REEVE_SOAK=1` every pause is 30 s.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use reeve_tests::control::{Control, Place};
use reeve_tests::lab::{
    assets, assets::COMMAND_LINE, assets::POWER_BUTTON_MARKER, assets::UP_MARKER,
};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;
use reeve_tests::soaking;

/// A boot takes 5 s to 15 s; the rest is for a machine under heavy load.
const BOOT: Duration = Duration::from_secs(100);
const SHELL: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
/// The soft-lockup watchdog looks every 4 s.
const WATCHDOG: Duration = Duration::from_secs(5);
/// How far a guest's wall clock may be from the host's.
const CLOCK_SECONDS: f64 = 1.0;
const MEMORY_MIB: u64 = 256;

/// A Linux guest that is up.
struct Guest {
    reeve: Reeve,
    control: Control,
    _place: Place,
}

impl Guest {
    fn boot(kernel: &Path, vcpus: u32) -> Result<Guest> {
        let mut guest = Guest::start(kernel, vcpus)?;
        guest.expect_up(vcpus)?;
        Ok(guest)
    }

    fn start(kernel: &Path, vcpus: u32) -> Result<Guest> {
        let place = Place::new()?;
        // The lab's line makes a reboot a triple fault, which is a crash; here Linux chooses.
        let reeve = Reeve::run()?
            .kernel(kernel)
            .initrd(&assets().initramfs)
            .cmdline(&COMMAND_LINE.replace("reboot=t ", ""))
            .cpus(vcpus)
            .memory(&format!("{MEMORY_MIB}M"))
            .control(&place)
            .spawn()?;
        Ok(Guest {
            reeve,
            control: place.connect(SOON)?,
            _place: place,
        })
    }

    /// Waits for userspace, and for the shell's first prompt after it.
    fn expect_up(&mut self, vcpus: u32) -> Result<()> {
        self.reeve.expect(UP_MARKER, BOOT)?;
        let facts = self.reeve.line(SOON)?;
        let mut words = facts.split_whitespace();
        ensure!(words.next() == Some(&vcpus.to_string()), "{facts}");
        let kib: u64 = words.next().context("MemTotal")?.parse()?;
        // The kernel keeps a share for itself.
        ensure!(
            (MEMORY_MIB * 3 / 4..=MEMORY_MIB).contains(&(kib >> 10)),
            "{kib} KiB of {MEMORY_MIB} MiB"
        );
        self.reeve.expect(reeve_tests::lab::assets::PROMPT, SHELL)?;
        Ok(())
    }

    fn shell(&mut self, line: &str) -> Result<String> {
        let printed = self.reeve.shell(line, SHELL)?;
        Ok(printed.trim().to_owned())
    }

    fn assert_clock_is_the_hosts(&mut self) -> Result<()> {
        let host = || -> Result<f64> {
            Ok(SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)?
                .as_secs_f64())
        };
        let before = host()?;
        let guest: f64 = self.shell("now")?.parse()?;
        let after = host()?;
        ensure!(
            (before - CLOCK_SECONDS..after + CLOCK_SECONDS).contains(&guest),
            "the guest's clock says {guest}, the host's {before} to {after}"
        );
        Ok(())
    }

    fn assert_no_complaint(&mut self) -> Result<()> {
        let log = self.shell("dmesg")?;
        let log = format!("{log}\n--- console\n{}", self.reeve.output()).to_lowercase();
        for word in [
            "lockup",
            "stall",
            "hung",
            "unstable",
            "call trace",
            "watchdog",
        ] {
            ensure!(!log.contains(word), "{word}:\n{log}");
        }
        Ok(())
    }
}

fn lives_through_a_pause(kernel: &Path, vcpus: u32, pause: Duration) -> Result<()> {
    let pause = if soaking() {
        Duration::from_secs(30)
    } else {
        pause
    };
    let before = Snapshot::take();
    let mut guest = Guest::boot(kernel, vcpus)?;
    ensure!(guest.shell("nproc")? == vcpus.to_string(), "nproc");
    ensure!(guest.shell("hostname")? == "guest", "hostname");
    let memory = guest.shell("grep MemTotal: /proc/meminfo")?;
    ensure!(memory.starts_with("MemTotal:"), "{memory}");
    guest.assert_clock_is_the_hosts()?;
    guest.shell("dmesg -c >/dev/null")?;

    guest.control.order("pause")?;
    ensure!(guest.control.phase()? == "paused", "not paused");
    // What is typed meanwhile is answered afterwards, and not before. First what is on its way comes.
    guest.reeve.listen(Duration::from_secs(1))?;
    guest.reeve.send(b"echo an''swer\n")?;
    let printed = guest.reeve.output().len();
    guest.reeve.listen(pause)?;
    ensure!(
        guest.reeve.output().len() == printed,
        "a paused guest prints"
    );
    guest.control.order("resume")?;
    guest.reeve.expect("answer", SHELL)?;
    guest
        .reeve
        .expect(reeve_tests::lab::assets::PROMPT, SHELL)?;
    guest.assert_clock_is_the_hosts()?;
    guest.reeve.listen(WATCHDOG)?;
    guest.assert_no_complaint()?;
    guest.assert_clock_is_the_hosts()?;

    guest.control.order("power-button")?;
    guest.reeve.expect(POWER_BUTTON_MARKER, SHELL)?;
    let status = guest.reeve.wait(SHELL)?;
    ensure!(status.code() == Some(0), "{status}");
    let said = guest.reeve.errors();
    ensure!(said.contains("the guest powered off"), "{said}");
    drop(guest);
    before.assert_nothing_new(SOON);
    Ok(())
}

const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);

#[reeve_tests::in_lab(timeout = "300s", root)]
fn elf_with_one_vcpu_is_paused_resumed_and_shut_down() -> Result<()> {
    lives_through_a_pause(&assets().vmlinux, 1, SHORT)
}

#[reeve_tests::in_lab(timeout = "300s", root)]
fn elf_with_four_vcpus_is_paused_for_30_s_resumed_and_shut_down() -> Result<()> {
    lives_through_a_pause(&assets().vmlinux, 4, LONG)
}

#[reeve_tests::in_lab(timeout = "300s", root)]
fn bzimage_with_one_vcpu_is_paused_resumed_and_shut_down() -> Result<()> {
    lives_through_a_pause(&assets().bzimage, 1, SHORT)
}

#[reeve_tests::in_lab(timeout = "300s", root)]
fn bzimage_with_four_vcpus_is_paused_resumed_and_shut_down() -> Result<()> {
    lives_through_a_pause(&assets().bzimage, 4, SHORT)
}

/// By the guest itself, then from outside; the third boot is destroyed.
#[reeve_tests::in_lab(timeout = "300s", root)]
fn a_reset_boots_again_and_a_destroy_is_at_once() -> Result<()> {
    let before = Snapshot::take();
    let mut guest = Guest::boot(&assets().vmlinux, 1)?;
    guest.reeve.send(b"reboot -f\n")?;
    guest.expect_up(1)?;
    ensure!(guest.control.number("resets")? == 1, "resets");
    guest.assert_clock_is_the_hosts()?;

    guest.control.order("reset")?;
    guest.expect_up(1)?;
    ensure!(guest.control.number("resets")? == 2, "resets");
    ensure!(guest.shell("nproc")? == "1", "nproc");

    destroy(guest)?;
    before.assert_nothing_new(SOON);
    Ok(())
}

#[reeve_tests::in_lab(timeout = "200s", root)]
fn four_vcpus_are_destroyed_while_they_boot() -> Result<()> {
    let before = Snapshot::take();
    let mut guest = Guest::start(&assets().bzimage, 4)?;
    guest.reeve.listen(Duration::from_secs(3))?;
    destroy(guest)?;
    before.assert_nothing_new(SOON);
    Ok(())
}

fn destroy(mut guest: Guest) -> Result<()> {
    let worker = guest.control.worker()?;
    guest.control.order("destroy")?;
    let status = guest.reeve.wait(Duration::from_secs(3))?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(
        !Path::new(&format!("/proc/{worker}")).exists(),
        "the worker is still there"
    );
    let said = guest.reeve.errors();
    ensure!(said.contains("destroyed"), "{said}");
    Ok(())
}
