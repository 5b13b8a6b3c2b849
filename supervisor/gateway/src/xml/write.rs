//! Writes documents as libvirt does: two blanks a level, attributes in single quotes.

use std::fmt::{Display, Write as _};

/// A document that is written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: String,
    depth: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Begins an element; it is written by how its [`Tag`] ends.
    pub(super) fn tag<'a>(&'a mut self, name: &'a str) -> Tag<'a> {
        self.indent();
        self.out.push('<');
        self.out.push_str(name);
        Tag { writer: self, name }
    }

    /// Ends an element that was opened.
    pub(super) fn close(&mut self, name: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.indent();
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push_str(">\n");
    }

    /// An element with a text and no attributes.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        self.tag(name).text(text);
    }

    /// An element that is XML already.
    pub(super) fn verbatim(&mut self, xml: &str) {
        self.indent();
        self.out.push_str(xml);
        self.out.push('\n');
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }
}

/// An element whose attributes are written.
#[must_use = "an element is written by how it ends"]
pub(super) struct Tag<'a> {
    writer: &'a mut Writer,
    name: &'a str,
}

impl Tag<'_> {
    pub(super) fn attribute(self, name: &str, value: impl Display) -> Self {
        self.writer.out.push(' ');
        self.writer.out.push_str(name);
        self.writer.out.push_str("='");
        escape(&mut self.writer.out, value, true);
        self.writer.out.push('\'');
        self
    }

    pub(super) fn optional(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.attribute(name, value),
            None => self,
        }
    }

    /// It has nothing in it.
    pub(super) fn empty(self) {
        self.writer.out.push_str("/>\n");
    }

    /// Elements follow, and [`Writer::close`].
    pub(super) fn open(self) {
        self.writer.out.push_str(">\n");
        self.writer.depth += 1;
    }

    /// It has a text in it; empty, it has nothing.
    pub(super) fn text(self, text: impl Display) {
        let out = &mut self.writer.out;
        let before = out.len();
        out.push('>');
        escape(out, text, false);
        if out.len() == before + 1 {
            out.truncate(before);
            return self.empty();
        }
        out.push_str("</");
        out.push_str(self.name);
        out.push_str(">\n");
    }
}

/// Whether XML 1.0 can say it at all (section 2.2).
pub(super) const fn is_sayable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// A text as it stands in an attribute.
pub(super) fn escaped(text: impl Display) -> String {
    let mut out = String::new();
    escape(&mut out, text, true);
    out
}

/// Writes text so that a parser gives it back. What XML cannot say becomes U+FFFD.
fn escape(out: &mut String, text: impl Display, attribute: bool) {
    struct Escape<'a> {
        out: &'a mut String,
        attribute: bool,
    }

    impl std::fmt::Write for Escape<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for c in text.chars() {
                match c {
                    '&' => self.out.push_str("&amp;"),
                    '<' => self.out.push_str("&lt;"),
                    '>' => self.out.push_str("&gt;"),
                    '\'' if self.attribute => self.out.push_str("&apos;"),
                    '"' if self.attribute => self.out.push_str("&quot;"),
                    // A parser makes a blank of these in an attribute, and a line feed of a return anywhere.
                    '\r' => self.out.push_str("&#13;"),
                    '\n' if self.attribute => self.out.push_str("&#10;"),
                    '\t' if self.attribute => self.out.push_str("&#9;"),
                    c if is_sayable(c) => self.out.push(c),
                    _ => self.out.push(char::REPLACEMENT_CHARACTER),
                }
            }
            Ok(())
        }
    }

    // Writing to a string does not fail, and what is shown here has no way to.
    let _ = write!(Escape { out, attribute }, "{text}");
}
