//! The one-time code by which a box is enrolled: a secret, and by what the box knows the clinic's authority.
//!
//! 20 bytes in base 32 (RFC 4648), in groups of four: ten random bytes, then the first ten of the SHA-256 of the authority's
//! certificate. Nobody guesses the first within its lifetime, and nobody makes another certificate that has the second: eighty
//! bits each. What people confuse is read as what it can only be: 0 as O, 1 as I, 8 as B.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};

/// Bytes of each half.
const HALF: usize = 10;
/// Signs of a group.
const GROUP: usize = 4;

/// A code. It is a secret until it was used.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    secret: [u8; HALF],
    authority: [u8; HALF],
}

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a code has eight groups of four letters and digits, as roomscribe-clinic invite prints it; this has another form"
)]
pub struct NoCode;

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

impl Code {
    /// A new one, for the authority whose certificate has this SHA-256.
    ///
    /// # Errors
    /// Of the system's random numbers.
    pub fn generate(authority: &[u8; 32]) -> Result<Self, rand::rand_core::OsError> {
        let mut secret = [0; HALF];
        rand::rngs::OsRng.try_fill_bytes(&mut secret)?;
        let mut known = [0; HALF];
        known.copy_from_slice(&authority[..HALF]);
        Ok(Self { secret, authority: known })
    }

    /// What the clinic keeps of it, and the box shows: nobody gets the code from that.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// What the box sends: the secret in base 32.
    #[must_use]
    pub fn secret(&self) -> String {
        BASE32_NOPAD.encode(&self.secret)
    }

    /// Whether an authority is the one that is meant, by the SHA-256 of its certificate.
    #[must_use]
    pub fn knows(&self, authority: &[u8; 32]) -> bool {
        self.authority == authority[..HALF]
    }
}

/// The hash of a secret as a box sent it; nothing if it is none.
#[must_use]
pub fn hash_of(secret: &str) -> Option<[u8; 32]> {
    let bytes = BASE32_NOPAD.decode(secret.as_bytes()).ok().filter(|bytes| bytes.len() == HALF)?;
    Some(Sha256::digest(bytes).into())
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&[self.secret, self.authority].concat());
        for (at, sign) in text.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{sign}")?;
        }
        Ok(())
    }
}

impl FromStr for Code {
    type Err = NoCode;

    fn from_str(text: &str) -> Result<Self, NoCode> {
        let signs = text.chars().filter(|sign| !matches!(sign, '-' | ' '));
        let plain: String = signs
            .map(|sign| match sign.to_ascii_uppercase() {
                '0' => 'O',
                '1' => 'I',
                '8' => 'B',
                other => other,
            })
            .collect();
        let bytes = BASE32_NOPAD.decode(plain.as_bytes()).map_err(|_| NoCode)?;
        let (secret, authority) = bytes.split_at_checked(HALF).ok_or(NoCode)?;
        let half = |bytes: &[u8]| bytes.try_into().map_err(|_| NoCode);
        Ok(Self { secret: half(secret)?, authority: half(authority)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = Code::generate(&[7; 32]).unwrap();
        let text = code.to_string();
        assert_eq!((text.len(), text.split('-').count()), (39, 8));
        assert_eq!(text.parse(), Ok(code.clone()));
        assert_eq!(text.to_lowercase().replace('-', " ").replace('o', "0").replace('i', "1").parse(), Ok(code.clone()));
        assert_eq!(hash_of(&code.secret()), Some(code.hash()));
        assert!(code.knows(&[7; 32]) && !code.knows(&[8; 32]));
        assert_ne!(Code::generate(&[7; 32]).unwrap(), code);
    }

    #[test]
    fn what_is_no_code_is_none() {
        for bad in ["", "ABCD", "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-456?", &"A".repeat(40), "ä"] {
            assert_eq!(bad.parse::<Code>(), Err(NoCode), "{bad}");
        }
        assert_eq!(hash_of("AAAA"), None);
    }
}
