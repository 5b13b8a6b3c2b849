//! What a field may be compared with, in libvirt's words.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::short;
use super::field::{FieldKind, RuleField};
use super::parameter::is_name;
use super::{MAX_RULE_TEXT_BYTES, NwfilterError};

/// A value, or what stands for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldValue {
    /// What a parameter says.
    Variable(Variable),
    /// An Ethernet address, or the bits of one that count.
    Mac([u8; 6]),
    /// An address of IPv4 or IPv6.
    Ip(IpAddr),
    /// A number, written in decimal.
    Number(u32),
    /// A number, written in hexadecimal.
    Hex(u32),
    /// Something else.
    Text(String),
}

impl FieldValue {
    /// The number that it is.
    #[must_use]
    pub const fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) | Self::Hex(number) => Some(*number),
            _ => None,
        }
    }
}

/// A variable in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Which of its values.
    pub element: VariableElement,
}

/// Which value of a variable is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VariableElement {
    /// Each, one after the other, side by side with those of other variables of the same iterator: 0 where none is
    /// said.
    Each(u16),
    /// The one of this number, from 0.
    One(u16),
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.element {
            VariableElement::Each(0) => write!(f, "${}", self.name),
            VariableElement::Each(iterator) => write!(f, "${}[@{iterator}]", self.name),
            VariableElement::One(number) => write!(f, "${}[{number}]", self.name),
        }
    }
}

impl FromStr for Variable {
    type Err = NwfilterError;

    fn from_str(text: &str) -> Result<Self, NwfilterError> {
        let refuse = || NwfilterError::Variable(short(text));
        let rest = text.trim().strip_prefix('$').ok_or_else(refuse)?.trim();
        let (name, element) = match rest.split_once('[') {
            None => (rest, VariableElement::Each(0)),
            Some((name, inner)) => {
                let inner = inner.strip_suffix(']').ok_or_else(refuse)?.trim();
                let digits = inner.strip_prefix('@').unwrap_or(inner);
                if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(refuse());
                }
                let number = digits.parse().map_err(|_| refuse())?;
                let element = match inner.starts_with('@') {
                    true => VariableElement::Each(number),
                    false => VariableElement::One(number),
                };
                (name, element)
            }
        };
        if !is_name(name) {
            return Err(refuse());
        }
        Ok(Self {
            name: name.to_owned(),
            element,
        })
    }
}

/// Words for numbers.
type Words = &'static [(&'static str, u32)];

const ETHERTYPES: Words = &[
    ("arp", 0x0806),
    ("rarp", 0x8035),
    ("ipv4", 0x0800),
    ("ipv6", 0x86dd),
    ("vlan", 0x8100),
];
const OPCODES: Words = &[
    ("Request", 1),
    ("Reply", 2),
    ("Request_Reverse", 3),
    ("Reply_Reverse", 4),
    ("DRARP_Request", 5),
    ("DRARP_Reply", 6),
    ("DRARP_Error", 7),
    ("InARP_Request", 8),
    ("ARP_NAK", 9),
];
const PROTOCOLS: Words = &[
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("esp", 50),
    ("ah", 51),
    ("icmp", 1),
    ("igmp", 2),
    ("sctp", 132),
    ("icmpv6", 58),
];

impl FieldKind {
    /// The numbers that it may be, and words for some of them.
    const fn numbers(self) -> Option<(u32, u32, Words)> {
        Some(match self {
            Self::Octet => (0, 0xff, &[]),
            Self::Short => (0, 0xffff, &[]),
            Self::Long => (0, u32::MAX, &[]),
            Self::SixBits => (0, 63, &[]),
            Self::Tag => (0, 4095, &[]),
            // Less is a length.
            Self::Ethertype => (0x600, 0xffff, ETHERTYPES),
            Self::Opcode => (0, 0xffff, OPCODES),
            Self::Protocol => (0, 0xff, PROTOCOLS),
            _ => return None,
        })
    }

    fn literal(self, text: &str) -> Option<FieldValue> {
        if let Some((least, most, words)) = self.numbers() {
            let known = |(word, _): &&(&str, u32)| word.eq_ignore_ascii_case(text);
            let value = match (words.iter().find(known), text.strip_prefix("0x")) {
                (Some((_, number)), _) => FieldValue::Number(*number),
                (None, Some(digits)) => {
                    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    FieldValue::Hex(u32::from_str_radix(digits, 16).ok().filter(|_| plain)?)
                }
                (None, None) => {
                    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
                    FieldValue::Number(text.parse().ok().filter(|_| plain)?)
                }
            };
            return Some(value).filter(|value| {
                let number = value.number();
                number.is_some_and(|number| (least..=most).contains(&number))
            });
        }
        Some(match self {
            Self::Mac => FieldValue::Mac(mac(text)?),
            Self::Ipv4 => FieldValue::Ip(IpAddr::V4(text.parse().ok()?)),
            Self::Ipv6 => FieldValue::Ip(IpAddr::V6(text.parse().ok()?)),
            Self::Ipv4Mask => match text.parse::<std::net::Ipv4Addr>() {
                Ok(mask) => FieldValue::Number(prefix(u128::from(mask.to_bits()) << 96)?),
                Err(_) => FieldValue::Number(text.parse().ok().filter(|bits| *bits <= 32)?),
            },
            Self::Ipv6Mask => match text.parse::<std::net::Ipv6Addr>() {
                Ok(mask) => FieldValue::Number(prefix(mask.to_bits())?),
                Err(_) => FieldValue::Number(text.parse().ok().filter(|bits| *bits <= 128)?),
            },
            Self::Boolean => match text {
                "yes" | "true" | "1" => FieldValue::Number(1),
                "no" | "false" | "0" => FieldValue::Number(0),
                _ => return None,
            },
            Self::Comment => {
                // Documents are of XML 1.0, which has no word for these two either (section 2.2).
                let unsayable = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
                let fits = text.len() <= MAX_RULE_TEXT_BYTES && !text.chars().any(unsayable);
                FieldValue::Text(Some(text.to_owned()).filter(|_| fits)?)
            }
            _ => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-+ ,/".contains(&byte);
                let fits = (1..=MAX_RULE_TEXT_BYTES).contains(&text.len());
                let fits = fits && text.bytes().all(plain);
                FieldValue::Text(Some(text.to_owned()).filter(|_| fits)?)
            }
        })
    }

    fn text(self, value: &FieldValue) -> String {
        match value {
            FieldValue::Variable(variable) => variable.to_string(),
            FieldValue::Mac(octets) => {
                let octets = octets.map(|octet| format!("{octet:02x}"));
                octets.join(":")
            }
            FieldValue::Ip(address) => address.to_string(),
            FieldValue::Number(number) | FieldValue::Hex(number) => {
                if self == Self::Boolean {
                    return if *number == 0 { "false" } else { "true" }.to_owned();
                }
                let words = self.numbers().map_or(&[][..], |(_, _, words)| words);
                let word = words.iter().find(|(_, known)| known == number);
                match (word, value) {
                    (Some((word, _)), _) => (*word).to_owned(),
                    (None, FieldValue::Hex(_)) => format!("{number:#x}"),
                    (None, _) => number.to_string(),
                }
            }
            FieldValue::Text(text) => text.clone(),
        }
    }
}

impl RuleField {
    /// Reads a value of it, or a variable where it may be one.
    ///
    /// # Errors
    /// [`NwfilterError::Value`], [`NwfilterError::Variable`].
    pub fn parse(self, text: &str) -> Result<FieldValue, NwfilterError> {
        let kind = self.kind();
        if kind != FieldKind::Comment && text.trim_start().starts_with('$') {
            return Ok(FieldValue::Variable(text.parse()?));
        }
        let value = kind.literal(text).ok_or_else(|| NwfilterError::Value {
            field: self.name(),
            value: short(text),
            kind: kind.described(),
        })?;
        // A number that has a word is that word, however it was written.
        Ok(match value {
            FieldValue::Hex(number) => {
                let words = kind.numbers().map_or(&[][..], |(_, _, words)| words);
                match words.iter().any(|(_, known)| *known == number) {
                    true => FieldValue::Number(number),
                    false => value,
                }
            }
            value => value,
        })
    }

    /// A value of it as libvirt writes it.
    #[must_use]
    pub fn text(self, value: &FieldValue) -> String {
        self.kind().text(value)
    }
}

/// Six numbers of one or two digits.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next()?;
        let plain = part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !(1..=2).contains(&part.len()) || !plain {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    Some(octets).filter(|_| parts.next().is_none())
}

/// How many bits a mask begins with, where it has no others.
fn prefix(mask: u128) -> Option<u32> {
    let bits = mask.leading_ones();
    let rest = mask.checked_shl(bits).unwrap_or(0);
    Some(bits).filter(|_| rest == 0)
}
