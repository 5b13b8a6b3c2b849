//! A clock that stands until the schedule moves it.

use reeved::domain::actor::Now;
use reeved::domain::driver::Later;
use reeved::domain::world::Clock;

use crate::universe::{Shared, Wait};

#[derive(Debug)]
pub struct SimClock(pub Shared);

impl Clock for SimClock {
    fn now(&self) -> Now {
        let boot_ms = self.0.lock().now_ms;
        Now {
            // Set back all the time: nothing may depend on it.
            unix_ms: u64::from(u32::MAX).saturating_sub(boot_ms),
            boot_ms,
        }
    }

    fn sleep_ms(&self, after_ms: u64) -> Later<()> {
        let shared = self.0.clone();
        let until = shared.lock().now_ms + after_ms;
        Box::pin(async move {
            shared.wait(Wait::Timer(until)).await;
        })
    }
}
