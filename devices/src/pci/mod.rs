//! The PCI bus: configuration space, BARs, MSI-X, and the functions on it (PCI Express 6.0).
//!
//! Who looks for what: [`root`] finds the function that a configuration access means; a function keeps
//! its registers in a [`config_space::ConfigSpace`] and its interrupts in an [`msix::Msix`].

pub mod config_space;
pub mod msix;
pub mod root;
