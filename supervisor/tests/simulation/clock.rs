//! A clock that stands until the schedule moves it.

use reeved::domain::driver::Later;
use reeved::domain::world::Clock;

use crate::universe::{Shared, Wait};

#[derive(Debug)]
pub struct SimClock(pub Shared);

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.lock().now_ms
    }

    fn sleep_ms(&self, after_ms: u64) -> Later<()> {
        let shared = self.0.clone();
        let until = shared.lock().now_ms + after_ms;
        Box::pin(async move {
            shared.wait(Wait::Timer(until)).await;
        })
    }
}
