//! Typed parameters: a name, a type, a value. Statistics, tuning and jobs are lists of them.

use crate::wire::xdr::{Decode, Decoder, Encode, Encoder, List, XdrError};

/// The longest name of a parameter in bytes; clients have room for a NUL beside it.
pub const FIELD_MAX: usize = 79;

/// A list of at most `MAX` parameters.
pub type Params<const MAX: usize> = List<Param, MAX>;

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its name, at most [`FIELD_MAX`] bytes.
    pub field: String,
    /// Its value.
    pub value: Value,
}

/// What a parameter says. The numbers of the types are in the order of the variants, from 1.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the type it holds")]
pub enum Value {
    Int(i32),
    Uint(u32),
    Long(i64),
    Ulong(u64),
    Double(f64),
    Boolean(bool),
    /// Only a client that says so may be sent one: its flags have 4, `VIR_TYPED_PARAM_STRING_OKAY`.
    Text(String),
}

impl Param {
    /// A parameter.
    pub fn new(field: impl Into<String>, value: impl Into<Value>) -> Param {
        let (field, value) = (field.into(), value.into());
        Param { field, value }
    }
}

macro_rules! values {
    ($($type:ty => $variant:ident),*) => { $(
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value)
            }
        }
    )* };
}

values!(i32 => Int, u32 => Uint, i64 => Long, u64 => Ulong, f64 => Double, bool => Boolean, String => Text);

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl<const MAX: usize> Params<MAX> {
    /// The first parameter of this name.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|param| param.field == field)
            .map(|param| &param.value)
    }
}

impl Encode for Value {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        let tag: i32 = match self {
            Value::Int(_) => 1,
            Value::Uint(_) => 2,
            Value::Long(_) => 3,
            Value::Ulong(_) => 4,
            Value::Double(_) => 5,
            Value::Boolean(_) => 6,
            Value::Text(_) => 7,
        };
        tag.encode(to)?;
        match self {
            Value::Int(value) => value.encode(to),
            Value::Uint(value) => value.encode(to),
            Value::Long(value) => value.encode(to),
            Value::Ulong(value) => value.encode(to),
            Value::Double(value) => value.encode(to),
            Value::Boolean(value) => value.encode(to),
            Value::Text(value) => value.encode(to),
        }
    }
}

impl Decode for Value {
    const LEAST: usize = 8;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Ok(match i32::decode(from)? {
            1 => Value::Int(Decode::decode(from)?),
            2 => Value::Uint(Decode::decode(from)?),
            3 => Value::Long(Decode::decode(from)?),
            4 => Value::Ulong(Decode::decode(from)?),
            5 => Value::Double(Decode::decode(from)?),
            6 => Value::Boolean(Decode::decode(from)?),
            7 => Value::Text(Decode::decode(from)?),
            tag => return Err(XdrError::Tag(tag)),
        })
    }
}

fn bounded(field: &str) -> Result<(), XdrError> {
    let (count, most) = (field.len(), FIELD_MAX);
    if count > most {
        Err(XdrError::TooLong { count, most })
    } else {
        Ok(())
    }
}

impl Encode for Param {
    fn encode(&self, to: &mut Encoder<'_>) -> Result<(), XdrError> {
        bounded(&self.field)?;
        self.field.encode(to)?;
        self.value.encode(to)
    }
}

impl Decode for Param {
    const LEAST: usize = 4 + Value::LEAST;

    fn decode(from: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let field = String::decode(from)?;
        bounded(&field)?;
        Ok(Param {
            field,
            value: Value::decode(from)?,
        })
    }
}

#[cfg(test)]
mod sample {
    use super::{Param, Value};
    use crate::wire::sample::{Sample, Source};

    impl Sample for Value {
        fn sample(from: &mut Source) -> Self {
            match from.next() >> 61 {
                0 => Value::Int(Sample::sample(from)),
                1 => Value::Uint(Sample::sample(from)),
                2 => Value::Long(Sample::sample(from)),
                3 => Value::Ulong(Sample::sample(from)),
                4 => Value::Double(Sample::sample(from)),
                5 => Value::Boolean(Sample::sample(from)),
                _ => Value::Text(Sample::sample(from)),
            }
        }
    }

    impl Sample for Param {
        fn sample(from: &mut Source) -> Self {
            Param {
                field: Sample::sample(from),
                value: Sample::sample(from),
            }
        }
    }
}
