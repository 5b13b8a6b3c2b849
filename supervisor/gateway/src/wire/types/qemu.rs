//! The program that is QEMU's alone: its monitor, and the guest agent that goes with it.

use super::handles::Domain;
use crate::wire::call::{calls, events};

calls! { Qemu;
    /// A command to the monitor: as JSON, or (1) as a person types it.
    QemuDomainMonitorCommand = 1 { domain: Domain, command: String, flags: u32 } -> String;
    /// A command to the guest agent, which has so many s: -2 for ever, -1 as long as usual, 0 none.
    QemuDomainAgentCommand = 3 { domain: Domain, command: String, timeout: i32, flags: u32 }
        -> Option<String>;
    /// Asks for the monitor's events.
    QemuConnectDomainMonitorEventRegister = 4 {
        domain: Option<Domain>,
        event: Option<String>,
        flags: u32,
    } -> i32;
    /// Asks no more.
    QemuConnectDomainMonitorEventDeregister = 5 { callback: i32 } -> ();
}

events! { Qemu;
    /// An event of the monitor.
    QemuDomainMonitorEvent = 6 {
        callback: i32,
        domain: Domain,
        event: String,
        seconds: i64,
        micros: u32,
        details: Option<String>,
    };
}
