//! Requests as hostile drivers make them.

use proptest::prelude::*;

use super::*;
use crate::memory::testing::ram;
use crate::virtio::testing::{Buffer, Driver, into, out};

const ALL: Allowed = Allowed {
    write: true,
    discard: true,
    write_zeroes: true,
    unmap: true,
};
const HEADER: u64 = 0x4000;
const DATA: u64 = 0x5000;
const STATUS: u64 = 0x4100;

/// What comes of a header and these buffers.
fn parsed(
    kind: u32,
    sector: u64,
    data: &[u8],
    buffers: &[Buffer],
    allowed: Allowed,
) -> Result<Request, QueueFault> {
    let ram = ram(0x10000);
    let mut driver = Driver::new(&ram, 0, 16);
    ram.write(HEADER, &kind.to_le_bytes()).expect("in RAM");
    ram.write(HEADER + 8, &sector.to_le_bytes())
        .expect("in RAM");
    ram.write(DATA, data).expect("in RAM");
    driver.add(buffers);
    let mut chain = Chain::new();
    assert_eq!(driver.queue().pop(&mut chain), Ok(true));
    parse(&chain, &ram, allowed)
}

fn command(
    kind: u32,
    sector: u64,
    data: &[u8],
    buffers: &[Buffer],
    allowed: Allowed,
) -> Result<Command, u8> {
    parsed(kind, sector, data, buffers, allowed)
        .expect("a status byte")
        .command
}

fn a_range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn reads_and_writes_name_whole_sectors() {
    let read = [out(HEADER, 16), into(DATA, 1024), into(STATUS, 1)];
    assert_eq!(
        command(0, 3, &[], &read, ALL),
        Ok(Command::Read {
            offset: 1536,
            len: 1024
        })
    );
    let write = [out(HEADER, 16), out(DATA, 512), into(STATUS, 1)];
    assert_eq!(
        command(1, 3, &[], &write, ALL),
        Ok(Command::Write {
            offset: 1536,
            len: 512
        })
    );
    for len in [0_u32, 1, 511, 513] {
        let mut read = vec![out(HEADER, 16), into(STATUS, 1)];
        let mut write = read.clone();
        if len > 0 {
            read.insert(1, into(DATA, len));
            write.insert(1, out(DATA, len));
        }
        assert_eq!(command(0, 0, &[], &read, ALL), Err(IOERR), "{len}");
        assert_eq!(command(1, 0, &[], &write, ALL), Err(IOERR), "{len}");
    }
}

#[test]
fn a_request_may_be_spread_over_any_buffers() {
    // The header in three pieces with data behind it, and the status at the end of the data read.
    let write = [
        out(HEADER, 1),
        out(HEADER + 1, 7),
        out(HEADER + 8, 520),
        into(STATUS, 1),
    ];
    assert_eq!(
        command(1, 9, &[], &write, ALL),
        Ok(Command::Write {
            offset: 9 * 512,
            len: 512
        })
    );
    let read = [out(HEADER, 16), into(DATA, 100), into(DATA + 100, 413)];
    let request = parsed(0, 9, &[], &read, ALL).expect("a status byte");
    assert_eq!(request.status, DATA + 512);
    assert_eq!(
        request.command,
        Ok(Command::Read {
            offset: 9 * 512,
            len: 512
        })
    );
}

#[test]
fn a_sector_whose_byte_has_no_number_is_an_error() {
    let read = [out(HEADER, 16), into(DATA, 512), into(STATUS, 1)];
    let write = [out(HEADER, 16), out(DATA, 512), into(STATUS, 1)];
    let range = [out(HEADER, 16), out(DATA, 16), into(STATUS, 1)];
    for sector in [u64::MAX, u64::MAX / 512 + 1, 1 << 55, 1 << 63] {
        assert_eq!(command(0, sector, &[], &read, ALL), Err(IOERR));
        assert_eq!(command(1, sector, &[], &write, ALL), Err(IOERR));
        for kind in [11, 13] {
            let data = a_range(sector, 1, 0);
            assert_eq!(command(kind, 0, &data, &range, ALL), Err(IOERR));
        }
    }
}

#[test]
fn a_header_that_is_cut_short_is_an_error() {
    for len in [1, 8, 15] {
        let buffers = [out(HEADER, len), into(STATUS, 1)];
        assert_eq!(command(4, 0, &[], &buffers, ALL), Err(IOERR));
    }
    assert_eq!(command(4, 0, &[], &[into(STATUS, 1)], ALL), Err(IOERR));
}

#[test]
fn without_a_status_byte_nothing_can_be_answered() {
    assert!(parsed(4, 0, &[], &[out(HEADER, 16)], ALL).is_err());
}

#[test]
fn what_is_not_known_is_unsupported() {
    let buffers = [out(HEADER, 16), out(DATA, 512), into(STATUS, 1)];
    // SCSI commands, lifetime, secure erase, zones, and the old barrier bit.
    for kind in [2, 3, 9, 10, 14, 15, 16, 0x8000_0000, u32::MAX] {
        assert_eq!(command(kind, 0, &[], &buffers, ALL), Err(UNSUPP), "{kind}");
    }
}

#[test]
fn ranges_have_limits_and_known_flags() {
    let buffers = [out(HEADER, 16), out(DATA, 16), into(STATUS, 1)];
    let ask = |kind, sectors, flags, allowed| {
        command(kind, 0, &a_range(8, sectors, flags), &buffers, allowed)
    };
    let (offset, len) = (4096, 512);
    assert_eq!(ask(11, 1, 0, ALL), Ok(Command::Discard { offset, len }));
    assert_eq!(ask(11, 1, 1, ALL), Err(UNSUPP));
    assert_eq!(ask(11, MAX_DISCARD_SECTORS + 1, 0, ALL), Err(IOERR));
    assert_eq!(ask(11, u32::MAX, 0, ALL), Err(IOERR));
    for unmap in [false, true] {
        let zeroes = Command::WriteZeroes { offset, len, unmap };
        assert_eq!(ask(13, 1, unmap.into(), ALL), Ok(zeroes));
    }
    assert_eq!(ask(13, 1, 2, ALL), Err(UNSUPP));
    assert_eq!(ask(13, MAX_ZERO_SECTORS + 1, 0, ALL), Err(IOERR));

    let no_unmap = Allowed {
        discard: false,
        unmap: false,
        ..ALL
    };
    assert_eq!(ask(11, 1, 0, no_unmap), Err(UNSUPP));
    let unmap = false;
    let zeroes = Command::WriteZeroes { offset, len, unmap };
    assert_eq!(ask(13, 1, 1, no_unmap), Ok(zeroes));

    for len in [15, 17, 32] {
        let buffers = [out(HEADER, 16), out(DATA, len), into(STATUS, 1)];
        let data = a_range(8, 1, 0);
        assert_eq!(command(11, 0, &data, &buffers, ALL), Err(IOERR), "{len}");
    }
}

#[test]
fn a_disk_that_is_read_only_takes_no_change() {
    let allowed = Allowed {
        write: false,
        discard: false,
        write_zeroes: false,
        unmap: false,
    };
    let write = [out(HEADER, 16), out(DATA, 512), into(STATUS, 1)];
    assert_eq!(command(1, 0, &[], &write, allowed), Err(IOERR));
    let range = [out(HEADER, 16), out(DATA, 16), into(STATUS, 1)];
    for kind in [11, 13] {
        assert!(command(kind, 0, &a_range(0, 1, 0), &range, allowed).is_err());
    }
}

#[test]
fn a_serial_number_needs_its_room() {
    let ask = |len| {
        let buffers = [out(HEADER, 16), into(DATA, len), into(STATUS, 1)];
        command(8, 0, &[], &buffers, ALL)
    };
    assert_eq!(ask(19), Err(IOERR));
    assert_eq!(ask(20), Ok(Command::Identify));
}

proptest! {
    #[test]
    fn no_command_wraps(
        kind in prop_oneof![0..16_u32, any::<u32>()],
        sector in any::<u64>(),
        range in any::<[u8; 16]>(),
        header in 1..40_u32,
        data in 1..2000_u32,
        writable in any::<bool>(),
    ) {
        let middle = if writable { into(DATA, data) } else { out(DATA, data) };
        let buffers = [out(HEADER, header), middle, into(STATUS, 1)];
        match command(kind, sector, &range, &buffers, ALL) {
            Ok(
                Command::Read { offset, len }
                | Command::Write { offset, len }
                | Command::Discard { offset, len }
                | Command::WriteZeroes { offset, len, .. },
            ) => {
                prop_assert!(offset % 512 == 0 && len % 512 == 0);
                prop_assert!(len <= MAX_REQUEST_BYTES);
            }
            Ok(Command::Flush | Command::Identify) => {}
            Err(status) => prop_assert!(status == IOERR || status == UNSUPP),
        }
    }
}
