//! The fuzz targets for a short while: each on its seeds, and on random bytes.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use targets::{Run, TARGETS};

/// Random inputs for each target.
const INPUTS: u64 = 200;
/// The same when there is time.
const SOAK_INPUTS: u64 = 100_000;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count.max(1)).unwrap_or(1);
        usize::try_from(self.next() % count).unwrap_or(0)
    }

    /// Short inputs are as likely as long ones.
    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % (1 << (self.next() % 10));
        (0..len).map(|_| self.next().to_le_bytes()[7]).collect()
    }
}

/// Runs a target, and says on which bytes it failed.
fn attempt(name: &str, run: Run, bytes: &[u8]) {
    let result = catch_unwind(AssertUnwindSafe(|| run(bytes)));
    assert!(result.is_ok(), "target {name} failed on {bytes:?}");
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a seed"))
        .collect()
}

fn burst(name: &str) {
    let (_, run) = TARGETS
        .iter()
        .find(|target| target.0 == name)
        .expect("a target");
    let seeds = seeds(name);
    for seed in &seeds {
        attempt(name, *run, seed);
    }
    let soak = std::env::var_os("REEVE_SOAK").is_some();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..if soak { SOAK_INPUTS } else { INPUTS } {
        let mut bytes = random.bytes();
        // A seed with some bytes changed gets further than any random ones.
        if let (Some(seed), 0..=1) = (seeds.get(random.below(seeds.len())), number % 3) {
            let mut changed = seed.clone();
            for _ in 0..=random.next() % 4 {
                let at = random.below(changed.len());
                if let Some(byte) = changed.get_mut(at) {
                    *byte = random.next().to_le_bytes()[7];
                }
            }
            changed.extend(bytes.iter().take(20));
            bytes = changed;
        }
        attempt(name, *run, &bytes);
    }
}

macro_rules! bursts {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                burst($name);
            }
        )*
        const TESTED: &[&str] = &[$($name),*];
    };
}

bursts! {
    registers_hold: "registers",
    restored_legacy_devices_hold: "restore",
    a_queue_holds: "queue",
    the_transport_holds: "transport",
    a_disk_holds: "block",
    a_network_device_holds: "net",
    a_console_holds: "console",
    a_socket_device_holds: "vsock",
    an_entropy_device_holds: "rng",
    a_balloon_holds: "balloon",
    an_input_device_holds: "input",
    a_memory_device_holds: "mem",
    an_image_holds: "qcow2",
    what_firmware_has_holds: "firmware",
    a_flash_holds: "flash",
    a_display_holds: "display",
}

#[test]
fn every_target_has_its_test_its_seeds_and_its_program() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.0).collect();
    assert_eq!(names, TESTED);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for name in names {
        let program = root.join("fuzz_targets").join(name).with_extension("rs");
        assert!(program.exists(), "{name} has no program");
        assert!(!seeds(name).is_empty(), "{name} has no seeds");
    }
}
