//! `roomscribe audit`, with or without a daemon: what was done, and whether the log of it is whole.

use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::WallTime;
use shared::store::{AuditHead, Store, StoreError};

/// The most rows a list gives.
const LISTED: u32 = 10_000;

/// The newest rows: of the last `since`, by the clock, or all.
///
/// # Errors
/// [`StoreError`].
pub fn log(store: &Store, since: Option<Duration>, now: WallTime) -> Result<Value, StoreError> {
    let ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let since = since.map(|since| WallTime(now.0.saturating_sub(ms(since))));
    let log = store.audit_log(since, LISTED)?;
    Ok(json!({ "rows": log.rows, "left_out": log.left_out }))
}

/// Walks the chain; `noted` is a head that was printed before.
///
/// # Errors
/// [`StoreError`].
pub fn verify(store: &Store, noted: Option<&AuditHead>) -> Result<Value, StoreError> {
    let verdict = store.verify_audit(noted)?;
    let message = match &verdict.flaw {
        None => {
            let noted = noted.map(|noted| format!(", and row {} is still the one that was noted", noted.number));
            format!("The audit log is whole: {} rows{}.", verdict.rows, noted.unwrap_or_default())
        }
        Some(flaw) => {
            format!("the audit log is not what was written: {flaw}; sound rows before that: {}", verdict.rows)
        }
    };
    Ok(json!({
        "sound": verdict.flaw.is_none(),
        "rows": verdict.rows,
        "head": verdict.head.to_string(),
        "flaw": verdict.flaw,
        "message": message,
    }))
}
