//! Enumerations whose values are words that people write.

/// A word that none of an enumeration's is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} '{word}'; there are {known}")]
pub struct UnknownWord {
    /// What was meant, as "disk format".
    what: &'static str,
    /// What was written.
    word: String,
    /// What could be, with commas.
    known: String,
}

impl UnknownWord {
    pub(crate) fn new(what: &'static str, word: &str, known: &[&'static str]) -> Self {
        Self {
            what,
            word: word.chars().take(64).collect(),
            known: known.join(", "),
        }
    }
}

/// Declares an enumeration with its words: written as [`std::fmt::Display`] has them, read by
/// [`std::str::FromStr`], and the same in JSON; on the wire it is a number.
macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident, $what:literal {
            $( $(#[$variant_doc:meta])* $variant:ident = $word:literal $(or $also:literal)*, )*
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_doc])* #[serde(rename = $word $(, alias = $also)*)] $variant, )*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The word of each, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word that people write.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::spec::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word $(| $also)* => Ok(Self::$variant),)*
                    _ => Err($crate::spec::UnknownWord::new($what, word, Self::WORDS)),
                }
            }
        }
    )* };
}

pub(crate) use words;
