//! Names that guests and hosts know devices by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DeviceError;

/// The most bytes of a network interface's name (`IFNAMSIZ` less its terminator).
pub const MAX_INTERFACE_NAME_BYTES: usize = 15;

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident, $fits:ident, $error:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl TryFrom<String> for $name {
            type Error = DeviceError;
            fn try_from(name: String) -> Result<Self, DeviceError> {
                if $fits(&name) {
                    return Ok(Self(name));
                }
                Err(DeviceError::$error(name.chars().take(64).collect()))
            }
        }

        impl FromStr for $name {
            type Err = DeviceError;
            fn from_str(name: &str) -> Result<Self, DeviceError> { Self::try_from(name.to_owned()) }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self { name.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )* };
}

name! {
    /// A disk's name within its domain: `vd` and one to three letters. The guest's own name for it may be
    /// another.
    DiskTarget, is_target, TargetName;
    /// The name of a network interface of the host.
    InterfaceName, is_interface, InterfaceForm;
}

fn is_target(name: &str) -> bool {
    name.strip_prefix("vd").is_some_and(|letters| {
        (1..=3).contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// As the kernel takes it (`dev_valid_name`), and nothing that it or a shell would take for more: `%`
/// asks it for a number.
fn is_interface(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=MAX_INTERFACE_NAME_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(plain)
}

impl DiskTarget {
    /// The disk of this place in the order of names: `vda` for 0, `vdb` for 1, `vdaa` for 26. `None` beyond
    /// `vdzzz`.
    #[must_use]
    pub fn at(place: usize) -> Option<Self> {
        let mut letters = Vec::new();
        let mut rest = place;
        loop {
            letters.push(u8::try_from(rest % 26).ok()? + b'a');
            rest = match (rest / 26).checked_sub(1) {
                Some(rest) => rest,
                None => break,
            };
        }
        letters.reverse();
        Self::try_from(format!("vd{}", String::from_utf8(letters).ok()?)).ok()
    }
}
