//! Turns at a queue that may end before the queue is empty: what the device stands on has no room,
//! or has nothing to give, and the driver's chains wait where they are.
//!
//! That is the only flow control there is: what a driver or a host does not take is never gathered
//! in memory of this process, and a chain that is not served stays in the driver's own ring.
//! Meanwhile the driver is not asked to notify of more, so it cannot keep the thread busy either.

use super::chain::Chain;
use super::queue::{Queue, QueueFault};
use super::{BrokenQueue, RunningQueue};
use crate::reactor::{Interest, Sources};

/// What became of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It goes back with so many bytes written.
    Back(u32),
    /// It cannot be served now: it stays in the ring, and the turn ends.
    Later,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// No chain waits: the driver notifies of the next.
    Empty,
    /// The turn was long enough; the queue's own event is signalled for another.
    Budget,
    /// A chain was put back. The driver is not asked to notify: something else must bring the next
    /// turn.
    Later,
}

impl RunningQueue {
    /// As [`turn`](Self::turn), for a device that cannot always serve.
    ///
    /// # Errors
    /// [`QueueFault`], also one of `serve`.
    pub fn turn_until(
        &mut self,
        chain: &mut Chain,
        mut serve: impl FnMut(&Chain, &Queue) -> Result<Served, QueueFault>,
    ) -> Result<TurnEnd, QueueFault> {
        self.kick.take();
        self.queue.disable_notifications()?;
        let mut budget = self.queue.size();
        let end = 'turn: loop {
            while self.queue.pop(chain)? {
                match serve(chain, &self.queue)? {
                    Served::Back(written) => self.queue.push(chain.head(), written)?,
                    Served::Later => {
                        self.queue.unpop();
                        break 'turn TurnEnd::Later;
                    }
                }
                budget -= 1;
                if budget == 0 {
                    self.kick.signal();
                    break 'turn TurnEnd::Budget;
                }
            }
            if !self.queue.enable_notifications()? {
                break TurnEnd::Empty;
            }
            self.queue.disable_notifications()?;
        };
        self.notify()?;
        Ok(end)
    }

    /// Waits for the driver's notifications, told as `token`. Without them the queue is as good as
    /// broken, which `broken` then notes.
    pub fn listen(&self, sources: &Sources<'_>, token: u32, broken: &mut BrokenQueue) {
        if let Err(error) = sources.add(&*self.kick, token, Interest::Read) {
            tracing::error!(index = self.index, %error, "a queue's event cannot be waited for");
            let fault = QueueFault::Request("the host cannot wait for its notifications");
            broken.note(Err(fault), &*self.interrupts);
        }
    }

    /// Waits for them no longer: the queue is broken, or its worker ends.
    pub fn deafen(&self, sources: &Sources<'_>) {
        // Fails when it was done already.
        let _ = sources.remove(&*self.kick);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::testing::ram;
    use crate::virtio::testing::{Driver, RecordInterrupts, out};

    #[test]
    fn a_chain_that_cannot_be_served_stays_in_the_ring() {
        let interrupts = Arc::new(RecordInterrupts::default());
        let mut driver = Driver::new(&ram(0x10000), 0x1000, 8);
        let mut queue = driver.running(0, &interrupts);
        let mut chain = Chain::new();
        for _ in 0..3 {
            driver.add(&[out(0, 1)]);
        }
        let mut room = 2;
        let mut serve = |_: &Chain, _: &Queue| {
            if room == 0 {
                return Ok(Served::Later);
            }
            room -= 1;
            Ok(Served::Back(0))
        };
        let end = queue.turn_until(&mut chain, &mut serve);
        assert_eq!(end, Ok(TurnEnd::Later));
        assert_eq!(driver.take_used(), [(0, 0), (1, 0)]);
        assert_eq!(driver.used_flags(), 1, "no notification is asked for");
        assert!(!queue.kick.take(), "and no turn");
        assert_eq!(queue.queue.out(), 0);
        let end = queue.turn_until(&mut chain, |_, _| Ok(Served::Back(0)));
        assert_eq!(end, Ok(TurnEnd::Empty));
        assert_eq!(driver.take_used(), [(2, 0)]);
        assert_eq!(driver.used_flags(), 0);
        assert_eq!(interrupts.take_queue(), 2);
    }

    #[test]
    fn a_turn_is_no_longer_than_the_queue() {
        let interrupts = Arc::new(RecordInterrupts::default());
        let mut driver = Driver::new(&ram(0x10000), 0x1000, 4);
        let mut queue = driver.running(0, &interrupts);
        let mut served = 0;
        driver.add(&[out(0, 1)]);
        let end = queue.turn_until(&mut Chain::new(), |_, _| {
            served += 1;
            driver.offer(0);
            Ok(Served::Back(0))
        });
        assert_eq!((end, served), (Ok(TurnEnd::Budget), 4));
        assert!(queue.kick.take(), "it asks for another");
    }
}
