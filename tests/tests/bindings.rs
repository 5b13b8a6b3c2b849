//! Programs that use libvirt's bindings, those of Debian's packages, with a real `reeved`: what they do is in
//! `tests/bindings/`.

use std::process::Command;

use anyhow::{Result, ensure};
use reeve_tests::libvirt::Libvirt;

/// Runs a program of `tests/bindings` that is given where the daemon is, a kernel, and a directory for pools.
fn run(interpreter: &str, program: &str, package: &str) -> Result<()> {
    let host = Libvirt::start()?;
    let kernel = host.files().join("kernel");
    std::fs::write(&kernel, reeve_guest::IMAGE)?;
    let output = Command::new(interpreter)
        .args(if interpreter.ends_with("perl") {
            ["-e"]
        } else {
            ["-c"]
        })
        .arg(program)
        .arg(host.uri())
        .args([&kernel, &host.files()])
        .env("LC_ALL", "C")
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    host.record(interpreter, package, &told);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{interpreter} ({package}): {}: {told}{complaint}{}",
        output.status,
        host.daemon.log()
    );
    Ok(())
}

#[test]
fn pythons_does_all_that_a_program_does() -> Result<()> {
    let program = include_str!("../bindings/python.py");
    run("/usr/bin/python3", program, "python3-libvirt")
}

#[test]
fn perls_does_all_that_a_program_does() -> Result<()> {
    let program = include_str!("../bindings/perl.pl");
    run("/usr/bin/perl", program, "libsys-virt-perl")
}
