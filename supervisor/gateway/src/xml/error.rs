//! Why a document is refused, in the ways that libvirt's clients tell apart.

use reeve_ipc::model::{DeviceError, InvalidName, ModelError};

/// What kind of refusal it is; each has its libvirt error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlErrorKind {
    /// It is no well-formed document, or one beyond the bounds of this reader (`VIR_ERR_XML_DETAIL`).
    Syntax,
    /// It is well-formed and says something that makes no sense (`VIR_ERR_XML_ERROR`).
    Invalid,
    /// It names nothing (`VIR_ERR_NO_NAME`).
    Nameless,
    /// It asks for something that is known, or not known, and in either case not provided
    /// (`VIR_ERR_CONFIG_UNSUPPORTED`).
    Unsupported,
}

impl XmlErrorKind {
    /// libvirt's number.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Syntax => 35,
            Self::Invalid => 27,
            Self::Nameless => 21,
            Self::Unsupported => 67,
        }
    }
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct XmlError {
    /// The kind.
    pub kind: XmlErrorKind,
    /// For people: begins with the path of the element or attribute, where there is one.
    pub message: String,
}

impl XmlError {
    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(XmlErrorKind::Syntax, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(XmlErrorKind::Invalid, message)
    }

    /// In libvirt's words.
    pub(super) fn nameless() -> Self {
        Self::new(XmlErrorKind::Nameless, "missing name information")
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(XmlErrorKind::Unsupported, message)
    }

    fn new(kind: XmlErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// libvirt's number of the error.
    #[must_use]
    pub const fn code(&self) -> i32 {
        self.kind.code()
    }
}

/// What the model does not take is well-formed and in libvirt's words, and cannot be had here.
impl From<ModelError> for XmlError {
    fn from(error: ModelError) -> Self {
        Self::unsupported(error.to_string())
    }
}

impl From<DeviceError> for XmlError {
    fn from(error: DeviceError) -> Self {
        Self::unsupported(error.to_string())
    }
}

impl From<InvalidName> for XmlError {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.to_string())
    }
}
