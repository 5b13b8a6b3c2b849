//! The lab by hand: `cargo run -p reeve-tests --example lab -- 'reeve run'` runs a shell command in
//! a fresh outer guest, with the products on its path. Without a command it says where lab tests
//! run and where the parts are. `--limit SECONDS` (default 300), `--with DIRECTORY` (files to take
//! along, in `/payload`), `--debian` (an outer guest with systemd and dpkg).

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reeve_tests::lab::outer::System;
use reeve_tests::lab::session::End;
use reeve_tests::lab::{assets, place, probe, run_command};

fn main() -> Result<()> {
    let mut limit = Duration::from_secs(300);
    let mut extra = None;
    let mut system = System::Busybox;
    let mut command = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--limit" => {
                let seconds = arguments.next().context("--limit SECONDS")?;
                limit = Duration::from_secs(seconds.parse()?);
            }
            "--with" => extra = Some(PathBuf::from(arguments.next().context("--with DIRECTORY")?)),
            "--debian" => system = System::Debian,
            _ => command = Some(argument),
        }
    }
    let mut stdout = std::io::stdout();
    let Some(command) = command else {
        let kernel_code = probe::kvm_runs_kernel_code();
        writeln!(stdout, "/dev/kvm runs kernel code: {kernel_code}")?;
        writeln!(stdout, "lab tests run: {:?}", place::place(false))?;
        writeln!(stdout, "{:#?}", assets())?;
        return Ok(());
    };
    let end = run_command(system, &command, extra.as_deref(), limit, &mut |output| {
        // A closed standard output is no reason to stop the guest half-way.
        let _ = stdout.write_all(output).and_then(|()| stdout.flush());
    })?;
    match end {
        End::Exited { status: 0, .. } => Ok(()),
        other => bail!("{other:?}"),
    }
}
