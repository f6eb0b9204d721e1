//! What is done with bytes that nobody meant to send: by libFuzzer (`./dev fuzz`) with millions of inputs, and
//! by every test run with those of the corpus. Each target asserts more than that nothing panics.

#![allow(clippy::expect_used, clippy::panic, reason = "what may not be is told by a panic")]

pub mod control;
pub mod decode;
pub mod frame;
pub mod parcel;

/// Something that takes any bytes.
pub trait Target {
    /// Makes what is used again and again.
    ///
    /// # Panics
    /// If there is no room for it.
    fn new() -> Self;

    /// Does one thing with one input.
    ///
    /// # Panics
    /// If what came of it may not be.
    fn run(&mut self, input: &[u8]);
}

/// Hands out an input piece by piece; what is not there any more is zero.
struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }
}
