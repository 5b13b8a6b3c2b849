//! A split virtqueue and its chains over memory that says anything.

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::chain::Chain;
use reeve_devices::virtio::queue::{
    MAX_CHAIN, MAX_SIZE, Queue, QueueFault, QueueLayout, QueueProgress, RingFeatures,
};

use super::bus::ram;
use super::driver::{Driver, address, descriptor};
use super::guest::pieces;
use super::input::Input;

/// The most steps of one input.
const STEPS: usize = 600;

/// Where the rings are: good places, or any.
fn layout(input: &mut Input<'_>) -> QueueLayout {
    let how = input.u8();
    let size = match how & 7 {
        0 => input.u16(),
        shift => 1 << (shift + 1),
    };
    let mut layout = Driver::new(0, size.clamp(1, 256)).layout;
    layout.size = size;
    if how & 0x18 == 0x18 {
        layout.descriptors = address(input);
    }
    if how & 0x60 == 0x60 {
        layout.available = address(input);
    }
    if how & 0x80 != 0 {
        layout.used = address(input);
    }
    layout
}

/// Drives a queue by `bytes`.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ram = ram();
    let layout = layout(&mut input);
    let options = input.u8();
    let features = RingFeatures {
        indirect: options & 1 == 0,
        event_index: options & 2 != 0,
    };
    let progress = match options >> 2 & 3 {
        3 => QueueProgress {
            next_available: input.u16(),
            next_used: input.u16(),
        },
        _ => QueueProgress::default(),
    };
    let Ok(mut queue) = Queue::new(ram.clone(), layout, MAX_SIZE, features, progress) else {
        return;
    };
    assert!(layout.size.is_power_of_two() && layout.size <= MAX_SIZE);
    let mut driver = Driver::new(0, layout.size);
    // Where the driver of the first queue has its rings, unless they are elsewhere.
    let good = driver.layout == layout;
    let mut place = super::driver::DATA;
    let mut chain = Chain::new();
    let mut seen = queue.progress().next_available;
    let mut taken: Vec<u16> = Vec::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let op = input.u8();
        match op & 15 {
            0..=2 if good => {
                let pieces = pieces(&mut input);
                driver.submit(&ram, &mut place, &pieces, op & 0x40 != 0);
            }
            3 | 4 if good => driver.misbehave(&ram, &mut input),
            5 => {
                // A descriptor wherever the table is.
                let index = u64::from(input.u8());
                let (address, len) = (address(&mut input), input.len());
                let bytes = descriptor(address, len, input.u8().into(), input.u8().into());
                let _ = ram.write(layout.descriptors + index * 16, &bytes);
            }
            6 => {
                let _ = ram.write(layout.available + 2, &input.u16().to_le_bytes());
            }
            0..=3 => {
                let at = layout.available + u64::from(input.u8());
                let _ = ram.write(at, input.short());
            }
            4 => {
                let at = address(&mut input);
                let _ = ram.write(at, input.short());
            }
            7..=11 => match take(&mut queue, &mut chain, &mut seen) {
                Ok(true) => {
                    taken.push(chain.head());
                    examine(&chain, &ram, &mut input, op & 0x80 != 0);
                    if op & 0x70 == 0x70 {
                        unpop(&mut queue);
                        taken.pop();
                    }
                }
                Ok(false) => {}
                // The device touches it no more.
                Err(_) => return,
            },
            12 | 13 => {
                if let Some(head) = taken.pop() {
                    give(&mut queue, &[head], op & 0x40 != 0, input.len());
                }
            }
            14 => {
                give(&mut queue, &taken, true, input.len());
                taken.clear();
            }
            _ => {
                if attend(&mut queue, op).is_err() {
                    return;
                }
            }
        }
        assert_eq!(usize::from(queue.out()), taken.len());
        assert!(queue.out() <= layout.size);
    }
}

/// Takes a chain, if there is one. What the driver had made available once, up to `seen`, is taken whatever it has
/// written since; its index is looked at again behind that.
fn take(queue: &mut Queue, chain: &mut Chain, seen: &mut u16) -> Result<bool, QueueFault> {
    let before = queue.progress();
    let waiting = match seen.wrapping_sub(before.next_available) {
        0 => queue.waiting(),
        known => Ok(known),
    };
    if let Ok(waiting) = waiting {
        *seen = before.next_available.wrapping_add(waiting);
    }
    let result = queue.pop(chain);
    let ahead = queue
        .progress()
        .next_available
        .wrapping_sub(before.next_available);
    assert_eq!(queue.progress().next_used, before.next_used);
    match result {
        Ok(there) => {
            assert_eq!(waiting.map(|waiting| waiting > 0), Ok(there));
            assert_eq!(ahead, u16::from(there));
        }
        Err(_) => assert_eq!(ahead, 0, "a broken queue stays where it is"),
    }
    result
}

fn unpop(queue: &mut Queue) {
    let before = queue.progress().next_available;
    queue.unpop();
    assert_eq!(queue.progress().next_available, before.wrapping_sub(1));
}

/// A chain that was taken is wholly in RAM, and of bounded length.
fn examine(chain: &Chain, ram: &GuestRam, input: &mut Input<'_>, write: bool) {
    let sum = |spans: &[reeve_devices::virtio::chain::Span]| {
        spans
            .iter()
            .map(|span| {
                assert!(span.len > 0 && ram.contains(span.address, span.len.into()));
                u64::from(span.len)
            })
            .sum::<u64>()
    };
    let (readable, writable) = (sum(chain.readable()), sum(chain.writable()));
    assert_eq!(readable, chain.readable_bytes());
    assert_eq!(writable, chain.writable_bytes());
    let spans = chain.readable().len() + chain.writable().len();
    assert!((1..=MAX_CHAIN).contains(&spans));
    let offset = u64::from(input.len());
    let mut data = [0; 700];
    let had = readable.saturating_sub(offset).min(data.len() as u64);
    assert_eq!(chain.read_at(ram, offset, &mut data) as u64, had);
    let slices: usize = chain
        .readable_slices(ram, offset, data.len() as u64)
        .map(|slice| slice.len())
        .sum();
    assert_eq!(slices as u64, had);
    let slices: usize = chain
        .writable_slices(ram, offset, u64::MAX)
        .map(|slice| slice.len())
        .sum();
    assert_eq!(slices as u64, writable.saturating_sub(offset));
    if write {
        let room = writable.saturating_sub(offset).min(data.len() as u64);
        assert_eq!(chain.write_at(ram, offset, &data) as u64, room);
    }
}

/// Gives chains back, one by one or all at once.
fn give(queue: &mut Queue, heads: &[u16], together: bool, written: u32) {
    let before = queue.progress().next_used;
    let count = u16::try_from(heads.len()).expect("no more than entries");
    if together {
        for (ahead, head) in (0..).zip(heads) {
            assert_eq!(queue.fill(ahead, *head, written), Ok(()));
        }
        assert_eq!(queue.progress().next_used, before);
        assert_eq!(queue.show(count), Ok(()));
    } else {
        for head in heads {
            assert_eq!(queue.push(*head, written), Ok(()));
        }
    }
    let after = before.wrapping_add(count);
    assert_eq!(queue.progress().next_used, after);
}

/// What a device asks and says about notifications.
fn attend(queue: &mut Queue, op: u8) -> Result<(), QueueFault> {
    match op >> 4 {
        0..=5 => {
            queue.wants_interrupt()?;
            // Nothing was given back since.
            assert_eq!(queue.wants_interrupt(), Ok(false));
        }
        6..=10 => queue.disable_notifications()?,
        _ => {
            let there = queue.enable_notifications()?;
            assert_eq!(queue.waiting().map(|waiting| waiting > 0), Ok(there));
        }
    }
    Ok(())
}
