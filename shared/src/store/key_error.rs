//! What can be wrong with the store of wrapped keys, and what to do about it. Nothing of a key is in any of it.

use std::io;

use rusqlite::ErrorCode;

use crate::keys::{BoxKeyId, CipherError, UnwrapError};

/// Why a key could not be made, found or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// SQLite said no.
    #[error("The key store could not be used")]
    Sqlite(#[source] rusqlite::Error),
    /// There is no room; everything is as it was.
    #[error("There is no room for the key store")]
    Full,
    /// The file is not a key store, or not whole.
    #[error("The key store is damaged")]
    DamagedFile,
    /// One key is not what was kept; the others may be well.
    #[error("A key of the key store is damaged")]
    DamagedKey(#[source] UnwrapError),
    /// Wrapped by a box key that is not here.
    #[error("The key is wrapped by a box key that is not here")]
    OtherBoxKey {
        /// The one that is needed.
        needs: BoxKeyId,
    },
    /// Not the id of a session or voice.
    #[error("The key's owner is not an id")]
    BadOwner,
    /// The change is made and lasts, but the file is not rewritten yet: bytes of the old key may be in it. The next
    /// destruction or opening tries again.
    #[error("The key store has still to be rewritten")]
    RewriteOwed(#[source] rusqlite::Error),
    /// The folder or file cannot be made.
    #[error("The key store could not be made")]
    Folder(#[source] io::Error),
    /// Keys cannot be drawn or wrapped.
    #[error("The key could not be wrapped")]
    Cipher(#[from] CipherError),
}

impl KeyError {
    /// What a person does about it: a constant sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Sqlite(_) | Self::RewriteOwed(_) => {
                "Try again; if it stays so, see that only this box uses its data folder and that its disk is well."
            }
            Self::Full => "Make room on the disk of the data folder.",
            Self::DamagedFile => "Restore keys.db from before; without it, what its keys sealed stays unreadable.",
            Self::DamagedKey(_) => {
                "What this key sealed stays unreadable: destroy the key, or restore keys.db from before."
            }
            Self::OtherBoxKey { .. } => "Add the box key of that id to the key file, below the first line.",
            Self::BadOwner => "Use the id of a session or of an enrolled voice.",
            Self::Folder(_) => "See that the data folder can be written by the service's user.",
            Self::Cipher(_) => "See that the system has a random number generator.",
        }
    }
}

impl From<rusqlite::Error> for KeyError {
    fn from(why: rusqlite::Error) -> Self {
        match why.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::DamagedFile,
            Some(_) | None => Self::Sqlite(why),
        }
    }
}

impl From<io::Error> for KeyError {
    fn from(why: io::Error) -> Self {
        if why.kind() == io::ErrorKind::StorageFull { Self::Full } else { Self::Folder(why) }
    }
}

impl From<UnwrapError> for KeyError {
    fn from(why: UnwrapError) -> Self {
        match why {
            UnwrapError::OtherBoxKey { needs } => Self::OtherBoxKey { needs },
            UnwrapError::Malformed | UnwrapError::Forged => Self::DamagedKey(why),
        }
    }
}
