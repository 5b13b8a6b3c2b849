//! x
mod links;
