//! What a worker and its supervisor say about the connections that a guest opens to the host.
//!
//! A worker can connect to nothing. For a socket device it has one end of a `SOCK_SEQPACKET` socket pair, on
//! which it asks for each connection and is given a connected stream; the supervisor has the other end, and
//! decides which ports there are. All numbers are 32 bits, little-endian:
//!
//! ```text
//!   worker ── id, host port, guest port ──► supervisor
//!          ◄── id, 1  + the stream (SCM_RIGHTS) ──
//!          ◄── id, 0 ── refused
//! ```
//!
//! Answers come in any order. A worker has at most [`MAX_QUESTIONS`] questions open, each for ten seconds,
//! unless its guest has given up some: those are still answered, and what comes is closed. Whatever else is
//! said on the socket ends its use; it can be replaced ([`AcceptorSet`](crate::request::AcceptorSet)).

/// Questions that a worker which keeps to the rules has open at a time.
pub const MAX_QUESTIONS: usize = 64;
/// Bytes of a question.
pub const QUESTION_BYTES: usize = 12;
/// Bytes of an answer.
pub const ANSWER_BYTES: usize = 8;

/// What a worker asks: a connection for its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// By which it is answered.
    pub id: u32,
    /// Where on the host.
    pub host_port: u32,
    /// From where in the guest.
    pub guest_port: u32,
}

impl Question {
    /// A question, if these are the bytes of one. Every number is possible.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [i0, i1, i2, i3, h0, h1, h2, h3, g0, g1, g2, g3] =
            *<&[u8; QUESTION_BYTES]>::try_from(bytes).ok()?;
        Some(Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            host_port: u32::from_le_bytes([h0, h1, h2, h3]),
            guest_port: u32::from_le_bytes([g0, g1, g2, g3]),
        })
    }

    /// The answer: `accepted` goes with a stream, its contrary without.
    #[must_use]
    pub fn answer(self, accepted: bool) -> [u8; ANSWER_BYTES] {
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        let [v0, v1, v2, v3] = u32::from(accepted).to_le_bytes();
        [i0, i1, i2, i3, v0, v1, v2, v3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answers_are_these_bytes() {
        let bytes = [4, 3, 2, 1, 0x50, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let question = Question::decode(&bytes).unwrap();
        assert_eq!(
            question,
            Question {
                id: 0x0102_0304,
                host_port: 80,
                guest_port: u32::MAX
            }
        );
        assert_eq!(question.answer(true), [4, 3, 2, 1, 1, 0, 0, 0]);
        assert_eq!(question.answer(false), [4, 3, 2, 1, 0, 0, 0, 0]);
        for wrong in [0, 1, QUESTION_BYTES - 1, QUESTION_BYTES + 1] {
            assert_eq!(Question::decode(&vec![0; wrong]), None);
        }
    }
}
