//! What a boot of stock Linux takes over virtio-pci and over virtio-mmio: the same machine of QEMU
//! (microvm, whose firmware and tables are the same for both) with the same devices on either transport,
//! and ours beside. A measurement, which asserts no more than that the guest comes up.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, UP_MARKER, drivers};
use reeve_tests::reeve::{Builder, Reeve};

use super::guest::BOOT;

/// How often each is booted.
const ROUNDS: usize = 20;
/// What is on the bus, and drivers for both buses.
const DRIVERS: [&str; 4] = ["virtio_mmio", "virtio_blk", "virtio_rng", "virtio_balloon"];

type Boot = fn() -> Result<Builder>;

/// Each boots in turn, so that what else the machine does hits all alike.
#[reeve_tests::in_lab(timeout = "3600s", root)]
#[ignore = "a measurement: `tools/soak` runs it with release binaries"]
fn linux_boots_over_pci_and_over_mmio() -> Result<()> {
    let contenders: [(&str, Boot); 3] = [
        ("Reeve, PCI", ours),
        ("QEMU microvm, PCI", || theirs("on", "pci")),
        ("QEMU microvm, MMIO", || theirs("off", "device")),
    ];
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((_, boot), took) in contenders.iter().zip(&mut took) {
            let begin = Instant::now();
            let mut console = boot()?.spawn()?;
            console.expect(UP_MARKER, BOOT)?;
            took.push(begin.elapsed().as_secs_f64());
        }
    }
    for ((name, _), took) in contenders.iter().zip(&mut took) {
        took.sort_by(f64::total_cmp);
        println!("{name}: {took:.2?} s");
    }
    Ok(())
}

fn command_line() -> String {
    format!("{COMMAND_LINE} {}", drivers(&DRIVERS))
}

fn ours() -> Result<Builder> {
    Ok(Reeve::run()?
        .kernel(&assets().vmlinux)
        .initrd(&assets().initramfs)
        .cmdline(&command_line())
        .memory("256M")
        .arg("--disk")
        .arg(format!("{},format=raw,ro", assets().disk.display()))
        .arg("--balloon"))
}

fn theirs(pcie: &str, transport: &str) -> Result<Builder> {
    let mut command = Command::new(assets().tool("qemu-system-x86_64"));
    let disk = assets().disk.display();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-machine")
        .arg(format!(
            "microvm,accel=kvm,pcie={pcie},rtc=on,auto-kernel-cmdline=off"
        ))
        .args(["-cpu", "host", "-m", "256M", "-serial", "stdio"])
        .arg("-L")
        .arg(assets().tools.join("../share/qemu"))
        .arg("-kernel")
        .arg(&assets().vmlinux)
        .arg("-initrd")
        .arg(&assets().initramfs)
        .args(["-append", &command_line()])
        .arg("-drive")
        .arg(format!(
            "if=none,id=disk,format=raw,readonly=on,file={disk}"
        ))
        .args(["-device", &format!("virtio-blk-{transport},drive=disk")])
        .args(["-device", &format!("virtio-rng-{transport}")])
        .args(["-device", &format!("virtio-balloon-{transport}")]);
    Ok(Builder::new(command))
}
