//! The file of users of other hosts: what checks their passwords, and no password.
//!
//! Text, one entry a line, written by `reeve remote-user` and read by the process that checks passwords:
//!
//! ```text
//!   # a remark
//!   unknown SECRET
//!   user NAME ITERATIONS SALT STORED-KEY SERVER-KEY
//! ```
//!
//! Bytes are hexadecimal. The keys are those of SCRAM-SHA-256 (RFC 5802, RFC 7677): whoever has them can try
//! passwords, one PBKDF2 each, and can be this server to the user; he cannot log in. From the secret follows what is said
//! to a client that comes by a name nobody has, so that it is told nothing by it.

use std::fmt::Write as _;

/// The most users.
pub const MAX_USERS: usize = 4096;
/// The most bytes of the file.
pub const MAX_USERS_BYTES: usize = 1 << 20;
/// The most bytes of a user's name.
pub const MAX_USER_BYTES: usize = 64;
/// The most bytes of a password.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The bytes of each key, and of the secret.
pub const KEY_BYTES: usize = 32;
/// The bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// The iterations that new entries have. Clients of Cyrus SASL take no more than 65536.
pub const ITERATIONS: u32 = 50_000;
/// What a file may have: RFC 7677 wants no fewer.
const ITERATIONS_RANGE: std::ops::RangeInclusive<u32> = 4096..=65_536;

/// What checks one user's password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name: see [`is_name`].
    pub name: String,
    /// Of PBKDF2.
    pub iterations: u32,
    /// As well.
    pub salt: [u8; SALT_BYTES],
    /// `StoredKey`.
    pub stored_key: [u8; KEY_BYTES],
    /// `ServerKey`.
    pub server_key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for User {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Users {
    /// From which follows what is said of users there are not.
    pub unknown: [u8; KEY_BYTES],
    /// In the order of the file, each name once.
    pub users: Vec<User>,
}

impl std::fmt::Debug for Users {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users")
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// Why a file is none of users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line is none of those above.
    #[error("line {0} is no entry of a user")]
    Line(usize),
    /// A name is there a second time.
    #[error("line {0}: the user is there twice")]
    Twice(usize),
    /// The line `unknown` is missing.
    #[error("there is no line 'unknown'")]
    NoSecret,
    /// Too much.
    #[error("it has more than {MAX_USERS} users or {MAX_USERS_BYTES} bytes")]
    TooMany,
}

/// Whether that can be a user's name: 1 to [`MAX_USER_BYTES`] letters and digits of ASCII, and `.`, `_`, `-`, `@`, the
/// first a letter or digit. Clients and servers of SASL agree about such.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    name.len() <= MAX_USER_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
}

/// Whether that can be a password: 1 to [`MAX_PASSWORD_BYTES`] printable characters of ASCII. What clients make of others
/// before they prove that they have them is not the same everywhere.
#[must_use]
pub fn is_password(password: &str) -> bool {
    (1..=MAX_PASSWORD_BYTES).contains(&password.len())
        && password.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

impl Users {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`UsersError`].
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        if text.len() > MAX_USERS_BYTES {
            return Err(UsersError::TooMany);
        }
        let mut unknown = None;
        let mut users: Vec<User> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["unknown", secret] if unknown.is_none() => {
                    unknown = Some(bytes(secret).ok_or(UsersError::Line(number))?);
                }
                ["user", name, iterations, salt, stored_key, server_key] => {
                    let user = user(name, iterations, salt, stored_key, server_key);
                    let user = user.ok_or(UsersError::Line(number))?;
                    if !names.insert(name) {
                        return Err(UsersError::Twice(number));
                    }
                    if users.len() == MAX_USERS {
                        return Err(UsersError::TooMany);
                    }
                    users.push(user);
                }
                _ => return Err(UsersError::Line(number)),
            }
        }
        let unknown = unknown.ok_or(UsersError::NoSecret)?;
        Ok(Self { unknown, users })
    }

    /// The user of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "# Users of other hosts, written by 'reeve remote-user': what checks their passwords.\n\
                        # Keep it to root alone.\n"
            .to_owned();
        let _ = writeln!(text, "unknown {}", digits(&self.unknown));
        for user in &self.users {
            let _ = writeln!(
                text,
                "user {} {} {} {} {}",
                user.name,
                user.iterations,
                digits(&user.salt),
                digits(&user.stored_key),
                digits(&user.server_key)
            );
        }
        text
    }
}

fn user(
    name: &str,
    iterations: &str,
    salt: &str,
    stored_key: &str,
    server_key: &str,
) -> Option<User> {
    let iterations = iterations.parse().ok()?;
    (is_name(name) && ITERATIONS_RANGE.contains(&iterations)).then_some(())?;
    Some(User {
        name: name.to_owned(),
        iterations,
        salt: bytes(salt)?,
        stored_key: bytes(stored_key)?,
        server_key: bytes(server_key)?,
    })
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        for &digit in pair {
            let digit = char::from(digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(digit).ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Users {
        let user = |name: &str, byte: u8| User {
            name: name.to_owned(),
            iterations: ITERATIONS,
            salt: [byte; SALT_BYTES],
            stored_key: [byte + 1; KEY_BYTES],
            server_key: [byte + 2; KEY_BYTES],
        };
        Users {
            unknown: [0xa5; KEY_BYTES],
            users: vec![user("alice", 1), user("bob@example.org", 0xf0)],
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let users = some();
        let read = Users::parse(&users.text()).unwrap();
        assert_eq!(read, users);
        assert_eq!(read.get("alice"), users.users.first());
        assert_eq!(read.get("ALICE"), None);
        assert!(!format!("{users:?}").contains("165"), "{users:?}");
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_line() {
        let text = some().text();
        let changed = |from: &str, to: &str| Users::parse(&text.replace(from, to)).unwrap_err();
        assert_eq!(
            changed("user bob@example.org", "user alice"),
            UsersError::Twice(5)
        );
        assert_eq!(changed("unknown ", "# "), UsersError::NoSecret);
        assert_eq!(changed("50000", "4095"), UsersError::Line(4));
        assert_eq!(changed("50000", "65537"), UsersError::Line(4));
        assert_eq!(changed("alice", "a,b"), UsersError::Line(4));
        assert_eq!(changed("0101", "01"), UsersError::Line(4));
        assert_eq!(changed("0101", "0x01"), UsersError::Line(4));
        assert_eq!(changed("user alice", "alice"), UsersError::Line(4));
        assert_eq!(
            changed("alice", &"a".repeat(MAX_USER_BYTES + 1)),
            UsersError::Line(4)
        );
    }

    #[test]
    fn names_and_passwords_are_such_as_everybody_writes_alike() {
        for (name, expected) in [
            ("a", true),
            ("a.b-c_d@e1", true),
            ("", false),
            (".a", false),
            ("a b", false),
            ("a=b", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
        assert!(is_password("a b~!"));
        for password in ["", "\u{e9}", "a\n", "a\u{7f}"] {
            assert!(!is_password(password), "{password:?}");
        }
    }
}
