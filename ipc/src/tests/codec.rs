//! What the decoder refuses, and that it gives back what the encoder took.

use proptest::prelude::*;

use super::arbitrary;
use super::golden::{from_worker_samples, to_worker_samples};
use crate::MAX_MESSAGE_BYTES;
use crate::codec::{CodecError, decode, encode};
use crate::error::{ErrorCode, WireError, truncate};
use crate::message::{FromWorker, RequestId, ToWorker};

/// The varint of `u64::MAX`: the longest length a message can claim.
const HUGE: [u8; 9] = [253, 255, 255, 255, 255, 255, 255, 255, 255];

fn encoded_samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let encode_all = |to: &(&str, ToWorker)| encode(&to.1).unwrap();
    let to = to_worker_samples().iter().map(encode_all).collect();
    let from = from_worker_samples()
        .iter()
        .map(|(_, message)| encode(message).unwrap())
        .collect();
    (to, from)
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let error = decode::<FromWorker>(&vec![0; MAX_MESSAGE_BYTES + 1]).unwrap_err();
    assert!(matches!(error, CodecError::TooLarge(n) if n == MAX_MESSAGE_BYTES + 1));
}

#[test]
fn a_value_that_does_not_fit_a_message_is_not_encoded() {
    let reply = |length: usize| FromWorker::Reply {
        id: RequestId(1),
        result: Err(WireError {
            code: ErrorCode::Host,
            message: "x".repeat(length),
        }),
    };
    // The decoder counts a number at its full width, so the last few bytes are not to be had.
    let longest = reply(MAX_MESSAGE_BYTES - 64);
    assert_eq!(
        decode::<FromWorker>(&encode(&longest).unwrap()).unwrap(),
        longest
    );
    assert!(encode(&reply(MAX_MESSAGE_BYTES - 6)).is_err());
    assert!(encode(&reply(10 * MAX_MESSAGE_BYTES)).is_err());
}

#[test]
fn any_byte_behind_a_whole_message_is_refused() {
    let (to, from) = encoded_samples();
    for mut bytes in to {
        bytes.push(0);
        let error = decode::<ToWorker>(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::TrailingBytes(1)), "{error}");
    }
    for mut bytes in from {
        bytes.extend([0; 3]);
        let error = decode::<FromWorker>(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::TrailingBytes(3)), "{error}");
    }
}

#[test]
fn every_message_cut_at_any_length_is_refused() {
    let (to, from) = encoded_samples();
    for bytes in to {
        for length in 0..bytes.len() {
            assert!(decode::<ToWorker>(&bytes[..length]).is_err());
        }
    }
    for bytes in from {
        for length in 0..bytes.len() {
            assert!(decode::<FromWorker>(&bytes[..length]).is_err());
        }
    }
}

#[test]
fn a_length_beyond_the_message_is_refused() {
    // Hello {protocol 1, build: String of u64::MAX bytes}
    let mut hello = vec![0, 1];
    hello.extend(HUGE);
    assert!(matches!(
        decode::<FromWorker>(&hello),
        Err(CodecError::Malformed(_))
    ));
    // Reply {id 1, Err {code 0, message: String of u64::MAX bytes}}
    let mut reply = vec![1, 1, 1, 0];
    reply.extend(HUGE);
    assert!(matches!(
        decode::<FromWorker>(&reply),
        Err(CodecError::Malformed(_))
    ));
    // Request {id 1, Launch {name: String of u64::MAX bytes}}
    let mut launch = vec![2, 1, 0];
    launch.extend(HUGE);
    assert!(matches!(
        decode::<ToWorker>(&launch),
        Err(CodecError::Malformed(_))
    ));
}

#[test]
fn an_unknown_variant_is_refused_at_every_level() {
    let refused_from = |bytes: &[u8]| {
        assert!(
            matches!(decode::<FromWorker>(bytes), Err(CodecError::Malformed(_))),
            "{bytes:?}"
        );
    };
    refused_from(&[3, 0, 0]); // message
    refused_from(&[1, 1, 2, 0]); // result
    refused_from(&[1, 1, 0, 25]); // reply
    refused_from(&[1, 1, 1, 9, 0]); // error code
    refused_from(&[2, 1, 8]); // event
    refused_from(&[2, 1, 6, 0]); // slot
    refused_from(&[2, 1, 0, 5]); // phase
    refused_from(&[2, 1, 3, 0, 5]); // crash cause
    refused_from(&[2, 1, 3, 0, 0, 2]); // option
    let refused_to = |bytes: &[u8]| {
        assert!(
            matches!(decode::<ToWorker>(bytes), Err(CodecError::Malformed(_))),
            "{bytes:?}"
        );
    };
    refused_to(&[3, 0]); // message
    refused_to(&[2, 1, 25]); // request
    refused_to(&[2, 1, 6, 0, 2, 0]); // bool
    assert!(
        decode::<ToWorker>(&[2, 1, 6, 0, 1, 0]).is_ok(),
        "the line above is one byte off this"
    );
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    assert!(decode::<FromWorker>(&[1, 1, 1, 0, 1, b'a']).is_ok());
    assert!(decode::<FromWorker>(&[1, 1, 1, 0, 1, 0xff]).is_err());
}

#[test]
fn an_error_message_is_cut_at_a_character_boundary() {
    let error = WireError::new(ErrorCode::Host, "é".repeat(WireError::MAX_MESSAGE_BYTES));
    assert_eq!(error.message.len(), WireError::MAX_MESSAGE_BYTES);
    let mut text = "aé".to_owned();
    truncate(&mut text, 2);
    assert_eq!(text, "a");
    truncate(&mut text, 0);
    assert_eq!(text, "");
}

proptest! {
    #[test]
    fn what_a_supervisor_says_is_decoded_as_it_was_encoded(message in arbitrary::to_worker()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<ToWorker>(&bytes).unwrap(), message);
    }

    #[test]
    fn what_a_worker_says_is_decoded_as_it_was_encoded(message in arbitrary::from_worker()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<FromWorker>(&bytes).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<FromWorker>(&bytes);
        let _ = decode::<ToWorker>(&bytes);
    }

    #[test]
    fn a_message_with_one_byte_altered_is_refused_or_means_something_whole(
        message in arbitrary::from_worker(),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&message).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(other) = decode::<FromWorker>(&bytes) {
            let again = encode(&other).unwrap();
            prop_assert_eq!(decode::<FromWorker>(&again).unwrap(), other);
        }
    }
}
