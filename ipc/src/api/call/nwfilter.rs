//! The calls about network filters, which the list names: their arguments, and what those and the answers are made
//! of.

use serde::{Deserialize, Serialize};

use crate::api::nwfilter::{NwfilterBinding, NwfilterSummary};
use crate::model::{InterfaceName, Nwfilter, NwfilterName, NwfilterUuid};

arguments! {
    /// One page of network filters, in order of their names.
    NwfilterList {
        /// Only those after this name.
        after: Option<NwfilterName>,
    };

    /// A network filter's definition.
    NwfilterGet {
        /// Which.
        filter: NwfilterRef,
    };

    /// Keeps a definition of a network filter. One of the same UUID and name is replaced, and with it the rules of
    /// every interface that uses it: of all of them, or nothing is changed and it is refused. It is on disk when the
    /// answer comes.
    NwfilterDefine {
        /// The definition.
        filter: Box<Nwfilter>,
        /// Refuse to replace one.
        only_new: bool,
    };

    /// Forgets a network filter. Refused while an interface of a domain that runs uses it, itself or by another
    /// filter; that others refer to it is no use.
    NwfilterUndefine {
        /// Which.
        filter: NwfilterRef,
    };

    /// One page of the interfaces of domains that run and have a network filter, in order of their names.
    NwfilterBindingList {
        /// Only those after this one.
        after: Option<InterfaceName>,
    };
}

/// Names a network filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NwfilterRef {
    /// By its UUID.
    Uuid(NwfilterUuid),
    /// By its name.
    Name(NwfilterName),
}

impl std::fmt::Display for NwfilterRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Name(name) => write!(f, "'{name}'"),
        }
    }
}

/// A page of network filters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NwfilterPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE).
    pub filters: Vec<NwfilterSummary>,
    /// There are more.
    pub more: bool,
}

/// A page of interfaces that have a network filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NwfilterBindingPage {
    /// At most [`MAX_PAGE`](crate::api::MAX_PAGE), and fewer where they have many parameters.
    pub bindings: Vec<NwfilterBinding>,
    /// There are more.
    pub more: bool,
}
