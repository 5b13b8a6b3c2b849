use proptest::prelude::*;

use super::{
    Assembler, FrameError, Header, Kind, LENGTH_MAX, Program, Status, failure, keepalive, reply,
    reply_with_fds, stream_data, stream_end, stream_hole,
};
use crate::wire::xdr::XdrError;

/// A packet of the words given.
fn packet(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn first(bytes: &[u8]) -> Result<Option<(Header, u32, Vec<u8>)>, FrameError> {
    let mut assembler = Assembler::default();
    assembler.push(bytes);
    let packet = assembler.take()?;
    Ok(packet.map(|packet| (packet.header, packet.fds, packet.payload.to_vec())))
}

const OPEN: Header = Header {
    program: 0x2000_8086,
    version: 1,
    procedure: 1,
    kind: Kind::Call,
    serial: 3,
    status: Status::Ok,
};

#[test]
fn a_call_is_its_six_words_and_what_follows_them() {
    let bytes = packet(&[32, 0x2000_8086, 1, 1, 0, 3, 0, 0xaabb_ccdd]);
    let (header, fds, payload) = first(&bytes).unwrap().unwrap();
    assert_eq!((header, fds), (OPEN, 0));
    assert_eq!(payload, [0xaa, 0xbb, 0xcc, 0xdd]);
    assert_eq!(header, Header::call(Program::Remote, 1, 3));
}

#[test]
fn the_program_and_the_procedure_may_be_any() {
    let bytes = packet(&[28, 77, 9, 0xffff_fff0, 0, 3, 0]);
    let (header, ..) = first(&bytes).unwrap().unwrap();
    assert_eq!(
        (header.program, header.version, header.procedure),
        (77, 9, -16)
    );
    assert_eq!(Program::from_number(77), None);
}

#[test]
fn a_length_that_no_packet_has_is_refused_with_its_fourth_byte() {
    for length in [0_u32, 10, 27, 33_554_437, 40_000_000, u32::MAX] {
        let bytes = length.to_be_bytes();
        assert_eq!(first(&bytes[..3]), Ok(None));
        assert_eq!(first(&bytes), Err(FrameError::Length(length)));
    }
    for length in [28_u32, 33_554_436] {
        assert_eq!(first(&length.to_be_bytes()), Ok(None));
    }
}

#[test]
fn an_unknown_type_or_status_is_refused_with_the_header() {
    let kind = packet(&[4000, 0x2000_8086, 1, 1, 7, 3, 0]);
    assert_eq!(first(&kind), Err(FrameError::Kind(7)));
    let status = packet(&[4000, 0x2000_8086, 1, 1, 0, 3, 3]);
    assert_eq!(first(&status), Err(FrameError::Status(3)));
}

#[test]
fn the_length_a_peer_claims_takes_no_memory() {
    let mut assembler = Assembler::default();
    assembler.push(&packet(&[33_554_436, 0x2000_8086, 1, 1, 0, 3, 0]));
    assert_eq!(assembler.take(), Ok(None));
    assert!(assembler.buffer.capacity() < 256);
}

#[test]
fn the_memory_of_a_long_packet_is_given_back() {
    let mut bytes = Vec::new();
    stream_data(&mut bytes, OPEN, &vec![7; 1 << 20]).unwrap();
    let mut assembler = Assembler::default();
    assembler.push(&bytes);
    assert_eq!(assembler.take().unwrap().unwrap().payload.len(), 1 << 20);
    assembler.push(&[0]);
    assert!(assembler.buffer.capacity() < 256);
}

#[test]
fn descriptors_are_counted_and_their_bytes_are_not_the_next_packet() {
    let mut bytes = packet(&[36, 0x2000_8086, 1, 414, 4, 3, 0, 2, 5]);
    assert_eq!(first(&bytes), Ok(None));
    bytes.push(0);
    assert_eq!(first(&bytes), Ok(None));
    bytes.push(0);
    keepalive(&mut bytes, 1).unwrap();
    let mut assembler = Assembler::default();
    assembler.push(&bytes);
    let call = assembler.take().unwrap().unwrap();
    assert_eq!((call.header.kind, call.fds), (Kind::CallWithFds, 2));
    assert_eq!(call.payload, [0, 0, 0, 5]);
    let ping = assembler.take().unwrap().unwrap();
    assert_eq!(ping.header.program, Program::Keepalive.number());
    assert_eq!(assembler.take(), Ok(None));
    assert_eq!(assembler.pending(), 0);
}

#[test]
fn too_many_descriptors_or_no_count_of_them_is_refused() {
    let many = packet(&[36, 0x2000_8086, 1, 414, 4, 3, 0, 33]);
    assert_eq!(first(&many), Err(FrameError::Fds(33)));
    let none = packet(&[28, 0x2000_8086, 1, 414, 5, 3, 0]);
    assert_eq!(first(&none), Err(FrameError::Fds(0)));
}

#[test]
fn an_answer_repeats_what_it_answers() {
    let mut out = vec![9];
    reply(&mut out, OPEN, &1_u32).unwrap();
    assert_eq!(out[1..], packet(&[32, 0x2000_8086, 1, 1, 1, 3, 0, 1]));

    let mut out = Vec::new();
    failure(&mut out, OPEN, &39_u32).unwrap();
    assert_eq!(out, packet(&[32, 0x2000_8086, 1, 1, 1, 3, 1, 39]));

    let mut out = Vec::new();
    failure(
        &mut out,
        OPEN.answer(Kind::Stream, Status::Continue),
        &39_u32,
    )
    .unwrap();
    assert_eq!(out, packet(&[32, 0x2000_8086, 1, 1, 3, 3, 1, 39]));

    let mut out = Vec::new();
    reply_with_fds(&mut out, OPEN, 1, &1_u32).unwrap();
    assert_eq!(out, packet(&[36, 0x2000_8086, 1, 1, 5, 3, 0, 1, 1]));
}

#[test]
fn the_packets_of_a_stream_have_the_serial_of_its_call() {
    let mut out = Vec::new();
    stream_data(&mut out, OPEN, b"data").unwrap();
    stream_data(&mut out, OPEN, b"").unwrap();
    stream_end(&mut out, OPEN).unwrap();
    stream_hole(&mut out, OPEN, 1 << 32).unwrap();
    let mut wanted = packet(&[32, 0x2000_8086, 1, 1, 3, 3, 2, 0x6461_7461]);
    wanted.extend(packet(&[28, 0x2000_8086, 1, 1, 3, 3, 2]));
    wanted.extend(packet(&[28, 0x2000_8086, 1, 1, 3, 3, 0]));
    wanted.extend(packet(&[40, 0x2000_8086, 1, 1, 6, 3, 2, 1, 0, 0]));
    assert_eq!(out, wanted);
}

#[test]
fn a_ping_is_a_message_with_serial_0_and_nothing_in_it() {
    let mut out = Vec::new();
    keepalive(&mut out, 2).unwrap();
    assert_eq!(out, packet(&[28, 0x6b65_6570, 1, 2, 2, 0, 0]));
}

#[test]
fn a_packet_that_is_too_long_leaves_the_buffer_as_it_was() {
    let mut out = vec![1, 2, 3, 4];
    let data = vec![0; LENGTH_MAX - 27];
    let error = stream_data(&mut out, OPEN, &data).unwrap_err();
    assert_eq!(
        error,
        XdrError::TooLong {
            count: LENGTH_MAX + 1,
            most: LENGTH_MAX
        }
    );
    assert!(reply_with_fds(&mut out, OPEN, 33, &()).is_err());
    assert_eq!(out, [1, 2, 3, 4]);
    stream_data(&mut out, OPEN, &data[1..]).unwrap();
}

proptest! {
    #[test]
    fn packets_are_the_same_however_their_bytes_are_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let mut bytes = Vec::new();
        for payload in &payloads {
            stream_data(&mut bytes, OPEN, payload).unwrap();
        }
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (front, behind) = rest.split_at(rest.len().min(*cut));
            assembler.push(front);
            while let Some(packet) = assembler.take().unwrap() {
                found.push(packet.payload.to_vec());
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, payloads);
        prop_assert_eq!(assembler.pending(), 0);
    }

    #[test]
    fn bytes_at_random_are_packets_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut assembler = Assembler::default();
        assembler.push(&bytes);
        while let Ok(Some(_)) = assembler.take() {}
    }
}
