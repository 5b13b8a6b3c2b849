//! The image as a loader sees it, and the kernel's command-line parser.

use crate::{IMAGE, mode};

#[path = "../kernel/options.rs"]
mod options;

use options::{Mode, Options};

#[test]
fn image_is_small() {
    assert!(IMAGE.len() < 24 << 10, "{} bytes", IMAGE.len());
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
