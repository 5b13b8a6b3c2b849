//! VNC's password (RFC 6143, 7.2.2): the client encrypts what the server has chosen at random.
//!
//! It is eight bytes at most, DES, and says nothing of who the server is: no more than a latch. What can be done for it
//! is done: it is compared in constant time and never shown, and wrong ones are counted.

use std::fmt;
use std::time::{Duration, Instant};

use des::Des;
use des::cipher::{BlockEncrypt, KeyInit};
use subtle::ConstantTimeEq;

/// Bytes of a challenge and of its answer.
pub const CHALLENGE_BYTES: usize = 16;
/// The most bytes of a password.
pub const MAX_PASSWORD_BYTES: usize = 8;

/// A password. Nothing shows it.
#[derive(Clone)]
pub struct Password([u8; MAX_PASSWORD_BYTES]);

/// Empty, or longer than the protocol can check: what is behind the eighth byte would not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a VNC password has 1 to 8 bytes")]
pub struct PasswordError;

impl Password {
    /// That password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn new(bytes: &[u8]) -> Result<Self, PasswordError> {
        let mut padded = [0; MAX_PASSWORD_BYTES];
        let place = padded.get_mut(..bytes.len()).ok_or(PasswordError)?;
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(PasswordError);
        }
        place.copy_from_slice(bytes);
        Ok(Self(padded))
    }

    /// Whether `response` is what somebody who knows it makes of `challenge`.
    #[must_use]
    pub fn accepts(
        &self,
        challenge: &[u8; CHALLENGE_BYTES],
        response: &[u8; CHALLENGE_BYTES],
    ) -> bool {
        self.encrypt(challenge).ct_eq(response).into()
    }

    fn encrypt(&self, challenge: &[u8; CHALLENGE_BYTES]) -> [u8; CHALLENGE_BYTES] {
        // The protocol takes the bits of each byte the other way round.
        let cipher = Des::new(&self.0.map(u8::reverse_bits).into());
        let mut answer = *challenge;
        for block in answer.chunks_exact_mut(8) {
            cipher.encrypt_block(block.into());
        }
        answer
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What a client has to show before it may see anything.
#[derive(Debug, Clone)]
pub enum Security {
    /// Nothing: whoever reaches the socket may.
    None,
    /// A password.
    Password(Password),
}

/// Wrong passwords in a row, over all clients.
const MAX_WRONG: u32 = 5;
/// After which one is forgotten.
const FORGET: Duration = Duration::from_secs(2);

/// Counts wrong passwords. Who guesses gets one try in two seconds: then nobody else gets one either, which is the price
/// of not knowing where clients come from.
#[derive(Debug, Default)]
pub struct Attempts {
    wrong: u32,
    last: Option<Instant>,
}

impl Attempts {
    /// Whether another one may be tried.
    pub fn may_try(&mut self, now: Instant) -> bool {
        while let Some(last) = self.last.filter(|last| now >= *last + FORGET) {
            self.wrong = self.wrong.saturating_sub(1);
            self.last = (self.wrong > 0).then_some(last + FORGET);
        }
        self.wrong < MAX_WRONG
    }

    /// There was a wrong one.
    pub fn note_wrong(&mut self, now: Instant) {
        self.wrong = self.wrong.saturating_add(1).min(MAX_WRONG);
        self.last.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_other_implementations_make() {
        // By `openssl enc -des-ecb`, with the bits of each byte of the key reversed.
        const ANSWER: u128 = 0xee22_539f_33a5_983e_c12f_9c2e_dbc9_95dd;
        let password = Password::new(b"secret").unwrap();
        let challenge = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let answer = ANSWER.to_be_bytes();
        assert!(password.accepts(&challenge, &answer));
        assert!(
            !Password::new(b"Secret")
                .unwrap()
                .accepts(&challenge, &answer)
        );
        for byte in 0..CHALLENGE_BYTES {
            let mut wrong = answer;
            wrong[byte] ^= 1;
            assert!(!password.accepts(&challenge, &wrong));
        }
    }

    #[test]
    fn what_would_not_be_checked_is_no_password() {
        for bytes in [&b""[..], b"ninebytes", b"a\0b"] {
            assert_eq!(Password::new(bytes).unwrap_err(), PasswordError);
        }
        let longest = Password::new(b"eight by").unwrap();
        assert_eq!(format!("{longest:?}"), "Password");
    }

    #[test]
    fn who_guesses_is_slowed_down() {
        let mut attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..MAX_WRONG {
            assert!(attempts.may_try(start));
            attempts.note_wrong(start);
        }
        assert!(!attempts.may_try(start));
        assert!(!attempts.may_try(start + FORGET / 2));
        assert!(attempts.may_try(start + FORGET));
        attempts.note_wrong(start + FORGET);
        assert!(!attempts.may_try(start + FORGET));
        assert!(attempts.may_try(start + FORGET * 20));
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::{CHALLENGE_BYTES, Password};

    /// What a client answers who knows the password.
    pub(crate) fn answer(
        password: &[u8],
        challenge: &[u8; CHALLENGE_BYTES],
    ) -> [u8; CHALLENGE_BYTES] {
        let password = Password::new(password).expect("a password");
        password.encrypt(challenge)
    }
}
