//! What the probe tries from inside its jail. Each attempt says `ok`, or the error number it got; one
//! that a filter denies says nothing, as the process dies.

use std::collections::HashMap;
use std::io::Error;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const KVM_CREATE_DEVICE: u64 = 0xc00c_aee0;
const TIOCSTI: u64 = 0x5412;

/// Carries out the attempt of this name.
pub fn run(attempt: &str, argument: &str) -> String {
    let number = || argument.parse::<u64>().unwrap_or(0);
    let path = c"/etc/passwd".as_ptr() as u64;
    let root = c"/".as_ptr() as u64;
    let here = u64::MAX - 99; // AT_FDCWD, -100
    let result = match attempt {
        "stay" => Ok(0),
        "ordinary" => return ordinary(),
        "threads" => return threads(),
        "abstract" => return connect_abstract(argument),
        "inet" => return connect_inet(number()),
        "open" => call(libc::SYS_openat, [here, path, 0, 0, 0, 0]),
        "open-root" => call(libc::SYS_openat, [here, root, 0, 0, 0, 0]),
        "create" => call(
            libc::SYS_openat,
            [here, c"/x".as_ptr() as u64, 0o102, 0o600, 0, 0],
        ),
        "socket" => call(libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        "signal" => call(libc::SYS_kill, [number(), 15, 0, 0, 0, 0]),
        "signal-thread" => call(libc::SYS_tgkill, [number(), number(), 15, 0, 0, 0]),
        "signal-kill" => call(libc::SYS_tgkill, [1, 1, 9, 0, 0, 0]),
        "kvm-device" => call(libc::SYS_ioctl, [4, KVM_CREATE_DEVICE, 0, 0, 0, 0]),
        "ioctl" => call(libc::SYS_ioctl, [0, TIOCSTI, 0, 0, 0, 0]),
        "io-uring" => call(libc::SYS_io_uring_setup, [4, 0, 0, 0, 0, 0]),
        "fork" => call(libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        "clone3" => call(libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
        "execve" => call(libc::SYS_execve, [path, 0, 0, 0, 0, 0]),
        "execveat" => call(
            libc::SYS_execveat,
            [0, c"".as_ptr() as u64, 0, 0, 0x1000, 0],
        ),
        "map-shared" => call(libc::SYS_mmap, [0, 4096, 3, 0x21, u64::MAX, 0]),
        "map-executable" => call(libc::SYS_mmap, [0, 4096, 7, 0x22, u64::MAX, 0]),
        "protect-executable" => call(libc::SYS_mprotect, [0, 4096, 5, 0, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        "setns" => call(libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        "unshare" => call(libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        "prctl" => call(libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
        "x32" => call(0x4000_0000 + libc::SYS_getpid, [0; 6]),
        other => return format!("no attempt {other}"),
    };
    text(result)
}

fn text(result: Result<i64, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

#[expect(unsafe_code, reason = "calls that no library would make")]
fn call(nr: i64, args: [u64; 6]) -> Result<i64, Error> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the attempts pass static strings or null pointers, and what succeeds touches no memory
    // of this process.
    match unsafe { libc::syscall(nr, a, b, c, d, e, f) } {
        -1 => Err(Error::last_os_error()),
        value => Ok(value),
    }
}

fn connect_abstract(name: &str) -> String {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let address = SocketAddr::from_abstract_name(name).expect("short name");
    text(UnixStream::connect_addr(&address).map(|_| 0))
}

fn connect_inet(port: u64) -> String {
    let address = (
        std::net::Ipv4Addr::LOCALHOST,
        u16::try_from(port).unwrap_or(0),
    );
    text(std::net::TcpStream::connect(address).map(|_| 0))
}

/// What std and malloc do in any thread.
fn ordinary() -> String {
    let mut map = HashMap::new();
    for i in 0..100_u32 {
        map.insert(i, vec![0_u8; 64 * 1024]);
    }
    drop(map);
    let mut growing = Vec::new();
    for i in 0..1_000_000_u32 {
        growing.push(i);
    }
    drop(growing);
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(start.elapsed() >= Duration::from_millis(2));
    // Locks that are contended, between this thread and the main one that joins it.
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let (lock, condition) = &*pair;
    let held = lock.lock().expect("not poisoned");
    drop(condition.wait_timeout(held, Duration::from_millis(1)));
    "ok".to_owned()
}

/// What the spawner thread does.
fn threads() -> String {
    let threads: Vec<_> = (0..8_u32)
        .map(|i| {
            let name = format!("io-{i}");
            std::thread::Builder::new().name(name).spawn(move || {
                std::hint::black_box(vec![1_u8; 3 << 20]);
                i
            })
        })
        .collect();
    let sum: u32 = threads
        .into_iter()
        .map(|t| t.expect("made").join().expect("ended"))
        .sum();
    assert_eq!(sum, 28);
    "ok".to_owned()
}
