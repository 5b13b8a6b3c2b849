//! The image as a loader sees it, and the kernel's command-line parser.

use crate::mode::{BlockBench, NetMeasure, Wait, Way};
use crate::{DRIVERS_IMAGE, IMAGE, image, mode};

#[path = "../kernel/options.rs"]
mod options;

/// The pure parts of the drivers.
#[path = "../kernel/drive"]
mod drive {
    pub(super) use crate::mode::cases;

    #[allow(dead_code, reason = "the kernel uses what the tests do not")]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the guest's addresses have 64 bits, and so have ours"
    )]
    mod latency;
    #[allow(dead_code, reason = "the kernel uses what the tests do not")]
    pub(super) mod options;
    #[allow(dead_code, reason = "the kernel uses what the tests do not")]
    mod ring;
}

use drive::options::{Device, Direction, Mode as DriveMode, Options as DriveOptions};

use options::{Mode, Options};

#[test]
fn image_is_small() {
    assert!(IMAGE.len() < 24 << 10, "{} bytes", IMAGE.len());
    // Loaded by nobody who does not measure or attack devices: a tenth of a millisecond at most.
    assert!(
        DRIVERS_IMAGE.len() < 96 << 10,
        "{} bytes",
        DRIVERS_IMAGE.len()
    );
}

#[test]
fn the_larger_image_is_for_modes_that_need_it() {
    for line in [
        "",
        mode::BENCH,
        mode::HOLD,
        "mode=attack mode=report",
        "attack",
        "mode=attack-",
    ] {
        assert_eq!(image(line).len(), IMAGE.len(), "{line}");
    }
    for line in [
        mode::VIRTIO_REPORT,
        "quiet mode=attack case=loop",
        "mode=report mode=rng-read",
    ] {
        assert_eq!(image(line).len(), DRIVERS_IMAGE.len(), "{line}");
    }
}

#[test]
fn both_sides_agree_on_which_modes_need_drivers() {
    let bench = BlockBench {
        depth: 3,
        size: 8192,
        write: true,
        sequential: true,
        milliseconds: 70,
        wait: Wait::Interrupt,
    };
    let net = NetMeasure {
        way: Way::RoundTrip,
        depth: 4,
        size: 60,
        milliseconds: 70,
        wait: Wait::Poll,
    };
    for (line, mode) in [
        (mode::VIRTIO_REPORT.to_owned(), DriveMode::Report),
        (mode::block_verify(7, 9, Wait::Poll), DriveMode::BlockVerify),
        (mode::block_bench(bench), DriveMode::BlockBench),
        (mode::block_watch(3, 4096, 10), DriveMode::BlockWatch),
        (
            mode::net_transmit(64, 8, 10, Wait::Poll),
            DriveMode::NetBench,
        ),
        (
            mode::net_receive(64, 8, 10, Wait::Poll),
            DriveMode::NetBench,
        ),
        (mode::net_echo(8, 10, Wait::Interrupt), DriveMode::NetEcho),
        (mode::rng_read(100, Wait::Poll), DriveMode::RngRead),
        (mode::memory_watch(10), DriveMode::MemoryWatch),
        (mode::attack("loop", "any", 1, Some(2)), DriveMode::Attack),
        (mode::measure_block(bench), DriveMode::Measure),
        (mode::measure_net(net), DriveMode::Measure),
    ] {
        assert_eq!(
            DriveOptions::parse(line.as_bytes()).mode,
            Some(mode),
            "{line}"
        );
        assert_eq!(image(&line).len(), DRIVERS_IMAGE.len(), "{line}");
    }
    let options = DriveOptions::parse(mode::block_bench(bench).as_bytes());
    assert_eq!(
        (options.depth, options.size, options.milliseconds),
        (3, Some(8192), 70)
    );
    assert!(options.write && options.sequential && options.interrupt);
    let options = DriveOptions::parse(mode::measure_block(bench).as_bytes());
    assert_eq!(options.device, Some(Device::BLOCK));
    assert!(options.write && options.interrupt && options.depth == 3);
    for (way, direction) in [
        (Way::Transmit, Direction::Transmit),
        (Way::Receive, Direction::Receive),
        (Way::RoundTrip, Direction::RoundTrip),
    ] {
        let line = mode::measure_net(NetMeasure { way, ..net });
        let options = DriveOptions::parse(line.as_bytes());
        assert_eq!(options.device, Some(Device::NET));
        assert_eq!((options.direction, options.size), (direction, Some(60)));
    }
    let options = DriveOptions::parse(mode::net_receive(5, 8, 10, Wait::Poll).as_bytes());
    assert!(!options.interrupt && options.count == Some(5));
    assert_eq!(options.direction, Direction::Receive);
}

#[test]
fn every_attack_has_a_name_of_its_own() {
    let mut names = mode::ATTACKS.to_vec();
    for (name, case) in drive::cases::ALL {
        let line = mode::attack(name, "rng", 3, None);
        let options = DriveOptions::parse(line.as_bytes());
        assert_eq!(options.case, Some(case), "{name}");
        assert_eq!(options.device, Some(Device::RNG));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), mode::ATTACKS.len());
}

#[test]
fn an_unknown_attack_or_device_is_none() {
    let options = DriveOptions::parse(b"mode=attack case=loops device=disk");
    assert_eq!((options.case, options.device), (None, None));
    let options = DriveOptions::parse(b"mode=attack case= device");
    assert_eq!((options.case, options.device), (None, Some(Device::Any)));
}

#[test]
fn empty_command_line_asks_for_the_report() {
    assert_eq!(Options::parse(b"").mode, Mode::Report);
}

#[test]
fn every_published_mode_is_known() {
    let fuzz = mode::fuzz_ports(7, 9);
    let busy = mode::cpu_loop(5);
    for line in [
        mode::REPORT,
        mode::BENCH,
        mode::BENCH_ANYWHERE,
        mode::HOLD,
        mode::ECHO,
        mode::CLOCK,
        mode::STEADY,
        mode::SPIN,
        mode::SPIN_USER,
        mode::TRIPLE_FAULT,
        mode::FLOOD,
        mode::RESET,
        mode::RESET_I8042,
        mode::RESET_ONCE,
        mode::BAD_MMIO,
        mode::EMULATION_FAILURE,
        &fuzz,
        &busy,
    ] {
        assert_ne!(
            Options::parse(line.as_bytes()).mode,
            Mode::Unknown,
            "{line}"
        );
    }
}

#[test]
fn numbers_are_taken_with_their_mode() {
    let options = Options::parse(mode::fuzz_ports(7, 9).as_bytes());
    assert_eq!(
        (options.mode, options.seed, options.count),
        (Mode::FuzzPorts, 7, 9)
    );
    assert_eq!(Options::parse(mode::cpu_loop(5).as_bytes()).milliseconds, 5);
}

#[test]
fn foreign_words_are_skipped_and_the_last_mode_counts() {
    let options = Options::parse(b"console=ttyS0  mode=echo quiet\tmode=clock");
    assert_eq!(options.mode, Mode::Clock);
}

#[test]
fn mode_names_are_matched_whole() {
    for line in ["mode=", "mode=benchmark", "mode=Report"] {
        assert_eq!(
            Options::parse(line.as_bytes()).mode,
            Mode::Unknown,
            "{line}"
        );
    }
}

#[test]
fn absurd_numbers_are_bounded() {
    let options = Options::parse(b"mode=bad-mmio ports=99999999999999999999999 count=");
    assert_eq!((options.ports, options.count), (0x1_0000, 0));
}
