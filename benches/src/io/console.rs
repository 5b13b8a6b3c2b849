//! A guest's console, line by line, with a deadline.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// More than a guest that measures prints.
const MOST_BYTES: usize = 64 << 10;

/// What has been read and not yet been asked for.
#[derive(Debug)]
pub struct Console<'a> {
    fd: BorrowedFd<'a>,
    bytes: Vec<u8>,
}

impl<'a> Console<'a> {
    /// Reads from `fd`.
    #[must_use]
    pub const fn new(fd: BorrowedFd<'a>) -> Self {
        Self {
            fd,
            bytes: Vec::new(),
        }
    }

    /// The next line that begins with `wanted`; those before it are dropped.
    ///
    /// # Errors
    /// There is none in time, the guest says what is wrong, or it ends.
    pub fn wait_for(&mut self, wanted: &str, within: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + within;
        loop {
            while let Some(line) = self.line() {
                if line.starts_with(wanted) {
                    return Ok(line);
                }
                let wrong = ["error:", "fault:", "panic:"];
                if wrong.iter().any(|sign| line.starts_with(sign)) || line.contains("FAILED") {
                    bail!("the guest says {line:?}");
                }
            }
            self.read(deadline, wanted)?;
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&mut self, deadline: Instant, wanted: &str) -> anyhow::Result<()> {
        ensure!(self.bytes.len() < MOST_BYTES, "a line without end");
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))?;
        ensure!(ready > 0, "the guest does not say {wanted:?}");
        let mut buffer = [0; 4096];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(self.fd, &mut buffer))?;
        ensure!(length > 0, "the guest ends before it says {wanted:?}");
        self.bytes
            .extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn lines_are_found_in_order_and_what_is_wrong_is_told() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut console = Console::new(reader.as_fd());
        writer
            .write_all(b"eeve built-in guest\nmeasure: re")
            .unwrap();
        assert!(console.wait_for("measure: ready", SOON).is_err());
        writer
            .write_all(b"ady\nmeasure: operations 7\nerror: no disk\n")
            .unwrap();
        assert_eq!(
            console.wait_for("measure: ready", SOON).unwrap(),
            "measure: ready"
        );
        let line = console.wait_for("measure: operations", SOON).unwrap();
        assert_eq!(line, "measure: operations 7");
        let error = console.wait_for("measure: operations", SOON).unwrap_err();
        assert!(error.to_string().contains("no disk"), "{error}");
        drop(writer);
        let error = console.wait_for("x", SOON).unwrap_err();
        assert!(error.to_string().contains("ends"), "{error}");
    }
}
