//! `<metadata>`: elements of other programs, kept as they came.
//!
//! An element is cut out of its document, so the namespaces that it uses and that are declared around it are
//! declared on it.

use std::ops::Range;

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
pub(in super::super) fn standalone(element: Element<'_>) -> String {
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

/// An element as a client hands it in (`virDomainSetMetadata`): one element, of which and in which all that is of
/// no namespace becomes one of `uri`, under `prefix`.
///
/// # Errors
/// It is no document, the prefix is none, or it is an element of another namespace.
pub fn element(content: &str, prefix: &str, uri: &str) -> Result<String, XmlError> {
    let other = || XmlError::invalid("metadata is no element of that namespace");
    let content = content.trim();
    let parsed = document(content)?;
    let root = parsed.root_element();
    if !is_name(prefix) {
        let why = "failed to validate prefix for a new XML namespace";
        return Err(XmlError::invalid(why));
    }
    if root.range() != (0..content.len()) {
        return Err(XmlError::invalid(
            "metadata is one element, and nothing besides",
        ));
    }
    let wanted = count(&parsed, &[None, Some(uri)]);
    let mut edits = Vec::new();
    let elements = root.descendants().filter(roxmltree::Node::is_element);
    for element in elements.filter(|element| element.tag_name().namespace().is_none()) {
        let tags = tags(content, element).ok_or_else(other)?;
        edits.extend(tags.map(|place| (place..place, format!("{prefix}:"))));
    }
    if root.tag_name().namespace().is_none() {
        let end = 1 + root.tag_name().name().len();
        edits.push((end..end, declaration(prefix, uri)));
    } else if root.tag_name().namespace() != Some(uri) {
        return Err(other());
    } else if !edits.is_empty() {
        let end = start_tag(content, root).map_or(1, |tag| tag.name.end);
        edits.push((end..end, declaration(prefix, uri)));
    }
    let made = edited(content, edits);
    // The prefix may mean something else in it.
    match is_of(&made, uri)
        && document(&made).is_ok_and(|made| count(&made, &[Some(uri)]) == wanted)
    {
        true => Ok(made),
        false => Err(other()),
    }
}

/// An element of that namespace as a client gets it (`virDomainGetMetadata`): what is of the namespace is of none,
/// and its declaration is left out. As it is, where it is none, or an attribute is of the namespace too.
#[must_use]
pub fn without(content: &str, uri: &str) -> String {
    let stripped = || {
        let parsed = document(content).ok()?;
        let root = parsed.root_element();
        let mut edits = Vec::new();
        for element in root.descendants().filter(roxmltree::Node::is_element) {
            if element
                .attributes()
                .any(|attribute| attribute.namespace() == Some(uri))
            {
                return None;
            }
            if element.tag_name().namespace() != Some(uri) {
                continue;
            }
            let name = element.tag_name().name();
            for place in tags(content, element)? {
                let rest = content.get(place..)?;
                if let Some(colon) = rest.find(':').filter(|colon| {
                    rest.get(colon + 1..)
                        .is_some_and(|rest| rest.starts_with(name))
                }) {
                    // Before the end of the tag's name, if it is the prefix's.
                    if rest
                        .get(..colon)?
                        .bytes()
                        .all(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'>' | b'/'))
                    {
                        edits.push((place..place + colon + 1, String::new()));
                    }
                }
            }
        }
        let declared = |name: &str| {
            let mut namespaces = root.namespaces();
            namespaces.any(|namespace| {
                let prefix = namespace
                    .name()
                    .map_or_else(|| "xmlns".to_owned(), |prefix| format!("xmlns:{prefix}"));
                prefix == name && namespace.uri() == uri
            })
        };
        let tag = start_tag(content, root)?;
        let mut attributes = tag.attributes.into_iter();
        let declaration =
            attributes.find(|attribute| content.get(attribute.name.clone()).is_some_and(declared));
        edits.extend(declaration.map(|declaration| (declaration.whole, String::new())));
        let made = edited(content, edits);
        let whole = document(&made).is_ok();
        whole.then_some(made)
    };
    stripped().unwrap_or_else(|| content.to_owned())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    first && name != "xmlns" && bytes.all(rest)
}

/// How many elements are of that namespace, or of one of those.
fn count(document: &roxmltree::Document<'_>, of: &[Option<&str>]) -> usize {
    let elements = document.descendants().filter(roxmltree::Node::is_element);
    let theirs = elements.filter(|element| of.contains(&element.tag_name().namespace()));
    theirs.count()
}

fn declaration(prefix: &str, uri: &str) -> String {
    let mut escaped = Writer::new();
    escaped
        .tag("x")
        .attribute(&format!("xmlns:{prefix}"), uri)
        .empty();
    let escaped = escaped.finish();
    let escaped = escaped.trim_end().trim_start_matches("<x");
    escaped.trim_end_matches("/>").to_owned()
}

/// Where the names in the tags of an element begin: one, or with an end tag two.
fn tags(
    text: &str,
    element: roxmltree::Node<'_, '_>,
) -> Option<impl Iterator<Item = usize> + use<>> {
    let range = element.range();
    let source = text.get(range.clone())?;
    let end = match source.ends_with("/>") {
        true => None,
        false => Some(range.start + source.rfind("</")? + 2),
    };
    Some(std::iter::once(range.start + 1).chain(end))
}

/// An attribute in a text: its name, and all of it with the white space before it.
struct Attribute {
    name: Range<usize>,
    whole: Range<usize>,
}

/// A start tag in a text.
struct StartTag {
    name: Range<usize>,
    attributes: Vec<Attribute>,
}

/// The start tag of an element, which a parser has found to be one.
fn start_tag(text: &str, element: roxmltree::Node<'_, '_>) -> Option<StartTag> {
    let bytes = text.as_bytes();
    let from = |at: usize, ends: fn(u8) -> bool| {
        let rest = bytes.get(at..)?;
        Some(at + rest.iter().position(|byte| ends(*byte))?)
    };
    let is_space = |byte: u8| byte.is_ascii_whitespace();
    let start = element.range().start + 1;
    let mut at = from(start, |byte| {
        byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/')
    })?;
    let name = start..at;
    let mut attributes = Vec::new();
    loop {
        let before = at;
        at = from(at, |byte| !byte.is_ascii_whitespace())?;
        if matches!(bytes.get(at)?, b'>' | b'/') {
            return Some(StartTag { name, attributes });
        }
        let end = from(at, |byte| byte.is_ascii_whitespace() || byte == b'=')?;
        let name = at..end;
        let open = from(end, |byte| matches!(byte, b'"' | b'\''))?;
        let quote = *bytes.get(open)?;
        let length = bytes
            .get(open + 1..)?
            .iter()
            .position(|byte| *byte == quote)?;
        at = open + 1 + length + 1;
        debug_assert!(bytes.get(before).is_some_and(|byte| is_space(*byte)));
        attributes.push(Attribute {
            name,
            whole: before..at,
        });
    }
}

/// A text with other words in some places of it, which do not overlap.
fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let mut made = String::new();
    let mut at = 0;
    for (range, words) in edits {
        made.push_str(text.get(at..range.start).unwrap_or_default());
        made.push_str(&words);
        at = range.end;
    }
    made.push_str(text.get(at..).unwrap_or_default());
    made
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
