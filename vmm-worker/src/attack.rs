//! Attack points (feature `attack-points`): a thread of a named role tries a call that its filter has
//! to deny, so that tests see what happens to a worker that was taken over.
//!
//! The word `reeve.attack=ROLE:CALL` on the guest's command line arms one attack. `base` strikes when
//! the launch has been read, before anything is built; the others from within their loops once the
//! launch has been answered. Each role's strike is one call and never returns to its loop: what is
//! not denied ends the worker with the code of a failure, naming what was allowed.
//!
//! Never in a build that is shipped: nothing here is compiled without the feature.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reeve_sandbox::seccomp::Role;

const WORD: &str = "reeve.attack=";
/// How long a launched machine is left alone, so that its supervisor has seen it run.
const GRACE: Duration = Duration::from_millis(30);

#[derive(Debug)]
struct Attack {
    role: Role,
    call: String,
}

static ARMED: OnceLock<Attack> = OnceLock::new();
static LAUNCHED: AtomicBool = AtomicBool::new(false);

/// Arms the attack that `command_line` names, if any.
pub(crate) fn arm(command_line: &str) {
    let word = command_line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(WORD));
    let Some((role, call)) = word.and_then(|word| word.split_once(':')) else {
        return;
    };
    if let Some(role) = Role::ALL
        .into_iter()
        .find(|known| known.to_string() == role)
    {
        let call = call.to_owned();
        let _ = ARMED.set(Attack { role, call });
    }
}

/// The launch has been answered.
pub(crate) fn launched() {
    LAUNCHED.store(true, Ordering::Relaxed);
}

/// Strikes if the attack is armed for `role`, which the calling thread has.
pub(crate) fn strike(role: Role) {
    let Some(attack) = ARMED.get().filter(|attack| attack.role == role) else {
        return;
    };
    if role != Role::Base {
        while !LAUNCHED.load(Ordering::Relaxed) {
            if role == Role::Control {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(GRACE);
    }
    let outcome: Result<(), String> = match attempt(&attack.call) {
        Some(result) => Err(format!("{} gave {result}", attack.call)),
        None => Err(format!("no attack is called {}", attack.call)),
    };
    crate::failure::or_exit(outcome, "an attack was not denied");
}

/// Makes the call; its result, where it has one.
fn attempt(call: &str) -> Option<i64> {
    const SIGCHLD: i64 = 17;
    const KVM_CREATE_VM: i64 = 0xae01;
    const KVM_CREATE_DEVICE: i64 = 0xc00c_aee0;
    const TIOCSTI: i64 = 0x5412;
    let path = c"/etc/passwd".as_ptr() as i64;
    let here = i64::from(libc::AT_FDCWD);
    let executable = i64::from(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let (number, arguments) = match call {
        "open" => (libc::SYS_openat, [here, path, 0, 0, 0, 0]),
        "socket" => (libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        "connect" => (libc::SYS_connect, [0, path, 16, 0, 0, 0]),
        "signal" => (libc::SYS_kill, [2, 9, 0, 0, 0, 0]),
        "kvm-create-device" => (libc::SYS_ioctl, [0, KVM_CREATE_DEVICE, 0, 0, 0, 0]),
        "kvm-create-vm" => (libc::SYS_ioctl, [0, KVM_CREATE_VM, 0, 0, 0, 0]),
        "io_uring-setup" => (libc::SYS_io_uring_setup, [4, 0, 0, 0, 0, 0]),
        "fork" => (libc::SYS_clone, [SIGCHLD, 0, 0, 0, 0, 0]),
        "exec" => (libc::SYS_execve, [path, 0, 0, 0, 0, 0]),
        "mmap-exec" => (libc::SYS_mmap, [0, 4096, executable, anonymous, -1, 0]),
        "ptrace" => (libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        "unlisted-ioctl" => (libc::SYS_ioctl, [0, TIOCSTI, 0, 0, 0, 0]),
        _ => return None,
    };
    Some(make(number, arguments))
}

#[expect(unsafe_code, reason = "calls that no library would make")]
fn make(number: i64, [a, b, c, d, e, f]: [i64; 6]) -> i64 {
    // SAFETY: denied by the filters, which is the point; where it is not, the pointers are null or a
    // static string, a fork or a mapping takes nothing from this process, and the worker ends next.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}
