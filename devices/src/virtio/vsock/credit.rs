//! Credit (virtio 1.3 §5.10.6.3): how much each side of a connection may send, so that nobody has
//! to hold more than it said it would.
//!
//! All counts are of bytes since the connection began, modulo 2³². What the driver says of its own
//! side is any number, and only ever stops it from being sent something.

/// What the driver may send us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming {
    /// Bytes that are held at most.
    window: u32,
    received: u32,
    forwarded: u32,
    /// What the driver was told of `forwarded` last.
    told: u32,
}

impl Incoming {
    pub(super) fn new(window: u32) -> Self {
        Self {
            window,
            received: 0,
            forwarded: 0,
            told: 0,
        }
    }

    pub(super) fn window(self) -> u32 {
        self.window
    }

    /// Bytes that are held now.
    pub(super) fn held(self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Takes in `bytes`; false if that is more than there is room for.
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let fits = bytes <= self.window.saturating_sub(self.held());
        if fits {
            self.received = self.received.wrapping_add(bytes);
        }
        fits
    }

    /// So many of the bytes held have been passed on.
    pub(super) fn forward(&mut self, bytes: u32) {
        let bytes = bytes.min(self.held());
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Whether the driver thinks that it has little room left, and is wrong.
    pub(super) fn is_update_due(self) -> bool {
        let believed = self.received.wrapping_sub(self.told);
        self.forwarded != self.told && believed > self.window / 2
    }

    /// The count that the driver is told now.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.forwarded
    }
}

/// What we may send the driver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outgoing {
    room: u32,
    forwarded: u32,
    sent: u32,
}

impl Outgoing {
    /// The driver said how it is.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.room = buf_alloc;
        self.forwarded = fwd_cnt;
    }

    /// Bytes that may be sent now.
    pub(super) fn left(self) -> u32 {
        let held = self.sent.wrapping_sub(self.forwarded);
        self.room.saturating_sub(held)
    }

    pub(super) fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_wrap() {
        let mut incoming = Incoming {
            window: 100,
            received: u32::MAX - 10,
            forwarded: u32::MAX - 20,
            told: u32::MAX - 20,
        };
        assert_eq!(incoming.held(), 10);
        assert!(incoming.receive(90));
        assert!(!incoming.receive(1));
        incoming.forward(100);
        assert_eq!(incoming.held(), 0);
        assert!(incoming.is_update_due());
        assert_eq!(incoming.tell(), 79);
        assert!(!incoming.is_update_due());
    }

    #[test]
    fn a_driver_that_forwards_what_it_never_got_is_sent_nothing() {
        let mut outgoing = Outgoing::default();
        outgoing.update(1000, 1);
        assert_eq!(outgoing.left(), 0);
        outgoing.update(1000, 0);
        outgoing.send(400);
        assert_eq!(outgoing.left(), 600);
        outgoing.update(300, 0);
        assert_eq!(outgoing.left(), 0, "it has taken room back");
    }

    proptest! {
        #[test]
        fn no_more_is_ever_held_than_the_window(
            window in 1_u32..1000,
            steps in proptest::collection::vec((any::<bool>(), any::<u32>()), 0..200),
        ) {
            let mut incoming = Incoming::new(window);
            for (receive, bytes) in steps {
                let bytes = bytes % 1500;
                if receive {
                    incoming.receive(bytes);
                } else {
                    incoming.forward(bytes);
                }
                prop_assert!(incoming.held() <= window);
            }
        }
    }
}
