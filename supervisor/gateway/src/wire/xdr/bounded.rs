//! Lists, opaque bytes and arrays of `char`, each with its bound in its type.

use super::{Decode, Decoder, Encode, Encoder, XdrError};

/// At most `MAX` items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

/// At most `MAX` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opaque<const MAX: usize>(pub Vec<u8>);

/// A C `char` array of `N`, a word each: text up to its first NUL, zeros behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chars<const N: usize>(pub [u8; N]);

/// At most `MAX` of C's `char`, counted, a word each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CharList<const MAX: usize>(pub Vec<u8>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T, const MAX: usize> From<Vec<T>> for List<T, MAX> {
    fn from(items: Vec<T>) -> Self {
        List(items)
    }
}

impl<T, const MAX: usize> FromIterator<T> for List<T, MAX> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        List(items.into_iter().collect())
    }
}

impl<T: Encode, const MAX: usize> Encode for List<T, MAX> {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        to.count(self.0.len(), MAX)?;
        self.0.iter().try_for_each(|item| item.encode(to))
    }
}

impl<T: Decode, const MAX: usize> Decode for List<T, MAX> {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let count = from.count(MAX, T::LEAST)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::decode(from)?);
        }
        Ok(List(items))
    }
}

impl<const MAX: usize> From<Vec<u8>> for Opaque<MAX> {
    fn from(bytes: Vec<u8>) -> Self {
        Opaque(bytes)
    }
}

impl<const MAX: usize> Encode for Opaque<MAX> {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        to.count(self.0.len(), MAX)?;
        to.padded(&self.0);
        Ok(())
    }
}

impl<const MAX: usize> Decode for Opaque<MAX> {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let length = from.count(MAX, 1)?;
        Ok(Opaque(from.bytes(length)?.to_vec()))
    }
}

/// A `char` as C widens it to a word: it has a sign.
fn encode_char(byte: u8, to: &mut Encoder<'_>) -> Result<(), XdrError> {
    i32::from(i8::from_ne_bytes([byte])).encode(to)
}

impl<const N: usize> Chars<N> {
    /// As much of `text` as leaves room for a NUL, cut between characters.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut end = text.len().min(N.saturating_sub(1));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut chars = [0; N];
        for (to, byte) in chars.iter_mut().zip(text.bytes().take(end)) {
            *to = byte;
        }
        Chars(chars)
    }
}

impl<const N: usize> Default for Chars<N> {
    fn default() -> Self {
        Chars([0; N])
    }
}

impl<const N: usize> Encode for Chars<N> {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        self.0.iter().try_for_each(|byte| encode_char(*byte, to))
    }
}

impl<const N: usize> Decode for Chars<N> {
    const LEAST: usize = N * 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let mut chars = [0; N];
        for byte in &mut chars {
            *byte = u8::decode(from)?;
        }
        Ok(Chars(chars))
    }
}

impl<const MAX: usize> CharList<MAX> {
    /// `text` with a NUL behind it, as labels and models are sent.
    #[must_use]
    pub fn terminated(text: &str) -> Self {
        CharList(text.bytes().chain([0]).collect())
    }
}

impl<const MAX: usize> From<Vec<u8>> for CharList<MAX> {
    fn from(bytes: Vec<u8>) -> Self {
        CharList(bytes)
    }
}

impl<const MAX: usize> Encode for CharList<MAX> {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        to.count(self.0.len(), MAX)?;
        self.0.iter().try_for_each(|byte| encode_char(*byte, to))
    }
}

impl<const MAX: usize> Decode for CharList<MAX> {
    const LEAST: usize = 4;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let count = from.count(MAX, 4)?;
        (0..count)
            .map(|_| u8::decode(from))
            .collect::<Result<_, _>>()
            .map(CharList)
    }
}
