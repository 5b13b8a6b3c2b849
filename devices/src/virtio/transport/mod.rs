//! Transports: how a driver finds a device and its queues.
