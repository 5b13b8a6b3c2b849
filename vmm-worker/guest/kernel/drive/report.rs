//! `mode=virtio-report`: the functions of the root bus, and what their devices offer.

use super::options::Device as Kind;
use super::pci::{Bus, IDENTITY};
use super::virtio::Device;
use super::{Problem, say};
use crate::console;

/// Prints a line for each function, and more for those that are virtio devices.
pub fn run(bus: Bus) -> Result<(), Problem> {
    let by = match bus {
        Bus::Memory(_) => "memory",
        Bus::Ports => "ports",
    };
    console::line().text("configuration space: ").text(by).end();
    for function in bus.slots() {
        let identity = function.read_u32(IDENTITY);
        console::line()
            .text("slot ")
            .decimal(function.slot.into())
            .text(": ")
            .hex((identity & 0xffff).into())
            .text(" ")
            .hex((identity >> 16).into())
            .end();
    }
    let mut count = 0;
    for device in Device::all(bus) {
        count += 1;
        describe(&device);
    }
    say("virtio devices", count);
    Ok(())
}

fn describe(device: &Device) {
    device.reset();
    let queues = device.queues();
    console::line()
        .text("virtio ")
        .decimal(device.function.slot.into())
        .text(": ")
        .text(device.name())
        .text(", id ")
        .decimal(device.id.into())
        .text(", bar ")
        .hex(device.function.bar_address(device.bar).unwrap_or(0))
        .text(", vectors ")
        .decimal(device.msix.map_or(0, |msix| msix.vectors).into())
        .text(", features ")
        .hex(device.offered())
        .end();
    let mut line = console::line();
    line.text("queues ")
        .decimal(device.function.slot.into())
        .text(":");
    // As many as fit into a line.
    for index in 0..queues.min(20) {
        line.text(" ").decimal(device.max_queue_size(index).into());
    }
    line.end();
    if Kind::BLOCK.is(device.id) {
        say("sectors", device.config.read_u64(0));
    }
    if Kind::NET.is(device.id) {
        let mut line = console::line();
        line.text("address:");
        for byte in 0..6 {
            line.text(" ").hex(device.config.read_u8(byte).into());
        }
        line.end();
    }
}
