//! Whom a name in a certificate lets in.

use reeve_ipc::api::Access;

/// The lists of the configuration. Each entry is a name, or a pattern: `*` stands for any characters, those between
/// attributes too, `?` for one, as in libvirt's own `tls_allowed_dn_list`. A character behind a backslash is one with
/// it: a comma in a pattern is one between attributes, never one in a value, which is `\,`. `\*` and `\?` stand for
/// these characters themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Who may come; everybody with a certificate of an authority, where nothing is said.
    pub allowed: Option<Vec<String>>,
    /// Who of them may only look.
    pub read_only: Vec<String>,
}

impl Names {
    /// What whoever has that name may do, if anything. Where there are some who may only look, so may whoever has a
    /// name that they might not be known by.
    pub(super) fn access(&self, name: &str) -> Option<Access> {
        let is_in = |list: &[String]| list.iter().any(|pattern| matches(pattern, name));
        if self
            .allowed
            .as_deref()
            .is_some_and(|allowed| !is_in(allowed))
        {
            return None;
        }
        let may_be_hidden = !self.read_only.is_empty() && is_veiled(name);
        Some(if may_be_hidden || is_in(&self.read_only) {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        })
    }
}

/// Whom the name of a user who has logged in lets in: lists as those of [`Names`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNames {
    /// Who may come; every user there is, where nothing is said.
    pub allowed: Option<Vec<String>>,
    /// Who of them may only look.
    pub read_only: Vec<String>,
}

impl UserNames {
    /// What the user of that name may do, if anything.
    pub(super) fn access(&self, name: &str) -> Option<Access> {
        let is_in = |list: &[String]| list.iter().any(|pattern| matches(pattern, name));
        let allowed = self.allowed.as_deref();
        if allowed.is_some_and(|allowed| !is_in(allowed)) {
            return None;
        }
        Some(if is_in(&self.read_only) {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        })
    }
}

/// A character of a name, or two: `\c` stands for one that would mean something without the backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Character {
    Plain(char),
    Escaped(char),
}

fn characters(text: &str) -> Vec<Character> {
    let mut rest = text.chars();
    let mut characters = Vec::new();
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        characters.push(escaped.map_or(Character::Plain(c), Character::Escaped));
    }
    characters
}

/// Whether a name has an attribute of a kind without a name here, or a value that is no text: written as numbers and
/// as bytes, so that a pattern of what they say does not see them.
fn is_veiled(name: &str) -> bool {
    let name = characters(name);
    let between = |c: &Character| matches!(c, Character::Plain(',' | '+'));
    name.split(between).any(|attribute| {
        let mut parts = attribute.splitn(2, |&c| c == Character::Plain('='));
        let kind = parts.next().and_then(<[_]>::first);
        let is_named = matches!(kind, Some(Character::Plain(c)) if c.is_ascii_alphabetic());
        let value = parts.next();
        let is_text = value.is_some_and(|value| value.first() != Some(&Character::Plain('#')));
        !is_named || !is_text
    })
}

/// Whether all of `name` is as `pattern` says. Takes no more steps than the product of their lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (characters(pattern), characters(name));
    let (mut at, mut in_name) = (0, 0);
    // The last star, and how much of the name it stands for so far.
    let mut star = None;
    while let Some(&c) = name.get(in_name) {
        let wanted = pattern.get(at).copied();
        let is_one = match wanted {
            Some(Character::Plain('?')) => true,
            // No name has a backslash before these.
            Some(Character::Escaped(wanted @ ('*' | '?'))) => c == Character::Plain(wanted),
            wanted => wanted == Some(c),
        };
        if wanted == Some(Character::Plain('*')) {
            star = Some((at, in_name));
            at += 1;
        } else if is_one {
            at += 1;
            in_name += 1;
        } else {
            let Some((place, taken)) = star else {
                return false;
            };
            star = Some((place, taken + 1));
            at = place + 1;
            in_name = taken + 1;
        }
    }
    pattern.iter().skip(at).all(|&c| c == Character::Plain('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_whole_names() {
        for (pattern, name, expected) in [
            ("C=GB,O=Acme,CN=admin", "C=GB,O=Acme,CN=admin", true),
            ("C=GB,O=Acme,CN=admin", "C=GB,O=Acme,CN=admin2", false),
            ("CN=admin", "C=GB,CN=admin", false),
            ("*CN=admin", "C=GB,CN=admin", true),
            ("C=GB,O=Acme,CN=*", "C=GB,O=Acme,CN=", true),
            ("*,CN=a?min", "O=x,CN=b,CN=admin", true),
            ("*,CN=a?min", "O=x,CN=admin,CN=b", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("**x", "x", true),
            ("CN=?", "CN=\u{e9}", true),
            ("CN=[ab]", "CN=a", false),
            // A comma or a plus sign of a value's is none between attributes.
            ("*,CN=admin", "O=x,CN=admin", true),
            ("*,CN=admin", r"O=x\,CN=admin", false),
            ("*+CN=admin", r"O=x\+CN=admin", false),
            (r"*\,CN=admin", r"O=x\,CN=admin", true),
            (r"*\,CN=admin", "O=x,CN=admin", false),
            (r"O=x\\,CN=admin", r"O=x\\,CN=admin", true),
            ("*,CN=admin", r"O=x\\,CN=admin", true),
            ("O=a?b", r"O=a\,b", true),
            ("O=a??b", r"O=a\,b", false),
            (r"O=a\*", "O=a*", true),
            (r"O=a\*", "O=ab", false),
            ("O=a*", r"O=a\,b", true),
            ("O=a*,CN=b", "O=a,OU=c,CN=b", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(500), &"b".repeat(1000)));
    }

    #[test]
    fn users_are_let_in_by_their_names() {
        let names = UserNames {
            allowed: Some(vec!["alice".to_owned(), "*@example.org".to_owned()]),
            read_only: vec!["view*".to_owned()],
        };
        assert_eq!(names.access("alice"), Some(Access::ReadWrite));
        assert_eq!(names.access("bob@example.org"), Some(Access::ReadWrite));
        assert_eq!(names.access("viewer@example.org"), Some(Access::ReadOnly));
        assert_eq!(names.access("mallory"), None);
        let everybody = UserNames::default();
        assert_eq!(everybody.access("mallory"), Some(Access::ReadWrite));
    }

    #[test]
    fn what_no_pattern_can_read_only_looks() {
        let names = |read_only: &[&str]| Names {
            allowed: None,
            read_only: read_only.iter().map(ToString::to_string).collect(),
        };
        for name in [
            "O=x,CN=#1e06006100620063",
            "O=x,1.2.3.4=viewer",
            "O=x+1.2.3.4=viewer",
            "2.5.4.97=x,CN=admin",
            "CN=#0500+O=x",
            "no name",
            "O=x,",
            "",
        ] {
            assert_eq!(
                names(&["CN=viewer"]).access(name),
                Some(Access::ReadOnly),
                "{name}"
            );
            // Where nobody only looks there is nothing to hide from.
            assert_eq!(names(&[]).access(name), Some(Access::ReadWrite), "{name}");
        }
        for name in [
            r"O=x,CN=\#1e06",
            r"O=x\,1.2.3.4=y,CN=a",
            r"O=x\+1.2=#0500,CN=a",
            "O=1=#2,CN=a#b",
            "CN=admin",
        ] {
            assert_eq!(
                names(&["CN=viewer"]).access(name),
                Some(Access::ReadWrite),
                "{name}"
            );
        }
        let none = Names {
            allowed: Some(vec!["CN=admin".to_owned()]),
            ..names(&["CN=viewer"])
        };
        assert_eq!(none.access("CN=#0500"), None);
    }

    #[test]
    fn whoever_is_on_no_list_may_come_only_where_there_is_none() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let open = Names {
            allowed: None,
            read_only: list(&["*CN=viewer*"]),
        };
        assert_eq!(open.access("CN=anybody"), Some(Access::ReadWrite));
        assert_eq!(open.access("O=x,CN=viewer-2"), Some(Access::ReadOnly));
        let closed = Names {
            allowed: Some(list(&["CN=admin", "CN=viewer"])),
            ..open.clone()
        };
        assert_eq!(closed.access("CN=admin"), Some(Access::ReadWrite));
        assert_eq!(closed.access("CN=viewer"), Some(Access::ReadOnly));
        assert_eq!(closed.access("CN=viewer-2"), None);
        let nobody = Names {
            allowed: Some(Vec::new()),
            ..open
        };
        assert_eq!(nobody.access("CN=admin"), None);
    }
}
