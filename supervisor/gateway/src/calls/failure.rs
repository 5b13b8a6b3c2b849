//! Why a call fails: errors of the native API and of documents, as libvirt says them. The only place where
//! they become libvirt's. Pure.

use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};

pub(crate) use crate::wire::error::{Code, Origin, WireError as Failure};
use crate::xml::{XmlError, XmlErrorKind};

/// An argument that makes no sense.
pub(crate) fn invalid_argument(detail: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, detail)
}

/// A failure as the driver of libvirt's says it that serves what it is about, where it is not another's already.
pub(super) fn said_by(origin: Origin, failure: Failure) -> Failure {
    match failure.origin {
        Origin::Qemu => Failure::of(origin, failure.code, failure.detail),
        _ => failure,
    }
}

/// Refuses flags that `function` does not know.
///
/// # Errors
/// [`Failure::unknown_flags`].
pub(super) fn check_flags(flags: u32, known: u32, function: &str) -> Result<(), Failure> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Failure::unknown_flags(unknown, function)),
    }
}

/// What libvirt calls an error of the native API.
const fn code_of(code: ApiErrorCode) -> Code {
    match code {
        ApiErrorCode::NoDomain => Code::NoDomain,
        ApiErrorCode::DomainExists | ApiErrorCode::PoolExists => Code::OperationFailed,
        ApiErrorCode::WrongState | ApiErrorCode::InUse => Code::OperationInvalid,
        // It was waited for as long as libvirt waits for the lock of a domain's job.
        ApiErrorCode::Busy | ApiErrorCode::Timeout => Code::OperationTimeout,
        ApiErrorCode::InvalidArgument => Code::InvalidArgument,
        ApiErrorCode::AccessDenied => Code::OperationDenied,
        ApiErrorCode::PathRefused => Code::AccessDenied,
        ApiErrorCode::Worker => Code::InternalError,
        // What the host refuses it refuses with an error of the system: a file that is not there.
        ApiErrorCode::Host
        | ApiErrorCode::Storage
        | ApiErrorCode::ShuttingDown
        | ApiErrorCode::NoSpace => Code::SystemError,
        ApiErrorCode::Unsupported => Code::OperationUnsupported,
        ApiErrorCode::Cancelled => Code::OperationAborted,
        ApiErrorCode::NoDevice => Code::DeviceMissing,
        ApiErrorCode::NoPool => Code::NoPool,
        ApiErrorCode::NoVolume => Code::NoVolume,
        ApiErrorCode::VolumeExists => Code::VolumeExists,
        ApiErrorCode::NoNetwork => Code::NoNetwork,
        ApiErrorCode::NetworkExists => Code::OperationFailed,
        ApiErrorCode::NoPort => Code::NoNetworkPort,
        ApiErrorCode::NoNwfilter => Code::NoNwfilter,
        ApiErrorCode::NwfilterExists => Code::OperationFailed,
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let origin = match error.code {
            // As the library itself says it to whoever opened read-only.
            ApiErrorCode::AccessDenied => Origin::Domain,
            ApiErrorCode::NoPool
            | ApiErrorCode::PoolExists
            | ApiErrorCode::NoVolume
            | ApiErrorCode::VolumeExists => Origin::Storage,
            ApiErrorCode::NoNetwork | ApiErrorCode::NetworkExists | ApiErrorCode::NoPort => {
                Origin::Network
            }
            ApiErrorCode::NoNwfilter | ApiErrorCode::NwfilterExists => Origin::Nwfilter,
            _ => Origin::Qemu,
        };
        Self::of(origin, code_of(error.code), error.message)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Refused(error) => return error.into(),
            CallError::Deadline(..) => Code::OperationTimeout,
            CallError::Codec(_) => Code::ConfigUnsupported,
            CallError::Closed | CallError::Socket(_) => Code::SystemError,
            CallError::Protocol(_) => Code::InternalError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<XmlError> for Failure {
    fn from(error: XmlError) -> Self {
        let code = match error.kind {
            XmlErrorKind::Syntax => Code::XmlDetail,
            XmlErrorKind::Invalid => Code::XmlError,
            XmlErrorKind::Nameless => Code::NoName,
            XmlErrorKind::Unsupported => Code::ConfigUnsupported,
        };
        Self::new(code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_native_api_has_libvirts_code() {
        let table = [
            (ApiErrorCode::NoDomain, 42, 10, "Domain not found: why"),
            (ApiErrorCode::DomainExists, 9, 10, "operation failed: why"),
            (
                ApiErrorCode::WrongState,
                55,
                10,
                "Requested operation is not valid: why",
            ),
            (
                ApiErrorCode::Busy,
                68,
                10,
                "Timed out during operation: why",
            ),
            (
                ApiErrorCode::InvalidArgument,
                8,
                10,
                "invalid argument: why",
            ),
            (
                ApiErrorCode::AccessDenied,
                29,
                20,
                "operation forbidden: why",
            ),
            (ApiErrorCode::PathRefused, 88, 10, "access denied: why"),
            (
                ApiErrorCode::Timeout,
                68,
                10,
                "Timed out during operation: why",
            ),
            (ApiErrorCode::Worker, 1, 10, "internal error: why"),
            (ApiErrorCode::Host, 38, 10, "why"),
            (ApiErrorCode::Storage, 38, 10, "why"),
            (
                ApiErrorCode::Unsupported,
                84,
                10,
                "Operation not supported: why",
            ),
            (ApiErrorCode::ShuttingDown, 38, 10, "why"),
            (ApiErrorCode::Cancelled, 78, 10, "operation aborted: why"),
            (ApiErrorCode::NoDevice, 99, 10, "device not found: why"),
            (ApiErrorCode::NoPool, 49, 18, "Storage pool not found: why"),
            (ApiErrorCode::PoolExists, 9, 18, "operation failed: why"),
            (
                ApiErrorCode::NoVolume,
                50,
                18,
                "Storage volume not found: why",
            ),
            (
                ApiErrorCode::VolumeExists,
                90,
                18,
                "storage volume why exists already",
            ),
            (
                ApiErrorCode::InUse,
                55,
                10,
                "Requested operation is not valid: why",
            ),
            (ApiErrorCode::NoSpace, 38, 10, "why"),
            (ApiErrorCode::NoNetwork, 43, 19, "Network not found: why"),
            (ApiErrorCode::NetworkExists, 9, 19, "operation failed: why"),
            (ApiErrorCode::NoPort, 107, 19, "network port not found: why"),
            (
                ApiErrorCode::NoNwfilter,
                62,
                33,
                "Network filter not found: why",
            ),
            (ApiErrorCode::NwfilterExists, 9, 33, "operation failed: why"),
        ];
        for (code, number, origin, line) in table {
            let failure = Failure::from(CallError::from(ApiError::new(code, "why")));
            assert_eq!(failure.code.number(), number, "{code:?}");
            assert_eq!(failure.origin.number(), origin, "{code:?}");
            assert_eq!(failure.message(), line, "{code:?}");
        }
    }

    #[test]
    fn a_lost_supervisor_is_a_system_error() {
        assert_eq!(Failure::from(CallError::Closed).code, Code::SystemError);
        let broken = CallError::Protocol("x".to_owned());
        assert_eq!(Failure::from(broken).code, Code::InternalError);
    }

    #[test]
    fn unknown_flags_are_named_in_hexadecimal() {
        assert_eq!(check_flags(3, 7, "virDomainX"), Ok(()));
        let refused = check_flags(0x21, 1, "virDomainX").unwrap_err();
        let line = "invalid argument: unsupported flags (0x20) in function virDomainX";
        assert_eq!(refused.message(), line);
    }
}
