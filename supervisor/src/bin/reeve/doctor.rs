//! `reeve doctor`: the host's checks as a table or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use reeved::host::doctor::{Check, examine};

use super::args::DoctorArgs;

/// Examines the host; the exit code is 1 where something mandatory is missing.
pub fn doctor(args: &DoctorArgs) -> u8 {
    let checks = examine();
    let text = if args.json {
        // Plain data always has a JSON form.
        serde_json::to_string(&checks).unwrap_or_default() + "\n"
    } else {
        table(&checks)
    };
    // A reader that has gone does not change what was found.
    let _ = std::io::stdout().write_all(text.as_bytes());
    u8::from(checks.iter().any(|check| check.mandatory && !check.passed))
}

fn table(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let verdict = match (check.passed, check.mandatory) {
            (true, _) => "pass",
            (false, true) => "FAIL",
            (false, false) => "warn",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{verdict}  {:width$}  {}", check.name, check.found);
        if let Some(mend) = check.mend.as_ref().filter(|_| !check.passed) {
            let _ = writeln!(text, "      {:width$}  to mend it: {mend}", "");
        }
    }
    let failed = checks
        .iter()
        .filter(|check| check.mandatory && !check.passed)
        .count();
    let _ = match failed {
        0 => writeln!(
            text,
            "\nThis host can run virtual machines: try 'reeve run'."
        ),
        1 => writeln!(
            text,
            "\nOne thing must be mended before a virtual machine can run."
        ),
        n => writeln!(
            text,
            "\n{n} things must be mended before a virtual machine can run."
        ),
    };
    text
}
