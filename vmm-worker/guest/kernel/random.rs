//! Numbers that look random and are the same for the same seed.

/// Marsaglia's xorshift64: quick, repeatable, and good enough to pick what to do next.
pub struct XorShift(u64);

impl XorShift {
    /// The sequence of `seed`; two seeds that differ in their lowest bit only have the same.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number, never zero.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not zero.
    #[cfg(drivers)]
    pub fn below(&mut self, limit: u64) -> u64 {
        // The low bits of a xorshift are its weakest.
        (self.next() >> 16) % limit
    }
}
