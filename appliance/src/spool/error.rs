//! Why a recording cannot be read or written, and what follows from that.

use std::io;

use shared::keys::CipherError;
use shared::store::KeyError;

/// What can be wrong with a session's spool file.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system said no.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// It is something else, or of a version that is not known here.
    #[error("This is not a recording of a known version")]
    NotASpool,
    /// Its key is not in the key store: destroyed.
    #[error("The recording is destroyed: its key is gone")]
    Gone,
    /// It is plain, and the session's recording is sealed.
    #[error("The recording is not the one that was begun")]
    Unsealed,
    /// A frame is no longer what was read before.
    #[error("The recording changed while it was read")]
    Altered,
    /// Its key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A frame cannot be sealed.
    #[error("The recording could not be sealed")]
    Seal(#[from] CipherError),
}

impl SpoolError {
    /// Whether nothing of the recording can ever be read, whoever tries.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::NotASpool | Self::Gone | Self::Unsealed => true,
            Self::Disk(why) => why.kind() == io::ErrorKind::NotFound,
            Self::Altered | Self::Key(_) | Self::Seal(_) => false,
        }
    }

    /// Whether it says nothing about the recording and passes by itself.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NotASpool | Self::Gone | Self::Unsealed | Self::Altered | Self::Seal(_) => false,
            Self::Disk(why) => why.kind() != io::ErrorKind::NotFound,
            Self::Key(why) => match why {
                KeyError::Sqlite(_) | KeyError::Full | KeyError::RewriteOwed(_) | KeyError::Folder(_) => true,
                KeyError::DamagedFile
                | KeyError::DamagedKey(_)
                | KeyError::OtherBoxKey { .. }
                | KeyError::BadOwner
                | KeyError::Cipher(_) => false,
            },
        }
    }

    /// A few words for a record, without a path.
    #[must_use]
    pub fn problem(&self) -> String {
        match self {
            Self::Disk(why) => why.kind().to_string(),
            Self::NotASpool | Self::Gone | Self::Unsealed | Self::Altered | Self::Key(_) | Self::Seal(_) => {
                self.to_string()
            }
        }
    }
}

impl From<SpoolError> for io::Error {
    fn from(why: SpoolError) -> Self {
        match why {
            SpoolError::Disk(why) => why,
            SpoolError::NotASpool
            | SpoolError::Gone
            | SpoolError::Unsealed
            | SpoolError::Altered
            | SpoolError::Key(_)
            | SpoolError::Seal(_) => Self::other(why),
        }
    }
}
