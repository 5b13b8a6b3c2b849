//! With the filter out of the way, the other layers still refuse.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::harness::{Caller, Probe};

fn attempt(caller: Caller, attempt: &str, argument: &str) -> String {
    let end = Probe::start(caller, "unfiltered", "base", attempt).finish(argument);
    assert_eq!(end.signal, None, "{attempt}: {end:?}");
    end.said.into_iter().next().expect("an outcome")
}

fn assert_refused(attempted: &str, argument: &str, errnos: &[i32]) {
    for caller in Caller::all() {
        let outcome = attempt(caller, attempted, argument);
        let refused = errnos
            .iter()
            .any(|errno| outcome == format!("done errno {errno}"));
        assert!(refused, "{caller:?} {attempted}: {outcome}");
    }
}

#[test]
fn files_cannot_be_opened_or_made() {
    assert_refused("open", "", &[libc::ENOENT, libc::EACCES]);
    // The root itself exists: that is Landlock's refusal.
    assert_refused("open-root", "", &[libc::EACCES]);
    assert_refused("create", "", &[libc::EACCES, libc::EROFS]);
}

#[test]
fn nothing_can_be_executed() {
    assert_refused("execve", "", &[libc::ENOENT, libc::EACCES]);
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert_refused("inet", &port, &[libc::ENETUNREACH, libc::EACCES]);
}

#[test]
fn the_hosts_abstract_sockets_are_out_of_reach() {
    let name = format!("reeve-sandbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    assert_refused("abstract", &name, &[libc::ECONNREFUSED, libc::EPERM]);
}

#[test]
fn the_hosts_processes_cannot_be_signalled() {
    let own = std::process::id().to_string();
    assert_refused("signal", &own, &[libc::ESRCH, libc::EPERM]);
}

#[test]
fn no_privilege_is_left_to_leave_the_namespaces() {
    // CLONE_NEWUSER: allowed by limits, but of no use; denied by the filter elsewhere.
    assert_refused("setns", "", &[libc::EINVAL, libc::EPERM, libc::EBADF]);
}
