//! What was said is sealed, by the content key of its session: results of windows, records, and what was put aside of them.
//!
//!   JSON ─▶ zstd, where that makes it shorter ─▶ sealed as the place it is kept in ─▶ database
//!
//! A store without keys does everything else, and can neither read nor write what was said. The key is made with the
//! session and never again: where it is gone, it was destroyed or lost, and no result of the session can be kept.

use std::io::Read as _;
use std::sync::Arc;

use rusqlite::params;
use rusqlite::types::Value;

use super::sessions::event;
use super::{DamagedRow, KeyError, KeyStore, Store, StoreError};
use crate::clock::WallTime;
use crate::error::ProcessingError;
use crate::keys::{DataKey, Purpose, is_sealed};
use crate::record::Status;
use crate::wire::EventKind;

/// Text of ten minutes takes a millisecond at this level; higher ones gain a few per cent.
const LEVEL: i32 = 3;
/// How every zstd frame begins, and no JSON.
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// More than a session of a day leaves in any one place.
const MAX_BYTES: u64 = 256 << 20;

/// What is told of a session whose content cannot be opened.
const LOST: &str = "What was stored of the session cannot be opened";

/// Where the result of a window is kept.
#[must_use]
pub fn result_place(task: &str, window: u32) -> String {
    format!("work/{task}/{window}")
}

/// Where a record is kept.
#[must_use]
pub fn record_place(revision: u32) -> String {
    format!("record/{revision}")
}

/// Where a value that was put aside is kept.
pub(super) fn aside_place(source: &str, field: &str) -> String {
    format!("quarantine/{source}/{field}")
}

/// Seals JSON for a place.
///
/// # Errors
/// [`StoreError::NotSealed`].
pub fn seal_content(key: &DataKey, place: &str, json: &[u8]) -> Result<Vec<u8>, StoreError> {
    let packed = zstd::bulk::compress(json, LEVEL).ok().filter(|packed| packed.len() < json.len());
    Ok(key.seal(place, packed.as_deref().unwrap_or(json))?)
}

/// Opens what [`seal_content`] gave for a place.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn open_content(key: &DataKey, place: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let opened = key.open(place, sealed).map_err(DamagedRow::Seal)?;
    if !opened.starts_with(&PACKED) {
        return Ok(opened.to_vec());
    }
    let mut json = Vec::new();
    let unpacked = zstd::Decoder::new(&opened[..]).and_then(|unpack| unpack.take(MAX_BYTES).read_to_end(&mut json));
    unpacked.map(|_| json).map_err(|_| DamagedRow::Packed.into())
}

impl StoreError {
    /// Whether what was said in one session cannot be opened or kept, however often it is tried, while others can.
    #[must_use]
    pub fn is_content_lost(&self) -> bool {
        match self {
            Self::ContentGone | Self::Keys(KeyError::DamagedKey(_) | KeyError::OtherBoxKey { .. }) => true,
            Self::Keys(
                KeyError::Sqlite(_)
                | KeyError::Full
                | KeyError::DamagedFile
                | KeyError::BadOwner
                | KeyError::RewriteOwed(_)
                | KeyError::Folder(_)
                | KeyError::Cipher(_),
            )
            | Self::NoKeys
            | Self::NotSealed(_)
            | Self::Sqlite(_)
            | Self::Damaged(_)
            | Self::Folder(_)
            | Self::NoSession => false,
        }
    }
}

impl Store {
    /// The same, for a process that may read and write what was said.
    #[must_use]
    pub fn sealing_with(self, keys: Arc<KeyStore>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    pub(super) fn keys(&self) -> Result<&KeyStore, StoreError> {
        self.keys.as_deref().ok_or(StoreError::NoKeys)
    }

    pub(super) fn content_key(&self, session: &str) -> Result<DataKey, StoreError> {
        self.keys()?.get(session, Purpose::Content)?.ok_or(StoreError::ContentGone)
    }

    pub(super) fn seal(&self, session: &str, place: &str, json: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal_content(&self.content_key(session)?, place, json)
    }

    /// What releases before this one wrote plain is given as it is.
    pub(super) fn open_sealed(&self, session: &str, place: &str, stored: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        if !is_sealed(&stored) {
            return Ok(stored);
        }
        open_content(&self.content_key(session)?, place, &stored)
    }

    /// What is put aside of a damaged value: sealed; nothing, if there is no sealing it.
    pub(super) fn to_put_aside(
        &self,
        session: &str,
        (source, field): (&str, &str),
        value: Value,
    ) -> Result<Value, StoreError> {
        let bytes = match value {
            Value::Blob(bytes) if is_sealed(&bytes) => return Ok(Value::Blob(bytes)),
            Value::Blob(bytes) => bytes,
            Value::Text(text) => text.into_bytes(),
            Value::Null | Value::Integer(_) | Value::Real(_) => return Ok(value),
        };
        match self.seal(session, &aside_place(source, field), &bytes) {
            Ok(sealed) => Ok(Value::Blob(sealed)),
            Err(why) if why.is_content_lost() || matches!(why, StoreError::NoKeys) => Ok(Value::Null),
            Err(why) => Err(why),
        }
    }

    /// Why nothing of a session can be opened or kept any more, if that is so.
    ///
    /// # Errors
    /// [`StoreError`] where that cannot be said.
    pub fn content_trouble(&self, session: &str) -> Result<Option<StoreError>, StoreError> {
        match self.content_key(session) {
            Ok(_) => Ok(None),
            Err(why) if why.is_content_lost() => Ok(Some(why)),
            Err(why) => Err(why),
        }
    }

    /// What was said in a session cannot be opened: if it is in work it becomes a dead letter, and it is not tried again
    /// by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn content_lost(&self, session: &str, why: &StoreError, now: WallTime) -> Result<(), StoreError> {
        let error = ProcessingError {
            error_type: "ProcessingError".into(),
            message: LOST.into(),
            session_id: session.into(),
            error_details: serde_json::Value::Null,
            chain: vec![LOST.into(), crate::error::report(why)],
        };
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute("update sessions set content = 'lost' where id = ?1", [session])?;
        let changed = transaction.execute(
            "update sessions set status = 'failed', error_type = ?2, error_message = ?3, error = ?4, updated_at = ?5
             where id = ?1 and status in ('queued', 'processing', 'postponed')",
            params![session, error.error_type, error.message, serde_json::to_string(&error)?, now.0],
        )?;
        if changed > 0 {
            event(&transaction, now, &EventKind::Session { session: session.into(), status: Status::Failed })?;
        }
        transaction.commit()?;
        Ok(())
    }
}
