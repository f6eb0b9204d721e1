//! A transcript for a person who asked for it by name: the only place where the clinic prints what was said.

use std::fmt::Write as _;

use shared::record::{GapCause, Record};
use shared::seal::{Address, SealError};

use super::store::{ClinicStoreError, SessionRow};
use super::{Clinic, store::SealedParcel};

/// Why a record cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The clinic holds no such session.
    #[error("The clinic holds no such session")]
    NoSession,
    /// Nothing of it is held any more.
    #[error("Consent to this session was withdrawn: nothing of it is left")]
    Withdrawn,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ClinicStoreError),
    /// The parcel does not open with the clinic's keys.
    #[error("The session cannot be opened with this clinic's keys")]
    Sealed(#[from] SealError),
}

/// Opens the newest parcel of a session.
///
/// # Errors
/// [`ShowError`].
pub fn open(clinic: &Clinic, session: &str) -> Result<Record, ShowError> {
    let Some(found) = clinic.store.newest_parcel(session)? else {
        let is_withdrawn = clinic.store.is_withdrawn(session)?;
        return Err(if is_withdrawn { ShowError::Withdrawn } else { ShowError::NoSession });
    };
    let SealedParcel { box_id, revision, bytes } = found;
    let address = Address { clinic: &clinic.settings.clinic, box_id: &box_id, session, revision };
    Ok(clinic.keys.open(&bytes, &address)?)
}

fn clock(seconds: f64) -> String {
    // Tenths are rounded first, so that 59.96 s is not shown as 00:60.0.
    let tenths = (seconds * 10.0).round();
    format!("{:02}:{:04.1}", (tenths / 600.0).floor(), (tenths % 600.0) / 10.0)
}

fn cause(cause: GapCause) -> String {
    serde_json::to_value(cause).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Without control characters: text must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

fn heading(record: &Record) -> String {
    let speakers: Vec<String> = record
        .speakers
        .iter()
        .map(|s| match &s.role {
            Some(role) => format!("{} ({}, {:.0} s)", plain(&s.label), plain(role), s.seconds),
            None => format!("{} ({:.0} s)", plain(&s.label), s.seconds),
        })
        .collect();
    let speakers = if speakers.is_empty() { "none".into() } else { speakers.join(", ") };
    let mut text = format!(
        "Session:      {} (revision {})\nBox:          {}\nStarted:      {}\nDuration:     {}\n\
         Status:       {}\nDiarization:  {}\nSpeakers:     {speakers}\n",
        plain(&record.session_id),
        record.revision,
        plain(&record.box_id),
        plain(&record.started_at),
        clock(record.duration_s),
        record.status,
        record.diarization_status.name(),
    );
    if let Some(message) = &record.error_message {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Error:        {}", plain(message));
    }
    text
}

/// The labelled transcript, one line per segment and gap in order of time.
#[must_use]
pub fn transcript(record: &Record) -> String {
    let segments = record
        .segments
        .iter()
        .map(|s| (s.start, format!("[{}] {}: {}", clock(s.start), plain(&s.speaker), plain(&s.text.0))));
    let gaps = record
        .gaps
        .iter()
        .map(|g| (g.start, format!("[{}] (gap {:.1} s: {})", clock(g.start), g.end - g.start, cause(g.cause))));
    let mut lines: Vec<(f64, String)> = segments.chain(gaps).collect();
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut text = heading(record);
    text.push('\n');
    for (_, line) in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The sessions as a table of metadata.
#[must_use]
pub fn table(rows: &[SessionRow]) -> String {
    let mut text = format!(
        "{:36}  {:16}  {:24}  {:>8}  {:9}  {:11}  {:>8}  ERROR\n",
        "SESSION", "BOX", "STARTED", "DURATION", "STATUS", "DIARIZATION", "SPEAKERS"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:36}  {:16}  {:24}  {:>8}  {:9}  {:11}  {:>8}  {}",
            row.session_id,
            row.box_id,
            plain(&row.started_at),
            clock(row.duration_s),
            row.status,
            row.diarization_status,
            row.speakers,
            plain(row.error_message.as_deref().unwrap_or("")),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::{self, SESSION};
    use crate::clinic::ingest::{Label, take};

    #[test]
    fn a_transcript_has_its_speakers_and_gaps_in_order_of_time() {
        let text = transcript(&fixture::record(SESSION, 1));
        let (head, body) = text.split_once("\n\n").unwrap();
        assert!(head.contains("Speakers:     Speaker 1 (2 s), Speaker 2 (2 s)"));
        assert_eq!(
            body,
            "[00:00.5] Speaker 1: xylophone\n[00:10.0] (gap 3.2 s: power_loss)\n[01:01.3] Speaker 2: zeppelin [2J\n",
            "and no control character reaches the terminal"
        );
    }

    #[test]
    fn minutes_roll_over_where_tenths_do() {
        assert_eq!([clock(0.0), clock(59.96), clock(3605.2)], ["00:00.0", "01:00.0", "60:05.2"]);
    }

    #[test]
    fn the_newest_revision_is_opened_with_the_clinics_keys() {
        let world = fixture::World::new();
        for revision in [2, 1] {
            let label = Label { box_id: "room-1".into(), session: SESSION.into(), revision };
            take(&world.clinic, &label, &world.parcel(&fixture::record(SESSION, revision))).unwrap();
        }
        assert_eq!(open(&world.clinic, SESSION).unwrap(), fixture::record(SESSION, 2));
        assert!(matches!(open(&world.clinic, "none"), Err(ShowError::NoSession)));
    }
}
