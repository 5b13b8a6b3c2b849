//! A domain's devices: attached, detached, changed, and the streams that lead to them.

use super::handles::Domain;
use crate::wire::call::calls;
use crate::wire::xdr::List;

calls! { Remote;
    /// Attaches a device to a running domain.
    DomainAttachDevice = 8 { domain: Domain, xml: String } -> ();
    /// Detaches a device from a running domain.
    DomainDetachDevice = 13 { domain: Domain, xml: String } -> ();
    /// Attaches a device: 1 to the running domain, 2 to its definition.
    DomainAttachDeviceFlags = 160 { domain: Domain, xml: String, flags: u32 } -> ();
    /// Detaches a device: 1 from the running domain, 2 from its definition.
    DomainDetachDeviceFlags = 161 { domain: Domain, xml: String, flags: u32 } -> ();
    /// Changes a device: 1 of the running domain, 2 of its definition; 4 by force.
    DomainUpdateDeviceFlags = 174 { domain: Domain, xml: String, flags: u32 } -> ();
    /// Opens a console, the first if no device is named, as a stream: 1 from whoever has it, 2 if nobody has.
    DomainOpenConsole = 201 { domain: Domain, device: Option<String>, flags: u32 } -> ();
    /// A non-maskable interrupt.
    DomainInjectNmi = 210 { domain: Domain, flags: u32 } -> ();
    /// A picture of a screen, as a stream; the reply says its type.
    DomainScreenshot = 211 { domain: Domain, screen: u32, flags: u32 } -> Option<String>;
    /// Presses keys, all at once, for so many ms.
    DomainSendKey = 226 {
        domain: Domain,
        codeset: u32,
        holdtime: u32,
        keycodes: List<u32, 16>,
        flags: u32,
    } -> ();
    /// Joins a display to a socket that came with the call.
    DomainOpenGraphics = 249 { domain: Domain, index: u32, flags: u32 } -> ();
    /// Makes a disk as large: in KiB, or (1) in bytes.
    DomainBlockResize = 251 { domain: Domain, disk: String, size: u64, flags: u32 } -> ();
    /// Opens a channel, the first if none is named, as a stream.
    DomainOpenChannel = 296 { domain: Domain, name: Option<String>, flags: u32 } -> ();
    /// A socket to a display, which goes with the reply.
    DomainOpenGraphicsFd = 343 { domain: Domain, index: u32, flags: u32 } -> ();
    /// Detaches the device with this alias: 1 from the running domain, 2 from its definition.
    DomainDetachDeviceAlias = 392 { domain: Domain, alias: String, flags: u32 } -> ();
    /// Files for a disk, which came with the call.
    DomainFdAssociate = 443 { domain: Domain, name: String, flags: u32 } -> ();
}
