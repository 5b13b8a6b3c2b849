//! A usage error on one line. Included by `reeve` too.

use std::fmt::Write as _;

/// What clap says of a command line that cannot be meant, with its suggestion where it has one and
/// without the usage, which `help` shows.
pub fn one_line(error: &clap::Error, help: &str) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let mut line = String::new();
    for (index, part) in first.lines().map(str::trim).enumerate() {
        let _ = write!(line, "{}{part}", if index == 0 { "" } else { " " });
    }
    for tip in text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
    {
        let _ = write!(line, "; {tip}");
    }
    let _ = write!(line, "; see '{help}'");
    line
}
