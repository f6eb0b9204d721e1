//! A data key and what it seals.
//!
//!   blob:  `RSC1` · nonce (24 bytes) · ciphertext · tag (16 bytes), bound to owner, purpose and what it is
//!   frame: nonce (24 bytes) · ciphertext · tag (16 bytes), bound to owner, purpose and sequence
//!
//! Why a frame carries a random nonce and not its sequence: a power cut may take frame N back out of the file after it
//! was written, and the box then writes another second as N. Two plain texts under one key and nonce give both away to
//! whoever kept the first (the flash does), so the sequence only says which frame it is; it never makes the nonce.

use std::fmt;

use super::cipher::{self, Secret};
use super::{CipherError, Opened, Purpose};

const MARK: &[u8] = b"RSC1";

/// Whether `bytes` were sealed by [`DataKey::seal`], by their mark alone: damaged ones too, so that they are refused as
/// such. JSON never begins so.
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

/// One owner's key for one purpose, unwrapped.
pub struct DataKey {
    owner: String,
    purpose: Purpose,
    secret: Secret,
}

impl DataKey {
    pub(super) fn new(owner: &str, purpose: Purpose, secret: Secret) -> Self {
        Self { owner: owner.into(), purpose, secret }
    }

    /// A key nobody has seen. It lasts as long as this value: [`crate::store::KeyStore::make`] keeps one.
    ///
    /// # Errors
    /// [`CipherError::NoRandomness`].
    pub fn generate(owner: &str, purpose: Purpose) -> Result<Self, CipherError> {
        Ok(Self::new(owner, purpose, cipher::new_secret()?))
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Session id, or the id of an enrolled voice.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Seals `plain`, which opens only as `what`: name the place it is kept in, such as `window 7 transcription`.
    ///
    /// # Errors
    /// [`CipherError::NoRandomness`], [`CipherError::TooLarge`].
    pub fn seal(&self, what: &str, plain: &[u8]) -> Result<Vec<u8>, CipherError> {
        cipher::seal(&self.secret, MARK, &self.about_blob(what), plain)
    }

    /// Opens what [`DataKey::seal`] gave for `what`.
    ///
    /// # Errors
    /// [`CipherError::Malformed`], [`CipherError::Forged`].
    pub fn open(&self, what: &str, sealed: &[u8]) -> Result<Opened, CipherError> {
        cipher::open(&self.secret, MARK, &self.about_blob(what), sealed)
    }

    /// Seals the audio of one spool frame as the one with that number.
    ///
    /// # Errors
    /// [`CipherError::NoRandomness`], [`CipherError::TooLarge`].
    pub fn seal_frame(&self, sequence: u64, plain: &[u8]) -> Result<Vec<u8>, CipherError> {
        cipher::seal(&self.secret, b"", &self.about_frame(sequence), plain)
    }

    /// Opens what [`DataKey::seal_frame`] gave for that number.
    ///
    /// # Errors
    /// [`CipherError::Malformed`], [`CipherError::Forged`].
    pub fn open_frame(&self, sequence: u64, sealed: &[u8]) -> Result<Opened, CipherError> {
        cipher::open(&self.secret, b"", &self.about_frame(sequence), sealed)
    }

    fn about_blob(&self, what: &str) -> String {
        format!("roomscribe content v1\n{}\n{}\n{what}", self.owner, self.purpose)
    }

    fn about_frame(&self, sequence: u64) -> String {
        format!("roomscribe frame v1\n{}\n{}\n{sequence}", self.owner, self.purpose)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({} {})", self.owner, self.purpose)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &[u8] = b"{\"text\":\"good morning\"}";

    fn key(owner: &str, purpose: Purpose) -> DataKey {
        DataKey::generate(owner, purpose).unwrap()
    }

    /// The same secret under another name: what a thief who can rename rows would make of it.
    fn passed_off(key: &DataKey, owner: &str, purpose: Purpose) -> DataKey {
        DataKey::new(owner, purpose, key.secret.clone())
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_as_it_was(
            plain in proptest::collection::vec(any::<u8>(), 0..5000), what in ".{0,40}", sequence: u64,
        ) {
            let key = key("s", Purpose::Content);
            let blob = key.seal(&what, &plain).unwrap();
            prop_assert!(is_sealed(&blob));
            prop_assert_eq!(blob.len(), plain.len() + 4 + 24 + 16);
            prop_assert!(key.open(&what, &blob).unwrap()[..] == plain[..]);
            let frame = key.seal_frame(sequence, &plain).unwrap();
            prop_assert_eq!(frame.len(), plain.len() + 24 + 16);
            prop_assert!(key.open_frame(sequence, &frame).unwrap()[..] == plain[..]);
        }

        #[test]
        fn bytes_that_nobody_sealed_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = key("s", Purpose::Content);
            prop_assert!(key.open("x", &bytes).is_err());
            prop_assert!(key.open("x", &[MARK, &bytes].concat()).is_err());
            prop_assert!(key.open_frame(0, &bytes).is_err());
        }
    }

    #[test]
    fn every_altered_bit_and_every_cut_is_refused() {
        let key = key("s", Purpose::Content);
        let (blob, frame) = (key.seal("x", PLAIN).unwrap(), key.seal_frame(1, PLAIN).unwrap());
        for at in 0..blob.len() * 8 {
            let mut bad = blob.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let expected = if at / 8 < MARK.len() { CipherError::Malformed } else { CipherError::Forged };
            assert_eq!(key.open("x", &bad), Err(expected), "bit {at}");
        }
        for at in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(key.open_frame(1, &bad), Err(CipherError::Forged), "bit {at}");
        }
        for length in 0..blob.len() {
            let expected = if length < 4 + 24 + 16 { CipherError::Malformed } else { CipherError::Forged };
            assert_eq!(key.open("x", &blob[..length]), Err(expected), "length {length}");
        }
        for length in 0..frame.len() {
            assert!(key.open_frame(1, &frame[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_blob_cannot_be_passed_off_as_another_owners_purposes_or_things() {
        let mine = key("s", Purpose::Content);
        let blob = mine.seal("x", PLAIN).unwrap();
        assert_eq!(mine.open("y", &blob), Err(CipherError::Forged));
        assert_eq!(passed_off(&mine, "t", Purpose::Content).open("x", &blob), Err(CipherError::Forged));
        assert_eq!(passed_off(&mine, "s", Purpose::Audio).open("x", &blob), Err(CipherError::Forged));
        assert_eq!(key("s", Purpose::Content).open("x", &blob), Err(CipherError::Forged));
        assert!(passed_off(&mine, "s", Purpose::Content).open("x", &blob).is_ok(), "the names are all that differed");
    }

    #[test]
    fn a_frame_is_only_itself() {
        let mine = key("s", Purpose::Audio);
        let frame = mine.seal_frame(7, PLAIN).unwrap();
        assert_eq!(mine.open_frame(8, &frame), Err(CipherError::Forged));
        assert_eq!(passed_off(&mine, "t", Purpose::Audio).open_frame(7, &frame), Err(CipherError::Forged));
        assert_eq!(mine.open("7", &[MARK, &frame].concat()), Err(CipherError::Forged), "nor is it a blob");
    }

    #[test]
    fn a_frame_written_again_after_a_power_cut_shares_no_nonce_with_the_first() {
        let mine = key("s", Purpose::Audio);
        let (first, again) = (mine.seal_frame(7, PLAIN).unwrap(), mine.seal_frame(7, PLAIN).unwrap());
        assert_ne!(first[..24], again[..24]);
        assert_ne!(first[24..], again[24..], "the same second is not seen to be the same");
    }

    /// Made by libsodium (PyNaCl 1.6.2) with key 00 01 … 1f and nonce 64 65 … 7b: what lies on a card opens for ever.
    #[test]
    fn what_another_implementation_sealed_opens() {
        let secret = || Secret::new(zeroize::Zeroizing::new(std::array::from_fn(|i| i as u8)));
        let nonce = "6465666768696a6b6c6d6e6f707172737475767778797a7b";
        let blob = format!("52534331{nonce}1b1c96d4df43e6f0e959f35836b2d977ce4674421b1863183b1f8987");
        let opened = DataKey::new("s", Purpose::Content, secret()).open("window 7", &hex::decode(blob).unwrap());
        assert!(opened.unwrap()[..] == b"good morning"[..]);
        let frame = format!("{nonce}1b1c96d4df43e6f0e959f358bf88b3d13d232d8ebb880bf07bdb4f75");
        let opened = DataKey::new("s", Purpose::Audio, secret()).open_frame(7, &hex::decode(frame).unwrap());
        assert!(opened.unwrap()[..] == b"good morning"[..]);
    }

    #[test]
    fn sealed_is_told_from_plain_json() {
        assert!(is_sealed(&key("s", Purpose::Content).seal("x", b"").unwrap()));
        assert!(is_sealed(b"RSC1"), "a damaged one is not taken for JSON");
        for plain in ["", "{}", "[1]", "\"RSC1\"", "null", " RSC1", "RSC"] {
            assert!(!is_sealed(plain.as_bytes()), "{plain}");
        }
    }

    #[test]
    fn nothing_of_a_key_or_of_what_was_opened_is_printed() {
        let mine = key("s", Purpose::Content);
        assert_eq!(format!("{mine:?}"), "DataKey(s content)");
        let opened = mine.open("x", &mine.seal("x", PLAIN).unwrap());
        assert_eq!(format!("{opened:?}"), "Ok(Opened(23 bytes))");
    }
}
