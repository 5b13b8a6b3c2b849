//! How fast a guest fetches a file over a bridge, beside QEMU with the same guest on the same bridge: a
//! measurement, which asserts no more than that the file comes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, PROMPT, UP_MARKER, drivers};
use reeve_tests::network::{Network, SERVER};
use reeve_tests::reeve::{Builder, Reeve};
use reeve_tests::tool::tool;

use super::guest::{BOOT, SHELL, shell};

/// How much is fetched, and how often.
const BYTES: u32 = 64 << 20;
const ROUNDS: usize = 5;
/// How long that may take.
const FETCH: Duration = Duration::from_secs(600);

/// A guest with one interface.
struct Contender {
    name: &'static str,
    console: Reeve,
    took: Vec<f64>,
}

/// Each fetches in turn, so that what else the machine does hits all alike.
#[reeve_tests::in_lab(timeout = "3600s", root)]
#[ignore = "a measurement: `tools/soak` runs it with release binaries"]
fn a_file_is_fetched_beside_qemu() -> Result<()> {
    let network = Network::new()?;
    network.file("file", BYTES)?;
    let bridge = network.bridge();
    let mut contenders = vec![
        Contender::boot("Reeve", ours(bridge)?)?,
        Contender::boot("QEMU", theirs(bridge, 2, "off")?)?,
    ];
    // A module of the host's kernel.
    let _ = Command::new("modprobe").arg("vhost_net").status();
    if Path::new("/dev/vhost-net").exists() {
        contenders.push(Contender::boot("QEMU, vhost", theirs(bridge, 3, "on")?)?);
    }
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            contender.fetch()?;
        }
    }
    let ours = contenders.first().context("Reeve")?.median();
    for contender in &contenders {
        let seconds = contender.median();
        println!(
            "{}: {:.1} MiB/s, {:.2} of Reeve's ({:.2?} s)",
            contender.name,
            f64::from(BYTES >> 20) / seconds,
            ours / seconds,
            contender.took,
        );
    }
    Ok(())
}

impl Contender {
    fn boot(name: &'static str, builder: Builder) -> Result<Contender> {
        let mut console = builder.spawn()?;
        console.expect(UP_MARKER, BOOT)?;
        console.expect(PROMPT, SHELL)?;
        shell(
            &mut console,
            "ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1",
        )?;
        Ok(Contender {
            name,
            console,
            took: Vec::new(),
        })
    }

    fn fetch(&mut self) -> Result<()> {
        let begin = Instant::now();
        let line = format!("wget -q -O /dev/null http://{SERVER}/file; echo status $?");
        let printed = self.console.shell(&line, FETCH)?;
        ensure!(printed.contains("status 0"), "{}: {printed}", self.name);
        self.took.push(begin.elapsed().as_secs_f64());
        Ok(())
    }

    fn median(&self) -> f64 {
        let mut took = self.took.clone();
        took.sort_by(f64::total_cmp);
        took.get(took.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn command_line() -> String {
    format!("{COMMAND_LINE} {}", drivers(&["virtio_net"]))
}

fn ours(bridge: &str) -> Result<Builder> {
    Ok(Reeve::run()?
        .kernel(&assets().vmlinux)
        .initrd(&assets().initramfs)
        .cmdline(&command_line())
        .memory("256M")
        .arg("--net")
        .arg(format!("bridge={bridge},mac=52:54:00:0a:0b:01")))
}

/// The same guest in QEMU, with a tap that is made for it.
fn theirs(bridge: &str, number: u8, vhost: &str) -> Result<Builder> {
    let tap = &format!("rtap{number}");
    tool("ip", ["tuntap", "add", tap, "mode", "tap", "vnet_hdr"])?;
    tool("ip", ["link", "set", tap, "master", bridge, "up"])?;
    let mut command = Command::new(assets().tool("qemu-system-x86_64"));
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "q35", "-accel", "kvm", "-cpu", "host"])
        .args(["-m", "256M", "-serial", "stdio"])
        .arg("-L")
        .arg(assets().tools.join("../share/qemu"))
        .arg("-kernel")
        .arg(&assets().vmlinux)
        .arg("-initrd")
        .arg(&assets().initramfs)
        .args(["-append", &command_line()])
        .arg("-netdev")
        .arg(format!(
            "tap,id=net,ifname={tap},script=no,downscript=no,vhost={vhost}"
        ))
        .arg("-device")
        .arg(format!(
            "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:0a:0b:{number:02x}"
        ));
    Ok(Builder::new(command))
}
