//! Reeve with one device, by the supervisor's library as [`crate::contender`] has it. The worker's process
//! is the one that counts: the supervisor has no part in what a device does.

use reeve_ipc::model::{Devices, Disk, Layer, Nic, NicSource};
use reeve_ipc::spec::DiskFormat;

use super::{Device, Monitor};
use crate::contender::{Reeve, Running};

impl Monitor for Reeve {
    fn name(&self) -> &'static str {
        "reeve"
    }

    fn way(&self) -> String {
        "virtio over PCI; a disk as a definition has it where nothing is said (io=io_uring, which is left \
         aside for files in memory; cache=writeback), a tap"
            .to_owned()
    }

    fn start(
        &mut self,
        command_line: &str,
        device: Device<'_>,
    ) -> anyhow::Result<Box<dyn Running>> {
        let mut devices = Devices::default();
        match device {
            Device::Disk(path) => {
                let image = Layer {
                    path: path.to_owned(),
                    format: DiskFormat::Raw,
                };
                devices.disks.push(Disk::new("vda".parse()?, Some(image)));
            }
            Device::Tap(name) => {
                let source = NicSource::Tap(name.parse()?);
                devices.nics.push(Nic::new(source));
            }
        }
        self.start_with(command_line, devices)
    }
}
