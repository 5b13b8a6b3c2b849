//! XDR as libvirt's C programs write it: words of four bytes, most significant first, everything padded
//! to a multiple of four.
//!
//! | type here | on the wire |
//! |---|---|
//! | `i32`, `u32`, `bool` | one word; any word but 0 is true |
//! | `u8`, `u16` | one word (`unsigned char`, `unsigned short`) |
//! | `i64`, `u64`, `f64` | two words |
//! | `[u8; N]` | N bytes, padded (fixed `opaque`) |
//! | `String` | a length of at most [`TEXT_MAX`], the bytes, padded |
//! | `Option<T>` | a word, then the value if that is not 0 |
//! | [`Opaque`], [`List`] | a count of at most their bound, then the bytes or the items |
//! | [`Chars`], [`CharList`] | an array of `char`: a word for each |
//!
//! Decoding takes no more memory than a small multiple of the bytes it is given (a count that they
//! cannot hold is refused before anything is allocated), and reads each byte once. It does not ask for
//! what follows: libvirt ignores bytes behind the arguments, and a newer client may have some.

mod bounded;
#[cfg(test)]
mod tests;

pub use bounded::{CharList, Chars, List, Opaque};

/// The longest string there can be, in bytes.
pub const TEXT_MAX: usize = 4_194_304;

/// Why bytes are not the value they should be, or a value cannot become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XdrError {
    /// The bytes end too early.
    #[error("{wanted} bytes are wanted and {left} are left")]
    Short {
        /// How many the next value takes at least.
        wanted: usize,
        /// How many there are.
        left: usize,
    },
    /// A string, a list or an array is longer than its bound.
    #[error("{count} items where at most {most} may be")]
    TooLong {
        /// How many there are said to be.
        count: usize,
        /// The bound.
        most: usize,
    },
    /// A string is not UTF-8, or has a NUL within.
    #[error("a string is not UTF-8 without NUL")]
    Text,
    /// The tag of a union is none that is known.
    #[error("a value of unknown type {0}")]
    Tag(i32),
}

/// What can be written.
pub trait Encode {
    /// Writes it behind what `to` has.
    ///
    /// # Errors
    /// [`XdrError::TooLong`]: it holds more than its bound allows. What `to` has then is of no use.
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError>;
}

/// What can be read.
pub trait Decode: Sized {
    /// The fewest bytes one takes: what a count is held against before it is believed.
    const LEAST: usize;

    /// Reads one off the front of `from`.
    ///
    /// # Errors
    /// The bytes are not one. What is left in `from` then is of no use.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError>;
}

/// Reads one `T` off the front of `bytes` and ignores what follows.
///
/// # Errors
/// The bytes are not one.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, XdrError> {
    T::decode(&mut Decoder::new(bytes))
}

/// Writes `value` alone.
///
/// # Errors
/// It holds more than its bound allows.
pub fn encode<T: Encode + ?Sized>(value: &T) -> Result<Vec<u8>, XdrError> {
    let mut bytes = Vec::new();
    value.encode(&mut Encoder::new(&mut bytes))?;
    Ok(bytes)
}

/// Bytes that are read from the front.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `N` bytes with no padding behind them.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let Some((front, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.short(N));
        };
        self.rest = rest;
        Ok(*front)
    }

    /// `length` bytes and the padding behind them, whatever that is.
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], XdrError> {
        let padded = length.checked_next_multiple_of(4);
        let Some((front, rest)) = padded.and_then(|padded| self.rest.split_at_checked(padded))
        else {
            return Err(self.short(padded.unwrap_or(length)));
        };
        self.rest = rest;
        Ok(front.get(..length).unwrap_or(front))
    }

    /// A count of things that take at least `least` bytes each, of which the bytes left can hold as
    /// many and `most` allows them.
    fn count(&mut self, most: usize, least: usize) -> Result<usize, XdrError> {
        let count = usize::try_from(u32::decode(self)?).unwrap_or(usize::MAX);
        if count > most {
            return Err(XdrError::TooLong { count, most });
        }
        let wanted = count.saturating_mul(least.max(1));
        if wanted > self.rest.len() {
            return Err(self.short(wanted));
        }
        Ok(count)
    }

    fn short(&self, wanted: usize) -> XdrError {
        let left = self.rest.len();
        XdrError::Short { wanted, left }
    }
}

/// Bytes that are written at the end.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Writes behind what `out` has, which is a multiple of four bytes.
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>) -> Encoder<'a> {
        Encoder { out }
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes and zeros up to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.raw(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.resize(self.out.len() + padding, 0);
    }

    /// A count, if it is within its bound.
    fn count(&mut self, count: usize, most: usize) -> Result<(), XdrError> {
        match u32::try_from(count) {
            Ok(word) if count <= most => word.encode(self),
            _ => Err(XdrError::TooLong { count, most }),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl Encode for $number {
            fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
                to.raw(&self.to_be_bytes());
                Ok(())
            }
        }
        impl Decode for $number {
            const LEAST: usize = size_of::<$number>();

            fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
                Ok(<$number>::from_be_bytes(from.array()?))
            }
        }
    )* };
}

numbers!(i32, u32, i64, u64, f64);

impl Encode for bool {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        u32::from(*self).encode(to)
    }
}

impl Decode for bool {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Ok(u32::decode(from)? != 0)
    }
}

impl Encode for u8 {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        u32::from(*self).encode(to)
    }
}

impl Decode for u8 {
    const LEAST: usize = 4;

    /// The lowest byte of the word, as C has it.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let [_, _, _, low] = from.array()?;
        Ok(low)
    }
}

impl Encode for u16 {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        u32::from(*self).encode(to)
    }
}

impl Decode for u16 {
    const LEAST: usize = 4;

    /// The lower half of the word, as C has it.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let [_, _, high, low] = from.array()?;
        Ok(u16::from_be_bytes([high, low]))
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Encoder<'_>) -> Result<(), XdrError> {
        Ok(())
    }
}

impl Decode for () {
    const LEAST: usize = 0;

    fn decode(_: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Ok(())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        to.padded(self);
        Ok(())
    }
}

impl<const N: usize> Decode for [u8; N] {
    const LEAST: usize = N.next_multiple_of(4);

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let mut array = [0; N];
        for (to, byte) in array.iter_mut().zip(from.bytes(N)?) {
            *to = *byte;
        }
        Ok(array)
    }
}

impl Encode for str {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        to.count(self.len(), TEXT_MAX)?;
        to.padded(self.as_bytes());
        Ok(())
    }
}

impl Encode for String {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        self.as_str().encode(to)
    }
}

impl Decode for String {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let length = from.count(TEXT_MAX, 1)?;
        let bytes = from.bytes(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text.to_owned()),
            _ => Err(XdrError::Text),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        self.is_some().encode(to)?;
        self.as_ref().map_or(Ok(()), |value| value.encode(to))
    }
}

impl<T: Decode> Decode for Option<T> {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        bool::decode(from)?.then(|| T::decode(from)).transpose()
    }
}
