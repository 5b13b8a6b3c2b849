//! JSON that is somebody else's, passed on as text: looked at, not taken apart. A tree of a megabyte of small
//! objects takes a hundred, and all gateways have one bound in common.

use serde::de::IgnoredAny;

/// An object of JSON as one line, with nothing between its words; `None` where it is none. As long as `bytes` at
/// most: numbers are as they were written.
pub(super) fn object_line(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.trim_ascii();
    if !bytes.starts_with(b"{") {
        return None;
    }
    serde_json::from_slice::<IgnoredAny>(bytes).ok()?;
    // What is ignored is not looked at for that.
    let text = std::str::from_utf8(bytes).ok()?;
    let mut line = String::with_capacity(text.len());
    let (mut within, mut escaped) = (false, false);
    for letter in text.chars() {
        match letter {
            // Outside of a string it is blank space alone that JSON has of these.
            ' ' | '\t' | '\r' | '\n' if !within => continue,
            '"' if !escaped => within = !within,
            _ => {}
        }
        escaped = within && !escaped && letter == '\\';
        line.push(letter);
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::object_line;

    #[test]
    fn an_object_is_a_line_whatever_is_between_its_words() {
        for (text, line) in [
            ("{}", "{}"),
            (" { \"a\" :\n [ 1 , 2 ]\t}\r\n", "{\"a\":[1,2]}"),
            (
                "{\"a b\": \"c \\\" d\", \"e\": 1}",
                "{\"a b\":\"c \\\" d\",\"e\":1}",
            ),
            (
                "{\"a\\\\\": \" \\\\\" , \"b\": 2}",
                "{\"a\\\\\":\" \\\\\",\"b\":2}",
            ),
            (
                "{\"n\": 1e15, \"n\": 18446744073709551616}",
                "{\"n\":1e15,\"n\":18446744073709551616}",
            ),
        ] {
            assert_eq!(object_line(text.as_bytes()).as_deref(), Some(line));
        }
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in [
            &b""[..],
            b"[]",
            b"\"{}\"",
            b"{",
            b"{}}",
            b"{} {}",
            b"{\"a\": \"\n\"}",
            b"{\"a\": \"\xFF\"}",
            b"{\"\xC3\": 1}",
            b"{a: 1}",
        ] {
            assert_eq!(object_line(text), None, "{text:?}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
        assert_eq!(object_line(deep.as_bytes()), None);
    }
}
