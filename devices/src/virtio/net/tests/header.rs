//! Tests of what is believed of a header, and what is not.

use proptest::prelude::*;

use super::*;

const ALL: Offloads = Offloads {
    checksum: true,
    tcp4: true,
    tcp6: true,
    udp: true,
};

fn tcp4() -> Header {
    Header {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCP4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

#[test]
fn a_good_header_goes_through_as_it_is() {
    assert_eq!(tcp4().outgoing(3000, ALL), Ok(tcp4()));
    assert_eq!(Header::decode(tcp4().encode()), tcp4());
    let plain = Header::default();
    assert_eq!(plain.outgoing(14, Offloads::default()), Ok(plain));
}

#[test]
fn a_checksum_that_is_not_wholly_in_the_frame_is_refused() {
    for (csum_start, csum_offset, frame, good) in [
        (34, 16, 52, true),
        (34, 16, 51, false),
        (51, 0, 52, false),
        (u16::MAX, u16::MAX, MAX_FRAME, false),
        (0, u16::MAX, MAX_FRAME, true),
        (u16::MAX, 0, MAX_FRAME, true),
    ] {
        let header = Header {
            flags: NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..Header::default()
        };
        let result = header.outgoing(frame, ALL);
        assert_eq!(
            result.is_ok(),
            good,
            "{csum_start}+{csum_offset} of {frame}"
        );
    }
}

#[test]
fn segments_without_a_size_or_with_headers_beyond_the_frame_are_refused() {
    let size = Header {
        gso_size: 0,
        ..tcp4()
    };
    assert_eq!(size.outgoing(3000, ALL), Err(HeaderFault::Segments));
    let long = Header {
        hdr_len: 3001,
        ..tcp4()
    };
    assert_eq!(long.outgoing(3000, ALL), Err(HeaderFault::Segments));
    let unchecked = Header { flags: 0, ..tcp4() };
    assert_eq!(unchecked.outgoing(3000, ALL), Err(HeaderFault::Checksum));
}

#[test]
fn an_offload_that_was_not_negotiated_is_refused() {
    for gso_type in [0x80 | GSO_TCP4, 3, 2, 6, 0x80, 0xff] {
        let header = Header { gso_type, ..tcp4() };
        let result = header.outgoing(3000, ALL);
        assert_eq!(result, Err(HeaderFault::NotNegotiated), "{gso_type:#x}");
    }
    let only_checksum = Offloads {
        checksum: true,
        ..Offloads::default()
    };
    for gso_type in [GSO_TCP4, GSO_TCP6, GSO_UDP_L4] {
        let header = Header { gso_type, ..tcp4() };
        assert!(header.outgoing(3000, ALL).is_ok());
        let result = header.outgoing(3000, only_checksum);
        assert_eq!(result, Err(HeaderFault::NotNegotiated));
    }
    let checksum = Header {
        gso_type: GSO_NONE,
        ..tcp4()
    };
    let result = checksum.outgoing(3000, Offloads::default());
    assert_eq!(result, Err(HeaderFault::NotNegotiated));
}

#[test]
fn what_has_no_meaning_without_its_flag_does_not_reach_the_host() {
    let header = Header {
        flags: !NEEDS_CSUM,
        gso_type: GSO_NONE,
        hdr_len: 9999,
        gso_size: 7,
        csum_start: 60_000,
        csum_offset: 60_000,
        num_buffers: 77,
    };
    assert_eq!(header.outgoing(60, ALL), Ok(Header::default()));
}

#[test]
fn a_driver_learns_of_valid_checksums_only_if_it_agreed_to() {
    let header = Header {
        flags: DATA_VALID,
        ..Header::default()
    };
    assert_eq!(header.incoming(60, ALL), Ok(header));
    assert_eq!(
        header.incoming(60, Offloads::default()),
        Ok(Header::default())
    );
}

#[test]
fn a_checksum_is_left_to_the_host_where_the_frame_has_one_and_nowhere_else() {
    let mut frame = [0; 74];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!(tcp4().fits(&frame), Ok(()));
    let elsewhere = |csum_start, csum_offset| Header {
        csum_start,
        csum_offset,
        ..tcp4()
    };
    // The frame's own addresses, those of IP, the kind of the content, UDP's place.
    for (start, offset) in [
        (0, 6),
        (0, 8),
        (14, 12),
        (14, 36),
        (0, 12),
        (34, 6),
        (33, 17),
    ] {
        let moved = elsewhere(start, offset);
        assert!(moved.outgoing(74, ALL).is_ok(), "it lies in the frame");
        assert_eq!(
            moved.fits(&frame),
            Err(HeaderFault::Transport),
            "{start}+{offset}"
        );
    }
    for (gso_type, fits) in [
        (GSO_NONE, true),
        (GSO_TCP4, true),
        (GSO_TCP6, false),
        (GSO_UDP_L4, false),
    ] {
        let header = Header { gso_type, ..tcp4() };
        assert_eq!(header.fits(&frame).is_ok(), fits, "{gso_type}");
    }
    frame[23] = 17;
    let udp = Header {
        gso_type: GSO_UDP_L4,
        ..elsewhere(34, 6)
    };
    assert_eq!(udp.fits(&frame), Ok(()));
    assert_eq!(tcp4().fits(&frame), Err(HeaderFault::Transport));
    // Nothing is left to the host.
    assert_eq!(Header::default().fits(&[]), Ok(()));
}

proptest! {
    #[test]
    fn whatever_is_accepted_lies_in_the_frame_and_was_negotiated(
        bytes in any::<[u8; HEADER_BYTES]>(),
        few in any::<(bool, bool, bool, bool)>(),
        frame in MIN_FRAME..=MAX_FRAME,
    ) {
        // Values that are good by chance are rare.
        let mut bytes = bytes;
        bytes[0] &= 7;
        bytes[1] &= 7;
        let (checksum, tcp4, tcp6, udp) = few;
        let offloads = Offloads { checksum, tcp4, tcp6, udp };
        if let Ok(header) = Header::decode(bytes).outgoing(frame, offloads) {
            prop_assert_eq!(header.flags & !NEEDS_CSUM, 0);
            if header.flags != 0 {
                prop_assert!(checksum);
                prop_assert!(
                    usize::from(header.csum_start) + usize::from(header.csum_offset) + 2 <= frame
                );
            }
            prop_assert!(usize::from(header.hdr_len) <= frame);
            let consistent = match header.gso_type {
                GSO_NONE => header.gso_size == 0,
                GSO_TCP4 => tcp4 && header.gso_size > 0,
                GSO_TCP6 => tcp6 && header.gso_size > 0,
                GSO_UDP_L4 => udp && header.gso_size > 0,
                _ => false,
            };
            prop_assert!(consistent);
            prop_assert_eq!(header.num_buffers, 0);
        }
    }
}
