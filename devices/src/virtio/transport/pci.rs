//! virtio-pci.
