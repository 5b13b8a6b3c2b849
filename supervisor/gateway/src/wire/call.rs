//! What a procedure takes and gives back, declared once: `calls!` for procedures that are called,
//! `events!` for messages that are only sent, `record!` for what both are made of.
//!
//! ```text
//! calls! { Remote;
//!     /// State and why.
//!     DomainGetState = 212 { domain: Domain, flags: u32 } => DomainState { state: i32, reason: i32 };
//!     /// The document.
//!     DomainGetXmlDesc = 14 { domain: Domain, flags: u32 } -> String;
//! }
//! ```
//!
//! declares `struct DomainGetState { .. }` and, behind `=>`, its reply `struct DomainState { .. }` (behind
//! `->` stands a type that is there already), and joins the two as a [`Call`]: a reply of the wrong type
//! cannot be expressed. Fields stand in the order of the wire, and a bound is part of a field's type.

use super::frame::Program;
use super::xdr::{Decode, Encode};

/// The arguments of a procedure that a client calls.
pub trait Call: Encode + Decode {
    /// Whose number it is.
    const PROGRAM: Program;
    /// Its number.
    const NUMBER: i32;
    /// What a reply without an error carries.
    type Reply: Encode + Decode;
}

/// What is sent without having been called for.
pub trait Event: Encode + Decode {
    /// Whose number it is.
    const PROGRAM: Program;
    /// Its number.
    const NUMBER: i32;
}

/// A structure whose fields follow each other on the wire.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[allow(missing_docs, reason = "named as in the protocol; the rest is said above")]
                pub $field: $type,
            )*
        }

        impl $crate::wire::xdr::Encode for $name {
            fn encode(
                &self,
                to: &mut $crate::wire::xdr::Encoder<'_>,
            ) -> Result<(), $crate::wire::xdr::XdrError> {
                let _ = &to;
                $($crate::wire::xdr::Encode::encode(&self.$field, to)?;)*
                Ok(())
            }
        }

        impl $crate::wire::xdr::Decode for $name {
            const LEAST: usize = 0 $(+ <$type as $crate::wire::xdr::Decode>::LEAST)*;

            fn decode(
                from: &mut $crate::wire::xdr::Decoder<'_>,
            ) -> Result<Self, $crate::wire::xdr::XdrError> {
                let _ = &from;
                Ok($name { $($field: $crate::wire::xdr::Decode::decode(from)?,)* })
            }
        }

        #[cfg(test)]
        impl $crate::wire::sample::Sample for $name {
            fn sample(from: &mut $crate::wire::sample::Source) -> Self {
                let _ = &from;
                $name { $($field: $crate::wire::sample::Sample::sample(from),)* }
            }
        }
    };
}

/// Procedures of one program that are called, with the structures of their arguments and replies. Also
/// declares `arguments`, by which those of a number are read and written again.
macro_rules! calls {
    ($program:ident; $(
        $(#[$meta:meta])*
        $name:ident = $number:literal { $($field:ident: $type:ty),* $(,)? }
        $(-> $reply:ty)?
        $(=> $record:ident { $($reply_field:ident: $reply_type:ty),* $(,)? })?;
    )*) => {
        $(
            $crate::wire::call::record! {
                $(#[$meta])*
                #[doc = ""]
                #[doc = concat!("Arguments of procedure ", $number, ".")]
                $name { $($field: $type),* }
            }

            $($crate::wire::call::record! {
                #[doc = concat!("The reply to [`", stringify!($name), "`].")]
                $record { $($reply_field: $reply_type),* }
            })?

            impl $crate::wire::call::Call for $name {
                const PROGRAM: $crate::wire::frame::Program = $crate::wire::frame::Program::$program;
                const NUMBER: i32 = $number;
                type Reply = $($reply)? $($record)?;
            }
        )*

        /// Reads the arguments of a procedure of this family and writes them again.
        pub(super) fn arguments(
            number: i32,
            payload: &[u8],
        ) -> Option<Result<Vec<u8>, $crate::wire::xdr::XdrError>> {
            match number {
                $($number => Some($crate::wire::call::again::<$name>(payload)),)*
                _ => None,
            }
        }

        /// Every procedure of this family, with what holds for the arguments and the reply of each.
        #[cfg(test)]
        pub(super) fn check_calls(seed: u64) -> Vec<i32> {
            let mut numbers = Vec::new();
            $(
                $crate::wire::sample::check::<$name>(seed);
                $crate::wire::sample::check::<<$name as $crate::wire::call::Call>::Reply>(seed);
                numbers.push($number);
            )*
            numbers
        }
    };
}

/// Messages of one program that are sent without a call.
macro_rules! events {
    ($program:ident; $(
        $(#[$meta:meta])*
        $name:ident = $number:literal { $($field:ident: $type:ty),* $(,)? };
    )*) => {
        $(
            $crate::wire::call::record! {
                $(#[$meta])*
                #[doc = ""]
                #[doc = concat!("Event ", $number, ".")]
                $name { $($field: $type),* }
            }

            impl $crate::wire::call::Event for $name {
                const PROGRAM: $crate::wire::frame::Program = $crate::wire::frame::Program::$program;
                const NUMBER: i32 = $number;
            }
        )*

        /// Every event of this family, with what holds for each.
        #[cfg(test)]
        pub(super) fn check_events(seed: u64) -> Vec<i32> {
            let mut numbers = Vec::new();
            $(
                $crate::wire::sample::check::<$name>(seed);
                numbers.push($number);
            )*
            numbers
        }
    };
}

pub(crate) use {calls, events, record};

/// Reads a `T` and writes it again.
pub(super) fn again<T: Encode + Decode>(payload: &[u8]) -> Result<Vec<u8>, super::xdr::XdrError> {
    super::xdr::decode::<T>(payload).and_then(|value| super::xdr::encode(&value))
}
