//! The disk against a plain vector, and the image against qemu-img.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes and offsets here are those of small disks"
)]

mod checker;
mod crash;
mod hostile;
mod random;
mod reading;
mod support;
mod writing;
