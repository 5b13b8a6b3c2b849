//! Vhost: a thread that owns the queues of a network interface which the kernel serves (vhost-net).
//!
//! What Io may, and the calls by which it hands queues to the kernel and takes them back. A thread has this
//! role only where the supervisor handed `/dev/vhost-net` over for it; the vCPUs, the control thread and the
//! threads of other devices never have.

use super::io;
use super::ioctl;
use super::rule::{Rule, allow_if, one_of};

/// Those that Io does not have.
pub(super) const MORE_IOCTLS: [u32; 12] = [
    ioctl::VHOST_SET_FEATURES,
    ioctl::VHOST_SET_OWNER,
    ioctl::VHOST_RESET_OWNER,
    ioctl::VHOST_SET_MEM_TABLE,
    ioctl::VHOST_SET_VRING_NUM,
    ioctl::VHOST_SET_VRING_ADDR,
    ioctl::VHOST_SET_VRING_BASE,
    ioctl::VHOST_GET_VRING_BASE,
    ioctl::VHOST_SET_VRING_KICK,
    ioctl::VHOST_SET_VRING_CALL,
    ioctl::VHOST_SET_VRING_ERR,
    ioctl::VHOST_NET_SET_BACKEND,
];

const IOCTLS: &[u32] = &{
    let mut all = [0; io::IOCTLS.len() + MORE_IOCTLS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < io::IOCTLS.len() {
            io::IOCTLS[i]
        } else {
            MORE_IOCTLS[i - io::IOCTLS.len()]
        };
        i += 1;
    }
    all
};

const CALLS: Rule = allow_if(
    libc::SYS_ioctl,
    &[one_of(1, IOCTLS)],
    "interrupts that have no irqfd, what a tap offloads, queues that the kernel serves",
);

/// The table.
pub const RULES: &[Rule] = &{
    let mut all = [CALLS; io::RULES.len()];
    let mut i = 0;
    while i < all.len() {
        if io::RULES[i].nr != CALLS.nr {
            all[i] = io::RULES[i];
        }
        i += 1;
    }
    all
};
