//! A network namespace of the benchmark's own with one tap in it, for the thread that makes it and all
//! that this thread spawns.
//!
//! The tap is persistent and without queues of ours: each monitor opens it by its name, one after the other.
//! It has no address and no IPv6, so that no frames pass but those of the benchmark.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};

/// The tap's name.
pub const TAP: &str = "bench0";
/// That of another, which is on a bridge with it.
pub const OTHER_TAP: &str = "bench1";

/// Runs `work` on a thread in a namespace that has the tap, and nothing else.
///
/// # Errors
/// Its own and `work`'s: it takes root, `/dev/net/tun` and the program `ip`.
pub fn within<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    alone(|| {
        tap(TAP)?;
        work()
    })
}

/// Runs `work` on a thread in a namespace that has both taps on a bridge, and nothing else.
///
/// # Errors
/// As for [`within`].
pub fn within_bridge<T: Send>(
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    const BRIDGE: &str = "bench";
    alone(|| {
        let kind = ["type", "bridge", "mcast_snooping", "0"];
        ip(&[&["link", "add", BRIDGE], &kind[..]].concat())?;
        ip(&["link", "set", BRIDGE, "addrgenmode", "none", "up"])?;
        for name in [TAP, OTHER_TAP] {
            tap(name)?;
            ip(&["link", "set", name, "master", BRIDGE])?;
        }
        work()
    })
}

fn tap(name: &str) -> anyhow::Result<()> {
    ip(&["tuntap", "add", name, "mode", "tap"])?;
    // Before it is up. A kernel without IPv6 has no such file.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    ip(&["link", "set", name, "up"])
}

fn alone<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter().context("cannot make a network namespace")?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(
    unsafe_code,
    reason = "unshare may leave a process with shared descriptors"
)]
fn enter() -> anyhow::Result<()> {
    let namespaces = rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: only the network is unshared, no descriptors: none becomes another thread's.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces) }?)
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("cannot run 'ip'; install iproute2")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Frames that the guest has sent by the tap, as the host counts them.
///
/// # Errors
/// This thread has no such tap.
pub fn frames_from_guest() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    received(&text).with_context(|| format!("no {TAP}"))
}

/// The second figure of the tap's line: packets that the host has received by it.
fn received(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(TAP)?.strip_prefix(':'))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_sent_is_what_the_host_received() {
        let text = "Inter-|   Receive\n face |bytes    packets errs\n    lo:  1  2 0\n\
                    bench01: 5 6 0\nbench0:   700   42    0    0\n";
        assert_eq!(received(text), Some(42));
        assert_eq!(received("lo: 1 2"), None);
    }
}
