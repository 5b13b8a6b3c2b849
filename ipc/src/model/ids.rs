//! Names and numbers of objects, checked once where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing, or nothing but blanks.
    #[error("a {0} name must not be empty")]
    Empty(&'static str),
    /// Over 255 bytes.
    #[error("a {0} name must not be longer than 255 bytes")]
    TooLong(&'static str),
    /// A slash, a control character, or a name that a directory has already.
    #[error("a {0} name must not contain '/' or control characters, nor be '.' or '..'")]
    Forbidden(&'static str),
}

/// The most bytes a name may have: a file name's worth.
const MAX_NAME_BYTES: usize = 255;

fn check(kind: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.trim().is_empty() {
        return Err(InvalidName::Empty(kind));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong(kind));
    }
    if name == "." || name == ".." || name.chars().any(|c| c == '/' || c.is_control()) {
        return Err(InvalidName::Forbidden(kind));
    }
    Ok(())
}

macro_rules! names {
    ($( $(#[$doc:meta])* $name:ident, $kind:literal; )*) => { $(
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
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                check($kind, &name)?;
                Ok(Self(name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> { Self::try_from(name.to_owned()) }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self { name.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )* };
}

names! {
    /// A domain's name: unique on a host, 1 to 255 bytes, fit to be a file name.
    DomainName, "domain";
    /// A virtual network's name.
    NetworkName, "network";
    /// A storage pool's name.
    PoolName, "storage pool";
    /// A volume's name within its pool.
    VolumeName, "volume";
    /// A node device's name.
    NodeDeviceName, "node device";
    /// A network filter's name.
    NwfilterName, "network filter";
}

macro_rules! uuids {
    ($( $(#[$doc:meta])* $name:ident; )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    )* };
}

uuids! {
    /// A domain's UUID: its identity, unique on a host.
    DomainUuid;
    /// A secret's UUID.
    SecretUuid;
    /// A storage pool's UUID: its identity, unique on a host.
    PoolUuid;
    /// A virtual network's UUID: its identity, unique on a host.
    NetworkUuid;
    /// The UUID of a port: what connects one interface of one domain to a virtual network.
    PortUuid;
    /// A network filter's UUID: its identity, unique on a host.
    NwfilterUuid;
}

/// A firmware image the host offers, by its place in the host's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FirmwareId(pub u32);

/// A display of a domain, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DisplayId(pub u32);
