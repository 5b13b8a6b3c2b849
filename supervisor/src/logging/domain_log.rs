//! A domain's log: one line an occurrence, with its time.

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::RotatingFile;

/// The most bytes of one line's text; the rest is cut off.
const MAX_TEXT: usize = 4096;

/// A domain's log.
#[derive(Debug)]
pub struct DomainLog {
    file: RotatingFile,
}

impl DomainLog {
    /// Logs into `file`.
    #[must_use]
    pub fn new(file: RotatingFile) -> Self {
        Self { file }
    }

    /// The file.
    pub fn file(&mut self) -> &mut RotatingFile {
        &mut self.file
    }

    /// Writes one line: the time (UTC), who says it (`reeved` or `worker`), and the text, with control
    /// characters escaped: a worker must not forge lines or speak to a terminal.
    pub fn line(&mut self, source: &str, text: &str) {
        let mut line = String::with_capacity(text.len().min(MAX_TEXT) + 48);
        if SystemTime.format_time(&mut Writer::new(&mut line)).is_err() {
            line.push('-');
        }
        line.push(' ');
        line.push_str(source);
        line.push_str(": ");
        let most = line.len() + MAX_TEXT;
        for c in text.trim_end().chars() {
            if line.len() >= most {
                line.push_str("...");
                break;
            }
            if c.is_control() && c != '\t' {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        line.push('\n');
        self.file.write(line.as_bytes());
    }
}
