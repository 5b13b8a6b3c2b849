//! Stock Linux under load is taken over by one fresh worker after the other, in the lab: what it reads from
//! its disk, its memory and its network is what was there, its connections stay, and its kernel has nothing
//! to say about it.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_ipc::model::{BootSource, Disk, KernelBoot, Layer, MemorySize, Nic, NicSource, Vcpus};
use reeve_ipc::spec::DiskFormat;
use reeve_tests::daemon::{Daemon, built_in};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, PROMPT, UP_MARKER, drivers};
use reeve_tests::network::{Network, SERVER};
use reeve_tests::reeve::Reeve;

use super::{assert_at_rest, define, start, wait_until_off};

const BOOT: Duration = Duration::from_secs(150);
const SHELL: Duration = Duration::from_secs(60);
const NAME: &str = "linux";
/// A file that no test reads to its end.
const ENDLESS: u64 = 64 << 30;

/// What runs in the guest meanwhile: each loop compares what it reads with what must be there, says so where
/// it differs, and counts its rounds.
const LOAD: &str = r#"
dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null
dd if=/dev/urandom of=/tmp/b bs=64k count=64 2>/dev/null
sum=$(md5sum </tmp/b)
(
    i=0
    while :; do
        at=$((i % 8 * 16))
        dd if=/tmp/a of=/dev/vda bs=64k seek=$at conv=fsync 2>/dev/null
        echo 3 >/proc/sys/vm/drop_caches
        dd if=/dev/vda bs=64k skip=$at count=16 2>/dev/null | cmp - /tmp/a || echo disk >>/tmp/bad
        i=$((i + 1))
        echo $i >/tmp/disk
    done
) &
(
    i=0
    while :; do
        [ "$(md5sum </tmp/b)" = "$sum" ] || echo memory >>/tmp/bad
        i=$((i + 1))
        echo $i >/tmp/memory
    done
) &
(
    i=0
    while :; do
        [ "$(wget -qO- http://SERVER/file | md5sum)" = "FILE  -" ] || echo net >>/tmp/bad
        i=$((i + 1))
        echo $i >/tmp/net
    done
) &
(
    wget -qO /dev/null http://SERVER/endless
    echo connection >>/tmp/bad
) &
"#;

struct Guest {
    console: Reeve,
}

impl Guest {
    fn run(&mut self, line: &str) -> Result<String> {
        Ok(self.console.shell(line, SHELL)?.trim().to_owned())
    }

    /// The rounds of each loop: disk, memory, network.
    fn rounds(&mut self) -> Result<Vec<u64>> {
        let said = self.run("cat /tmp/disk /tmp/memory /tmp/net 2>/dev/null | tr '\\n' ' '")?;
        let rounds = said.split_whitespace().map(str::parse);
        rounds
            .collect::<Result<Vec<u64>, _>>()
            .with_context(|| said.clone())
    }

    /// Waits until every loop has gone round.
    fn go_round(&mut self, before: &[u64]) -> Result<Vec<u64>> {
        for _ in 0..300 {
            let now = self.rounds()?;
            if now.len() == 3 && now.iter().zip(before).all(|(now, before)| now > before) {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        anyhow::bail!("a loop stands still: {before:?}, {:?}", self.rounds()?)
    }

    fn received(&mut self) -> Result<u64> {
        let said = self.run("cat /sys/class/net/eth0/statistics/rx_bytes")?;
        Ok(said.parse()?)
    }
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn linux_under_load_is_taken_over_by_one_worker_after_the_other() -> Result<()> {
    let times = if reeve_tests::soaking() { 20 } else { 4 };
    let network = Network::new()?;
    let file = network.file("file", 256 << 10)?;
    let sum = reeve_tests::tool::md5(&file)?;
    File::create(network.directory().join("endless"))?.set_len(ENDLESS)?;

    let mut daemon = Daemon::prepare()?;
    let directory = daemon.state().with_file_name("files");
    fs::create_dir(&directory)?;
    let disk = directory.join("disk");
    File::create(&disk)?.set_len(16 << 20)?;
    let kernel = assets().vmlinux.clone();
    let kernels = kernel.parent().context("a directory")?;
    let configuration = directory.join("reeve.toml");
    fs::write(
        &configuration,
        format!(
            "allowed_directories = [{:?}, {:?}]\n",
            kernels.display().to_string(),
            directory.display().to_string()
        ),
    )?;
    daemon.argument("--config");
    daemon.argument(&configuration.display().to_string());
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut domain = built_in(NAME, "");
    domain.memory = MemorySize::mebibytes(192);
    domain.vcpus = Vcpus::try_from(2)?;
    domain.max_vcpus = domain.vcpus;
    domain.boot = BootSource::Kernel(KernelBoot {
        kernel,
        initrd: Some(assets().initramfs.clone()),
        command_line: format!("{COMMAND_LINE} {}", drivers(&["virtio_blk", "virtio_net"])),
    });
    let format = DiskFormat::Raw;
    let layer = Layer { path: disk, format };
    domain.devices.disks = vec![Disk::new("vda".parse()?, Some(layer))];
    domain.devices.nics = vec![Nic::new(NicSource::Bridge(network.bridge().parse()?))];
    define(&mut connection, &domain)?;
    start(&mut connection, NAME)?;
    let console = Reeve::command()?
        .arg("--socket")
        .arg(daemon.socket())
        .arg("console")
        .arg(NAME)
        .spawn()?;
    let mut guest = Guest { console };
    guest.console.expect(UP_MARKER, BOOT)?;
    guest.console.expect(PROMPT, SHELL)?;
    guest
        .run("ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1; dmesg -c >/dev/null")?;
    let load = LOAD.replace("SERVER", SERVER).replace("FILE", &sum);
    fs::write(network.directory().join("load"), load)?;
    guest.run(&format!("wget -qO /tmp/load http://{SERVER}/load"))?;
    // Their words would come between those of the shell.
    guest.run("sh /tmp/load </dev/null >/dev/null 2>&1")?;

    let mut rounds = guest.go_round(&[0, 0, 0])?;
    for number in 0..times {
        daemon
            .reeve(&["upgrade", NAME])
            .with_context(|| format!("upgrade {number}"))?;
        ensure!(daemon.workers().len() == 1, "{:?}", daemon.workers());
        rounds = guest.go_round(&rounds)?;
    }
    let before = guest.received()?;
    rounds = guest.go_round(&rounds)?;
    ensure!(guest.received()? > before, "nothing is received any more");
    // The load itself is told of there, and what an emulated processor makes slow.
    let bad = guest
        .run("cat /tmp/bad 2>/dev/null; dmesg | grep -vE 'drop_caches|hrtimer: interrupt took'")?;
    ensure!(bad.is_empty(), "{bad}");
    let stood: Vec<String> = daemon
        .log()
        .lines()
        .filter_map(|line| {
            Some(
                line.split_once("\"stood_us\":")?
                    .1
                    .split(',')
                    .next()?
                    .to_owned(),
            )
        })
        .collect();
    ensure!(stood.len() == times, "{stood:?}");
    println!("{times} times, after {rounds:?} rounds; the guest stood for (us): {stood:?}");
    daemon.reeve(&["destroy", NAME])?;
    wait_until_off(&mut connection, NAME)?;
    assert_at_rest(&daemon);
    Ok(())
}
