//! Stock Linux and the devices of the platform, in the lab: its drivers find them, its watchdog resets it,
//! and its panic is a crash. Debian's kernel for machines of any kind, which has all the drivers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::view::{DomainState, ShutOffReason};
use reeve_tests::daemon::{named, wait_for};
use reeve_tests::lab::assets;
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

use super::linux::{Host, NAME, expect_up};

const SHELL: Duration = Duration::from_secs(30);

fn shell(console: &mut Reeve, line: &str) -> Result<String> {
    Ok(console.shell(line, SHELL)?.trim().to_owned())
}

/// What is in a file of the guest's, without its line's end.
fn file(console: &mut Reeve, path: &str) -> Result<String> {
    shell(console, &format!("cat {path}"))
}

/// The watchdog's driver, with this heartbeat in seconds.
fn load_watchdog(console: &mut Reeve, heartbeat: u32) -> Result<()> {
    shell(console, "insmod /lab/modules/watchdog.ko")?;
    let module = "/lab/modules/i6300esb.ko";
    shell(console, &format!("insmod {module} heartbeat={heartbeat}"))?;
    Ok(())
}

#[reeve_tests::in_lab(timeout = "400s", root)]
fn linux_drives_the_devices_of_the_platform_and_its_panic_is_a_crash() -> Result<()> {
    let before = Snapshot::take();
    let host = Host::of(&assets().full_vmlinux, &assets().full_initramfs, "", |_| {
        Ok("on-crash = \"preserve\"\npanic-port = true\n[watchdog]\naction = \"reset\"\naddress = 9\n".to_owned())
    })?;
    let mut console = host.boot()?;

    let ids = file(&mut console, "/sys/bus/acpi/devices/REEV0001:00/modalias")?;
    ensure!(ids == "acpi:REEV0001:VM_GEN_COUNTER:VMGENCTR:", "{ids}");
    let bound = shell(&mut console, "ls -d /sys/bus/acpi/drivers/vmgenid/REEV*")?;
    ensure!(bound.ends_with("/REEV0001:00"), "{bound}");

    shell(
        &mut console,
        "for module in $(cat /lab/drivers/pvpanic_mmio); do insmod /lab/modules/$module; done",
    )?;
    let port = "/sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00";
    let capability = file(&mut console, &format!("{port}/capability"))?;
    // Those of ours that this driver knows: Linux 6.1 has no use for a shutdown.
    let known = capability.trim_start_matches("0x");
    ensure!(known == "3" || known == "7", "{capability}");

    load_watchdog(&mut console, 4)?;
    let identity = file(&mut console, "/sys/class/watchdog/watchdog0/identity")?;
    ensure!(identity == "i6300ESB timer", "{identity}");
    let status = file(&mut console, "/sys/class/watchdog/watchdog0/bootstatus")?;
    ensure!(status == "0", "{status}");
    let complaints = shell(&mut console, "dmesg | grep -ci 'acpi.*error'; true")?;
    ensure!(complaints == "0", "{complaints} complaints of ACPI's");

    // Opened, and then left alone.
    console.send(b"echo > /dev/watchdog\n")?;
    expect_up(&mut console)?;
    ensure!(host.details()?.resets == 1, "{:?}", host.details()?);
    load_watchdog(&mut console, 60)?;
    let status = file(&mut console, "/sys/class/watchdog/watchdog0/bootstatus")?;
    ensure!(status == "32", "WDIOF_CARDRESET, not {status}");

    shell(
        &mut console,
        "for module in $(cat /lab/drivers/pvpanic_mmio); do insmod /lab/modules/$module; done",
    )?;
    let mut connection = host.daemon.connect()?;
    console.send(b"echo c > /proc/sysrq-trigger\n")?;
    wait_for(&mut connection, &named(NAME), |details| {
        details.is_some_and(|details| details.summary.state == DomainState::Panicked)
    })?;
    let failure = host.details()?.last_failure.context("a reason")?;
    ensure!(failure.contains("its kernel panicked"), "{failure}");
    let listed = host.daemon.reeve(&["list"])?;
    ensure!(listed.contains("crashed"), "{listed}");

    // It is kept by its policy, until somebody does something about it.
    drop(console);
    host.daemon.reeve(&["destroy", NAME])?;
    wait_for(&mut connection, &named(NAME), |details| {
        details.is_some_and(|details| {
            details.summary.state == DomainState::ShutOff(ShutOffReason::Destroyed)
        })
    })?;
    drop(connection);
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}
