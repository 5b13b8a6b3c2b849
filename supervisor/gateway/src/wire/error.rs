//! The errors that clients know: libvirt's codes, the part of libvirt an error is said to come from, and the
//! sentences that go with them.
//!
//! Clients branch on code and origin, scripts on the text; so a text is libvirt's words for the code and
//! what happened behind them ("Domain not found: no domain with matching name 'x'").

mod code;
#[cfg(test)]
mod tests;

pub use code::{Code, Origin};

use super::call::record;
use super::procedures::Procedure;
use super::types::handles::{Domain, Network};
use super::xdr::XdrError;

/// The level of an error; 1 would be a warning.
const LEVEL_ERROR: i32 = 2;

record! {
    /// What a packet with the status of an error carries.
    #[derive(Eq)]
    ErrorBody {
        code: i32,
        /// An [`Origin`].
        origin: i32,
        /// What is shown.
        message: Option<String>,
        level: i32,
        /// No client looks at it.
        domain: Option<Domain>,
        /// The text of the code, as a format.
        str1: Option<String>,
        /// What happened.
        str2: Option<String>,
        str3: Option<String>,
        int1: i32,
        int2: i32,
        /// No client looks at it.
        network: Option<Network>,
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct WireError {
    /// What kind of error.
    pub code: Code,
    /// Which part of libvirt it is said to come from.
    pub origin: Origin,
    /// What happened, without the words of the code.
    pub detail: String,
}

impl WireError {
    /// An error of the hypervisor, as nearly all are.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> WireError {
        WireError::of(Origin::Qemu, code, detail)
    }

    /// An error of some part.
    #[must_use]
    pub fn of(origin: Origin, code: Code, detail: impl Into<String>) -> WireError {
        let detail = detail.into();
        WireError {
            code,
            origin,
            detail,
        }
    }

    /// A number that no procedure has, or an event's. C programs make "not supported" of it by how the
    /// text begins.
    #[must_use]
    pub fn unknown_procedure(number: i32) -> WireError {
        WireError::of(
            Origin::Rpc,
            Code::Rpc,
            format!("unknown procedure: {number}"),
        )
    }

    /// A procedure that is not served.
    #[must_use]
    pub fn not_supported(procedure: &Procedure) -> WireError {
        WireError::of(Origin::Domain, Code::NoSupport, procedure.api)
    }

    /// A program, or a version of one, that is not served.
    #[must_use]
    pub fn unknown_program(program: u32, version: u32) -> WireError {
        let detail = format!("Cannot find program {program} version {version}");
        WireError::of(Origin::Rpc, Code::Rpc, detail)
    }

    /// A call whose arguments cannot be read.
    #[must_use]
    pub fn undecodable(error: &XdrError) -> WireError {
        let detail = format!("Unable to decode message payload: {error}");
        WireError::of(Origin::Rpc, Code::Rpc, detail)
    }

    /// A reply that holds more than one can.
    #[must_use]
    pub fn unencodable(error: &XdrError) -> WireError {
        let detail = format!("Unable to encode message payload: {error}");
        WireError::of(Origin::Rpc, Code::Rpc, detail)
    }

    /// A call before CONNECT_OPEN.
    #[must_use]
    pub fn not_open() -> WireError {
        WireError::of(
            Origin::Rpc,
            Code::InternalError,
            "hypervisor connection not open",
        )
    }

    /// A call before the client has said who it is. Not the code of a failed attempt: clients know this one.
    #[must_use]
    pub fn not_authenticated() -> WireError {
        WireError::of(Origin::Rpc, Code::Rpc, "authentication required")
    }

    /// A connection to what is not here.
    #[must_use]
    pub fn unknown_uri(uri: &str) -> WireError {
        WireError::of(Origin::None, Code::NoConnect, uri)
    }

    /// A change through a connection that may only read.
    #[must_use]
    pub fn read_only(procedure: &Procedure) -> WireError {
        // Documents are refused for what they would hold; everything else by its name.
        let detail = if procedure.api.ends_with("XMLDesc") {
            format!("{} with secure flag", procedure.api)
        } else {
            format!("read only access prevents {}", procedure.api)
        };
        WireError::of(Origin::Domain, Code::OperationDenied, detail)
    }

    /// Flags that the function does not have.
    #[must_use]
    pub fn unknown_flags(flags: u32, function: &str) -> WireError {
        let detail = format!("unsupported flags (0x{flags:x}) in function {function}");
        WireError::new(Code::InvalidArgument, detail)
    }

    /// Nothing that goes by this name, UUID or number: a `code` of those that say so.
    #[must_use]
    pub fn not_found(code: Code, detail: impl Into<String>) -> WireError {
        WireError::of(code.origin_of_absence(), code, detail)
    }

    /// An object is in the wrong state for it.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> WireError {
        WireError::new(Code::OperationInvalid, detail)
    }

    /// The domain does not run.
    #[must_use]
    pub fn not_running() -> WireError {
        WireError::invalid("domain is not running")
    }

    /// A document asks for what we do not have.
    #[must_use]
    pub fn unsupported_configuration(detail: impl Into<String>) -> WireError {
        WireError::new(Code::ConfigUnsupported, detail)
    }

    /// We never do it.
    #[must_use]
    pub fn unsupported_operation(detail: impl Into<String>) -> WireError {
        WireError::new(Code::OperationUnsupported, detail)
    }

    /// What is shown: the words of the code and what happened.
    #[must_use]
    pub fn message(&self) -> String {
        self.code.format().replacen("%s", &self.detail, 1)
    }

    /// What goes over the wire.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.code.number(),
            origin: self.origin.number(),
            message: Some(self.message()),
            level: LEVEL_ERROR,
            domain: None,
            str1: Some(self.code.format().to_owned()),
            str2: Some(self.detail.clone()),
            str3: None,
            int1: -1,
            int2: -1,
            network: None,
        }
    }
}
