//! Whom a name in a certificate lets in.

use reeve_ipc::api::Access;

/// The lists of the configuration. Each entry is a name, or a pattern: `*` stands for any characters, `?` for one,
/// as in libvirt's own `tls_allowed_dn_list`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Who may come; everybody with a certificate of an authority, where nothing is said.
    pub allowed: Option<Vec<String>>,
    /// Who of them may only look.
    pub read_only: Vec<String>,
}

impl Names {
    /// What whoever has that name may do, if anything.
    pub(super) fn access(&self, name: &str) -> Option<Access> {
        let is_in = |list: &[String]| list.iter().any(|pattern| matches(pattern, name));
        if self
            .allowed
            .as_deref()
            .is_some_and(|allowed| !is_in(allowed))
        {
            return None;
        }
        Some(if is_in(&self.read_only) {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        })
    }
}

/// Whether all of `name` is as `pattern` says. Takes no more steps than the product of their lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut in_name) = (0, 0);
    // The last star, and how much of the name it stands for so far.
    let mut star = None;
    while let Some(&c) = name.get(in_name) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == c => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((place, taken)) = star else {
                    return false;
                };
                star = Some((place, taken + 1));
                at = place + 1;
                in_name = taken + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|&c| c == '*')
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
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(500), &"b".repeat(1000)));
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
