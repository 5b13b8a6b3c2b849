//! The entropy device, with and without a limit.

use std::num::NonZeroU64;
use std::time::Duration;

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::rng::{Entropy, EntropyLimit};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

/// The device.
#[derive(Debug)]
pub struct Rng {
    limit: Option<EntropyLimit>,
}

impl Subject for Rng {
    fn new(input: &mut Input<'_>) -> Self {
        let bytes = NonZeroU64::new(input.u16().into());
        let period = match input.u8() {
            0 => Duration::ZERO,
            255 => Duration::MAX,
            micros => Duration::from_micros(micros.into()),
        };
        Self {
            limit: bytes.map(|bytes| EntropyLimit { bytes, period }),
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        Box::new(Entropy::new(self.limit))
    }

    fn request(&mut self, _queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        if input.u8() & 7 == 0 {
            return pieces(input);
        }
        (0..=input.below(4))
            .map(|_| Piece::In(input.len()))
            .collect()
    }

    fn host(&mut self, _input: &mut Input<'_>) {}

    fn check(&mut self) {}
}
