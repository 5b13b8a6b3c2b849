//! Network filters (libvirt `<filter>`): ordered rules and references to other filters, which interfaces name.
//!
//! What lives here: what a filter says, the words it is said with, and what can be judged of it alone. What may not:
//! whether a filter that it refers to is there, and what becomes of its rules on a host; the supervisor knows that.

mod chain;
mod error;
mod field;
mod parameter;
mod validate;
mod value;

use serde::{Deserialize, Serialize};

use super::{NwfilterName, NwfilterUuid};
use crate::MAX_MESSAGE_BYTES;

pub use self::chain::{FilterChain, FilterLayer};
pub use self::error::NwfilterError;
pub use self::field::{FieldKind, RuleField, RuleProtocol};
pub use self::parameter::{
    FilterParameter, MAX_FILTER_PARAMETERS, MAX_PARAMETER_BYTES, check_parameters,
};
pub use self::value::{FieldValue, Variable, VariableElement};

/// The most entries of a filter.
pub const MAX_FILTER_ENTRIES: usize = 512;
/// The most bytes that a decoder counts for a filter: one message carries it.
pub const MAX_NWFILTER_BYTES: usize = MAX_MESSAGE_BYTES - 4096;
/// The most bytes of a comment or another text of a rule.
pub const MAX_RULE_TEXT_BYTES: usize = 256;
/// The priority of a rule that says none.
pub const DEFAULT_RULE_PRIORITY: i16 = 500;

/// A network filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nwfilter {
    /// Its name: what interfaces and other filters refer to.
    pub name: NwfilterName,
    /// Its identity.
    pub uuid: NwfilterUuid,
    /// Where its rules are met.
    pub chain: FilterChain,
    /// When its chain is met among the rules of the root chain, -1000 to 1000: lowest first.
    pub priority: i16,
    /// Rules and references, in the order in which they stand; at most [`MAX_FILTER_ENTRIES`].
    pub entries: Vec<FilterEntry>,
}

/// A rule, or the rules of another filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterEntry {
    /// A rule.
    Rule(FilterRule),
    /// All rules of another filter, each in its own chain.
    Reference(FilterReference),
}

/// That a filter is to be applied, with what its variables stand for (libvirt `<filterref>`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterReference {
    /// Which.
    pub filter: NwfilterName,
    /// Values of variables, by name; several of one name are a list. At most [`MAX_FILTER_PARAMETERS`].
    pub parameters: Vec<FilterParameter>,
}

/// What becomes of frames that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// What becomes of them.
    pub action: RuleAction,
    /// Which way they go.
    pub direction: RuleDirection,
    /// When it is met in its chain, -1000 to 1000: lowest first.
    pub priority: i16,
    /// No connection is followed for it (libvirt `statematch='false'`).
    pub stateless: bool,
    /// What they are; frames of any kind where it is not said.
    pub protocol: Option<RuleProtocol>,
    /// Frames match in which nothing of what is said is so (libvirt `match='no'`).
    pub negated: bool,
    /// What is in them, each field once.
    pub fields: Vec<RuleMatch>,
}

/// What a field must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMatch {
    /// Which.
    pub field: RuleField,
    /// What.
    pub value: FieldValue,
}

macro_rules! words {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $word:literal, )* } )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $( $(#[$vdoc])* $variant, )* }

        impl $name {
            /// libvirt's word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.word()) }
        }

        impl std::str::FromStr for $name {
            type Err = NwfilterError;

            fn from_str(word: &str) -> Result<Self, NwfilterError> {
                match word {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err(NwfilterError::Word {
                        word: error::short(word),
                        known: [$($word),*].join(", "),
                    }),
                }
            }
        }
    )* };
}

words! {
    /// What becomes of a frame that matches a rule.
    RuleAction {
        /// It passes.
        Accept = "accept",
        /// It is lost.
        Drop = "drop",
        /// It is lost, and its sender is told where the protocol has a way to; Ethernet has none.
        Reject = "reject",
        /// The chain that this one was entered from goes on with it.
        Return = "return",
        /// The next rule goes on with it.
        Continue = "continue",
    }

    /// Which way a frame goes, seen from the guest.
    RuleDirection {
        /// To the guest.
        In = "in",
        /// From the guest.
        Out = "out",
        /// Either. To the guest what is said of the source is looked for in the destination, and the other way round.
        InOut = "inout",
    }
}
