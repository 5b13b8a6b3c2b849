//! An element of a parsed document: its attributes and children by name, its path for messages, and the
//! numbers and words that libvirt's documents are made of.
//!
//! Nothing is passed over in silence: whoever reads an element says which attributes it knows
//! ([`Element::known`]), and meets every child.

use std::fmt::Display;
use std::str::FromStr;

use roxmltree::{Document, Node, ParsingOptions};

use super::{XmlError, guard};

/// Parses a document within the bounds of [`guard`].
pub(super) fn document(text: &str) -> Result<Document<'_>, XmlError> {
    guard::check(text)?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: u32::try_from(4 * guard::MAX_TAGS).unwrap_or(u32::MAX),
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| XmlError::syntax(error.to_string()))
}

/// An element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    node: Node<'a, 'a>,
}

impl<'a> Element<'a> {
    /// The element of a document, which must be of that name.
    pub(super) fn root(document: &'a Document<'a>, name: &str) -> Result<Self, XmlError> {
        let root = Self {
            node: document.root_element(),
        };
        if root.name() == name {
            return Ok(root);
        }
        Err(XmlError::invalid(format!(
            "unexpected root element <{}>, expecting <{name}>",
            root.qualified()
        )))
    }

    /// The element of a document, whatever it is.
    pub(super) fn any_root(document: &'a Document<'a>) -> Self {
        Self {
            node: document.root_element(),
        }
    }

    /// Its name; empty where it is of a namespace.
    pub(super) fn name(self) -> &'a str {
        match self.node.tag_name().namespace() {
            None => self.node.tag_name().name(),
            Some(_) => "",
        }
    }

    pub(super) fn node(self) -> Node<'a, 'a> {
        self.node
    }

    /// Its namespace.
    pub(super) fn namespace(self) -> Option<&'a str> {
        self.node.tag_name().namespace()
    }

    /// Its name within its namespace.
    pub(super) fn local_name(self) -> &'a str {
        self.node.tag_name().name()
    }

    fn qualified(self) -> String {
        let name = self.node.tag_name().name();
        let prefix = self
            .namespace()
            .and_then(|uri| self.node.lookup_prefix(uri))
            .filter(|prefix| !prefix.is_empty());
        let name: String = name.chars().take(64).collect();
        prefix.map_or_else(|| name.clone(), |prefix| format!("{prefix}:{name}"))
    }

    /// Its path, without the domain that all of it is of.
    pub(super) fn path(self) -> String {
        let mut names: Vec<String> = self
            .node
            .ancestors()
            .filter(Node::is_element)
            .map(|node| Self { node }.qualified())
            .collect();
        if names.len() > 1 && names.last().is_some_and(|root| root == "domain") {
            names.pop();
        }
        names.reverse();
        names.join("/")
    }

    /// As it stands in the document.
    pub(super) fn source(self) -> &'a str {
        let text = self.node.document().input_text();
        text.get(self.node.range()).unwrap_or_default()
    }

    /// The elements in it.
    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        self.node
            .children()
            .filter(Node::is_element)
            .map(|node| Self { node })
    }

    /// The first element of that name in it.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        self.children().find(|child| child.name() == name)
    }

    /// An attribute of no namespace.
    pub(super) fn attribute(self, name: &str) -> Option<&'a str> {
        let mut attributes = self.node.attributes();
        let found = attributes.find(|it| it.namespace().is_none() && it.name() == name);
        found.map(|attribute| attribute.value())
    }

    /// Its attributes of no namespace, in order.
    pub(super) fn attributes(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let own = self.node.attributes();
        own.filter(|it| it.namespace().is_none())
            .map(|it| (it.name(), it.value()))
    }

    /// An attribute that must be there.
    pub(super) fn required(self, name: &str) -> Result<&'a str, XmlError> {
        self.attribute(name)
            .ok_or_else(|| self.invalid(format!("attribute '{name}' is missing")))
    }

    /// Its text.
    pub(super) fn text(self) -> String {
        let texts = self.node.children().filter(Node::is_text);
        texts.filter_map(|node| node.text()).collect()
    }

    /// That it has no attribute but these.
    pub(super) fn known(self, names: &[&str]) -> Result<(), XmlError> {
        for attribute in self.node.attributes() {
            if attribute.namespace().is_some() || !names.contains(&attribute.name()) {
                return Err(self.unsupported_attribute(attribute.name()));
            }
        }
        Ok(())
    }

    /// That there is none in it.
    pub(super) fn no_children(self) -> Result<(), XmlError> {
        match self.children().next() {
            Some(child) => Err(child.not_provided()),
            None => Ok(()),
        }
    }

    /// Something with it makes no sense.
    pub(super) fn invalid(self, what: impl Display) -> XmlError {
        XmlError::invalid(format!("{}: {what}", self.path()))
    }

    /// Something that it asks for is not provided.
    pub(super) fn unsupported(self, what: impl Display) -> XmlError {
        XmlError::unsupported(format!("{}: {what}", self.path()))
    }

    /// It is not provided.
    pub(super) fn not_provided(self) -> XmlError {
        self.unsupported("this element is not provided")
    }

    /// That attribute is not provided.
    pub(super) fn unsupported_attribute(self, name: &str) -> XmlError {
        let name: String = name.chars().take(64).collect();
        XmlError::unsupported(format!(
            "{}/@{name}: this attribute is not provided",
            self.path()
        ))
    }

    /// That value of an attribute is not provided.
    pub(super) fn unsupported_value(
        self,
        name: &str,
        value: &str,
        instead: impl Display,
    ) -> XmlError {
        let value: String = value.chars().take(64).collect();
        XmlError::unsupported(format!(
            "{}/@{name}: '{value}' is not provided; {instead}",
            self.path()
        ))
    }

    /// An attribute that is absent or has one of these values, the only ones that are provided.
    pub(super) fn only(self, name: &str, values: &[&str]) -> Result<(), XmlError> {
        match self.attribute(name) {
            Some(value) if !values.contains(&value) => {
                let instead = format!("there is {}", values.join(", "));
                Err(self.unsupported_value(name, value, instead))
            }
            _ => Ok(()),
        }
    }

    /// An attribute's value.
    pub(super) fn parsed<T: FromStr>(self, name: &str) -> Result<Option<T>, XmlError>
    where
        T::Err: Display,
    {
        let Some(text) = self.attribute(name) else {
            return Ok(None);
        };
        let parsed = text.trim().parse();
        parsed
            .map(Some)
            .map_err(|error: T::Err| XmlError::invalid(format!("{}/@{name}: {error}", self.path())))
    }

    /// The value of an attribute whose words are an enumeration's.
    pub(super) fn word<T: FromStr>(self, name: &str) -> Result<Option<T>, XmlError>
    where
        T::Err: Display,
    {
        let Some(text) = self.attribute(name) else {
            return Ok(None);
        };
        let parsed = text.parse();
        parsed.map(Some).map_err(|error: T::Err| {
            XmlError::unsupported(format!("{}/@{name}: {error}", self.path()))
        })
    }

    /// Its text as a value.
    pub(super) fn value<T: FromStr>(self) -> Result<T, XmlError>
    where
        T::Err: Display,
    {
        self.text()
            .trim()
            .parse()
            .map_err(|error: T::Err| self.invalid(error))
    }

    /// An attribute that is `yes`/`on` or `no`/`off`.
    pub(super) fn switch(self, name: &str) -> Result<Option<bool>, XmlError> {
        match self.attribute(name) {
            None => Ok(None),
            Some("yes" | "on") => Ok(Some(true)),
            Some("no" | "off") => Ok(Some(false)),
            Some(_) => {
                let message = format!("{}/@{name}: write yes or no, or on or off", self.path());
                Err(XmlError::invalid(message))
            }
        }
    }

    /// Its text in bytes: a number in the unit of its attribute, KiB where there is none.
    pub(super) fn bytes(self) -> Result<u64, XmlError> {
        self.bytes_in("KiB")
    }

    /// Its text in bytes: a number in the unit of its attribute, or in that where there is none.
    pub(super) fn bytes_in(self, unit: &str) -> Result<u64, XmlError> {
        let number: u64 = self.value()?;
        let unit = self.attribute("unit").unwrap_or(unit);
        let unit = unit_bytes(unit).ok_or_else(|| {
            self.invalid(format!(
                "no unit '{}'",
                unit.chars().take(16).collect::<String>()
            ))
        })?;
        number
            .checked_mul(unit)
            .ok_or_else(|| self.invalid("the number is too large"))
    }
}

/// Bytes of a unit, as libvirt reads them (formatdomain, "memory allocation"): in any case of their letters.
fn unit_bytes(unit: &str) -> Option<u64> {
    const PREFIXES: [&str; 6] = ["k", "m", "g", "t", "p", "e"];
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let (prefix, rest) = unit.split_at_checked(1)?;
    let place = PREFIXES.iter().position(|known| *known == prefix)?;
    let power = u32::try_from(place + 1).ok()?;
    match rest {
        "" | "ib" => 1024_u64.checked_pow(power),
        "b" => 1000_u64.checked_pow(power),
        _ => None,
    }
}
