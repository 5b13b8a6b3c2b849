//! The fixed devices of a PC that guests expect to find without asking a bus.

pub mod acpi_pm;
pub mod cmos;
pub mod debug_port;
pub mod flash;
pub mod fw_cfg;
pub mod hotplug;
pub mod i8042;
pub mod port92;
pub mod pvpanic;
pub mod reset;
pub mod serial;
