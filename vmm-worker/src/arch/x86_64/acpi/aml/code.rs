//! The terms that methods are made of (§20.2.5.3, §20.2.5.4).
//!
//! An operand is a term that gives a value, a target one that takes it: an argument, a local, a
//! named object or an element.

use super::{EXTENDED, NameSegment, integer, package};

/// The arguments of a method.
pub(in super::super) const ARG0: &[u8] = &[0x68];
pub(in super::super) const ARG1: &[u8] = &[0x69];
pub(in super::super) const ARG2: &[u8] = &[0x6A];
pub(in super::super) const ARG3: &[u8] = &[0x6B];
/// Its locals.
pub(in super::super) const LOCAL0: &[u8] = &[0x60];
pub(in super::super) const LOCAL1: &[u8] = &[0x61];

const STORE_OP: u8 = 0x70;
const AND_OP: u8 = 0x7B;
const OR_OP: u8 = 0x7D;
const SHIFT_LEFT_OP: u8 = 0x79;
const SHIFT_RIGHT_OP: u8 = 0x7A;
const NOTIFY_OP: u8 = 0x86;
const INDEX_OP: u8 = 0x88;
const CREATE_DWORD_FIELD_OP: u8 = 0x8A;
const NOT_OP: u8 = 0x92;
const EQUAL_OP: u8 = 0x93;
const LESS_OP: u8 = 0x95;
const IF_OP: u8 = 0xA0;
const ELSE_OP: u8 = 0xA1;
const WHILE_OP: u8 = 0xA2;
const RETURN_OP: u8 = 0xA4;
/// After [`EXTENDED`].
const ACQUIRE_OP: u8 = 0x23;
const RELEASE_OP: u8 = 0x27;

/// In place of a target: the value is only used where the term stands.
pub(in super::super) const NOWHERE: &[u8] = &[0];

/// `target = value`.
pub(in super::super) fn store(value: &[u8], target: &[u8]) -> Vec<u8> {
    [&[STORE_OP], value, target].concat()
}

/// `target = left & right`.
pub(in super::super) fn and(left: &[u8], right: &[u8], target: &[u8]) -> Vec<u8> {
    [&[AND_OP], left, right, target].concat()
}

/// `target = left | right`.
pub(in super::super) fn or(left: &[u8], right: &[u8], target: &[u8]) -> Vec<u8> {
    [&[OR_OP], left, right, target].concat()
}

/// `target = value << count`.
pub(in super::super) fn shift_left(value: &[u8], count: &[u8], target: &[u8]) -> Vec<u8> {
    [&[SHIFT_LEFT_OP], value, count, target].concat()
}

/// `target = value >> count`.
pub(in super::super) fn shift_right(value: &[u8], count: &[u8], target: &[u8]) -> Vec<u8> {
    [&[SHIFT_RIGHT_OP], value, count, target].concat()
}

/// `left == right`; of a buffer the whole content is compared.
pub(in super::super) fn equal(left: &[u8], right: &[u8]) -> Vec<u8> {
    [&[EQUAL_OP], left, right].concat()
}

/// `left != right`.
pub(in super::super) fn not_equal(left: &[u8], right: &[u8]) -> Vec<u8> {
    [vec![NOT_OP], equal(left, right)].concat()
}

/// `left < right`, of integers without a sign.
pub(in super::super) fn less(left: &[u8], right: &[u8]) -> Vec<u8> {
    [&[LESS_OP], left, right].concat()
}

/// Element `at` of a buffer, a target.
pub(in super::super) fn element(buffer: &[u8], at: u32) -> Vec<u8> {
    [&[INDEX_OP], buffer, &integer(at), NOWHERE].concat()
}

/// Declares `name` as the 32 bits at byte `at` of a buffer.
pub(in super::super) fn dword_field(buffer: &[u8], at: u32, name: NameSegment) -> Vec<u8> {
    [&[CREATE_DWORD_FIELD_OP], buffer, &integer(at), &name].concat()
}

/// Runs `terms` if `condition` is not zero.
pub(in super::super) fn when(condition: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    package(&[IF_OP], &[condition, &terms.concat()].concat())
}

/// Runs `terms` if the condition of the [`when`] right before it is zero.
pub(in super::super) fn otherwise(terms: &[Vec<u8>]) -> Vec<u8> {
    package(&[ELSE_OP], &terms.concat())
}

/// Runs `terms` as long as `condition` is not zero.
pub(in super::super) fn repeat_while(condition: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    package(&[WHILE_OP], &[condition, &terms.concat()].concat())
}

/// Ends the method with `value`.
pub(in super::super) fn give(value: &[u8]) -> Vec<u8> {
    [&[RETURN_OP], value].concat()
}

/// Sends the guest's driver of `object` a notification (§5.6.6).
pub(in super::super) fn notify(object: &[u8], value: &[u8]) -> Vec<u8> {
    [&[NOTIFY_OP], object, value].concat()
}

/// Runs a method, which has as many arguments.
pub(in super::super) fn call(method: &[u8], arguments: &[&[u8]]) -> Vec<u8> {
    [method, &arguments.concat()].concat()
}

/// Runs `terms` with a mutex held, for which it waits as long as it takes.
pub(in super::super) fn holding(mutex: NameSegment, terms: &[Vec<u8>]) -> Vec<u8> {
    const FOR_EVER: [u8; 2] = [0xFF, 0xFF];
    [
        &[EXTENDED, ACQUIRE_OP],
        &mutex[..],
        &FOR_EVER,
        &terms.concat(),
        &[EXTENDED, RELEASE_OP],
        &mutex,
    ]
    .concat()
}
