//! The one cipher of the box and its randomness. A sealed thing is: nonce (24 bytes) · ciphertext · tag (16 bytes).

use std::fmt;
use std::ops::Deref;

use chacha20poly1305::{AeadInPlace as _, Key, KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use rand::TryRngCore as _;
use zeroize::Zeroizing;

/// Of every key.
pub(super) const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// What sealing adds to what is sealed.
pub(super) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A key's bytes. Boxed, so that moving a key leaves no copy of it behind; zeroed where it is dropped.
pub(super) type Secret = Box<Zeroizing<[u8; SECRET_BYTES]>>;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// Too short, or without the mark of this version.
    #[error("The sealed bytes are malformed")]
    Malformed,
    /// Altered, sealed with another key, or passed off as another thing.
    #[error("The sealed bytes do not authenticate")]
    Forged,
    /// More than the cipher can seal at once (256 GiB).
    #[error("There is too much to seal at once")]
    TooLarge,
    /// The system gives no random numbers; nothing may be sealed without.
    #[error("The system gives no random numbers")]
    NoRandomness,
}

/// What was opened: zeroed where it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened(Zeroizing<Vec<u8>>);

impl Deref for Opened {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({} bytes)", self.0.len())
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), CipherError> {
    rand::rngs::OsRng.try_fill_bytes(bytes).map_err(|_| CipherError::NoRandomness)
}

/// A key nobody has seen.
pub(super) fn new_secret() -> Result<Secret, CipherError> {
    let mut secret = Secret::default();
    fill(&mut secret[..])?;
    Ok(secret)
}

fn cipher(secret: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(&secret[..]))
}

/// `mark`, then `plain` sealed so that it opens only with the same key and `about`.
pub(super) fn seal(secret: &Secret, mark: &[u8], about: &str, plain: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce)?;
    // Room for all of it from the start: growing would leave copies of the plain bytes in freed memory.
    let mut sealed = Vec::with_capacity(mark.len() + plain.len() + OVERHEAD_BYTES);
    sealed.extend_from_slice(mark);
    sealed.extend_from_slice(&nonce);
    let start = sealed.len();
    sealed.extend_from_slice(plain);
    let tag = cipher(secret)
        .encrypt_in_place_detached(XNonce::from_slice(&nonce), about.as_bytes(), &mut sealed[start..])
        .map_err(|_| CipherError::TooLarge)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The inverse of [`seal`].
pub(super) fn open(secret: &Secret, mark: &[u8], about: &str, sealed: &[u8]) -> Result<Opened, CipherError> {
    let rest = sealed.strip_prefix(mark).ok_or(CipherError::Malformed)?;
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES).ok_or(CipherError::Malformed)?;
    let length = rest.len().checked_sub(TAG_BYTES).ok_or(CipherError::Malformed)?;
    let (ciphertext, tag) = rest.split_at(length);
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    cipher(secret)
        .decrypt_in_place_detached(XNonce::from_slice(nonce), about.as_bytes(), &mut plain, Tag::from_slice(tag))
        .map_err(|_| CipherError::Forged)?;
    Ok(Opened(plain))
}
