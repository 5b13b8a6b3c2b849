//! What a service calls of the kernel: everything but what is listed here. It is a program of others, linked with
//! libraries of the host, so that a list of what it needs would hold for one version of them.

use crate::sys;

/// Refused with `EPERM`: what makes namespaces and mounts, looks into or signals other processes, loads code into the
/// kernel, changes the host, or is the kernel's newest and least tried.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_lookup_dcookie,
    libc::SYS_memfd_create,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_setpriority,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    // What it would end itself by: it ends by a fault then.
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
/// Numbers from here on are those of another way of calling (x32).
const OTHER_NUMBERS: u32 = 0x4000_0000;
/// The families of sockets: IPv4, IPv6; NETLINK is looked at. No UNIX, whose sockets Landlock does not watch over: it
/// would reach every daemon of the host that lets anybody in.
const NETLINK: u32 = 16;
const FAMILIES: [u32; 2] = [2, 10];
/// `IPT_SO_SET_REPLACE` and `IPT_SO_SET_ADD_COUNTERS`, at the levels of IPv4 and IPv6: the host's old firewall.
const FIREWALL: [u32; 2] = [64, 65];
const LEVELS: [u32; 2] = [0, 41];
/// `F_SETOWN`, `F_SETSIG`, `F_SETOWN_EX`: signals to others.
const OWNERS: [u32; 3] = [8, 10, 15];
/// The highest protocol of NETLINK that it speaks: that of routes.
const NETLINK_ROUTE: u32 = 0;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
// struct seccomp_data: the number, the architecture, the instruction pointer, six arguments of 64 bits.
const OFFSET_ARCH: u32 = 4;
const OFFSET_FIRST: u32 = 16;
const OFFSET_SECOND: u32 = 24;
const OFFSET_THIRD: u32 = 32;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        // Codes are below 0x100.
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    }
}

fn program() -> Vec<libc::sock_filter> {
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let mut program = vec![
        instruction(LOAD, 0, 0, OFFSET_ARCH),
        instruction(EQUAL, 1, 0, ARCH),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, 0, 0, 0),
        instruction(AT_LEAST, 0, 1, OTHER_NUMBERS),
        instruction(RETURN, 0, 0, errno(libc::ENOSYS)),
        // Libraries fall back to clone(2), whose flags make no namespace without a capability that it has not.
        instruction(EQUAL, 0, 1, number(libc::SYS_clone3)),
        instruction(RETURN, 0, 0, errno(libc::ENOSYS)),
    ];
    for call in REFUSED {
        program.push(instruction(EQUAL, 0, 1, number(*call)));
        program.push(instruction(RETURN, 0, 0, errno(libc::EPERM)));
    }
    let (allow, refuse) = (
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(RETURN, 0, 0, errno(libc::EAFNOSUPPORT)),
    );
    let forbid = instruction(RETURN, 0, 0, errno(libc::EPERM));
    // prlimit64: its own.
    program.push(instruction(EQUAL, 0, 4, number(libc::SYS_prlimit64)));
    program.push(instruction(LOAD, 0, 0, OFFSET_FIRST));
    program.push(instruction(EQUAL, 0, 1, 0));
    program.push(allow);
    program.push(forbid);
    // fcntl: nobody is signalled.
    program.push(instruction(EQUAL, 0, 8, number(libc::SYS_fcntl)));
    program.push(instruction(LOAD, 0, 0, OFFSET_SECOND));
    for command in OWNERS {
        program.push(instruction(EQUAL, 0, 1, command));
        program.push(forbid);
    }
    program.push(allow);
    // setsockopt: not the firewall.
    program.push(instruction(EQUAL, 0, 10, number(libc::SYS_setsockopt)));
    program.push(instruction(LOAD, 0, 0, OFFSET_SECOND));
    program.push(instruction(EQUAL, 2, 0, LEVELS[0]));
    program.push(instruction(EQUAL, 1, 0, LEVELS[1]));
    program.push(allow);
    program.push(instruction(LOAD, 0, 0, OFFSET_THIRD));
    for option in FIREWALL {
        program.push(instruction(EQUAL, 0, 1, option));
        program.push(forbid);
    }
    program.push(allow);
    program.push(instruction(EQUAL, 1, 0, number(libc::SYS_socket)));
    program.push(allow);
    program.push(instruction(LOAD, 0, 0, OFFSET_FIRST));
    for family in FAMILIES {
        program.push(instruction(EQUAL, 0, 1, family));
        program.push(allow);
    }
    program.push(instruction(EQUAL, 1, 0, NETLINK));
    program.push(refuse);
    program.push(instruction(LOAD, 0, 0, OFFSET_THIRD));
    program.push(instruction(EQUAL, 1, 0, NETLINK_ROUTE));
    program.push(refuse);
    program.push(allow);
    program
}

/// Closes the calling process, which has given up new privileges.
#[expect(unsafe_code, reason = "passes a filter to the kernel")]
pub(super) fn install() -> sys::Result<()> {
    let filter = program();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| sys::Errno(libc::EINVAL))?,
        filter: filter.as_ptr().cast_mut(),
    };
    let pointer = (&raw const program).addr();
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: the kernel copies a program of `len` instructions, which live across the call.
    let set = unsafe { sys::call(libc::SYS_seccomp, [mode, 0, pointer, 0, 0, 0]) };
    set.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call, by interpreting it.
    fn verdict(arch: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let program = program();
        let (mut at, mut value) = (0_usize, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            match u32::from(step.code) {
                LOAD => {
                    value = match step.k {
                        0 => number,
                        OFFSET_ARCH => arch,
                        OFFSET_FIRST => arguments[0],
                        OFFSET_SECOND => arguments[1],
                        OFFSET_THIRD => arguments[2],
                        other => panic!("{other}"),
                    }
                }
                EQUAL if value == step.k => at += usize::from(step.jt),
                EQUAL => at += usize::from(step.jf),
                AT_LEAST if value >= step.k => at += usize::from(step.jt),
                AT_LEAST => at += usize::from(step.jf),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn what_is_listed_is_refused_and_nothing_else() {
        let call = |number: i64| verdict(ARCH, u32::try_from(number).unwrap(), [0; 3]);
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
        for number in REFUSED {
            assert_eq!(call(*number), refused, "{number}");
        }
        for number in [
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_sendto,
        ] {
            assert_eq!(call(number), libc::SECCOMP_RET_ALLOW);
        }
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        assert_eq!(call(libc::SYS_clone3), unknown);
        assert_eq!(verdict(ARCH, OTHER_NUMBERS | 1, [0; 3]), unknown);
        assert_eq!(verdict(3, 1, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn sockets_are_of_the_internet_or_of_routes() {
        let socket = u32::try_from(libc::SYS_socket).unwrap();
        let made = |family: u32, protocol: u32| {
            verdict(ARCH, socket, [family, 0, protocol]) == libc::SECCOMP_RET_ALLOW
        };
        assert!(made(2, 17) && made(10, 58) && made(NETLINK, 0));
        // Of other daemons, packets, nf_tables, uevents, and a virtual machine's.
        assert!(!made(1, 0) && !made(17, 0) && !made(40, 0));
        assert!(!made(NETLINK, 12) && !made(NETLINK, 15));
    }

    #[test]
    fn what_is_looked_at_is_refused_of_others_and_allowed_of_itself() {
        let call = |number: i64, arguments: [u32; 3]| {
            let number = u32::try_from(number).unwrap();
            verdict(ARCH, number, arguments) == libc::SECCOMP_RET_ALLOW
        };
        assert!(call(libc::SYS_prlimit64, [0, 7, 0]));
        assert!(!call(libc::SYS_prlimit64, [5, 7, 0]));
        for command in OWNERS {
            assert!(!call(libc::SYS_fcntl, [3, command, 5]), "{command}");
        }
        assert!(call(libc::SYS_fcntl, [3, 4, 0]), "F_SETFL");
        for (level, option, allowed) in [
            (0, 64, false),
            (0, 65, false),
            (41, 64, false),
            (41, 65, false),
            (0, 8, true),
            (41, 26, true),
            (1, 64, true),
            (6, 1, true),
        ] {
            let set = call(libc::SYS_setsockopt, [3, level, option]);
            assert_eq!(set, allowed, "{level} {option}");
        }
    }
}
