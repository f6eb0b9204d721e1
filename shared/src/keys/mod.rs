//! The keys that make unreadable what a box keeps, and what is sealed with them.
//!
//!   box key (systemd credential) ──wraps──▶ data key of (owner, purpose), in `keys.db` ──seals──▶ text, frames, voices
//!
//! A data key is never on the disk unwrapped, and is destroyed by forgetting its one wrapped copy: what it sealed is
//! noise from then on, wherever copies of it lie. Where the wrapped ones are kept: [`crate::store::KeyStore`].
//!
//! Everything is XChaCha20-Poly1305 with a random nonce of 24 bytes, long enough never to be drawn twice, so that
//! nobody has to remember which were used.

mod box_key;
mod cipher;
mod data_key;
mod source;

use std::fmt;

pub use box_key::{BoxKey, BoxKeyId, BoxKeys, UnwrapError, WrappedKey};
pub use cipher::{CipherError, Opened};
pub use data_key::{DataKey, is_sealed};
pub use source::{BoxKeyError, CREDENTIAL, Found, Origin};

/// What a data key seals. Each of an owner's purposes has a key of its own, so that one can be destroyed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// What was heard in a session: its spool frames.
    Audio,
    /// What was said in a session: text and embeddings.
    Content,
    /// The print of an enrolled voice.
    Voice,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Content, Self::Voice];

    /// As it stands in the database and in what is authenticated.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Content => "content",
            Self::Voice => "voice",
        }
    }

    /// The purpose of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
