//! A network interface: a port for each queue of its tap, and where the kernel is to serve them one vhost-net
//! for each.

use std::num::NonZeroU64;
use std::sync::Arc;

use reeve_devices::virtio::net::{Bandwidth, Net, NetConfig, Port, Stream, Tap, VhostNet};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{NicSpec, Rate, UserNicSpec};

use reeve_sandbox::seccomp::Role;

use super::{BuildError, Made, start_thread_as};
use crate::device_set::Handle;
use crate::io::device::DeviceThread;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;

pub(super) fn make(spec: NicSpec, descriptors: &mut FdTable) -> Result<Made, BuildError> {
    let failed = |source| BuildError::Nic {
        name: spec.name.clone(),
        source,
    };
    // Only these threads may hand queues to the kernel.
    let role = if spec.vhost.is_empty() {
        Role::Io
    } else {
        Role::Vhost
    };
    let mut ports: Vec<Arc<dyn Port>> = Vec::new();
    let mut threads = Vec::new();
    for tap in &spec.taps {
        let tap = Tap::new(descriptors.take(*tap)?).map_err(|error| failed(error.into()))?;
        ports.push(Arc::new(tap));
        threads.push(start_thread_as(&format!("net {}", spec.name), role)?);
    }
    let config = NetConfig {
        mac: spec.mac.octets(),
        mac_may_change: spec.may_change_mac,
        mtu: spec.mtu,
        speed: None,
        queue_size: QUEUE_SIZE,
        link_up: spec.link_up,
        udp_segmentation: false,
    };
    let mut net = Net::new(config, ports).map_err(failed)?;
    if !spec.vhost.is_empty() {
        let mut kernel = Vec::new();
        for vhost in &spec.vhost {
            let vhost = VhostNet::new(descriptors.take(*vhost)?);
            kernel.push(vhost.map_err(|error| failed(error.into()))?);
        }
        net = net.with_kernel(kernel).map_err(failed)?;
    }
    Ok(made(net, threads, (spec.inbound, spec.outbound)))
}

/// One for which a process speaks.
pub(super) fn make_user(spec: UserNicSpec, descriptors: &mut FdTable) -> Result<Made, BuildError> {
    let failed = |source| BuildError::Nic {
        name: spec.mac.to_string(),
        source,
    };
    let port = Stream::new(descriptors.take(spec.socket)?).map_err(|error| failed(error.into()))?;
    // What is kept of the device for another worker holds it as well, and so the process lives.
    drop(descriptors.take(spec.words)?);
    let config = NetConfig {
        mac: spec.mac.octets(),
        mac_may_change: false,
        mtu: spec.mtu,
        speed: None,
        queue_size: QUEUE_SIZE,
        link_up: spec.link_up,
        udp_segmentation: false,
    };
    let net = Net::new(config, vec![Arc::new(port)]).map_err(failed)?;
    let thread = start_thread_as(&format!("net {}", spec.mac), Role::Io)?;
    Ok(made(net, vec![thread], (spec.inbound, spec.outbound)))
}

fn made(net: Net, threads: Vec<Arc<DeviceThread>>, rates: (Option<Rate>, Option<Rate>)) -> Made {
    let handle = net.handle();
    handle.set_inbound(rates.0.and_then(bandwidth));
    handle.set_outbound(rates.1.and_then(bandwidth));
    Made {
        device: Box::new(net),
        threads,
        handle: Handle::Nic(handle),
    }
}

/// The limit that a rate means.
pub(crate) fn bandwidth(rate: Rate) -> Option<Bandwidth> {
    Some(Bandwidth {
        average: NonZeroU64::new(rate.per_second)?,
        peak: rate
            .burst
            .and_then(|burst| NonZeroU64::new(burst.per_second)),
        burst: rate.burst.map_or(0, |burst| {
            burst.per_second.saturating_mul(burst.seconds.into())
        }),
    })
}
