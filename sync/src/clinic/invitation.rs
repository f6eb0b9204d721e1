//! Inviting a box by a one-time code.

use std::time::Duration;

use shared::clock::WallTime;

use super::settings::ClinicSettingsError;
use super::setup::check_box_id;
use super::store::{ClinicStore, ClinicStoreError};
use crate::code::Code;
use crate::pki::{self, Authority, PkiError};

/// How long a code may be redeemed: a technician comes on the day after, too.
pub const LIFETIME: Duration = Duration::from_secs(48 * 3600);

/// Why a box cannot be invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// No box can be called so.
    #[error(transparent)]
    Name(#[from] ClinicSettingsError),
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Chance(#[from] rand::rand_core::OsError),
    /// See [`ClinicStoreError`].
    #[error(transparent)]
    Store(#[from] ClinicStoreError),
}

/// Makes a code for a box, and keeps what it takes to know it again.
///
/// # Errors
/// [`InviteError`].
pub fn invite(store: &ClinicStore, authority: &Authority, box_id: &str, now: WallTime) -> Result<Code, InviteError> {
    check_box_id(box_id)?;
    let code = Code::generate(&pki::fingerprint(authority.certificate())?)?;
    store.invite(&code.hash(), box_id, now.plus(LIFETIME), now)?;
    Ok(code)
}
