//! Saved state of devices: what goes into a snapshot or migration record, byte by byte.
//!
//! Saved bytes are hostile input. A device decodes them into its `…StateV1` struct, which checks
//! every field, and takes the state over only as a whole: a refused record leaves the device as it
//! was. Integers are little-endian, fields stand in declaration order, nothing is optional, and
//! every byte must be consumed. A `V1` is never edited: a change adds `V2` and a conversion.

/// Names the layout of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Name of the layout, for example `serial`.
    pub name: &'static str,
    /// Version that [`Saveable::save`] writes; [`Saveable::restore`] also takes every older one.
    pub version: u32,
}

impl Schema {
    /// Refuses any version but the one version there is of this layout.
    ///
    /// # Errors
    /// [`StateError::UnknownVersion`].
    pub fn expect_version(self, version: u32) -> Result<(), StateError> {
        if version == self.version {
            Ok(())
        } else {
            Err(StateError::UnknownVersion {
                schema: self.name,
                version,
            })
        }
    }
}

/// A device whose state survives in a record.
///
/// Both are called with every vCPU stopped and no input being enqueued.
pub trait Saveable: Send {
    /// The layout that `save` writes.
    fn schema(&self) -> Schema;

    /// The state of the device, without anything that belongs to the host side.
    fn save(&self) -> Vec<u8>;

    /// Replaces the device's state and drives its interrupt line to match.
    ///
    /// # Errors
    /// An unknown version or bytes that no `save` could have written; the device is unchanged.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError>;
}

/// Why saved state was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The record ends inside a field.
    #[error("saved state is truncated")]
    Truncated,
    /// The record goes on after its last field.
    #[error("saved state has {count} bytes too many")]
    TrailingBytes {
        /// How many bytes are left over.
        count: usize,
    },
    /// This build does not know the version.
    #[error("saved state of {schema} has unknown version {version}")]
    UnknownVersion {
        /// Name of the layout.
        schema: &'static str,
        /// The version offered.
        version: u32,
    },
    /// A field holds what the device can never hold.
    #[error("saved state has an impossible value in {field}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
    },
}

/// Refuses unless `valid`.
///
/// # Errors
/// [`StateError::Invalid`].
pub fn check(valid: bool, field: &'static str) -> Result<(), StateError> {
    if valid {
        Ok(())
    } else {
        Err(StateError::Invalid { field })
    }
}

/// Appends fields to a record.
#[derive(Debug, Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Sixteen bytes.
    pub fn i128(&mut self, value: i128) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// The record; the writer is empty then.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Takes fields from a record, in order.
#[derive(Debug)]
pub struct StateReader<'a> {
    rest: &'a [u8],
}

impl<'a> StateReader<'a> {
    /// A reader of this record.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// `N` bytes as they are.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(StateError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next `len` bytes as they are.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn slice(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(StateError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// A byte.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, StateError> {
        self.bytes().map(u8::from_le_bytes)
    }

    /// One byte, which must be 0 or 1.
    ///
    /// # Errors
    /// [`StateError::Truncated`], [`StateError::Invalid`].
    pub fn bool(&mut self, field: &'static str) -> Result<bool, StateError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Invalid { field }),
        }
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, StateError> {
        self.bytes().map(u16::from_le_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, StateError> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, StateError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`StateError::Truncated`].
    pub fn i128(&mut self) -> Result<i128, StateError> {
        self.bytes().map(i128::from_le_bytes)
    }

    /// All that is left, for another reader.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Refuses left-over bytes.
    ///
    /// # Errors
    /// [`StateError::TrailingBytes`].
    pub fn finish(self) -> Result<(), StateError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(StateError::TrailingBytes { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order() {
        let bytes = StateWriter::new()
            .u8(1)
            .bool(true)
            .u16(0x0203)
            .u32(0x0405_0607)
            .u64(8)
            .i128(-9)
            .bytes(&[10, 11])
            .finish();
        let mut reader = StateReader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.bool("flag"), Ok(true));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(8));
        assert_eq!(reader.i128(), Ok(-9));
        assert_eq!(reader.bytes(), Ok([10, 11]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn short_long_and_impossible_records_are_refused() {
        assert_eq!(
            StateReader::new(&[1, 2, 3]).u32(),
            Err(StateError::Truncated)
        );
        assert_eq!(
            StateReader::new(&[2]).bool("flag"),
            Err(StateError::Invalid { field: "flag" })
        );
        let reader = StateReader::new(&[0; 5]);
        assert_eq!(reader.finish(), Err(StateError::TrailingBytes { count: 5 }));
    }
}
