//! The tables are sound, and the programs compiled from them say what the tables say.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::compile::{Instruction, Unlisted, compile};
use super::denial::syscall_name;
use super::rule::{Action, Check, Rule};
use super::{Role, ioctl, join};

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;

/// A call as a filter sees it.
#[derive(Clone, Copy, Debug)]
struct Call {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

/// The half of an argument that filters look at.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap()
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| if high { low(value >> 32) } else { low(value) };
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0,
            _ => half(
                self.args[(offset as usize - 16) / 8],
                (offset - 16) % 8 != 0,
            ),
        }
    }
}

/// Runs a program as the kernel does.
fn run(program: &[Instruction], call: Call) -> u32 {
    let (mut at, mut word) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => word = call.word(k),
            0x54 => word &= k,
            0x05 => at += k as usize,
            0x15 => jump(word == k),
            0x25 => jump(word > k),
            0x35 => jump(word >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn program(rules: &[Rule]) -> Vec<Instruction> {
    compile(rules, Unlisted::Trap)
}

/// What the table itself says.
fn expected(rules: &[Rule], call: Call) -> u32 {
    let Some(rule) = rules.iter().find(|rule| rule.nr == call.nr) else {
        return TRAP;
    };
    let holds = |check: &Check| match *check {
        Check::OneOf { arg, values } => values.contains(&low(call.args[usize::from(arg)])),
        Check::Masked { arg, mask, value } => low(call.args[usize::from(arg)]) & mask == value,
    };
    match rule.action {
        _ if !rule.checks.iter().all(holds) => TRAP,
        Action::Allow => ALLOW,
        Action::Errno(errno) => ERRNO | u32::from(errno),
        Action::Trap => TRAP,
    }
}

/// Every number near the system calls, with arguments at and around each filtered value.
fn calls(rules: &[Rule]) -> Vec<Call> {
    let mut calls = Vec::new();
    for nr in (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0010, u32::MAX]) {
        calls.push(Call {
            nr,
            arch: X86_64,
            args: [0; 6],
        });
        let checks = rules
            .iter()
            .find(|rule| rule.nr == nr)
            .map_or(&[][..], |rule| rule.checks);
        let mut candidates: Vec<[u64; 6]> = vec![[0; 6]];
        for check in checks {
            let (arg, values): (u8, Vec<u32>) = match *check {
                Check::OneOf { arg, values } => {
                    let around = |v: &u32| [v.wrapping_sub(1), *v, v.wrapping_add(1)];
                    (
                        arg,
                        values
                            .iter()
                            .flat_map(around)
                            .chain([0, u32::MAX])
                            .collect(),
                    )
                }
                Check::Masked { arg, mask, value } => {
                    (arg, vec![0, mask, value, !mask, value | !mask, u32::MAX])
                }
            };
            candidates = candidates
                .iter()
                .flat_map(|args| {
                    values.iter().map(|value| {
                        let mut args = *args;
                        args[usize::from(arg)] = u64::from(*value);
                        args
                    })
                })
                .collect();
        }
        calls.extend(candidates.into_iter().map(|args| Call {
            nr,
            arch: X86_64,
            args,
        }));
    }
    // The upper half of a 32-bit argument means nothing.
    let dirty = calls.iter().map(|call| Call {
        args: call.args.map(|a| a | 7 << 40),
        ..*call
    });
    dirty.chain(calls.iter().copied()).collect()
}

#[test]
fn programs_say_what_their_tables_say() {
    for role in Role::ALL {
        let program = program(role.rules());
        for call in calls(role.rules()) {
            assert_eq!(
                run(&program, call),
                expected(role.rules(), call),
                "{role} {call:?}"
            );
        }
    }
}

#[test]
fn programs_agree_with_seccompiler() {
    for role in Role::ALL {
        let ours = program(role.rules());
        let reference = reference(role.rules());
        for call in calls(role.rules()) {
            let ours = run(&ours, call);
            // The reference knows one answer to a match.
            if ours & 0xffff_0000 != ERRNO {
                assert_eq!(ours, run(&reference, call), "{role} {call:?}");
            }
        }
    }
}

fn reference(rules: &[Rule]) -> Vec<Instruction> {
    let compare = |arg, op, value: u32| {
        SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value.into()).unwrap()
    };
    let mut map: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        // Any of these lists of conditions.
        let mut any: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
        for check in rule.checks {
            let alternatives: Vec<SeccompCondition> = match *check {
                Check::OneOf { arg, values } => values
                    .iter()
                    .map(|v| compare(arg, SeccompCmpOp::Eq, *v))
                    .collect(),
                Check::Masked { arg, mask, value } => {
                    vec![compare(arg, SeccompCmpOp::MaskedEq(mask.into()), value)]
                }
            };
            any = any
                .iter()
                .flat_map(|list| {
                    alternatives
                        .iter()
                        .map(|c| list.iter().cloned().chain([c.clone()]).collect())
                })
                .collect();
        }
        let lists = any.into_iter().filter(|list| !list.is_empty());
        map.insert(
            rule.nr.into(),
            lists.map(|list| SeccompRule::new(list).unwrap()).collect(),
        );
    }
    let arch = TargetArch::x86_64;
    let filter = SeccompFilter::new(map, SeccompAction::Trap, SeccompAction::Allow, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program
        .iter()
        .map(|i| Instruction {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect()
}

#[test]
fn the_entering_filter_and_its_seal_are_base() {
    let base = Role::Base.rules();
    let entering = compile(base.iter().chain(join::OPEN), Unlisted::Trap);
    let seal = compile(join::SEALED, Unlisted::Allow);
    for call in calls(base).into_iter().chain(calls(join::OPEN)) {
        let expected = expected(base, call);
        let (first, second) = (run(&entering, call), run(&seal, call));
        // The kernel takes the strictest; of these two a trap is the stricter.
        let both = if second == TRAP { second } else { first };
        assert_eq!(both, expected, "{call:?}");
    }
    assert!(seal.len() < 16, "{}", seal.len());
}

#[test]
fn another_architecture_is_killed() {
    for role in Role::ALL {
        let call = Call {
            nr: 1,
            arch: 0x4000_0003,
            args: [0; 6],
        };
        assert_eq!(run(&program(role.rules()), call), 0x8000_0000, "{role}");
    }
}

#[test]
fn programs_are_short() {
    for role in Role::ALL {
        let length = program(role.rules()).len();
        assert!(length < 330, "{role}: {length}");
    }
}

#[test]
fn no_rule_is_redundant() {
    for role in Role::ALL {
        let mut seen = BTreeSet::new();
        for rule in role.rules() {
            let name = i32::try_from(rule.nr).ok().and_then(syscall_name);
            assert!(seen.insert(rule.nr), "{role}: {name:?} twice");
            assert!(name.is_some(), "{role}: {} has no name", rule.nr);
            assert!(!rule.reason.is_empty(), "{role}: {name:?} without a reason");
            for check in rule.checks {
                if let Check::OneOf { values, .. } = check {
                    let distinct: BTreeSet<_> = values.iter().collect();
                    assert_eq!(
                        distinct.len(),
                        values.len(),
                        "{role}: {name:?} repeats a value"
                    );
                }
            }
        }
    }
}

#[test]
fn base_allows_whatever_a_role_allows() {
    let base = Role::Base.rules();
    for role in Role::ALL {
        for call in calls(role.rules()) {
            if expected(role.rules(), call) == ALLOW {
                assert_eq!(expected(base, call), ALLOW, "{role} {call:?}");
            }
        }
    }
}

/// Threads that it makes have its filter too.
#[test]
fn the_spawner_may_do_whatever_the_threads_it_makes_may() {
    let spawner = Role::Spawner.rules();
    for role in [Role::Io, Role::Vcpu, Role::Vhost] {
        for call in calls(role.rules()) {
            if expected(role.rules(), call) == ALLOW {
                assert_eq!(expected(spawner, call), ALLOW, "{role} {call:?}");
            }
        }
    }
}

#[test]
fn no_role_may_open_connect_or_execute() {
    let never = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_creat,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_bind,
        libc::SYS_connect,
        libc::SYS_listen,
        libc::SYS_kill,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_ptrace,
        libc::SYS_userfaultfd,
        libc::SYS_bpf,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_open,
        libc::SYS_process_vm_writev,
        libc::SYS_keyctl,
        libc::SYS_flock,
        libc::SYS_capset,
        libc::SYS_setuid,
        libc::SYS_chroot,
        libc::SYS_personality,
    ];
    for role in Role::ALL {
        for nr in never {
            assert!(
                role.rules().iter().all(|rule| i64::from(rule.nr) != nr),
                "{role}: {nr}"
            );
        }
    }
}

/// What a client of libvirt's protocol sends is parsed there: it has the sockets it was given, and no call
/// that makes another descriptor, thread or process.
#[test]
fn a_gateway_makes_nothing() {
    let makes = [
        libc::SYS_accept4,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_epoll_create1,
        libc::SYS_eventfd2,
        libc::SYS_io_uring_enter,
        libc::SYS_memfd_create,
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_signalfd4,
        libc::SYS_timerfd_create,
        libc::SYS_wait4,
    ];
    for rule in Role::Gateway.rules() {
        let name = i32::try_from(rule.nr).ok().and_then(syscall_name);
        assert!(!makes.contains(&i64::from(rule.nr)), "{name:?}");
    }
    let allows = |request: u32| {
        let args = [0, request.into(), 0, 0, 0, 0];
        let call = Call {
            nr: 16,
            arch: X86_64,
            args,
        };
        expected(Role::Gateway.rules(), call) == ALLOW
    };
    assert!(allows(ioctl::FIONBIO));
    for request in [
        ioctl::KVM_RUN,
        ioctl::TUNSETQUEUE,
        ioctl::VHOST_SET_OWNER,
        0x5412, // TIOCSTI: input of a terminal
    ] {
        assert!(!allows(request), "{request:#x}");
    }
    // It has no file of a volume's, and no use for one.
    for nr in [libc::SYS_fallocate, libc::SYS_lseek, libc::SYS_ftruncate] {
        let allowed = Role::Gateway.rules().iter();
        let allowed = allowed.filter(|rule| i64::from(rule.nr) == nr);
        assert_eq!(allowed.count(), 0, "{nr}");
    }
}

#[test]
fn no_role_but_base_makes_a_ring() {
    for (nr, roles) in [
        (libc::SYS_io_uring_setup, &[Role::Base][..]),
        (libc::SYS_io_uring_register, &[Role::Base]),
        (
            libc::SYS_io_uring_enter,
            &[Role::Base, Role::Io, Role::Spawner, Role::Vhost],
        ),
    ] {
        for role in Role::ALL {
            let allowed = role.rules().iter().any(|rule| i64::from(rule.nr) == nr);
            assert_eq!(allowed, roles.contains(&role), "{role}: {nr}");
        }
    }
}

#[test]
fn no_role_but_base_makes_anything_of_kvm_but_vcpus_and_memory_slots_in_one_each() {
    let makes = [
        ioctl::KVM_CREATE_VM,
        ioctl::KVM_CREATE_IRQCHIP,
        ioctl::KVM_CREATE_PIT2,
        ioctl::KVM_SET_USER_MEMORY_REGION2,
        ioctl::KVM_ENABLE_CAP,
        ioctl::KVM_IRQFD,
    ];
    for role in Role::ALL {
        let allows = |number: u32| {
            let args = [0, number.into(), 0, 0, 0, 0];
            expected(
                role.rules(),
                Call {
                    nr: 16,
                    arch: X86_64,
                    args,
                },
            ) == ALLOW
        };
        assert!(!allows(ioctl::KVM_CREATE_DEVICE), "{role}");
        assert_eq!(makes.into_iter().any(allows), role == Role::Base, "{role}");
        let makes_vcpus = [Role::Base, Role::Spawner].contains(&role);
        assert_eq!(allows(ioctl::KVM_CREATE_VCPU), makes_vcpus, "{role}");
        let sets_slots = [Role::Base, Role::Memory].contains(&role);
        let set_slot = ioctl::KVM_SET_USER_MEMORY_REGION;
        assert_eq!(allows(set_slot), sets_slots, "{role}");
    }
}

/// By request: those that hand queues over, the one that asks what the kernel can, and those that nobody needs.
#[test]
fn only_the_threads_of_such_interfaces_hand_queues_to_the_kernel() {
    let may_call = |role: Role, number: u32| {
        let args = [0, number.into(), 0, 0, 0, 0];
        let call = Call {
            nr: 16,
            arch: X86_64,
            args,
        };
        expected(role.rules(), call) == ALLOW
    };
    for role in Role::ALL {
        for number in super::vhost::MORE_IOCTLS {
            let hands = [Role::Base, Role::Spawner, Role::Vhost].contains(&role);
            // What is plugged and unplugged the kernel is told by the thread that does it.
            let tells = role == Role::Memory && number == ioctl::VHOST_SET_MEM_TABLE;
            assert_eq!(
                may_call(role, number),
                hands || tells,
                "{role}: {number:#x}"
            );
        }
        let builds = [Role::Base, Role::Spawner].contains(&role);
        assert_eq!(may_call(role, ioctl::VHOST_GET_FEATURES), builds, "{role}");
        // Where writes are logged, an IOMMU's messages, busy polling, the endianness of a ring.
        for number in [
            0x4008_af04,
            0x4004_af07,
            0x4008_af23,
            0x4008_af25,
            0x4008_af13,
        ] {
            assert!(!may_call(role, number), "{role}: {number:#x}");
        }
    }
    let io: Vec<u32> = Role::Io.rules().iter().map(|rule| rule.nr).collect();
    let vhost: Vec<u32> = Role::Vhost.rules().iter().map(|rule| rule.nr).collect();
    assert_eq!(io, vhost, "no other system call");
}

#[test]
fn ioctl_numbers_are_the_kernels() {
    // And from linux/vhost.h.
    assert_eq!(ioctl::VHOST_GET_FEATURES, 0x8008_af00);
    assert_eq!(ioctl::VHOST_SET_FEATURES, 0x4008_af00);
    assert_eq!(ioctl::VHOST_SET_OWNER, 0xaf01);
    assert_eq!(ioctl::VHOST_RESET_OWNER, 0xaf02);
    assert_eq!(ioctl::VHOST_SET_MEM_TABLE, 0x4008_af03);
    assert_eq!(ioctl::VHOST_SET_VRING_ADDR, 0x4028_af11);
    assert_eq!(ioctl::VHOST_GET_VRING_BASE, 0xc008_af12);
    assert_eq!(ioctl::VHOST_SET_VRING_ERR, 0x4008_af22);
    assert_eq!(ioctl::VHOST_NET_SET_BACKEND, 0x4008_af30);
    // As a C compiler prints them from linux/kvm.h.
    assert_eq!(ioctl::KVM_GET_MSR_INDEX_LIST, 0xc004_ae02);
    assert_eq!(ioctl::KVM_GET_SUPPORTED_CPUID, 0xc008_ae05);
    assert_eq!(ioctl::KVM_SET_USER_MEMORY_REGION, 0x4020_ae46);
    assert_eq!(ioctl::KVM_SET_USER_MEMORY_REGION2, 0x40a0_ae49);
    assert_eq!(ioctl::KVM_GET_IRQCHIP, 0xc208_ae62);
    assert_eq!(ioctl::KVM_SET_IRQCHIP, 0x8208_ae63);
    assert_eq!(ioctl::KVM_IRQ_LINE, 0x4008_ae61);
    assert_eq!(ioctl::KVM_CREATE_PIT2, 0x4040_ae77);
    assert_eq!(ioctl::KVM_SIGNAL_MSI, 0x4020_aea5);
    assert_eq!(ioctl::KVM_GET_CLOCK, 0x8030_ae7c);
    assert_eq!(ioctl::KVM_ENABLE_CAP, 0x4068_aea3);
    assert_eq!(ioctl::KVM_X86_SET_MSR_FILTER, 0x4188_aec6);
    assert_eq!(ioctl::KVM_CREATE_DEVICE, 0xc00c_aee0);
    assert_eq!(ioctl::KVM_GET_REGS, 0x8090_ae81);
    assert_eq!(ioctl::KVM_SET_SREGS, 0x4138_ae84);
    assert_eq!(ioctl::KVM_SET_FPU, 0x41a0_ae8d);
    assert_eq!(ioctl::KVM_SET_LAPIC, 0x4400_ae8f);
    assert_eq!(ioctl::KVM_GET_VCPU_EVENTS, 0x8040_ae9f);
    assert_eq!(ioctl::KVM_SET_DEBUGREGS, 0x4080_aea2);
    assert_eq!(ioctl::KVM_SET_XSAVE, 0x5000_aea5);
    assert_eq!(ioctl::KVM_SET_XCRS, 0x4188_aea7);
    assert_eq!(ioctl::KVM_SET_SREGS2, 0x4140_aecd);
    assert_eq!(ioctl::KVM_SET_DEVICE_ATTR, 0x4018_aee1);
    assert_eq!(ioctl::KVM_GET_DEVICE_ATTR, 0x4018_aee2);
    assert_eq!(ioctl::KVM_GET_PIT2, 0x8070_ae9f);
    assert_eq!(ioctl::KVM_GET_XSAVE2, 0x9000_aecf);
}
