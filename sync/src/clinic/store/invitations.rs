//! Invitations: of a one-time code only a hash is kept.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};
use shared::clock::WallTime;

use super::{ClinicStore, ClinicStoreError};

impl ClinicStore {
    /// Keeps an invitation. Earlier ones of the same box that were not used count no more; those that have ended go.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn invite(
        &self,
        code_hash: &[u8; 32],
        box_id: &str,
        expires: WallTime,
        now: WallTime,
    ) -> Result<(), ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let earlier = "delete from invitations where expires_at <= ?2 or (box = ?1 and used_key is null)";
        transaction.execute(earlier, params![box_id, now.to_string()])?;
        transaction.execute(
            "insert into invitations (code_hash, box, expires_at) values (?1, ?2, ?3)",
            params![code_hash, box_id, expires.to_string()],
        )?;
        Ok(transaction.commit()?)
    }

    /// Redeems a code for a box's public key (SHA-256): the box's id. None if there is no such invitation, if it has ended, or
    /// if it was redeemed for another key; for the same key it may be again, as an answer may be lost.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn redeem(
        &self,
        code_hash: &[u8; 32],
        key: &[u8; 32],
        now: WallTime,
    ) -> Result<Option<String>, ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = now.to_string();
        transaction.execute(
            "update invitations set used_key = ?2, used_at = ?3
             where code_hash = ?1 and used_key is null and expires_at > ?3",
            params![code_hash, key, now],
        )?;
        let sql = "select box from invitations where code_hash = ?1 and used_key = ?2 and expires_at > ?3";
        let found = transaction.query_row(sql, params![code_hash, key, now], |row| row.get(0)).optional()?;
        transaction.commit()?;
        Ok(found)
    }
}
