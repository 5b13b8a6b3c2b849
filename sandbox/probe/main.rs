//! The process that the tests jail.
#![expect(unsafe_code, reason = "takes descriptors by number")]
use std::os::fd::BorrowedFd;
fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
fn main() {
    let start = now();
    // SAFETY: handed over.
    let report = unsafe { BorrowedFd::borrow_raw(5) };
    // SAFETY: handed over.
    let out = unsafe { BorrowedFd::borrow_raw(4) };
    let text = match reeve_sandbox::enter(report) {
        Ok(r) => format!("{start} {} ok landlock {}", now(), r.landlock),
        Err(e) => format!("{start} 0 error {e}"),
    };
    rustix::io::write(out, text.as_bytes()).unwrap();
    if std::env::args().nth(1).as_deref() == Some("stay") {
        let mut b = [0; 1];
        let _ = rustix::io::read(out, &mut b);
    }
}
