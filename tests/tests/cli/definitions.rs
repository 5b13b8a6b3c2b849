//! Definitions out to files and back.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::Cli;

/// Every key that a file may have.
const WHOLE: &str = r#"name = "whole"
uuid = "6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10"
machine = "reeve-1.0"
cpus = 3
memory = "64M"
kernel = "/var/lib/reeve/images/vmlinuz"
initrd = "/var/lib/reeve/images/initrd"
cmdline = "console=ttyS0 'a b' \"c\""
on-poweroff = "restart"
on-reboot = "preserve"
on-crash = "restart"
autostart = 7
title = "A title"
description = """
Two
lines"""

[limits]
memory = "128M"
cpu-percent = 150
vcpu-percent = 100
cpu-weight = 50
pids = 64

[cpu]
tsc-deadline = true
kvmclock = false
invariant-tsc = true
transactional-memory = false

[[pin]]
vcpu = 1
cpus = "0-3,8"

[[metadata]]
uri = "http://example.org/app"
content = "<app:x a='1'/>"

[[disk]]
target = "vda"
path = "/var/lib/reeve/images/whole.qcow2"
format = "qcow2"
cache = "none"
discard = "unmap"
serial = "W1"
queues = 2
block-size = 4096
read-iops = { per-second = 30, burst = 60, burst-seconds = 2 }

[[disk.backing]]
path = "/var/lib/reeve/images/base"
format = "raw"

[[nic]]
bridge = "br0"
mtu = 1400
inbound = { per-second = 1000 }

[rng]
bytes = { per-second = 1024 }

[balloon]
free-page-reporting = true

[vsock]
path = "/var/lib/reeve/images/whole.vsock"

[[channel]]
name = "org.qemu.guest_agent.0"
path = "/var/lib/reeve/images/whole.agent"

[[console]]
path = "/var/lib/reeve/images/whole.hvc0"
"#;

#[test]
fn what_is_exported_can_be_imported_and_nothing_is_lost() -> Result<()> {
    let cli = Cli::start()?;
    let from = cli.path("from.toml");
    std::fs::write(&from, WHOLE)?;
    let from = from.display().to_string();
    cli.ok(&["define", "--file", &from])?;
    let before = cli.json(&["inspect", "whole"])?;
    for (name, json) in [("out.toml", false), ("out.json", true)] {
        let path = cli.path(name).display().to_string();
        let arguments = ["export", "whole", &path, "--json"];
        cli.silent(if json { &arguments } else { &arguments[..3] })?;
        let mode = std::fs::metadata(&path)?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "it may hold secrets of a guest");
        let text = std::fs::read_to_string(&path)?;
        assert_eq!(text.starts_with('{'), json, "{text}");
        if !json {
            assert_eq!(text, cli.ok(&["export", "whole"])?);
        }
        cli.silent(&["undefine", "whole"])?;
        cli.ok(&["import", &path])?;
        assert_eq!(cli.json(&["inspect", "whole"])?, before, "{text}");
        // A second time it is the same domain.
        cli.ok(&["import", &path])?;
        cli.refused(&["import", &path, "--new"], &["'whole'", "defined already"])?;
    }
    Ok(())
}

#[test]
fn a_file_without_a_uuid_keeps_that_of_its_name() -> Result<()> {
    let cli = Cli::start()?;
    let file = cli.path("web.toml");
    std::fs::write(&file, "name = \"web\"\n")?;
    let path = file.display().to_string();
    cli.ok(&["define", "-f", &path])?;
    let uuid = cli.json(&["info", "web"])?["uuid"].clone();
    std::fs::write(&file, "name = \"web\"\ncpus = 2\n")?;
    cli.ok(&["define", "-f", &path])?;
    let info = cli.json(&["info", "web"])?;
    assert_eq!((&info["uuid"], &info["cpus"]), (&uuid, &2.into()));
    Ok(())
}

#[test]
fn standard_input_is_a_file_too() -> Result<()> {
    let cli = Cli::start()?;
    let mut command = cli.daemon.reeve_command(&["import", "-"])?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(br#"{"name": "piped", "memory": "32M"}"#)?;
    drop(input);
    ensure!(child.wait()?.success());
    assert_eq!(cli.json(&["info", "piped"])?["memory_bytes"], 32 << 20);
    Ok(())
}

#[test]
fn what_runs_and_what_is_kept_are_exported_apart() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    cli.silent(&["start", "web"])?;
    cli.ok(&["define", "web", "--memory", "64M", "--cmdline", "mode=echo"])?;
    ensure!(cli.ok(&["export", "web"])?.contains("memory = \"64M\""));
    ensure!(
        cli.ok(&["export", "web", "--live"])?
            .contains("memory = \"32M\"")
    );
    assert_eq!(cli.json(&["info", "web"])?["redefined"], true);
    Ok(())
}

#[test]
fn a_file_that_is_no_definition_is_refused_with_its_line() -> Result<()> {
    let cli = Cli::start()?;
    let file = cli.path("bad.toml");
    let path = file.display().to_string();
    let huge = format!("name = \"x\"\nkernel = \"/{}\"\n", "k".repeat(62_000));
    for (text, parts) in [
        ("name = 3\n", ["line 1", "expected a string"]),
        (
            "name = \"x\"\nmemory = \"3\"\n",
            ["domain 'x'", "2M to 32T"],
        ),
        ("name = \"x\"\nmemory = 256\n", ["line 2", "string"]),
        ("name = \"x\"\ncolour = \"red\"\n", ["line 2", "colour"]),
        ("name = \"a/b\"\n", ["line 1", "must not contain '/'"]),
        ("name = \"x\"\ncpus = 0\n", ["line 2", "0 vCPUs"]),
        (
            "name = \"x\"\n[[pin]]\nvcpu = 4\ncpus = \"0\"\n",
            ["domain 'x'", "vCPU 4"],
        ),
        ("{\"name\": \"x\",}", ["bad.toml", "line 1"]),
        ("", ["bad.toml", "name"]),
        (&huge, ["domain 'x'", "at most 61440"]),
    ] {
        std::fs::write(&file, text)?;
        cli.refused(&["define", "-f", &path], &parts)?;
        cli.refused(&["import", &path], &parts)?;
    }
    std::fs::write(&file, vec![b' '; (1 << 20) + 1])?;
    cli.refused(&["import", &path], &["more than 1048576 bytes"])?;
    cli.refused(&["import", "/nonexistent"], &["cannot read /nonexistent"])?;
    cli.define("web")?;
    let nowhere = cli.path("none/out.toml").display().to_string();
    cli.refused(
        &["export", "web", &nowhere],
        &["cannot write", "none/out.toml"],
    )?;
    assert_eq!(cli.ok(&["list", "-aq"])?, "web\n");
    Ok(())
}

#[test]
fn relative_paths_begin_where_they_were_written() -> Result<()> {
    let cli = Cli::start()?;
    let here = cli.files.path().canonicalize()?;
    std::fs::create_dir(here.join("sub"))?;
    let run = |arguments: &[&str], input: Option<&std::path::Path>| -> Result<()> {
        let mut command = cli.daemon.reeve_command(arguments)?;
        if let Some(path) = input {
            command.stdin(std::fs::File::open(path)?);
        }
        let output = command.current_dir(&here).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    };
    let names = |name: &str| -> Result<(String, String)> {
        let definition = cli.json(&["export", name])?;
        let text = |key: &str| definition[key].as_str().unwrap_or_default().to_owned();
        Ok((text("kernel"), text("initrd")))
    };
    let under = |path: &str| here.join(path).display().to_string();
    // Options: at the working directory.
    let options = ["--kernel", "vmlinuz", "--initrd", "sub/../initrd"];
    run(&[&["define", "web"], &options[..]].concat(), None)?;
    assert_eq!(names("web")?, (under("vmlinuz"), under("initrd")));
    // A file: at its directory. Standard input: at the working directory.
    let file = here.join("sub/file.toml");
    std::fs::write(&file, "name = \"f\"\nkernel = \"k\"\ninitrd = \"/abs\"\n")?;
    let absolute = file.display().to_string();
    for (path, kernel) in [("sub/file.toml", "sub/k"), (&absolute, "sub/k"), ("-", "k")] {
        for command in [&["define", "--file"][..], &["import"]] {
            run(&[command, &[path]].concat(), Some(&file))?;
            assert_eq!(names("f")?, (under(kernel), "/abs".to_owned()), "{path}");
        }
    }
    // What cannot be found is told before anything is kept.
    let lost = ["define", "lost", "--kernel", "none/../vmlinuz"];
    cli.refused(&lost, &["cannot resolve", "none/../vmlinuz"])?;
    ensure!(!cli.ok(&["list", "-aq"])?.contains("lost"));
    Ok(())
}

#[test]
fn cpu_time_is_limited_for_all_or_for_the_vcpus() -> Result<()> {
    let cli = Cli::start()?;
    let limits = ["--limit-cpu", "150", "--limit-vcpus", "120"];
    cli.ok(&[&["define", "web"], &limits[..]].concat())?;
    let limits = cli.json(&["export", "web"])?["limits"].clone();
    assert_eq!(limits["cpu-percent"], 150);
    assert_eq!(limits["vcpu-percent"], 120);
    cli.misused(
        &["define", "web", "--limit-vcpus", "0"],
        &["--limit-vcpus", "see 'reeve define --help'"],
    )
}
