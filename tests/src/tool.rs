//! Other programs' view of a product's work: those the lab brings along, and this machine's own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::assets;

/// What one of the lab's tools ([`crate::lab::tools`]) prints; an error if it fails.
pub fn tool<const N: usize>(name: &str, arguments: [&str; N]) -> Result<String> {
    output(Command::new(assets().tool(name)).args(arguments))
}

/// What a program prints; an error, with all it printed, if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{program}: {}: {printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// The sum of a file as `md5sum` prints it, in a guest too.
pub fn md5(file: &Path) -> Result<String> {
    let printed = output(Command::new("md5sum").arg(file))?;
    let sum = printed.split_whitespace().next();
    Ok(sum.context("md5sum prints a sum")?.to_owned())
}
