//! The balloon (virtio 1.3 §5.5): memory that the guest lends back to the host.
