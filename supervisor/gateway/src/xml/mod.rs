//! libvirt's XML documents, and what they say in terms of the model. Knows nothing of connections.
//!
//! | module | documents |
//! |---|---|
//! | [`domain`] | `<domain>`: parsed to [`reeve_ipc::model::Domain`], printed for a [`domain::View`] |
//! | [`device`] | one device, for attaching, detaching and changing it; aliases |
//! | [`capabilities`] | `<capabilities>` |
//! | [`domain_capabilities`] | `<domainCapabilities>` |
//! | `cpu` | `<cpu>` by itself: processors to compare |
//! | [`storage`] | `<pool type='dir'>` and `<volume>` |
//! | [`interface`] | `<interface>` of the host |
//! | [`network`] | `<network>`, parts of it, and `<networkport>` |
//! | [`nwfilter`] | `<filter>`, references to one, and `<filterbinding>` |
//!
//! A document is hostile. Its size, depth and the rest that costs are bounded before the parser sees it; no
//! declaration of entities is taken. What it asks for is provided, or on the list of what is taken without
//! being provided ([`kept`]), or refused by its path.
//!
//! # Decisions
//!
//! 1. Read by `roxmltree` (2026-11-30): it is safe code without dependencies but `memchr`, fuzzed by its author,
//!    refuses documents with a DTD, resolves namespaces, and says where each element stands in the text, which is
//!    what keeping one verbatim needs. `quick-xml` leaves well-formedness and namespaces half to its user. The
//!    costs of `roxmltree` (recursion by depth, comparing attributes and namespaces pairwise) are bounded by
//!    the pass over the bytes before it.
//! 2. Written by our own writer (2026-11-30): documents are to look as libvirt prints them, and escaping is forty
//!    lines.
//! 3. What the model has and libvirt's documents have no word for stands in `<metadata>`, in an element of a
//!    namespace of Reeve's own (2026-11-30): there the schemas allow it, and clients keep it.

mod element;
mod error;
mod guard;
mod own;
mod write;

pub mod capabilities;
pub(crate) mod cpu;
pub mod device;
pub mod domain;
pub mod domain_capabilities;
pub mod interface;
pub mod kept;
pub mod network;
pub mod nwfilter;
pub mod storage;

pub use self::error::{XmlError, XmlErrorKind};
pub use self::guard::{MAX_ATTRIBUTES, MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_NAMESPACES, MAX_TAGS};
pub use self::own::NAMESPACE;
