//! `<metadata>`: elements of other programs, kept as they came.
//!
//! An element is cut out of its document, so the namespaces that it uses and that are declared around it are
//! declared on it.

use reeve_ipc::model::{Labels, MetadataElement};

use super::super::XmlError;
use super::super::element::{Element, document};
use super::super::own::{NAMESPACE, Own};
use super::super::write::{Writer, is_sayable};

/// Reads the elements; what is of Reeve's own namespace apart.
pub(super) fn parse(element: Element<'_>) -> Result<(Vec<MetadataElement>, Own), XmlError> {
    element.known(&[])?;
    let mut own = None;
    let mut found: Vec<MetadataElement> = Vec::new();
    for child in element.children() {
        let Some(uri) = child.namespace() else {
            return Err(child.invalid("an element of metadata is of a namespace"));
        };
        if uri == NAMESPACE {
            if own.replace(Own::parse(child)?).is_some() {
                return Err(child.invalid("there is a second one"));
            }
            continue;
        }
        if found.iter().any(|other| other.uri == uri) {
            return Err(child.invalid("there is a second element of this namespace"));
        }
        let content = standalone(child);
        found.push(MetadataElement {
            uri: uri.to_owned(),
            content,
        });
    }
    let mut own = own.unwrap_or_default();
    found.append(&mut own.metadata);
    Ok((found, own))
}

/// An element as text that is a document of its own, with line ends as a parser gives them.
fn standalone(element: Element<'_>) -> String {
    let source = element.source().replace("\r\n", "\n").replace('\r', "\n");
    let source = source.as_str();
    let node = element.node();
    let around = node.parent_element();
    let mut declared = String::new();
    for namespace in around.iter().flat_map(|around| around.namespaces()) {
        let name = namespace.name();
        // What it declares itself is in its own list first, and is another where the two differ.
        let same = node
            .namespaces()
            .any(|own| own.name() == name && own.uri() == namespace.uri());
        if !same || name == Some("xml") || declares(source, name) {
            continue;
        }
        let used = name.is_none_or(|name| source.contains(&format!("{name}:")));
        if used {
            declared.push_str(" xmlns");
            if let Some(name) = name {
                declared.push(':');
                declared.push_str(name);
            }
            declared.push_str("=\"");
            let uri = namespace.uri().replace('&', "&amp;").replace('<', "&lt;");
            declared.push_str(&uri.replace('"', "&quot;"));
            declared.push('"');
        }
    }
    let end = source.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
    let (name, rest) = source.split_at(end.unwrap_or(source.len()));
    format!("{name}{declared}{rest}")
}

/// Whether an element's own tag declares that prefix.
fn declares(source: &str, name: Option<&str>) -> bool {
    let tag = source.split('>').next().unwrap_or_default();
    match name {
        Some(name) => {
            tag.contains(&format!("xmlns:{name}=")) || tag.contains(&format!("xmlns:{name} "))
        }
        None => tag.contains("xmlns=") || tag.contains("xmlns "),
    }
}

/// Whether a text is one element of that namespace, and nothing besides.
#[must_use]
pub fn is_of(content: &str, uri: &str) -> bool {
    let whole = content.starts_with('<') && content.ends_with('>');
    whole
        && content.chars().all(is_sayable)
        && !content.contains('\r')
        && document(content).is_ok_and(|document| {
            let root = Element::any_root(&document);
            root.namespace() == Some(uri) && root.source() == content
        })
}

/// An element as a client hands it in (`virDomainSetMetadata`): one element of no namespace or of `uri`, which
/// is made one of that namespace under `prefix`. `None` if it is none.
#[must_use]
pub fn element(content: &str, prefix: &str, uri: &str) -> Option<String> {
    let content = content.trim();
    if is_of(content, uri) {
        return Some(content.to_owned());
    }
    let document = document(content).ok()?;
    let root = Element::any_root(&document);
    let plain = root.namespace().is_none() && root.source() == content;
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        let first = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        first
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    if !plain || !is_name(prefix) {
        return None;
    }
    let mut escaped = Writer::new();
    escaped
        .tag("x")
        .attribute(&format!("xmlns:{prefix}"), uri)
        .empty();
    let escaped = escaped.finish();
    let declaration = escaped.strip_prefix("<x")?.trim_end().strip_suffix("/>")?;
    let name = root.local_name();
    let rest = content.strip_prefix('<')?.strip_prefix(name)?;
    let renamed = if let Some(body) = rest.strip_suffix('>') {
        let body = body.trim_end();
        match body
            .strip_suffix(name)
            .and_then(|body| body.strip_suffix("</"))
        {
            Some(body) => format!("<{prefix}:{name}{declaration}{body}</{prefix}:{name}>"),
            None => format!("<{prefix}:{name}{declaration}{body}>"),
        }
    } else {
        return None;
    };
    is_of(&renamed, uri).then_some(renamed)
}

/// Writes them, with Reeve's own last.
pub(super) fn format(writer: &mut Writer, labels: &Labels, mut own: Own) {
    let (plain, other): (Vec<_>, Vec<_>) = labels
        .metadata
        .iter()
        .partition(|element| element.uri != NAMESPACE && is_of(&element.content, &element.uri));
    own.metadata = other.into_iter().cloned().collect();
    if plain.is_empty() && own == Own::default() {
        return;
    }
    writer.tag("metadata").open();
    for element in plain {
        writer.verbatim(&element.content);
    }
    own.write(writer);
    writer.close("metadata");
}
