//! Network filters as clients see them.

use serde::{Deserialize, Serialize};

use crate::model::{
    DomainName, DomainUuid, FilterReference, InterfaceName, NwfilterName, NwfilterUuid,
};
use crate::spec::MacAddress;

/// One filter in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NwfilterSummary {
    /// Its name.
    pub name: NwfilterName,
    /// Its UUID.
    pub uuid: NwfilterUuid,
}

/// A filter on the interface of a domain that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NwfilterBinding {
    /// The tap's name on the host.
    pub interface: InterfaceName,
    /// Whose it is.
    pub domain: DomainUuid,
    /// The domain's name.
    pub name: DomainName,
    /// The guest's address.
    pub mac: MacAddress,
    /// Which filter, and what its variables stand for.
    pub filter: FilterReference,
}
