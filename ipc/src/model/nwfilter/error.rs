//! Why a network filter is refused.

use super::{MAX_FILTER_ENTRIES, MAX_FILTER_PARAMETERS, MAX_NWFILTER_BYTES, MAX_PARAMETER_BYTES};

/// Why a network filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NwfilterError {
    /// Not one of the words that there are.
    #[error("there is no '{word}'; there is {known}")]
    Word {
        /// What was said.
        word: String,
        /// What may be.
        known: String,
    },
    /// A name of a chain.
    #[error(
        "Invalid chain name '{0}'. Please use a chain name called 'root' or any of the following prefixes: mac, vlan, \
         stp, arp, rarp, ipv4, ipv6"
    )]
    Chain(String),
    /// A priority.
    #[error("priority {0}: it is -1000 to 1000")]
    Priority(i64),
    /// A value that a field cannot have.
    #[error("{field} has illegal value '{value}': it is {kind}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        kind: &'static str,
    },
    /// A field that the protocol does not have.
    #[error("a rule of '{protocol}' has no {field}")]
    Field {
        /// The protocol.
        protocol: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field that is said twice.
    #[error("{0} is said twice in a rule")]
    Twice(&'static str),
    /// A field that another needs.
    #[error("{field} needs {needs}")]
    Needs {
        /// The field.
        field: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Something is said of no protocol.
    #[error("a rule that names no protocol says nothing else of frames")]
    NoProtocol,
    /// No variable.
    #[error("'{0}' is no variable: write $NAME, $NAME[0] or $NAME[@1]")]
    Variable(String),
    /// A name of a parameter.
    #[error(
        "'{0}' is no name of a parameter: letters, digits and '_', at most {MAX_PARAMETER_BYTES}"
    )]
    ParameterName(String),
    /// A value of a parameter.
    #[error(
        "'{0}' is no value of a parameter: letters, digits, '_', '.' and ':', at most {MAX_PARAMETER_BYTES}"
    )]
    ParameterValue(String),
    /// Too many of them.
    #[error("{0} parameters: a reference has at most {MAX_FILTER_PARAMETERS}")]
    Parameters(usize),
    /// Too many entries.
    #[error("{0} rules and references: a filter has at most {MAX_FILTER_ENTRIES}")]
    Entries(usize),
    /// Too large.
    #[error(
        "the definition has {0} bytes, which is more than {MAX_NWFILTER_BYTES}; leave something out"
    )]
    Size(usize),
}

/// What of a text a message shows.
pub(super) fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
