//! Shares and limits of the host's block devices (libvirt `<blkiotune>`), as typed parameters: one number for the share
//! of them all, and texts for single ones, each of paths and numbers as in `/dev/sda,500,/dev/sdb,300`.
//!
//! As with libvirt, a number that a text has for a device is that device's, 0 takes it away, and of devices that it
//! does not name nothing changes.

use std::path::Path;
use std::sync::Arc;

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::model::{BlockDeviceTuning, BlockTuning, MAX_BLOCK_DEVICES};

use super::Context;
use super::context::impact;
use super::failure::{Failure, check_flags, invalid_argument};
use super::params::{TEXT, TEXT_OKAY, UINT, check, text, told_within, uint};
use super::pinning::tune;
use crate::wire::types::params::Param;
use crate::wire::types::tuning as wire;

const WEIGHT: &str = "weight";
/// The longest text of devices in bytes.
const TEXT_BYTES: usize = MAX_BLOCK_DEVICES * 300;

/// The most devices while texts are read: as many as there may be, in place of as many.
const MOST: usize = 2 * MAX_BLOCK_DEVICES;

/// What a text says of each device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Weight,
    ReadOperations,
    WriteOperations,
    ReadBytes,
    WriteBytes,
}

/// In libvirt's order.
const KINDS: [Kind; 5] = [
    Kind::Weight,
    Kind::ReadOperations,
    Kind::WriteOperations,
    Kind::ReadBytes,
    Kind::WriteBytes,
];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Weight => "device_weight",
            Self::ReadOperations => "device_read_iops_sec",
            Self::WriteOperations => "device_write_iops_sec",
            Self::ReadBytes => "device_read_bytes_sec",
            Self::WriteBytes => "device_write_bytes_sec",
        }
    }

    fn number(self, device: &BlockDeviceTuning) -> Option<u64> {
        match self {
            Self::Weight => device.weight.map(Into::into),
            Self::ReadOperations => device.read_operations.map(Into::into),
            Self::WriteOperations => device.write_operations.map(Into::into),
            Self::ReadBytes => device.read_bytes,
            Self::WriteBytes => device.write_bytes,
        }
    }

    /// Sets a device's number, 0 for none; false where it is too large.
    fn set(self, device: &mut BlockDeviceTuning, number: u64) -> bool {
        fn fits<T: TryFrom<u64>>(place: &mut Option<T>, number: u64) -> bool {
            let number = (number > 0).then(|| T::try_from(number));
            match number.transpose() {
                Ok(number) => {
                    *place = number;
                    true
                }
                Err(_) => false,
            }
        }
        match self {
            Self::Weight => fits(&mut device.weight, number),
            Self::ReadOperations => fits(&mut device.read_operations, number),
            Self::WriteOperations => fits(&mut device.write_operations, number),
            Self::ReadBytes => fits(&mut device.read_bytes, number),
            Self::WriteBytes => fits(&mut device.write_bytes, number),
        }
    }

    /// Takes what a text says.
    fn take(self, block: &mut BlockTuning, text: &str) -> Result<(), Failure> {
        let name = self.name();
        if text.is_empty() {
            return Ok(());
        }
        if text.len() > TEXT_BYTES {
            return Err(invalid_argument(format!("{name} is too long")));
        }
        let parts: Vec<_> = text.split(',').collect();
        for pair in parts.chunks(2) {
            let &[path, number] = pair else {
                let shown: String = text.chars().take(256).collect();
                let why = format!("unable to parse blkio device '{name}' '{shown}'");
                return Err(invalid_argument(why));
            };
            let wrong = || {
                let short = |text: &str| text.chars().take(256).collect::<String>();
                let (number, path) = (short(number), short(path));
                let why =
                    format!("invalid value '{number}' for parameter '{name}' of device '{path}'");
                invalid_argument(why)
            };
            let value: u64 = number.parse().map_err(|_| wrong())?;
            let of = Path::new(path);
            let mut device = BlockDeviceTuning {
                path: of.to_owned(),
                ..BlockDeviceTuning::default()
            };
            let mut devices = block.devices.iter_mut();
            let known = devices.find(|device| device.path == of);
            let is_known = known.is_some();
            if !self.set(known.unwrap_or(&mut device), value) {
                return Err(wrong());
            }
            // What is not there is not taken away either.
            if is_known || value == 0 {
                continue;
            }
            if block.devices.len() >= MOST {
                let why = format!("{name} names too many devices: at most {MAX_BLOCK_DEVICES}");
                return Err(invalid_argument(why));
            }
            block.devices.push(device);
        }
        Ok(())
    }

    /// What there is to say of this kind.
    fn told(self, block: &BlockTuning) -> String {
        let devices = block.devices.iter();
        let numbers = devices.filter_map(|device| {
            let number = self.number(device)?;
            Some(format!("{},{number}", device.path.display()))
        });
        numbers.collect::<Vec<_>>().join(",")
    }
}

/// What parameters make of it.
fn changed(mut block: BlockTuning, params: &[Param]) -> Result<BlockTuning, Failure> {
    if let Some(weight) = uint(params, WEIGHT) {
        let fits = u16::try_from(weight);
        let out = || {
            let why = format!("value of '{WEIGHT}' is out of range [1, 10000]: {weight}");
            invalid_argument(why)
        };
        let weight = fits.map_err(|_| out())?;
        block.weight = Some(weight).filter(|weight| *weight > 0);
    }
    for kind in KINDS {
        kind.take(&mut block, text(params, kind.name()).unwrap_or_default())?;
    }
    // Of which nothing is left to say.
    block
        .devices
        .retain(|device| KINDS.iter().any(|kind| kind.number(device).is_some()));
    Ok(block)
}

fn parameters(block: &BlockTuning) -> Vec<Param> {
    let weight = block.weight.unwrap_or_default();
    let mut params = vec![Param::new(WEIGHT, u32::from(weight))];
    let texts = KINDS.iter();
    params.extend(texts.map(|kind| Param::new(kind.name(), kind.told(block))));
    params
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetBlkioParameters,
) -> Result<wire::TuneParams, Failure> {
    let flags = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, flags, "virDomainGetBlkioParameters")?;
    let block = match call.nparams {
        // How many there are is asked of none in particular, as with libvirt.
        0 => {
            context.summary(&call.domain).await?;
            BlockTuning::default()
        }
        _ => context.meant(&call.domain, call.flags).await?.tuning.block,
    };
    let mut params = parameters(&block);
    if call.flags & TEXT_OKAY == 0 {
        params.retain(|param| param.field == WEIGHT);
    }
    Ok(told_within(params, call.nparams))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetBlkioParameters,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetBlkioParameters")?;
    let params = &call.params.0;
    let texts = KINDS.map(|kind| (kind.name(), TEXT));
    let known: Vec<_> = texts.into_iter().chain([(WEIGHT, UINT)]).collect();
    check(params, &known)?;
    tune(&context, &call.domain, call.flags, |definition| {
        let before = &definition.tuning.block;
        let block = changed(before.clone(), params)?;
        let change = (block != *before).then_some(TuningChange::Block(block));
        Ok(change.into_iter().collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(block: &BlockTuning, name: &str, value: &str) -> BlockTuning {
        changed(block.clone(), &[Param::new(name, value)]).unwrap()
    }

    #[test]
    fn what_is_told_is_what_was_set() {
        let weight = [Param::new(WEIGHT, 500_u32)];
        let block = changed(BlockTuning::default(), &weight).unwrap();
        let block = after(&block, "device_weight", "/dev/a,300,/dev/b,400");
        let block = after(&block, "device_write_bytes_sec", "/dev/b,1048576");
        let told = parameters(&block);
        let value = |name: &str| text(&told, name).unwrap();
        assert_eq!(uint(&told, WEIGHT), Some(500));
        assert_eq!(value("device_weight"), "/dev/a,300,/dev/b,400");
        assert_eq!(value("device_write_bytes_sec"), "/dev/b,1048576");
        assert_eq!(value("device_read_iops_sec"), "");
        assert_eq!(changed(BlockTuning::default(), &told), Ok(block));
    }

    #[test]
    fn a_number_of_one_device_changes_it_alone_and_nothing_takes_it_away() {
        let block = after(
            &BlockTuning::default(),
            "device_weight",
            "/dev/a,300,/dev/b,400",
        );
        let block = after(&block, "device_weight", "/dev/a,0,/dev/c,5");
        assert_eq!(Kind::Weight.told(&block), "/dev/b,400,/dev/c,5");
        assert_eq!(block.devices.len(), 2);
    }

    #[test]
    fn more_devices_than_there_may_be_are_refused_before_all_are_read() {
        let text = |count: usize, number: u32| {
            let pairs = (0..count).map(|index| format!("/dev/{index},{number}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let full = after(
            &BlockTuning::default(),
            "device_weight",
            &text(MAX_BLOCK_DEVICES, 7),
        );
        assert_eq!(full.devices.len(), MAX_BLOCK_DEVICES);
        let params = [Param::new("device_weight", text(1000, 7))];
        let failure = changed(full.clone(), &params).unwrap_err();
        assert!(failure.message().contains("too many"), "{failure:?}");
        assert_eq!(
            after(&full, "device_weight", &text(1000, 0)),
            BlockTuning::default()
        );
    }

    #[test]
    fn texts_that_say_nothing_that_can_be_understood_are_refused() {
        for value in [
            "/dev/a",
            "/dev/a,x",
            "/dev/a,1,",
            "/dev/a,-1",
            "/dev/a,65536",
        ] {
            let params = [Param::new("device_weight", value)];
            let failure = changed(BlockTuning::default(), &params).unwrap_err();
            assert!(failure.message().contains("device_weight"), "{value}");
        }
        let long = "/dev/a,1,".repeat(TEXT_BYTES);
        assert!(changed(BlockTuning::default(), &[Param::new("device_weight", long)]).is_err());
        assert!(changed(BlockTuning::default(), &[Param::new(WEIGHT, 70_000_u32)]).is_err());
    }
}
