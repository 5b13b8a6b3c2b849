//! Records survive the way, and hostile bytes do no harm.

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

fn denial() -> impl Strategy<Value = Denial> {
    let role = prop_oneof![
        proptest::strategy::Just(Role::Base),
        proptest::strategy::Just(Role::Control),
        proptest::strategy::Just(Role::Vcpu),
        proptest::strategy::Just(Role::Io),
        proptest::strategy::Just(Role::Spawner),
        proptest::strategy::Just(Role::Reader),
        proptest::strategy::Just(Role::Vhost),
    ];
    (
        any::<i32>(),
        any::<u32>(),
        role,
        any::<u32>(),
        any::<[u64; 3]>(),
        any::<u64>(),
    )
        .prop_map(|(nr, arch, role, tid, args, instruction_pointer)| Denial {
            nr,
            arch,
            role,
            tid,
            args,
            instruction_pointer,
        })
}

proptest! {
    #[test]
    fn a_record_decodes_to_what_was_encoded(denial in denial()) {
        prop_assert_eq!(Denial::decode(&denial.encode()), Ok(denial));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        if let Ok(denial) = Denial::decode(&bytes) {
            prop_assert_eq!(denial.encode().to_vec(), bytes);
        }
    }

    #[test]
    fn a_damaged_record_is_refused_or_reads_as_itself(
        denial in denial(), at in 0..RECORD_LEN, value in any::<u8>(),
    ) {
        let mut bytes = denial.encode();
        bytes[at] = value;
        if let Ok(other) = Denial::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
            prop_assert!(!other.to_string().is_empty());
        }
    }
}

#[test]
fn a_denial_reads_like_a_sentence() {
    let denial = Denial {
        nr: 41,
        arch: ARCH_X86_64,
        role: Role::Vcpu,
        tid: 3,
        args: [2, 1, 0],
        instruction_pointer: 0x40_1000,
    };
    assert_eq!(
        denial.to_string(),
        "denied system call socket (41) in role vcpu, thread 3, arguments 0x2 0x1 0x0"
    );
    assert_eq!(Denial { nr: -1, ..denial }.name(), None);
    assert_eq!(
        Denial {
            arch: 0x4000_0003,
            ..denial
        }
        .name(),
        None
    );
}

#[test]
fn calls_have_the_kernels_names() {
    assert_eq!(syscall_name(0), Some("read"));
    assert_eq!(syscall_name(425), Some("io_uring_setup"));
    assert_eq!(syscall_name(9999), None);
}
