//! The prints of enrolled voices, as they lie in the database: sealed.

use rusqlite::{TransactionBehavior, params};

use super::audit::{Action, By, tell};
use super::{Store, StoreError};
use crate::clock::WallTime;

/// One print.
#[derive(Clone)]
pub struct SealedVoice {
    /// UUID; the owner of its key.
    pub id: String,
    /// When it was made.
    pub made_at: WallTime,
    /// Sealed.
    pub print: Vec<u8>,
}

impl Store {
    /// Keeps a print.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_voice(&self, voice: &SealedVoice, by: By) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "insert into voices (id, made_at, print) values (?1, ?2, ?3)",
            params![voice.id, voice.made_at.0, voice.print],
        )?;
        tell(&transaction, by, Action::VoiceEnrolled, &voice.id)?;
        transaction.commit()?;
        Ok(())
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn voices(&self) -> Result<Vec<SealedVoice>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select id, made_at, print from voices order by made_at, id")?;
        let voices = statement.query_map([], |row| {
            Ok(SealedVoice { id: row.get(0)?, made_at: WallTime(row.get(1)?), print: row.get(2)? })
        })?;
        Ok(voices.collect::<Result<_, _>>()?)
    }

    /// Forgets a print; whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_voice(&self, id: &str, by: By) -> Result<bool, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let had_one = transaction.execute("delete from voices where id = ?1", [id])? > 0;
        if had_one {
            tell(&transaction, by, Action::VoiceDestroyed, id)?;
        }
        transaction.commit()?;
        Ok(had_one)
    }
}
