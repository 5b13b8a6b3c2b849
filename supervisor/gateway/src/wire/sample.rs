//! For tests: values of every type that goes over the wire, and what holds for each of them.

use super::xdr::{CharList, Chars, Decode, Encode, List, Opaque, XdrError, decode, encode};

/// Marsaglia's xorshift64.
#[derive(Debug)]
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Source {
        Source(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Few, and never more than `most`.
    fn few(&mut self, most: usize) -> usize {
        usize::try_from(self.next() >> 60)
            .unwrap_or(0)
            .min(most)
            .min(5)
    }
}

/// What a random value can be made of.
pub(crate) trait Sample {
    fn sample(from: &mut Source) -> Self;
}

macro_rules! cut {
    ($($number:ty),*) => { $(
        impl Sample for $number {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any bits will do")]
            fn sample(from: &mut Source) -> Self {
                (from.next() >> 3) as $number
            }
        }
    )* };
}

cut!(i32, u32, i64, u64, u8, u16, f64);

impl Sample for bool {
    fn sample(from: &mut Source) -> Self {
        from.next() >> 63 != 0
    }
}

impl Sample for () {
    fn sample(_: &mut Source) -> Self {}
}

impl<const N: usize> Sample for [u8; N] {
    fn sample(from: &mut Source) -> Self {
        std::array::from_fn(|_| u8::sample(from))
    }
}

impl Sample for String {
    fn sample(from: &mut Source) -> Self {
        const LETTERS: [char; 8] = ['a', 'Z', '0', '-', '/', 'é', '漢', '🐧'];
        let length = from.few(9);
        (0..length)
            .map(|_| LETTERS[usize::try_from(from.next() >> 61).unwrap_or(0)])
            .collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(from: &mut Source) -> Self {
        bool::sample(from).then(|| T::sample(from))
    }
}

impl<T: Sample, const MAX: usize> Sample for List<T, MAX> {
    fn sample(from: &mut Source) -> Self {
        let length = from.few(MAX);
        (0..length).map(|_| T::sample(from)).collect()
    }
}

impl<const MAX: usize> Sample for Opaque<MAX> {
    fn sample(from: &mut Source) -> Self {
        let length = from.few(MAX);
        Opaque((0..length).map(|_| u8::sample(from)).collect())
    }
}

impl<const N: usize> Sample for Chars<N> {
    fn sample(from: &mut Source) -> Self {
        Chars(Sample::sample(from))
    }
}

impl<const MAX: usize> Sample for CharList<MAX> {
    fn sample(from: &mut Source) -> Self {
        let length = from.few(MAX);
        CharList((0..length).map(|_| u8::sample(from)).collect())
    }
}

/// A value comes back as it was, from no fewer bytes than it can take, whatever follows; and from
/// none of the bytes less the last it comes back at all.
pub(crate) fn check<T>(seed: u64)
where
    T: Encode + Decode + Sample + PartialEq + std::fmt::Debug,
{
    let mut source = Source::new(seed);
    let value = T::sample(&mut source);
    let mut bytes = encode(&value).expect("a sample is within its bounds");
    assert!(bytes.len() >= T::LEAST, "{value:?}");
    assert_eq!(bytes.len() % 4, 0, "{value:?}");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value));
    for end in 0..bytes.len() {
        let cut = decode::<T>(&bytes[..end]);
        assert!(
            matches!(cut, Err(XdrError::Short { .. })),
            "{end} of {value:?}: {cut:?}"
        );
    }
    bytes.extend([0xff; 8]);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value));
    // One word at a time is made a number that nothing can hold.
    for word in (0..bytes.len() - 8).step_by(4) {
        let mut hostile = bytes.clone();
        hostile[word..word + 4].copy_from_slice(&[0xff; 4]);
        let _ = decode::<T>(&hostile);
    }
}
