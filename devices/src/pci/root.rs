//! The root bus and the ways a guest reaches configuration space.
