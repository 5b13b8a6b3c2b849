//! The socket device (virtio 1.3 §5.10).
