//! Names of taps for which none is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reeve_ipc::spec::MacAddress;

use super::{Tap, TapError};

/// How many names are tried that others have before the kernel is asked for the first that is free.
const TRIES: u32 = 1 << 14;

/// Gives `vnet0`, `vnet1`, ... each once, as libvirt does: the kernel, where it is to choose, looks at every interface
/// of the host for the first that is free, which takes the longer the more there are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct TapNames(Arc<AtomicU32>);

impl TapNames {
    /// Makes a tap as [`Tap::make`] does, by the next name that nobody has.
    ///
    /// # Errors
    /// [`TapError`].
    pub(crate) fn make(&self, guest: MacAddress, queues: u16) -> Result<Tap, TapError> {
        for _ in 0..TRIES {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let Ok(name) = format!("vnet{number}").parse() else {
                break;
            };
            match Tap::make(Some(&name), guest, queues) {
                Err(TapError::Exists(_)) => {}
                made => return made,
            }
        }
        Tap::make(None, guest, queues)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tap::tests::{alone, interface};

    #[test]
    fn each_name_is_given_once_and_those_of_others_are_left_alone() {
        alone(|| {
            let mac: MacAddress = [0x52, 0x54, 0, 1, 2, 3].try_into().unwrap();
            let names = TapNames::default();
            let other = Tap::make(Some(&interface("vnet1")), mac, 1).unwrap();
            let first = names.make(mac, 1).unwrap();
            assert_eq!(first.name(), "vnet0");
            drop(first);
            assert_eq!(names.make(mac, 1).unwrap().name(), "vnet2");
            drop(other);
            assert_eq!(names.make(mac, 2).unwrap().name(), "vnet3");
        });
    }
}
