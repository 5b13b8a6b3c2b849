//! The configuration space of one function.
