//! The box key: it wraps data keys and seals nothing else.
//!
//!   file:        text, one key a line: `roomscribe-box-key-v1 <64 hexadecimal digits>`
//!   wrapped key: `RSK1` · id of the box key (16 bytes) · nonce (24 bytes) · ciphertext (32 bytes) · tag (16 bytes)
//!
//! The first key of the file wraps, all of them unwrap: to change keys, put the new one first, wrap all anew
//! ([`crate::store::KeyStore::rewrap`]), then drop the old one.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::cipher::{self, OVERHEAD_BYTES, SECRET_BYTES, Secret};
use super::{BoxKeyError, CipherError, DataKey, Purpose};

const LINE: &str = "roomscribe-box-key-v1 ";
const MARK: &[u8; 4] = b"RSK1";
const ID_BYTES: usize = 16;
/// A rotation needs two; more than this is not a key file.
const MAX_KEYS: usize = 16;
/// What a key file may be at most: room for [`MAX_KEYS`] lines with spaces around them.
pub(super) const MAX_FILE_BYTES: usize = 2048;

/// Why a data key could not be unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// Not a wrapped key of version 1.
    #[error("The wrapped key is malformed")]
    Malformed,
    /// Altered, or passed off as another's.
    #[error("The wrapped key does not authenticate")]
    Forged,
    /// Wrapped by a box key that is not in the key file.
    #[error("The key is wrapped by a box key that is not here")]
    OtherBoxKey {
        /// The one that is needed.
        needs: BoxKeyId,
    },
}

/// Names a box key without telling anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxKeyId([u8; ID_BYTES]);

impl fmt::Display for BoxKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A data key as it may lie on the disk.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// As read from where [`WrappedKey::bytes`] were kept.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// To be kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Which box key unwraps it; none if it is malformed.
    #[must_use]
    pub fn box_key(&self) -> Option<BoxKeyId> {
        if self.0.len() != MARK.len() + ID_BYTES + OVERHEAD_BYTES + SECRET_BYTES {
            return None;
        }
        self.0.strip_prefix(MARK)?.first_chunk().copied().map(BoxKeyId)
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({} bytes)", self.0.len())
    }
}

/// One key that wraps others.
pub struct BoxKey {
    id: BoxKeyId,
    secret: Secret,
}

impl BoxKey {
    fn new(secret: Secret) -> Self {
        let digest = Sha256::new().chain_update("roomscribe box key id v1\n").chain_update(&secret[..]).finalize();
        Self { id: BoxKeyId(std::array::from_fn(|i| digest[i])), secret }
    }

    /// A key nobody has seen.
    ///
    /// # Errors
    /// [`CipherError::NoRandomness`].
    pub fn generate() -> Result<Self, CipherError> {
        Ok(Self::new(cipher::new_secret()?))
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> BoxKeyId {
        self.id
    }

    /// Its line of a key file: the secret itself, for whoever makes the credential.
    #[must_use]
    pub fn line(&self) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; SECRET_BYTES * 2]);
        // Cannot fail: the room is exact. Were it wrong, the line would not parse.
        let _ = hex::encode_to_slice(&self.secret[..], &mut digits[..]);
        let mut line = Zeroizing::new(String::with_capacity(LINE.len() + digits.len() + 1));
        line.push_str(LINE);
        line.extend(digits.iter().map(|&digit| char::from(digit)));
        line.push('\n');
        line
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut secret = Secret::default();
        hex::decode_to_slice(line.strip_prefix(LINE)?.trim_start(), &mut secret[..]).ok()?;
        Some(Self::new(secret))
    }

    fn mark(&self) -> Vec<u8> {
        [MARK, &self.id.0[..]].concat()
    }
}

impl fmt::Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxKey({})", self.id)
    }
}

/// The box keys that are here: the first wraps, all unwrap.
#[derive(Debug)]
pub struct BoxKeys {
    first: BoxKey,
    older: Vec<BoxKey>,
}

impl BoxKeys {
    /// One key alone.
    #[must_use]
    pub fn only(first: BoxKey) -> Self {
        Self { first, older: Vec::new() }
    }

    /// The keys of a key file, in its order. Empty lines mean nothing.
    ///
    /// # Errors
    /// [`BoxKeyError::Malformed`], [`BoxKeyError::Empty`], [`BoxKeyError::TooMany`].
    pub fn parse(text: &str) -> Result<Self, BoxKeyError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() {
                keys.push(BoxKey::from_line(line).ok_or(BoxKeyError::Malformed { line: index + 1 })?);
            }
        }
        if keys.len() > MAX_KEYS {
            return Err(BoxKeyError::TooMany);
        }
        let mut keys = keys.into_iter();
        Ok(Self { first: keys.next().ok_or(BoxKeyError::Empty)?, older: keys.collect() })
    }

    /// The key that wraps.
    #[must_use]
    pub fn first(&self) -> BoxKeyId {
        self.first.id
    }

    /// All of them, the one that wraps first.
    pub fn ids(&self) -> impl Iterator<Item = BoxKeyId> {
        self.keys().map(BoxKey::id)
    }

    fn keys(&self) -> impl Iterator<Item = &BoxKey> {
        std::iter::once(&self.first).chain(&self.older)
    }

    /// Wraps a key by the first box key.
    ///
    /// # Errors
    /// [`CipherError::NoRandomness`].
    pub fn wrap(&self, key: &DataKey) -> Result<WrappedKey, CipherError> {
        let about = about(key.owner(), key.purpose());
        cipher::seal(&self.first.secret, &self.first.mark(), &about, &key.secret()[..]).map(WrappedKey)
    }

    /// Unwraps the key of that owner and purpose.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap(&self, wrapped: &WrappedKey, owner: &str, purpose: Purpose) -> Result<DataKey, UnwrapError> {
        let needs = wrapped.box_key().ok_or(UnwrapError::Malformed)?;
        let by = self.keys().find(|key| key.id == needs).ok_or(UnwrapError::OtherBoxKey { needs })?;
        let plain = cipher::open(&by.secret, &by.mark(), &about(owner, purpose), &wrapped.0)
            .map_err(|_| UnwrapError::Forged)?;
        let mut secret = Secret::default();
        secret.copy_from_slice(plain.first_chunk::<SECRET_BYTES>().ok_or(UnwrapError::Malformed)?);
        Ok(DataKey::new(owner, purpose, secret))
    }
}

fn about(owner: &str, purpose: Purpose) -> String {
    format!("roomscribe key v1\n{owner}\n{purpose}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> BoxKeys {
        BoxKeys::only(BoxKey::generate().unwrap())
    }

    fn key() -> DataKey {
        DataKey::generate("s", Purpose::Content).unwrap()
    }

    #[test]
    fn a_wrapped_key_is_the_key_it_was() {
        let (boxes, key) = (fresh(), key());
        let blob = key.seal("x", b"good morning").unwrap();
        let wrapped = WrappedKey::from_bytes(boxes.wrap(&key).unwrap().bytes().to_vec());
        assert_eq!(wrapped.box_key(), Some(boxes.first()));
        let back = boxes.unwrap(&wrapped, "s", Purpose::Content).unwrap();
        assert!(back.open("x", &blob).unwrap()[..] == b"good morning"[..]);
        assert!(!wrapped.bytes().windows(8).any(|part| key.secret().windows(8).any(|secret| secret == part)));
    }

    #[test]
    fn every_altered_bit_and_every_cut_of_a_wrapped_key_is_refused() {
        let boxes = fresh();
        let wrapped = boxes.wrap(&key()).unwrap();
        for at in 0..wrapped.0.len() * 8 {
            let mut bad = wrapped.clone();
            bad.0[at / 8] ^= 1 << (at % 8);
            let why = boxes.unwrap(&bad, "s", Purpose::Content).unwrap_err();
            let is_as_expected = match at / 8 {
                0..4 => why == UnwrapError::Malformed,
                4..20 => matches!(why, UnwrapError::OtherBoxKey { .. }),
                _ => why == UnwrapError::Forged,
            };
            assert!(is_as_expected, "bit {at}: {why:?}");
        }
        for length in 0..wrapped.0.len() {
            let cut = WrappedKey(wrapped.0[..length].to_vec());
            assert_eq!(boxes.unwrap(&cut, "s", Purpose::Content).unwrap_err(), UnwrapError::Malformed);
        }
    }

    #[test]
    fn a_wrapped_key_cannot_be_passed_off_as_another_owners_or_purposes() {
        let boxes = fresh();
        let wrapped = boxes.wrap(&key()).unwrap();
        assert_eq!(boxes.unwrap(&wrapped, "t", Purpose::Content).unwrap_err(), UnwrapError::Forged);
        assert_eq!(boxes.unwrap(&wrapped, "s", Purpose::Audio).unwrap_err(), UnwrapError::Forged);
    }

    #[test]
    fn a_key_of_another_box_says_which_box_key_it_needs() {
        let (mine, other) = (fresh(), fresh());
        let wrapped = other.wrap(&key()).unwrap();
        let why = mine.unwrap(&wrapped, "s", Purpose::Content).unwrap_err();
        assert_eq!(why, UnwrapError::OtherBoxKey { needs: other.first() });
    }

    #[test]
    fn the_first_key_of_a_file_wraps_and_all_unwrap() {
        let (old, new) = (BoxKey::generate().unwrap(), BoxKey::generate().unwrap());
        let both = BoxKeys::parse(&format!("{}\n  {}\r\n", *new.line(), old.line().trim())).unwrap();
        assert_eq!(both.ids().collect::<Vec<_>>(), [new.id(), old.id()]);
        let wrapped = BoxKeys::only(old).wrap(&key()).unwrap();
        assert!(both.unwrap(&wrapped, "s", Purpose::Content).is_ok());
        assert_eq!(both.wrap(&key()).unwrap().box_key(), Some(new.id()));
    }

    #[test]
    fn a_key_file_that_is_not_one_names_its_line_and_shows_nothing_of_it() {
        let line = BoxKey::generate().unwrap().line().trim().to_owned();
        let bad = [
            line[..line.len() - 1].to_owned(),
            format!("{line}0"),
            line.replace("v1", "v2"),
            line.to_uppercase(),
            format!("{line} {line}"),
            "secret".into(),
        ];
        for bad in bad {
            let why = BoxKeys::parse(&format!("{line}\n\n{bad}\n")).unwrap_err();
            assert!(matches!(why, BoxKeyError::Malformed { line: 3 }), "{why:?}");
        }
        assert!(matches!(BoxKeys::parse(" \n\n"), Err(BoxKeyError::Empty)));
        assert!(matches!(BoxKeys::parse(&format!("{line}\n").repeat(17)), Err(BoxKeyError::TooMany)));
        assert!(line.len() + 3 <= MAX_FILE_BYTES / MAX_KEYS);
    }

    #[test]
    fn nothing_of_a_box_key_or_of_a_wrapped_key_is_printed() {
        let boxes = fresh();
        let printed = format!("{boxes:?} {:?}", boxes.wrap(&key()).unwrap());
        let digits = &boxes.first.line()[LINE.len()..];
        assert!(!digits.trim().as_bytes().windows(8).any(|part| printed.contains(std::str::from_utf8(part).unwrap())));
        assert!(printed.ends_with("WrappedKey(92 bytes)"), "{printed}");
    }

    /// Made by libsodium (PyNaCl 1.6.2): box key c8 c9 … e7, nonce 64 65 … 7b, data key 00 01 … 1f.
    #[test]
    fn what_another_implementation_wrapped_is_unwrapped() {
        let boxes = BoxKeys::parse(&format!("{LINE}{}", hex::encode((200..232).collect::<Vec<u8>>()))).unwrap();
        let wrapped = "52534b317d479150e4f7d82ff0b02ae9f67f10516465666768696a6b6c6d6e6f707172737475767778797a7b\
                       6fb6a72946924888c4fc8799eed3677d23d9f5410024edcff53970037dd23b9296b1a2c4f894c6d1370186b57e3c12e3";
        let wrapped = WrappedKey::from_bytes(hex::decode(wrapped).unwrap());
        let key = boxes.unwrap(&wrapped, "s", Purpose::Content).unwrap();
        assert!(key.secret().iter().copied().eq(0..32));
    }

    #[test]
    fn a_box_keys_name_is_always_the_same() {
        let line = format!("{LINE}{}", "00".repeat(32));
        let expected = &crate::seal::sha256(&[&b"roomscribe box key id v1\n"[..], &[0; 32]].concat())[..32];
        assert_eq!(BoxKeys::parse(&line).unwrap().first().to_string(), expected);
    }
}
