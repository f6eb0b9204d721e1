//! Invitations: of a one-time code only a hash is kept, in hexadecimal.

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
        let (hash, expires, now) = (hex::encode(code_hash), expires.to_string(), now.to_string());
        self.alone(box_id, |transaction| {
            let earlier = "delete from invitations where expires_at <= ?2 or (box = ?1 and used_key is null)";
            transaction.run(earlier, &[box_id.into(), now.as_str().into()])?;
            transaction.run(
                "insert into invitations (code_hash, box, expires_at) values (?1, ?2, ?3)",
                &[hash.as_str().into(), box_id.into(), expires.as_str().into()],
            )?;
            Ok(())
        })
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
        let (hash, key, now) = (hex::encode(code_hash), hex::encode(key), now.to_string());
        let values = [hash.as_str().into(), key.as_str().into(), now.as_str().into()];
        self.run(
            "update invitations set used_key = ?2, used_at = ?3
             where code_hash = ?1 and used_key is null and expires_at > ?3",
            &values,
        )?;
        let sql = "select box from invitations where code_hash = ?1 and used_key = ?2 and expires_at > ?3";
        self.ask(sql, &values)?.into_iter().next().map(|mut row| row.text()).transpose()
    }
}
