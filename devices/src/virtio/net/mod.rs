//! The network device (virtio 1.3 §5.1).
