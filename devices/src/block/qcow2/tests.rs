//! The disk against a plain vector, and the image against qemu-img.

mod checker;
mod crash;
mod hostile;
mod random;
mod reading;
mod support;
mod writing;
