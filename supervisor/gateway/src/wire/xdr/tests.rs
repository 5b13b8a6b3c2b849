use proptest::prelude::*;

use super::{CharList, Chars, List, Opaque, TEXT_MAX, XdrError, decode, encode};
use crate::wire::sample::check;

#[test]
fn numbers_are_words_with_the_most_significant_byte_first() {
    assert_eq!(encode(&-2_i32).unwrap(), [0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(encode(&0x0102_0304_u32).unwrap(), [1, 2, 3, 4]);
    assert_eq!(encode(&-1_i64).unwrap(), [0xff; 8]);
    assert_eq!(encode(&1.0_f64).unwrap(), [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&7_u8).unwrap(), [0, 0, 0, 7]);
    assert_eq!(encode(&0x1234_u16).unwrap(), [0, 0, 0x12, 0x34]);
}

#[test]
fn a_string_has_its_length_before_it_and_zeros_behind() {
    assert_eq!(encode("abcde").unwrap(), *b"\0\0\0\x05abcde\0\0\0");
    assert_eq!(encode("abcd").unwrap(), *b"\0\0\0\x04abcd");
    assert_eq!(encode("").unwrap(), [0; 4]);
}

#[test]
fn whatever_pads_a_string_is_not_looked_at() {
    assert_eq!(decode::<String>(b"\0\0\0\x01axyz"), Ok("a".to_owned()));
    assert!(decode::<String>(b"\0\0\0\x01axy").is_err());
}

#[test]
fn text_is_utf_8_without_nul() {
    assert_eq!(
        decode::<String>(b"\0\0\0\x02\xc3\x28\0\0"),
        Err(XdrError::Text)
    );
    assert_eq!(decode::<String>(b"\0\0\0\x03a\0b\0"), Err(XdrError::Text));
}

#[test]
fn any_discriminator_but_zero_means_that_the_value_is_there() {
    for word in [1_u32, 0x0100_0000, 0xffff_ffff] {
        let mut bytes = word.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0, 9]);
        assert_eq!(decode::<Option<i32>>(&bytes), Ok(Some(9)));
        assert_eq!(decode::<bool>(&bytes), Ok(true));
    }
    assert_eq!(decode::<Option<i32>>(&[0; 4]), Ok(None));
    assert_eq!(encode(&Some(9_i32)).unwrap(), [0, 0, 0, 1, 0, 0, 0, 9]);
}

#[test]
fn an_array_of_char_takes_a_word_for_each() {
    let model = encode(&Chars::<32>::of("x86_64")).unwrap();
    assert_eq!(model.len(), 128);
    assert_eq!(model[..12], [0, 0, 0, b'x', 0, 0, 0, b'8', 0, 0, 0, b'6']);
    let label = encode(&CharList::<8>::terminated("é")).unwrap();
    assert_eq!(
        label,
        [
            0, 0, 0, 3, 255, 255, 255, 0xc3, 255, 255, 255, 0xa9, 0, 0, 0, 0
        ]
    );
    assert_eq!(decode::<CharList<8>>(&label), Ok(CharList::terminated("é")));
}

#[test]
fn text_in_a_char_array_is_cut_between_characters_and_keeps_its_nul() {
    assert_eq!(Chars::<4>::of("abcdef").0, *b"abc\0");
    assert_eq!(Chars::<4>::of("abéf").0, *b"ab\0\0");
    assert_eq!(Chars::<0>::of("a").0, *b"");
}

#[test]
fn what_is_beyond_its_bound_is_refused_both_ways() {
    let long = List::<u32, 2>(vec![1, 2, 3]);
    let error = XdrError::TooLong { count: 3, most: 2 };
    assert_eq!(encode(&long), Err(error));
    assert_eq!(decode::<List<u32, 2>>(&[0, 0, 0, 3, 0, 0]), Err(error));
    assert_eq!(encode(&Opaque::<2>(vec![0; 3])), Err(error));
    assert_eq!(decode::<Opaque<2>>(&[0, 0, 0, 3, 0, 0]), Err(error));
    assert_eq!(decode::<CharList<2>>(&[0, 0, 0, 3, 0, 0]), Err(error));
    let text = "x".repeat(TEXT_MAX + 1);
    let most = TEXT_MAX;
    assert_eq!(
        encode(&text),
        Err(XdrError::TooLong {
            count: TEXT_MAX + 1,
            most
        })
    );
    assert_eq!(
        decode::<String>(&[0xff; 8]),
        Err(XdrError::TooLong {
            count: 0xffff_ffff,
            most
        })
    );
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_before_anything_is_made() {
    let (wanted, left) = (4 * 262_144, 4);
    let bytes = [0, 4, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        decode::<List<String, 262_144>>(&bytes),
        Err(XdrError::Short { wanted, left })
    );
    assert!(decode::<List<[u8; 16], 64>>(&[0, 0, 0, 2, 0, 0]).is_err());
}

proptest! {
    #[test]
    fn every_type_comes_back_as_it_was(seed in any::<u64>()) {
        check::<i32>(seed);
        check::<u32>(seed);
        check::<i64>(seed);
        check::<u64>(seed);
        check::<f64>(seed);
        check::<bool>(seed);
        check::<u8>(seed);
        check::<u16>(seed);
        check::<()>(seed);
        check::<[u8; 16]>(seed);
        check::<[u8; 3]>(seed);
        check::<String>(seed);
        check::<Option<String>>(seed);
        check::<List<Option<String>, 16>>(seed);
        check::<List<List<String, 3>, 3>>(seed);
        check::<Opaque<16>>(seed);
        check::<Chars<9>>(seed);
        check::<CharList<16>>(seed);
    }

    #[test]
    fn bytes_at_random_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = decode::<List<Option<String>, 16>>(&bytes) {
            prop_assert_eq!(decode(&encode(&value).unwrap()), Ok(value));
        }
        let _ = decode::<Opaque<64>>(&bytes);
        let _ = decode::<CharList<64>>(&bytes);
        let _ = decode::<Chars<8>>(&bytes);
    }
}
