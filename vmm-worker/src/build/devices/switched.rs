//! A network interface that a switch serves: the front end of that process.
//!
//! It has a thread of its own, which waits for the switch when the device stops.

use std::time::Duration;

use reeve_devices::virtio::net::{SwitchedConfig, SwitchedNet};
use reeve_devices::virtio::vhost_user::{BackEndError, SharedMemory, VhostUser};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::SwitchedNicSpec;

use super::{BuildError, Made, start_thread};
use crate::device_set::Handle;
use crate::memory::GuestMemory;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// How long the switch may take to introduce itself: it runs already.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn make(
    spec: SwitchedNicSpec,
    memory: &GuestMemory,
    descriptors: &mut FdTable,
) -> Result<Made, BuildError> {
    let socket = descriptors.take(spec.socket)?;
    let failed = |source: BackEndError| BuildError::Switch {
        path: spec.name.clone(),
        source,
    };
    let config = SwitchedConfig {
        mac: spec.mac.octets(),
        mtu: spec.mtu,
        queue_size: QUEUE_SIZE,
        pairs: spec.queues,
    };
    let shared = SharedMemory::new(memory.map_ref())?;
    let queues = config.served_queues();
    let back_end = VhostUser::connect(socket, shared, queues, None, PATIENCE).map_err(failed)?;
    let net = SwitchedNet::new(config, back_end).map_err(|source| BuildError::SwitchedNic {
        path: spec.name.clone(),
        source,
    })?;
    Ok(Made {
        device: Box::new(net),
        threads: vec![start_thread(&format!("net {}", spec.mac))?],
        handle: Handle::SwitchedNic,
    })
}
