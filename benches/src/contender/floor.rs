//! The floor (`bin/floor.rs`), next to this very executable.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::process::{Ending, Process, run_many};
use super::{Contender, Guest, Running};

/// The floor.
#[derive(Debug)]
pub struct Floor {
    program: PathBuf,
}

impl Floor {
    /// Finds the executable.
    ///
    /// # Errors
    /// It was not built.
    pub fn find() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("floor");
        ensure!(
            program.exists(),
            "{} is missing: build reeve-benches whole",
            program.display()
        );
        Ok(Self { program })
    }

    fn start(&self, guest: Guest) -> anyhow::Result<Process<()>> {
        let mut command = Command::new(&self.program);
        command.arg(guest.command_line());
        Process::start(command, Ending::Success, ()).context("the floor")
    }
}

impl Contender for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Self::start(self, guest)?))
    }

    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        run_many(count, at_once, || Self::start(self, Guest::Bench))
    }
}
