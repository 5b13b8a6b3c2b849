//! The console (virtio 1.3 §5.3): ports that carry bytes.
