//! Tokens: 256 random bits, of which only a hash is kept.
//!
//! Nobody guesses them, so a fast hash is enough.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};

const BYTES: usize = 32;

/// A token. It is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; BYTES]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// Of the system's random numbers.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        let mut bytes = [0; BYTES];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// As it stands in a cookie, a form or a header.
    #[must_use]
    pub fn text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// From there; nothing if it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_shows_itself_nowhere_else() {
        let token = Token::generate().unwrap();
        assert_eq!(token.text().len(), 43);
        assert_eq!(Token::read(&token.text()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_ne!(Token::generate().unwrap().hash(), token.hash());
        for bad in ["", "AAAA", &"A".repeat(44), "ä"] {
            assert_eq!(Token::read(bad), None, "{bad}");
        }
    }
}
