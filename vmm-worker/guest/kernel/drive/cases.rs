//! The attacks of `mode=attack`, by name. Compiled into the host library as well.

/// What a guest does to a device that it ought not to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Size, addresses, vector, features and enabling of queues written once the device runs.
    ConfigAfterStart,
    /// Queue sizes that are no power of two, zero, or more than offered.
    QueueSize,
    /// Rings outside RAM, across its end, wrapping, unaligned, over each other, in device windows.
    QueueAddress,
    /// Registers of queues there are not, features beyond 64, everything written to everything.
    SelectRange,
    /// Features that were never offered; none; those of other transports.
    Features,
    /// Status bits in orders that make no sense.
    StatusOrder,
    /// Resets with requests in flight, again and again; nothing may be written after a reset.
    ResetInFlight,
    /// Resets as fast as they can be written, and starts that do not wait for them.
    ResetStorm,
    /// One chain made available many times at once.
    SameHead,
    /// Descriptors and headers changed while requests run, by another processor if there is one.
    DoubleFetch,
    /// Lengths past the end of RAM, wrapping, and of 4 GiB.
    DescriptorLength,
    /// Buffers where no RAM is.
    DescriptorAddress,
    /// Buffers in BARs, local APIC, IOAPIC and configuration space.
    DeviceWindows,
    /// Chains that go in a circle.
    Loop,
    /// Tables of descriptors: nested, empty, of odd lengths, outside RAM, with flags they may not have.
    Indirect,
    /// Buffers without a byte.
    ZeroLength,
    /// Buffers the device may write where it has to read, and the other way round; all orders.
    Direction,
    /// Chains as long as the queue, and tables longer than it.
    LongChain,
    /// Heads and links beyond the table.
    HeadRange,
    /// Available indexes that jump ahead and back.
    AvailableJump,
    /// Requests over all of RAM at once, many times over.
    Giant,
    /// Notifications without requests, and requests without notifications.
    KickStorm,
    /// Interrupts wanted for everything and never looked at.
    InterruptStorm,
    /// Accesses of every width at every place of the BARs and of configuration space.
    AccessSizes,
    /// The device's own configuration, written at random.
    DeviceConfig,
    /// Notifications of queues there are not, of other widths, beside the place.
    NotifyRange,
    /// The BAR moved while the device runs: onto others, onto RAM and interrupt controllers, away.
    BarMove,
    /// Garbage in the MSI-X table and in its control, while interrupts are sent.
    MsixGarbage,
    /// Bus mastering and decoding of memory off while the device runs.
    BusMaster,
    /// Registers for hotplug and general-purpose events, at random.
    HotplugRegisters,
    /// Configuration space written at random, of functions that exist and of others.
    ConfigSpace,
    /// The ports of configuration space, with every width.
    ConfigPorts,
    /// The window to the BAR in configuration space, with every place and width.
    ConfigWindow,
    /// Event indexes at random.
    EventIndex,
    /// Buffers that lie over the rings of their own queue.
    RingOverwrite,
    /// Requests of no known kind, with sectors that wrap, of odd lengths.
    BadRequests,
    /// The header of a qcow2 image with a backing file, written to the first sector of a disk.
    FormatProbe,
    /// Blocks of memory that are none: at the edges of their region, in ranges that wrap, never plugged or
    /// plugged already.
    MemoryBlocks,
    /// Descriptors at random, plausible and not.
    Random,
}

/// How many there are.
pub const COUNT: usize = 39;

/// Names and attacks.
pub const ALL: [(&str, Case); COUNT] = [
    ("config-after-start", Case::ConfigAfterStart),
    ("queue-size", Case::QueueSize),
    ("queue-address", Case::QueueAddress),
    ("select-range", Case::SelectRange),
    ("features", Case::Features),
    ("status-order", Case::StatusOrder),
    ("reset-in-flight", Case::ResetInFlight),
    ("reset-storm", Case::ResetStorm),
    ("same-head", Case::SameHead),
    ("double-fetch", Case::DoubleFetch),
    ("descriptor-length", Case::DescriptorLength),
    ("descriptor-address", Case::DescriptorAddress),
    ("device-windows", Case::DeviceWindows),
    ("loop", Case::Loop),
    ("indirect", Case::Indirect),
    ("zero-length", Case::ZeroLength),
    ("direction", Case::Direction),
    ("long-chain", Case::LongChain),
    ("head-range", Case::HeadRange),
    ("available-jump", Case::AvailableJump),
    ("giant", Case::Giant),
    ("kick-storm", Case::KickStorm),
    ("interrupt-storm", Case::InterruptStorm),
    ("access-sizes", Case::AccessSizes),
    ("device-config", Case::DeviceConfig),
    ("notify-range", Case::NotifyRange),
    ("bar-move", Case::BarMove),
    ("msix-garbage", Case::MsixGarbage),
    ("bus-master", Case::BusMaster),
    ("hotplug-registers", Case::HotplugRegisters),
    ("config-space", Case::ConfigSpace),
    ("config-ports", Case::ConfigPorts),
    ("config-window", Case::ConfigWindow),
    ("event-index", Case::EventIndex),
    ("ring-overwrite", Case::RingOverwrite),
    ("bad-requests", Case::BadRequests),
    ("format-probe", Case::FormatProbe),
    ("memory-blocks", Case::MemoryBlocks),
    ("random", Case::Random),
];
