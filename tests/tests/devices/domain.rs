//! A domain of the daemon: the small guest, with Debian's disk mounted below `/mnt` as its tools. What
//! busybox has too is called there by its path: it would run its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::Daemon;
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, POWER_BUTTON_MARKER, PROMPT, UP_MARKER, drivers};
use reeve_tests::reeve::Reeve;
use serde_json::Value;

use super::guest::{BOOT, SHELL, shell};

/// The domain's name.
pub const NAME: &str = "lab";

/// How many threads more the runtime may have at one moment than at another.
const POOL: i32 = 4;

/// Prints what a guest has, and warnings and worse of its kernel.
const STANDS: &str = "ls /sys/bus/pci/devices /sys/block /sys/class/net; \
    chroot /mnt /bin/dmesg --notime --level=warn,err,crit,alert,emerg | grep -vE 'Long readout interval|hrtimer: interrupt took'";

/// A domain that has been started, and who talks to it.
pub struct Domain {
    pub daemon: Daemon,
    console: Reeve,
    files: tempfile::TempDir,
}

impl Domain {
    /// Defines and starts it, with these drivers and these options of `reeve define` beside the tools'
    /// disk, which is `vda`. What `options` is given is the directory for what devices need.
    pub fn start(
        names: &[&str],
        memory: &str,
        options: impl FnOnce(&Path) -> Result<Vec<String>>,
    ) -> Result<Domain> {
        let files = tempfile::tempdir()?;
        let mut daemon = Daemon::prepare()?;
        let config = files.path().join("reeve.toml");
        let allowed = files.path().join("files");
        fs::create_dir(&allowed)?;
        let lab = assets().vmlinux.parent().context("a directory")?;
        let text = format!("allowed_directories = [{lab:?}, {allowed:?}]\n");
        fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        daemon.spawn()?;
        let words = format!("{COMMAND_LINE} {}", drivers(names));
        let (kernel, initrd) = (assets().vmlinux.display(), assets().initramfs.display());
        let tools = assets().disk.display();
        let mut define: Vec<String> = [
            "define",
            NAME,
            "--memory",
            memory,
            "--cmdline",
            &words,
            "--kernel",
            &kernel.to_string(),
            "--initrd",
            &initrd.to_string(),
            "--disk",
            &format!("{tools},format=raw,ro"),
        ]
        .map(str::to_owned)
        .into();
        define.extend(options(&allowed)?);
        daemon.reeve(&define.iter().map(String::as_str).collect::<Vec<_>>())?;
        daemon.reeve(&["start", NAME])?;
        let console = Reeve::command()?
            .arg("--socket")
            .arg(daemon.socket())
            .arg("console")
            .arg(NAME)
            .spawn()?;
        Ok(Domain {
            daemon,
            console,
            files,
        })
    }

    /// Waits for its shell, and mounts the tools.
    pub fn wait_until_up(&mut self) -> Result<()> {
        self.console.expect(UP_MARKER, BOOT)?;
        self.console.expect(PROMPT, SHELL)?;
        self.guest("mkdir /mnt && mount -t ext4 -o ro,noload /dev/vda /mnt")?;
        self.guest("for d in dev proc sys tmp; do mount -o bind /$d /mnt/$d; done")?;
        Ok(())
    }

    /// What a command prints in the guest; an error if it fails.
    pub fn guest(&mut self, line: &str) -> Result<String> {
        shell(&mut self.console, line)
    }

    /// Waits until a command succeeds in the guest.
    pub fn guest_until(&mut self, line: &str) -> Result<()> {
        let tries = "n=0; until";
        let next = "n=$((n+1)); [ $n -lt 300 ] || break; usleep 100000";
        self.guest(&format!(
            "{tries} {line} 2>/dev/null; do {next}; done; {line}"
        ))?;
        Ok(())
    }

    /// Runs `reeve` for it: a command, its name, and what is said of it.
    pub fn reeve(&self, command: &str, arguments: &[&str]) -> Result<String> {
        self.daemon.reeve(&[&[command, NAME], arguments].concat())
    }

    /// What `reeve stats` says of a device: its address on the bus, its figures.
    pub fn stats(&self, device: &str) -> Result<Value> {
        let stats = self.reeve("stats", &["--json"])?;
        let stats: Vec<Value> = serde_json::from_str(&stats)?;
        let mut stats = stats.into_iter();
        let found = stats.find(|one| one.get("device").is_some_and(|name| name == device));
        found.with_context(|| format!("no {device}"))
    }

    /// A path for what a device needs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join("files").join(name)
    }

    /// The worker's process.
    pub fn worker(&self) -> Result<u32> {
        let workers = self.daemon.workers();
        ensure!(workers.len() == 1, "{workers:?}");
        workers.first().copied().context("a worker")
    }

    /// Has the guest note what it has and what its kernel has complained of, for
    /// [`expect_unchanged`](Self::expect_unchanged): all of it on the console would take a minute.
    pub fn note(&mut self) -> Result<()> {
        self.guest(&format!("({STANDS}) >/tmp/noted"))?;
        Ok(())
    }

    /// The guest has what it noted, no more and no less, and its kernel complains of nothing new.
    pub fn expect_unchanged(&mut self) -> Result<()> {
        self.guest(&format!("({STANDS}) | diff /tmp/noted -"))?;
        Ok(())
    }

    /// Shuts it down as `reeve shutdown` does.
    pub fn shut_down(mut self) -> Result<()> {
        self.daemon.reeve(&["shutdown", "--wait", NAME])?;
        self.console.expect(POWER_BUTTON_MARKER, SHELL)?;
        let listed = self.daemon.reeve(&["list", "--all"])?;
        ensure!(listed.contains("shut off"), "{listed}");
        ensure!(self.daemon.workers().is_empty(), "a worker is left");
        Ok(())
    }
}

/// What a process holds: its threads by their names, its descriptors by what they are, and of each how
/// many.
#[derive(Debug, PartialEq, Eq)]
pub struct Held(BTreeMap<String, i32>);

impl Held {
    /// Looks now.
    pub fn by(pid: u32) -> Result<Held> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(process.join("fd"))? {
            let is = fs::read_link(entry?.path())?.display().to_string();
            // Each socket and pipe has a number of its own.
            let kind = is.split(":[").next().unwrap_or_default();
            *held.entry(format!("descriptor {kind}")).or_default() += 1;
        }
        for entry in fs::read_dir(process.join("task"))? {
            let name = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
            // The kernel's own for a ring, which come and go with what is asked of it.
            if !name.is_empty() && !name.starts_with("iou-wrk") {
                *held.entry(format!("thread {}", name.trim())).or_default() += 1;
            }
        }
        Ok(Held(held))
    }

    /// What there is more of, or less, than before. The runtime's threads for calls that block come when
    /// several block at a time and go when none has for a while: only many of them are a change.
    pub fn since(&self, before: &Held) -> BTreeMap<String, i32> {
        let mut change = self.0.clone();
        for (what, count) in &before.0 {
            *change.entry(what.clone()).or_default() -= count;
        }
        change.retain(|what, count| match what.as_str() {
            "thread tokio-rt-worker" => *count > POOL,
            _ => *count != 0,
        });
        change
    }
}

/// A file system on a raw disk, as e2fsck finds it, and the sum of one file.
pub fn sum_on(disk: &Path, file: &str, copy: &Path) -> Result<String> {
    let disk = disk.display().to_string();
    reeve_tests::tool::tool("e2fsck", ["-fn", &disk])?;
    let dump = format!("dump {file} {}", copy.display());
    reeve_tests::tool::output(Command::new(assets().tool("debugfs")).args(["-R", &dump, &disk]))?;
    reeve_tests::tool::md5(copy)
}
