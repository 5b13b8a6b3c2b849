//! What people write about a domain, and what their tools keep with it; no guest ever sees it.

use serde::{Deserialize, Serialize};

use super::ModelError;

/// The most bytes of a title.
pub const MAX_TITLE_BYTES: usize = 256;
/// The most bytes of a description.
pub const MAX_DESCRIPTION_BYTES: usize = 4096;
/// The most elements of metadata.
pub const MAX_METADATA_ELEMENTS: usize = 32;
/// The most bytes of all metadata together: a definition must fit one message.
pub const MAX_METADATA_BYTES: usize = 32 * 1024;
/// The most bytes of the URI of a namespace: events name it.
pub const MAX_NAMESPACE_BYTES: usize = 1024;

/// Title, description and metadata (libvirt `<title>`, `<description>`, `<metadata>`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// One line, at most [`MAX_TITLE_BYTES`] bytes.
    pub title: Option<String>,
    /// Text, at most [`MAX_DESCRIPTION_BYTES`] bytes.
    pub description: Option<String>,
    /// Elements of other programs, each of a namespace of its own.
    pub metadata: Vec<MetadataElement>,
}

/// One element of metadata: kept as it came, never parsed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataElement {
    /// The namespace's URI, which names the element; at most [`MAX_NAMESPACE_BYTES`] bytes.
    pub uri: String,
    /// The element's text, XML to whoever wrote it.
    pub content: String,
}

impl Labels {
    /// Checks sizes, and that no namespace comes twice.
    ///
    /// # Errors
    /// [`ModelError::Label`] says which is wrong.
    pub fn validate(&self) -> Result<(), ModelError> {
        let title = self.title.as_deref().unwrap_or_default();
        if title.len() > MAX_TITLE_BYTES || title.contains('\n') {
            return Err(ModelError::Label(
                "the title is longer than 256 bytes or one line",
            ));
        }
        let description = self.description.as_deref().unwrap_or_default();
        if description.len() > MAX_DESCRIPTION_BYTES {
            return Err(ModelError::Label(
                "the description is longer than 4096 bytes",
            ));
        }
        let bytes: usize = self
            .metadata
            .iter()
            .map(|element| element.uri.len().saturating_add(element.content.len()))
            .fold(0, usize::saturating_add);
        if bytes > MAX_METADATA_BYTES || self.metadata.len() > MAX_METADATA_ELEMENTS {
            return Err(ModelError::Label(
                "the metadata has more than 32 elements or 32768 bytes",
            ));
        }
        for (index, element) in self.metadata.iter().enumerate() {
            check_namespace(&element.uri)?;
            let mut before = self.metadata.iter().take(index);
            if before.any(|other| other.uri == element.uri) {
                return Err(ModelError::Label("two metadata elements share a namespace"));
            }
        }
        Ok(())
    }
}

/// Checks the URI of a namespace.
///
/// # Errors
/// [`ModelError::Label`]: there is none, or a long one.
pub fn check_namespace(uri: &str) -> Result<(), ModelError> {
    if uri.is_empty() {
        return Err(ModelError::Label("a metadata element has no namespace"));
    }
    if uri.len() > MAX_NAMESPACE_BYTES {
        return Err(ModelError::Label(
            "the namespace of a metadata element is longer than 1024 bytes",
        ));
    }
    Ok(())
}
