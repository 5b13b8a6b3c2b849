//! What goes wrong around a run, with the real worker and real kernels: bad images, sizes beyond the
//! host, and processes killed at every step. After each: one line that says what, the right exit
//! code, and nothing left. What the command line alone refuses is tested beside it
//! (`supervisor/tests/cli`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::control::Place;
use reeve_tests::domain::{
    assert_nothing_left, unique_name, wait_for_worker, wait_until_gone, workers,
};
use reeve_tests::lab::assets;
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::{Builder, Reeve};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// Asserts that a start is refused: code 1, one line of ours that says all of `parts`.
fn is_refused(change: impl FnOnce(Builder) -> Builder, parts: &[&str]) -> Result<()> {
    let before = Snapshot::take();
    let name = unique_name("fault");
    let mut reeve = change(Reeve::run()?.name(&name)).spawn()?;
    let status = reeve.wait(SOON)?;
    let said = reeve.errors();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(reeve.output().is_empty(), "{}", reeve.output());
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 1, "not one line: {said}");
    ensure!(lines[0].starts_with("reeve: "), "{said}");
    for part in parts {
        ensure!(said.contains(part), "no '{part}' in: {said}");
    }
    assert_nothing_left(&name, &before);
    Ok(())
}

/// Files made from a kernel.
struct Images(TempDir);

impl Images {
    fn new() -> Result<Images> {
        Ok(Images(tempfile::tempdir()?))
    }

    fn write(&self, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join("image");
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

fn kernel_is_refused(path: &Path, parts: &[&str]) -> Result<()> {
    let path_text = path.display().to_string();
    is_refused(|reeve| reeve.kernel(path), &[&path_text])?;
    is_refused(|reeve| reeve.kernel(path), parts)
}

#[test]
fn a_truncated_kernel_is_named_wherever_it_ends() -> Result<()> {
    let images = Images::new()?;
    let elf = fs::read(&assets().vmlinux)?;
    for length in [4, 63, 64, 100, 4096, 1 << 20, elf.len() / 2] {
        let path = images.write(&elf[..length])?;
        kernel_is_refused(&path, &["truncated"]).with_context(|| format!("ELF, {length}"))?;
    }
    let bzimage = fs::read(&assets().bzimage)?;
    for length in [0x206, 0x230, 1024, 16 << 10, 1 << 20, bzimage.len() / 2] {
        let path = images.write(&bzimage[..length])?;
        kernel_is_refused(&path, &["truncated"]).with_context(|| format!("bzImage, {length}"))?;
    }
    // Too short to be known for one.
    for length in [0, 1, 3, 0x201] {
        let path = images.write(&bzimage[..length])?;
        kernel_is_refused(&path, &["neither an ELF file nor a bzImage"])?;
    }
    Ok(())
}

#[test]
fn a_kernel_of_another_architecture_is_named_with_both() -> Result<()> {
    let images = Images::new()?;
    let mut elf = fs::read(&assets().vmlinux)?;
    // e_machine: EM_AARCH64, EM_RISCV, EM_386 (ELF64, gABI 4).
    for (machine, name) in [(183, "arm64"), (243, "riscv"), (3, "x86")] {
        elf[18] = machine;
        let path = images.write(&elf)?;
        kernel_is_refused(
            &path,
            &["kernel is built for", name, "this machine is x86-64"],
        )?;
    }
    elf[18] = 62;
    // EI_CLASS: 32 bits.
    elf[4] = 1;
    let path = images.write(&elf)?;
    kernel_is_refused(&path, &["32-bit", "this machine is x86-64"])?;
    Ok(())
}

#[test]
fn a_program_that_is_no_kernel_is_refused() -> Result<()> {
    kernel_is_refused(&std::env::current_exe()?, &["cannot start"])?;
    let images = Images::new()?;
    let noise: Vec<u8> = (0_u32..100_000)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    kernel_is_refused(
        &images.write(&noise)?,
        &["neither an ELF file nor a bzImage"],
    )
}

#[test]
fn a_kernel_larger_than_memory_says_how_much_it_needs() -> Result<()> {
    for kernel in [&assets().vmlinux, &assets().bzimage] {
        is_refused(
            |reeve| reeve.memory("16M").kernel(kernel),
            &[
                "kernel needs memory up to",
                "the machine has RAM up to 0x1000000",
            ],
        )?;
    }
    is_refused(
        |reeve| {
            let reeve = reeve.memory("64M").kernel(&assets().vmlinux);
            reeve.initrd(&assets().vmlinux)
        },
        &["initrd of", "does not fit"],
    )
}

#[test]
fn what_is_no_file_is_no_kernel() -> Result<()> {
    let images = Images::new()?;
    let pipe = images.0.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )?;
    // Opening it must not wait for a writer.
    kernel_is_refused(&pipe, &["is a pipe"])?;
    kernel_is_refused(Path::new("/dev/zero"), &["is a device"])?;
    kernel_is_refused(images.0.path(), &["is a directory"])?;
    let absent = images.0.path().join("absent");
    kernel_is_refused(&absent, &["no such file"])
}

#[test]
fn more_memory_than_kvm_maps_is_refused() -> Result<()> {
    is_refused(
        |reeve| reeve.memory("32T"),
        &["MiB of guest memory", "more than this host's KVM maps"],
    )
}

/// The steps of a start that `REEVE_FAULT` knows, and the exit codes there may be: a reply may be
/// lost to the kill, or not.
const STEPS: &[(&str, &[i32])] = &[
    ("before-spawn", &[1]),
    ("after-welcome", &[1]),
    ("after-launch-sent", &[1]),
    ("after-spawn", &[1, 4]),
    ("after-hello", &[1, 4]),
    ("after-launched", &[4]),
    ("running", &[4]),
];

fn a_kill_at_each_step_is_told(limits: &[&str]) -> Result<()> {
    for (step, codes) in STEPS {
        let before = Snapshot::take();
        let name = unique_name("killed");
        let mut builder = Reeve::run()?
            .name(&name)
            .memory("64M")
            .cpus(2)
            .cmdline("mode=hold")
            .env("REEVE_FAULT", &format!("kill-worker@{step}"));
        for limit in limits {
            builder = builder.arg(limit);
        }
        let mut reeve = builder.spawn()?;
        let status = reeve.wait(SOON)?;
        let said = reeve.errors();
        ensure!(
            status.code().is_some_and(|code| codes.contains(&code)),
            "{step}: {status}: {said}"
        );
        ensure!(said.lines().count() == 1, "{step}: not one line: {said}");
        ensure!(said.contains(&format!("'{name}'")), "{step}: {said}");
        assert_nothing_left(&name, &before);
    }
    Ok(())
}

#[test]
fn a_worker_killed_at_any_step_of_its_start_is_told_and_leaves_nothing() -> Result<()> {
    a_kill_at_each_step_is_told(&[])
}

fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("pid")?;
    Ok(rustix::process::kill_process(pid, Signal::KILL)?)
}

#[test]
fn a_worker_killed_while_running_is_told() -> Result<()> {
    for mode in ["mode=clock", "mode=spin", "mode=flood"] {
        let before = Snapshot::take();
        let (name, place) = (unique_name("killed"), Place::new()?);
        let mut reeve = Reeve::run()?
            .name(&name)
            .cmdline(mode)
            .control(&place)
            .spawn()?;
        reeve.expect("Reeve built-in guest", SOON)?;
        // The guest is heard by another way than the answer to its start, and may be heard first.
        ensure!(place.connect(SOON)?.phase()? == "running", "{mode}");
        kill(wait_for_worker(&name, SOON)?)?;
        let status = reeve.wait(SOON)?;
        let said = reeve.errors();
        ensure!(status.code() == Some(4), "{status}: {said}");
        ensure!(
            said.contains(&format!("'{name}': the worker was killed by SIGKILL")),
            "{said}"
        );
        assert_nothing_left(&name, &before);
    }
    Ok(())
}

#[test]
fn a_killed_reeve_takes_its_worker_along() -> Result<()> {
    for mode in ["mode=hold", "mode=spin", "mode=flood"] {
        let before = Snapshot::take();
        let name = unique_name("orphan");
        let mut reeve = Reeve::run()?.name(&name).cmdline(mode).cpus(2).spawn()?;
        if mode == "mode=hold" {
            reeve.expect("R\n", SOON)?;
        } else {
            reeve.expect("Reeve built-in guest", SOON)?;
        }
        let worker = wait_for_worker(&name, SOON)?;
        reeve.signal(Signal::KILL)?;
        wait_until_gone(worker, SOON)?;
        reeve.wait(SOON)?;
        assert_nothing_left(&name, &before);
    }
    Ok(())
}

/// At moments spread over a start, which takes some milliseconds.
#[test]
fn a_reeve_killed_at_any_moment_of_a_start_leaves_no_worker() -> Result<()> {
    for step in 0..30_u32 {
        let name = unique_name("orphan");
        let begin = Instant::now();
        let reeve = Reeve::run()?.name(&name).cmdline("mode=hold").spawn()?;
        let moment = Duration::from_micros(500) * step;
        std::thread::sleep(moment.saturating_sub(begin.elapsed()));
        reeve.signal(Signal::KILL)?;
        drop(reeve);
        let deadline = Instant::now() + SOON;
        while !workers(&name).is_empty() {
            ensure!(Instant::now() < deadline, "an orphan at {moment:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// The lab has what limits need; there the whole machine is looked at, cgroups too.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn with_limits_a_kill_at_any_step_leaves_no_cgroup() -> Result<()> {
    a_kill_at_each_step_is_told(&["--limit-memory=128M", "--limit-pids=64"])
}

#[reeve_tests::in_lab(timeout = "90s", root)]
fn limits_are_the_kernels_and_go_with_the_domain() -> Result<()> {
    let before = Snapshot::take();
    let (name, place) = (unique_name("limited"), Place::new()?);
    let mut reeve = Reeve::run()?
        .name(&name)
        .memory("64M")
        .cmdline("mode=clock")
        .arg("--limit-memory=96M")
        .arg("--limit-cpu=50")
        .arg("--limit-pids=64")
        .control(&place)
        .spawn()?;
    reeve.expect("tick 1:", SOON)?;
    let mut control = place.connect(SOON)?;
    let worker = control.worker()?;
    let path = fs::read_to_string(format!("/proc/{worker}/cgroup"))?;
    let group = path.trim().rsplit(':').next().context("cgroup")?;
    let directory = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
    let read = |file: &str| -> Result<String> {
        let path = directory.join(file);
        Ok(fs::read_to_string(&path)
            .with_context(|| path.display().to_string())?
            .trim()
            .to_owned())
    };
    ensure!(
        read("memory.max")? == (96_u64 << 20).to_string(),
        "memory.max"
    );
    ensure!(
        read("cpu.max")?.starts_with("50000 100000"),
        "cpu.max {}",
        read("cpu.max")?
    );
    ensure!(read("pids.max")? == "64", "pids.max");
    // The worker, and what KVM of this age makes for it there.
    let members = read("cgroup.procs")?;
    ensure!(
        members.lines().any(|pid| pid == worker.to_string()),
        "cgroup.procs {members}"
    );
    for pid in members.lines().filter(|pid| *pid != worker.to_string()) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        ensure!(name.starts_with("kvm-"), "{name} is in the cgroup");
    }
    control.order("destroy")?;
    ensure!(reeve.wait(SOON)?.success(), "{}", reeve.errors());
    drop((reeve, control, place));
    before.assert_nothing_new(SOON);
    Ok(())
}

/// As an ordinary user, a kill of either side leaves nothing as well.
#[reeve_tests::in_lab(timeout = "90s", root)]
fn an_ordinary_users_run_leaves_nothing_whoever_is_killed() -> Result<()> {
    for victim in ["reeve", "worker"] {
        let before = Snapshot::take();
        let name = unique_name("users");
        let mut reeve = Reeve::run()?
            .name(&name)
            .cmdline("mode=hold")
            .as_user()
            .spawn()?;
        reeve.expect("R\n", SOON)?;
        let worker = wait_for_worker(&name, SOON)?;
        if victim == "reeve" {
            reeve.signal(Signal::KILL)?;
        } else {
            kill(worker)?;
        }
        wait_until_gone(worker, SOON)?;
        let status = reeve.wait(SOON)?;
        ensure!(victim == "reeve" || status.code() == Some(4), "{status}");
        drop(reeve);
        before.assert_nothing_new(SOON);
    }
    Ok(())
}
