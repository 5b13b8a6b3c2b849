//! Alphabets of what reaches a server's configuration: none of them has what separates there.

/// The most bytes of a name of a host or a domain (RFC 1035 §2.3.4).
pub const MAX_HOST_NAME_BYTES: usize = 253;
/// The most bytes of one part of it.
const MAX_LABEL_BYTES: usize = 63;
/// The most bytes of another text.
const MAX_TEXT_BYTES: usize = 1024;

/// A name of a host or a domain: parts of letters, digits, `-` and `_`, with dots between them.
pub(super) fn is_host_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let part = |part: &str| {
        (1..=MAX_LABEL_BYTES).contains(&part.len())
            && part.bytes().all(plain)
            && !part.starts_with('-')
    };
    name.len() <= MAX_HOST_NAME_BYTES && name.split('.').all(part)
}

/// A name of one part.
pub(super) fn is_label(name: &str) -> bool {
    is_host_name(name) && !name.contains('.')
}

/// The name of a bridge that is made: of what an interface may be called, nothing that a server takes for several, or
/// for a beginning.
pub(super) fn is_bridge_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A name that a server takes for a word of its own, for how long an address is lent, or for an address.
pub(super) fn is_word_of_dhcp(name: &str) -> bool {
    let time = name.trim_end_matches(['s', 'm', 'h', 'd', 'w']);
    let digits = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = digits && name.len() - time.len() <= 1;
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    is_time || is_address || matches!(name, "ignore" | "infinite")
}

/// What a client of DHCPv6 calls itself: bytes in hexadecimal with colons, or letters and digits.
pub(super) fn is_client_id(id: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'.' | b'_');
    (1..=256).contains(&id.len()) && id.bytes().all(plain) && !id.starts_with('-')
}

/// Printable text of one line without what quotes.
pub(super) fn is_text(text: &str) -> bool {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
    text.len() <= MAX_TEXT_BYTES && text.bytes().all(plain)
}

/// The name of a file: printable, without blanks, commas and what quotes.
pub(super) fn is_file(name: &str) -> bool {
    let separates = |byte: u8| matches!(byte, b',' | b' ' | b'#' | b';');
    !name.is_empty() && is_text(name) && !name.bytes().any(separates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_separates() {
        for good in ["a", "a-b.c_d", "1.2.example.org", &"a".repeat(63)] {
            assert!(is_host_name(good), "{good}");
        }
        let long = ["a".repeat(64), "a.".repeat(127) + "a"];
        let bad = [
            "", ".", "a.", ".a", "a..b", "-a", "a b", "a,b", "a\nb", "a/b", "ü", "a#b",
        ];
        for bad in bad.into_iter().chain(long.iter().map(String::as_str)) {
            assert!(!is_host_name(bad), "{bad}");
        }
        assert!(is_label("www") && !is_label("www.a"));
    }

    #[test]
    fn a_bridge_is_one_and_a_host_is_no_word() {
        for good in ["virbr0", "br-lan.5", "a_b"] {
            assert!(is_bridge_name(good), "{good}");
        }
        for bad in ["virbr9,eth0", "v*", "br\"", "a#b", "-a", ".a", ""] {
            assert!(!is_bridge_name(bad), "{bad}");
        }
        for word in ["ignore", "infinite", "3600", "12h", "10.0.0.5"] {
            assert!(is_word_of_dhcp(word), "{word}");
        }
        for name in ["web", "h", "h12", "12hh", "ignored"] {
            assert!(!is_word_of_dhcp(name), "{name}");
        }
    }

    #[test]
    fn texts_hold_nothing_that_quotes_or_ends_a_line() {
        assert!(is_text("v=spf1 a, mx;") && is_text(""));
        for bad in ["a\"b", "a\\b", "a\nb", "a\0b", "ü"] {
            assert!(!is_text(bad), "{bad}");
        }
        assert!(is_file("/pxelinux.0") && !is_file("a,b") && !is_file(""));
        assert!(is_client_id("0:3:0:1:0:16:3e:11:22:33") && !is_client_id("a,b"));
    }
}
