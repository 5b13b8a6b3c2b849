//! Device models of a Reeve machine: legacy devices, buses, interrupts, the console ring.
//!
//! Emulation only: no KVM, no protocol, no file descriptor. The worker gives a device what it needs
//! of the outside (an interrupt line, a clock, a sink for output or power requests) as a trait
//! object, and a device never learns its interrupt number, its address, or who runs it.
//!
//! ```text
//!  vCPU threads --exit--> PortBus / MmioBus --> device --> IrqLine --> Ioapic --> MsiSink
//!                              ^                 |  |                     |
//!                              |                 |  +-> PowerSink         +--> RouteSink
//!  control thread: button, ----+                 +----> ConsoleRing --> Wake
//!  reset, save, restore        |                            |
//!  I/O thread: input, ticks ---+              I/O thread: ConsoleReader
//! ```
//!
//! # Threads
//! No device owns a thread or a timer. Register handlers run on vCPU threads, several at once on
//! different devices. Input ([`enqueue`](legacy::serial::Serial::enqueue)) and the passing of time
//! ([`TimedDevice`](clock::TimedDevice)) come from an I/O thread, the power button, reset, save and
//! restore from the control thread. Handlers do not block, allocate or panic, whatever the guest
//! does; what a guest does wrong is ignored and logged at a limited rate ([`error::FaultLog`]).
//!
//! # Locks
//! Every device sits behind one mutex ([`shared::Shared`]), taken for a single access. Order, from
//! outer to inner; nobody takes one to the left of what he holds:
//!
//! ```text
//!  bus map (released before the handler runs)
//!  device  ->  Ioapic  ->  MsiSink, RouteSink
//!  device  ->  ConsoleRing (released before its Wake)  ->  Wake
//!  device  ->  PowerSink, Wake, clocks
//!  Ecam, ConfigPorts  ->  PCI root  ->  PCI function  ->  bus map
//!  PCI function  ->  Msix  ->  MsiSink
//! ```
//!
//! A PCI function is a device, so its lock is never held by who calls the root ([`pci`]).
//!
//! What stands at the end of a line is supplied by the worker and is a leaf: it is called with
//! device locks held, so it neither blocks nor calls back into this crate. In practice it is one
//! ioctl or one write to an eventfd.
//!
//! # Life cycle
//! ```text
//!  new --> placed on a bus --> running <--> paused --> save     (all vCPUs stopped)
//!                                 ^            |
//!                                 |            +-----> reset    (power-on state)
//!                                 +------------+-----> restore  (another machine's state)
//! ```
//! `new` gives the power-on state with the interrupt line low. While paused no register is
//! touched; input and ticks may go on and are part of what is saved. After [`restore`] a device
//! drives its line to match its state. Order of restore: local APICs, then the
//! [`Ioapic`](ioapic::Ioapic), then the others: a level that the IOAPIC remembers is no new
//! interrupt when its device drives it again. Order of reset: any; the IOAPIC keeps its input
//! levels until the devices lower them.
//!
//! [`restore`]: state::Saveable::restore
//!
//! # Decisions
//! 1. (2026-11) Handlers take `&mut self` under a mutex per device instead of `&self` with locks
//!    inside: a device's code stays sequential. Measured on a busy development machine, a register
//!    read through the bus takes 60 ns, locks and map lookup included, and a byte to the console
//!    120 ns, where the exit itself costs 3 to 16 us.
//! 2. (2026-11) Sinks are called with the device lock held, so that levels, messages and routes
//!    leave in the order in which the state changed. The price is that they must be leaves.
//! 3. (2026-11) An access that is not wholly inside one region is unclaimed; it is not split. Byte
//!    devices (serial, RTC) take apart wide accesses inside their own region, as the ISA bus does.
//! 4. (2026-11) Time is pulled, not pushed: counters and flags are functions of a clock, and one
//!    worker thread serves all timed devices, for which a guest without timer interrupts never
//!    wakes it.
//! 5. (2026-11) Console output is memory of fixed size that loses the oldest bytes; console input is
//!    refused when the receiver is full. So neither side can make the other's memory grow, and
//!    no input is lost.
//! 6. (2026-11) The console ring's backlog is no part of the saved state: it belongs to the host.
//! 7. (2026-11) Level-triggered routes stay programmed while masked: KVM reports an EOI only for
//!    vectors in its routing table, and guests mask before they end an interrupt.
//! 8. (2026-11) The keyboard controller is absent but for its reset line; the machine's FADT says
//!    so too, and the status register makes a kernel that probes anyway give up at once.
//! 9. (2026-11) One transport, PCI: virtio-mmio is no faster. Stock Linux booted 20 times in turn with
//!    the same devices on one machine of QEMU (microvm): 10.1 to 23.2 s over PCI, median 13.7, and 6.8
//!    to 18.0 s over MMIO, median 13.0 (rank test, p 0.67), where each exit is emulated and the bus is
//!    walked at the worst price there is; ours over PCI, 9.2 to 17.2 s, median 14.1. `tools/soak`, step
//!    measurements.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used)
)]

pub mod block;
pub mod bus;
pub mod clock;
pub mod console;
pub mod display;
pub mod error;
pub mod event;
pub mod ioapic;
pub mod irq;
pub mod legacy;
pub mod memory;
pub mod pci;
pub mod power;
pub mod reactor;
pub mod shared;
pub mod state;
#[cfg(test)]
mod testing;
pub mod token_bucket;
pub mod virtio;
pub mod watchdog;
