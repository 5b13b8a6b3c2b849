//! What has passed through a tap, for an interface whose frames the kernel moves: its worker sees none of them.

use reeve_ipc::device::NicFigures;
use rustix::io::Errno;

use super::TapId;
use super::ioctl::Control;
use super::link::{self, LinkCounters};
use super::macvtap;

/// Puts what the kernel has counted at that tap among the figures of an interface whose frames it moves. A tap
/// that does not tell leaves them as they are.
pub(crate) fn count(figures: &mut NicFigures, tap: &TapId) {
    if figures.by_kernel {
        match counters(tap) {
            Ok(counters) => merge(figures, counters),
            Err(errno) => {
                tracing::debug!(tap = tap.name, %errno, "a tap does not tell what has passed")
            }
        }
    }
}

fn counters(tap: &TapId) -> Result<LinkCounters, Errno> {
    let index = match tap.index {
        Some(index) => index,
        None => Control::open()?.index(&tap.name)?,
    };
    let counters = link::counters(index)?;
    // What a macvtap receives is its guest's, where a tap receives what its guest sends.
    match macvtap::is_macvtap(&link::attributes_of(index)?) {
        true => Ok(counters.turned()),
        false => Ok(counters),
    }
}

/// The host receives what the guest sends. What the worker has dropped or refused never came to the tap.
fn merge(figures: &mut NicFigures, counters: LinkCounters) {
    let (received, sent) = (&mut figures.received, &mut figures.sent);
    (received.packets, received.bytes) = (counters.tx_packets, counters.tx_bytes);
    (sent.packets, sent.bytes) = (counters.rx_packets, counters.rx_bytes);
    received.errors = received.errors.saturating_add(counters.tx_errors);
    received.drops = received.drops.saturating_add(counters.tx_dropped);
    sent.errors = sent.errors.saturating_add(counters.rx_errors);
    sent.drops = sent.drops.saturating_add(counters.rx_dropped);
}

#[cfg(test)]
mod tests {
    use reeve_ipc::device::DirectionFigures;

    use super::*;

    fn direction(packets: u64, bytes: u64, errors: u64, drops: u64) -> DirectionFigures {
        DirectionFigures {
            packets,
            bytes,
            errors,
            drops,
        }
    }

    #[test]
    fn what_the_host_receives_its_guest_has_sent() {
        let mut figures = NicFigures {
            received: direction(1, 2, 3, 4),
            sent: direction(5, 6, 7, 8),
            by_kernel: true,
        };
        merge(
            &mut figures,
            LinkCounters {
                rx_packets: 100,
                tx_packets: 200,
                rx_bytes: 300,
                tx_bytes: 400,
                rx_errors: 500,
                tx_errors: 600,
                rx_dropped: 700,
                tx_dropped: u64::MAX,
            },
        );
        assert_eq!(figures.received, direction(200, 400, 603, u64::MAX));
        assert_eq!(figures.sent, direction(100, 300, 507, 708));
    }

    #[test]
    fn of_frames_that_the_worker_moves_the_worker_tells() {
        let mut figures = NicFigures {
            sent: direction(5, 6, 7, 8),
            ..NicFigures::default()
        };
        let before = figures;
        count(&mut figures, &TapId::named("lo"));
        assert_eq!(figures, before);
        figures.by_kernel = true;
        for index in [None, Some(i32::MAX)] {
            let name = "no-such-tap0".to_owned();
            count(&mut figures, &TapId { name, index });
            assert_eq!(figures.sent, before.sent);
        }
        count(&mut figures, &TapId::named("lo"));
        assert_ne!(figures.sent, before.sent);
    }
}
