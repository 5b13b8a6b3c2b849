//! A stock Linux guest with devices: the small one out of the initramfs, or Debian on a disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_tests::control::{Control, Place};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER, PROMPT, UP_MARKER, drivers};
use reeve_tests::reeve::{Builder, Reeve};

/// What takes seconds on an idle machine; the rest is for one under heavy load.
pub const BOOT: Duration = Duration::from_secs(150);
pub const SHELL: Duration = Duration::from_secs(60);
pub const SOON: Duration = Duration::from_secs(20);

/// A guest that is up, with its shell waiting.
pub struct Guest {
    pub reeve: Reeve,
    pub control: Control,
    _place: Place,
}

impl Guest {
    /// The small guest, with these drivers and the devices that `devices` adds.
    pub fn small(names: &[&str], devices: impl FnOnce(Builder) -> Builder) -> Result<Guest> {
        Guest::boot(&drivers(names), "256M", devices)
    }

    /// Debian, from the first disk that `devices` adds.
    pub fn debian(devices: impl FnOnce(Builder) -> Builder) -> Result<Guest> {
        Guest::boot("root=/dev/vda rw", "512M", devices)
    }

    fn boot(words: &str, memory: &str, devices: impl FnOnce(Builder) -> Builder) -> Result<Guest> {
        let place = Place::new()?;
        let builder = Reeve::run()?
            .kernel(&assets().vmlinux)
            .initrd(&assets().initramfs)
            .cmdline(&format!("{COMMAND_LINE} {words}"))
            .memory(memory)
            .control(&place);
        let mut guest = Guest {
            reeve: devices(builder).spawn()?,
            control: place.connect(SOON)?,
            _place: place,
        };
        guest.reeve.expect(UP_MARKER, BOOT)?;
        guest.reeve.expect(PROMPT, SHELL)?;
        Ok(guest)
    }

    /// What a command prints; an error if it fails.
    pub fn run(&mut self, line: &str) -> Result<String> {
        shell(&mut self.reeve, line)
    }

    /// Resets the machine, and waits until it is up again.
    pub fn reset(&mut self) -> Result<()> {
        self.control.order("reset")?;
        self.reeve.expect(UP_MARKER, BOOT)?;
        self.reeve.expect(PROMPT, SHELL)?;
        Ok(())
    }

    /// Presses the power button, and waits for the end.
    pub fn shut_down(mut self) -> Result<()> {
        self.control.order("power-button")?;
        self.reeve.expect(POWER_BUTTON_MARKER, SHELL)?;
        let status = self.reeve.wait(SHELL)?;
        ensure!(
            status.code() == Some(0),
            "{status}: {}",
            self.reeve.errors()
        );
        let said = self.reeve.errors();
        ensure!(said.contains("the guest powered off"), "{said}");
        Ok(())
    }
}

/// What a command prints in the shell of a guest on whose console `reeve` is; an error if it fails.
pub fn shell(reeve: &mut Reeve, line: &str) -> Result<String> {
    let printed = reeve.shell(&format!("{line}; echo \"status $?\""), SHELL)?;
    let (printed, status) = printed
        .trim_end()
        .rsplit_once("status ")
        .with_context(|| format!("{line}: {printed}"))?;
    ensure!(status == "0", "{line}: status {status}: {printed}");
    Ok(printed.trim().to_owned())
}
