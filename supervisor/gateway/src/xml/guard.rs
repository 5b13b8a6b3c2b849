//! What a document may be before a parser sees it: its size, its depth, and how much of what costs more than
//! its bytes.
//!
//! The parser goes down one call for each level of elements, and compares each attribute of an element with
//! those before it and each namespace with those in scope: so a document of a few MiB could end its stack, or
//! take minutes. One pass over the bytes here bounds all of that, and finds the declarations by which
//! documents grow (`<!DOCTYPE`, entities). It follows the grammar only as far as it must to tell tags from
//! text; what it takes for well-formed and is not, the parser refuses.

use super::XmlError;

/// The most bytes of a document: libvirt's own bound for a string.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The deepest that elements are in one another.
pub const MAX_DEPTH: usize = 64;
/// The most tags, comments and the like.
pub const MAX_TAGS: usize = 32 * 1024;
/// The most attributes of one element.
pub const MAX_ATTRIBUTES: usize = 64;
/// The most declarations of namespaces in all of a document.
pub const MAX_NAMESPACES: usize = 128;

/// Checks all of those.
///
/// # Errors
/// [`XmlError`] of syntax.
pub(super) fn check(text: &str) -> Result<(), XmlError> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(XmlError::syntax(format!(
            "the document has {} bytes: it may have {MAX_DOCUMENT_BYTES}",
            text.len()
        )));
    }
    // The parser makes room by a count of these before it reads any.
    let count = |wanted: u8| text.bytes().filter(|byte| *byte == wanted).count();
    if count(b'<') > 2 * MAX_TAGS || count(b'=') > MAX_DOCUMENT_BYTES / 32 {
        return Err(XmlError::syntax(
            "the document has too many tags or attributes",
        ));
    }
    let mut scan = Scan::default();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = rest.get(at..).unwrap_or_default();
        rest = scan.markup(rest)?;
    }
    Ok(())
}

#[derive(Default)]
struct Scan {
    depth: usize,
    tags: usize,
    namespaces: usize,
}

impl Scan {
    /// Goes over what begins with `<`; gives what follows.
    fn markup<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], XmlError> {
        self.tags += 1;
        if self.tags > MAX_TAGS {
            return Err(XmlError::syntax(format!(
                "the document has more than {MAX_TAGS} tags"
            )));
        }
        if let Some(comment) = text.strip_prefix(b"<!--") {
            return after(comment, b"-->");
        }
        if let Some(data) = text.strip_prefix(b"<![CDATA[") {
            return after(data, b"]]>");
        }
        if let Some(instruction) = text.strip_prefix(b"<?") {
            return after(instruction, b"?>");
        }
        if text.starts_with(b"<!") {
            return Err(XmlError::syntax(
                "the document has a <!DOCTYPE or another declaration: none is taken",
            ));
        }
        self.tag(text)
    }

    fn tag<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], XmlError> {
        let closes = text.starts_with(b"</");
        let mut quote = None;
        let mut attributes = 0;
        // Where the name of what is before an `=` began.
        let mut word = 0;
        let mut before = b'<';
        for (index, byte) in text.iter().copied().enumerate().skip(1) {
            match (quote, byte) {
                (Some(open), byte) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'=') => {
                    attributes += 1;
                    let name = text.get(word..).unwrap_or_default();
                    self.namespaces += usize::from(name.starts_with(b"xmlns"));
                }
                (None, b'>') => {
                    if closes {
                        self.depth = self.depth.saturating_sub(1);
                    } else if before != b'/' {
                        self.depth += 1;
                    }
                    self.bounds(attributes)?;
                    return Ok(text.get(index + 1..).unwrap_or_default());
                }
                (None, byte) if byte.is_ascii_whitespace() => {}
                (None, _) if before.is_ascii_whitespace() => word = index,
                (None, _) => {}
            }
            before = byte;
        }
        Err(XmlError::syntax("the document ends within a tag"))
    }

    fn bounds(&self, attributes: usize) -> Result<(), XmlError> {
        let what = if self.depth > MAX_DEPTH {
            format!("its elements are more than {MAX_DEPTH} deep")
        } else if attributes > MAX_ATTRIBUTES {
            format!("an element has more than {MAX_ATTRIBUTES} attributes")
        } else if self.namespaces > MAX_NAMESPACES {
            format!("it declares more than {MAX_NAMESPACES} namespaces")
        } else {
            return Ok(());
        };
        Err(XmlError::syntax(format!("the document is refused: {what}")))
    }
}

/// What follows the first `end`.
fn after<'a>(text: &'a [u8], end: &[u8]) -> Result<&'a [u8], XmlError> {
    let at = text.windows(end.len()).position(|window| window == end);
    at.and_then(|at| text.get(at + end.len()..))
        .ok_or_else(|| XmlError::syntax("the document ends within a comment or the like"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = check(text).unwrap_err();
        assert_eq!(error.code(), 35);
        error.message
    }

    #[test]
    fn an_ordinary_document_passes() {
        let text =
            "<?xml version='1.0'?><!-- < > ' --><a b='>' xmlns:x=\"u\"><c/><![CDATA[<<]]></a>";
        assert_eq!(check(text), Ok(()));
    }

    #[test]
    fn declarations_are_refused() {
        let entity = "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
        assert!(refused(entity).contains("DOCTYPE"));
        assert!(refused("<a><!ENTITY b 'c'></a>").contains("declaration"));
    }

    #[test]
    fn depth_is_bounded_whatever_a_comment_or_a_quote_holds() {
        let deep = |levels: usize| {
            let open = "<a b='/>' c=\"</a>\"><!-- </a> --><?x </a> ?>".repeat(levels);
            format!("{open}{}", "</a>".repeat(levels))
        };
        assert_eq!(check(&deep(MAX_DEPTH)), Ok(()));
        assert!(refused(&deep(MAX_DEPTH + 1)).contains("deep"));
        assert!(refused(&deep(3000)).contains("deep"));
        assert!(refused(&"<a>".repeat(30_000)).contains("deep"));
    }

    #[test]
    fn attributes_and_namespaces_are_bounded() {
        let attributes: String = (0..=MAX_ATTRIBUTES).map(|n| format!(" a{n}=''")).collect();
        assert!(refused(&format!("<a{attributes}/>")).contains("attributes"));
        let children: String = (0..=MAX_NAMESPACES)
            .map(|n| format!("<b\nxmlns:n{n} = 'u'/>"))
            .collect();
        assert!(refused(&format!("<a>{children}</a>")).contains("namespaces"));
    }

    #[test]
    fn size_and_tags_are_bounded() {
        assert!(refused(&" ".repeat(MAX_DOCUMENT_BYTES + 1)).contains("bytes"));
        assert!(refused(&"<a/>".repeat(MAX_TAGS + 1)).contains("tags"));
        assert!(refused(&"=".repeat(MAX_DOCUMENT_BYTES / 16)).contains("many"));
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for text in ["<a", "<a b='", "<!-- ", "<![CDATA[ ]]", "<?x"] {
            assert!(refused(text).contains("ends"), "{text}");
        }
    }
}
