//! A decoder fed by a hostile peer allocates no more than the message itself could hold, whatever
//! lengths the message claims. Counted by an allocator of this test's own process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use reeve_ipc::MAX_MESSAGE_BYTES;
use reeve_ipc::api::message::{FromClient, ToClient};
use reeve_ipc::codec::{decode, encode};
use reeve_ipc::message::{FromWorker, ToWorker};

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize) {
    // A thread that is going away counts no more.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get().saturating_add(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local cell
// that allocates nothing.
#[allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated, all together and freed ones included, by the costliest of decoding as each side of
/// the worker protocol and of the native API.
fn allocated_by_decoding(bytes: &[u8]) -> usize {
    let costs = [
        allocated(|| drop(decode::<FromWorker>(bytes))),
        allocated(|| drop(decode::<ToWorker>(bytes))),
        allocated(|| drop(decode::<FromClient>(bytes))),
        allocated(|| drop(decode::<ToClient>(bytes))),
    ];
    costs.into_iter().max().unwrap_or_default()
}

fn allocated(work: impl FnOnce()) -> usize {
    let before = ALLOCATED.get();
    work();
    ALLOCATED.get() - before
}

/// What an error's own text may cost.
const SLACK: usize = 4096;

/// The varint of `length`, in its nine-byte form.
fn varint(length: u64) -> Vec<u8> {
    let mut bytes = vec![253];
    bytes.extend(length.to_le_bytes());
    bytes
}

/// Everything before each text of each message.
const BEFORE_TEXT: [&[u8]; 12] = [
    &[1, 1, 2],                 // LogFilterSet.filter
    &[1, 1, 4, 0],              // DomainGet.domain
    &[1, 1, 7],                 // DomainDefine.definition.name
    &[1, 1, 19, 0, 1, b'x', 2], // DomainLabelSet.label.metadata.uri
    &[1, 0],                    // Refused.message
    &[2, 1, 0, 0],              // SupervisorInfo.build
    &[0, 1],                    // Hello.build, Welcome.build
    &[0, 1, 0],                 // Welcome.domain
    &[2, 1, 0],                 // Launch.spec.name; event 1: a phase
    &[1, 1, 1, 0],              // Reply.error.message
    &[2, 1, 4],                 // WorkerFailed.message
    &[2, 1, 0, 0],              // Launch.spec.uuid, a length of its own
];

#[test]
fn a_length_no_message_could_hold_allocates_nothing() {
    for before in BEFORE_TEXT {
        for length in [
            u64::MAX,
            u64::MAX / 2,
            1 << 40,
            MAX_MESSAGE_BYTES as u64 + 1,
        ] {
            let mut bytes = before.to_vec();
            bytes.extend(varint(length));
            let allocated = allocated_by_decoding(&bytes);
            assert!(allocated <= SLACK, "{allocated} bytes for {bytes:?}");
        }
    }
}

#[test]
fn a_length_beyond_the_bytes_that_came_allocates_no_more_than_the_largest_message() {
    for before in BEFORE_TEXT {
        for length in [100, 10_000, MAX_MESSAGE_BYTES as u64 - 20] {
            let mut bytes = before.to_vec();
            bytes.extend(varint(length));
            let allocated = allocated_by_decoding(&bytes);
            assert!(
                allocated <= 2 * MAX_MESSAGE_BYTES + SLACK,
                "{allocated} bytes for {bytes:?}"
            );
        }
    }
}

#[test]
fn a_list_longer_than_the_message_allocates_no_more_than_a_mebibyte() {
    /// What serde reserves for a list ahead of its elements, at most.
    const RESERVED_AHEAD: usize = 1 << 20;
    // Request {id 1, Launch {name "", uuid, machine, vcpus, four switches, supported_cpuid: ..}}
    let mut launch = vec![2, 1, 0, 0, 16];
    launch.extend([0; 16]);
    launch.extend([0, 1, 0, 0, 0, 0]);
    for length in [u64::MAX, 1 << 40, MAX_MESSAGE_BYTES as u64, 1000] {
        let mut bytes = launch.clone();
        bytes.extend(varint(length));
        let allocated = allocated_by_decoding(&bytes);
        assert!(
            allocated <= RESERVED_AHEAD + SLACK,
            "{allocated} bytes for {length}"
        );
    }
    // The bytes are those of the field: a whole element behind the length is read as one.
    let mut bytes = launch;
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let error = decode::<ToWorker>(&bytes).unwrap_err().to_string();
    assert!(error.contains("UnexpectedEnd"), "{error}");
}

#[test]
fn a_list_within_a_list_of_the_native_api_allocates_no_more_than_a_mebibyte_each() {
    const RESERVED_AHEAD: usize = 1 << 20;
    // Reply {id 1, Ok, ConfigReload [..]}, and Reply {id 1, Ok, DomainPage {domains: [..]}}
    for before in [&[2, 1, 0, 1][..], &[2, 1, 0, 3]] {
        for length in [u64::MAX, 1 << 40, MAX_MESSAGE_BYTES as u64] {
            let mut bytes = before.to_vec();
            bytes.extend(varint(length));
            let allocated = allocated_by_decoding(&bytes);
            assert!(allocated <= RESERVED_AHEAD + SLACK, "{allocated} bytes");
        }
    }
    // Call {id 1, DomainDefine {name "x", uuid, machine, vcpus 1, four switches, memory, built-in "",
    // no devices, three actions, five limits, pinning: [{vcpu 0, cpus: [..]} ..], no labels, most vCPUs 1,
    // no platform, nothing kept, no tuning}}
    let mut define = vec![1, 1, 7, 1, b'x', 16];
    define.extend([0; 16]);
    define.extend([0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let before_devices = define.clone();
    define.extend([0; 11]);
    define.extend([0; 8]);
    for length in [u64::MAX, 1 << 40, MAX_MESSAGE_BYTES as u64] {
        let mut bytes = define.clone();
        bytes.extend(varint(length));
        bytes.push(0);
        bytes.extend(varint(length));
        let allocated = allocated_by_decoding(&bytes);
        assert!(allocated <= 2 * RESERVED_AHEAD + SLACK, "{allocated} bytes");
    }
    // Disks: [{target "vda", no image, backing: [..]} ..]
    for length in [u64::MAX, 1 << 40, MAX_MESSAGE_BYTES as u64] {
        let mut bytes = before_devices.clone();
        bytes.extend(varint(length));
        bytes.extend([3, b'v', b'd', b'a', 0]);
        bytes.extend(varint(length));
        let allocated = allocated_by_decoding(&bytes);
        assert!(allocated > RESERVED_AHEAD, "no list within a list");
        assert!(allocated <= 2 * RESERVED_AHEAD + SLACK, "{allocated} bytes");
    }
    // The bytes are those of the field: a whole pin behind the length is read as one.
    let mut bytes = define;
    bytes.extend([1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    decode::<FromClient>(&bytes).unwrap();
}

#[test]
fn the_largest_message_costs_its_own_size() {
    let mut bytes = vec![2, 1, 4];
    let text = MAX_MESSAGE_BYTES - 64;
    bytes.push(251);
    bytes.extend(u16::try_from(text).unwrap().to_le_bytes());
    bytes.resize(bytes.len() + text, b'x');
    let before = ALLOCATED.get();
    let message: FromWorker = decode(&bytes).unwrap();
    let allocated = ALLOCATED.get() - before;
    assert!(allocated <= MAX_MESSAGE_BYTES + SLACK, "{allocated} bytes");
    assert_eq!(encode(&message).unwrap(), bytes);
}

#[test]
fn no_short_message_allocates_beyond_the_limit() {
    // Every combination of the first bytes, each with the longest lengths behind it.
    for first in 0..4_u8 {
        for second in 0..12_u8 {
            for third in 0..12_u8 {
                for length in [u64::MAX, MAX_MESSAGE_BYTES as u64 / 2] {
                    let mut bytes = vec![first, second, third];
                    for _ in 0..4 {
                        bytes.extend(varint(length));
                    }
                    let allocated = allocated_by_decoding(&bytes);
                    assert!(
                        allocated <= 2 * MAX_MESSAGE_BYTES + SLACK,
                        "{allocated}: {bytes:?}"
                    );
                }
            }
        }
    }
}
