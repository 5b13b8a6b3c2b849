//! Parts of a definition that are kept for whoever wrote it, and are nothing to this host.

use serde::{Deserialize, Serialize};

use super::ModelError;

/// The most elements that are kept.
pub const MAX_KEPT_ELEMENTS: usize = 128;
/// The most bytes of all of them together.
pub const MAX_KEPT_BYTES: usize = 16 * 1024;
/// The most bytes of one's path.
pub const MAX_KEPT_PATH_BYTES: usize = 64;

/// An element of a document in another form, libvirt's, that says nothing to this host and that whoever wrote
/// it finds again: written and read by who speaks that form, never parsed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptElement {
    /// What it is and where it stood, in the words of that form, as `devices/controller`: 1 to
    /// [`MAX_KEPT_PATH_BYTES`] bytes of printable ASCII.
    pub path: String,
    /// The element as it came.
    pub xml: String,
}

/// Checks numbers and sizes.
pub(super) fn validate(kept: &[KeptElement]) -> Result<(), ModelError> {
    let bytes: usize = kept.iter().map(|element| element.xml.len()).sum();
    if kept.len() > MAX_KEPT_ELEMENTS || bytes > MAX_KEPT_BYTES {
        return Err(ModelError::Label(
            "the elements that are only kept are more than 128, or have more than 16384 bytes",
        ));
    }
    let is_path = |path: &str| {
        (1..=MAX_KEPT_PATH_BYTES).contains(&path.len())
            && path.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if kept.iter().all(|element| is_path(&element.path)) {
        return Ok(());
    }
    Err(ModelError::Label(
        "an element that is only kept has no path of 1 to 64 characters of ASCII",
    ))
}
