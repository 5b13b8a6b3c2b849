//! A watchdog, and what is done when it expires.

use serde::{Deserialize, Serialize};

use super::PciSlot;
use super::words::words;

words! {
    /// What is done when a watchdog expires, whose guest has not reloaded it in time (libvirt
    /// `<watchdog action='...'>`).
    WatchdogAction, "watchdog action" {
        /// The guest is reset, as if it had asked for it.
        Reset = "reset",
        /// The power button is pressed.
        Shutdown = "shutdown",
        /// The guest is switched off, as if it had done so.
        PowerOff = "poweroff",
        /// The guest is paused.
        Pause = "pause",
        /// It is told of in an event, and nothing else.
        Nothing = "none",
        /// Every vCPU gets an interrupt that it cannot mask; what that does is the guest's to say.
        InjectNmi = "inject-nmi",
    }
}

/// A watchdog: an Intel 6300ESB. It is disabled until the guest enables it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogSpec {
    /// Its place on the bus, where no device is.
    pub slot: PciSlot,
    /// What is done when it expires.
    pub action: WatchdogAction,
}
