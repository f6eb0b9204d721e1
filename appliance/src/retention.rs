//! How long the box keeps what the clinic has. Nothing is destroyed for its age that the clinic has not acknowledged, and
//! nothing at all while the clock does not follow a time server: it may be years ahead.
//!
//!   audio of sessions without words or speakers ─ retention.audio_days after the acknowledgement ─▶ destroyed
//!   the same ─ as soon as there is too little room for another session ─▶ destroyed, the oldest first
//!   what was said, once its audio is gone ─ retention.content_days ─▶ keys, records, words, voices destroyed

use shared::clock::WallTime;
use shared::error::report;
use shared::record::TimeQuality;
use shared::store::StoreError;
use tracing::{error, info, warn};

use crate::context::Context;
use crate::forget;

/// Sessions at a time: destroying a key rewrites the key store, which takes seconds on a slow card.
const AT_ONCE: u32 = 4;
const DAY_MS: f64 = 86_400_000.0;

/// Destroys what has been kept long enough.
///
/// # Errors
/// [`StoreError`]; it can be repeated.
pub fn look(context: &Context) -> Result<(), StoreError> {
    match context.time_quality() {
        TimeQuality::Synchronized => {}
        TimeQuality::Unsynchronized => return Ok(()),
    }
    let (store, now, limits) = (&context.store, context.now().wall, &context.settings.retention);
    // A float becomes the nearest millisecond; both limits are at most ten years.
    let before = |days: f64| WallTime(now.0.saturating_sub((days * DAY_MS) as i64));
    for session in store.audio_acknowledged(Some(before(limits.audio_days)), AT_ONCE)? {
        destroy_audio(context, &session, "It was kept as long as retention.audio_days.")?;
    }
    for session in store.content_acknowledged(before(limits.content_days), AT_ONCE)? {
        store.expire(&session, now)?;
        info!(session_id = session, "The session was kept as long as retention.content_days.");
    }
    Ok(())
}

/// Makes room where there is too little for another session: what the clinic has acknowledged goes, one at a time, and
/// nothing else.
///
/// # Errors
/// [`StoreError`]; it can be repeated.
pub fn make_room(context: &Context) -> Result<(), StoreError> {
    let limit = context.settings.admission.min_disk_mib;
    if context.vitals.board().free_disk_mib.is_none_or(|free| free >= limit) {
        return Ok(());
    }
    for session in context.store.audio_acknowledged(None, 1)? {
        destroy_audio(context, &session, "There is too little room for another session.")?;
    }
    Ok(())
}

fn destroy_audio(context: &Context, session: &str, why: &'static str) -> Result<(), StoreError> {
    match forget::audio(&context.keys, &context.spool_file(session), session) {
        Err(why) => error!(session_id = session, error = %report(&why), "Audio could not be destroyed; trying again."),
        Ok(()) => {
            context.store.audio_expired(session, context.now().wall)?;
            warn!(session_id = session, why, "Audio destroyed that was never told, or never told apart.");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::SystemClock;
    use shared::keys::Purpose;
    use shared::paths::Root;
    use shared::record::{Consent, DiarizationStatus, Status};
    use shared::seal::{Ack, AckResult};
    use shared::settings::Settings;
    use shared::store::{Finish, NewSession, SpeakerHint, WindowRow};
    use std::sync::Arc;

    use crate::spool::SpoolWriter;

    fn box_in(folder: &std::path::Path, audio_days: f64, content_days: f64) -> Context {
        let mut settings = Settings::default();
        (settings.retention.audio_days, settings.retention.content_days) = (audio_days, content_days);
        Context::open(Root::new(folder), settings, Arc::new(SystemClock::new()), None).unwrap()
    }

    /// A concluded session with a second of audio; the clinic's word for it, if it came, came `days` ago.
    fn session(context: &Context, id: &str, outcome: (Status, DiarizationStatus), days: Option<f64>) {
        let now = context.now();
        let begun = SpoolWriter::begin(&context.spool_file(id), &context.keys, id, &now);
        begun.unwrap().audio(&[1; 16_000], &now).unwrap();
        let new = NewSession {
            id: id.into(),
            started_at: now.wall,
            time_quality: TimeQuality::Synchronized,
            consent: Consent { basis: "verbal".into(), by: None, at: now.wall.to_string() },
            status: Status::Recording,
            speakers: SpeakerHint::default(),
        };
        context.store.begin_session(&new, now.wall).unwrap();
        let window = WindowRow { number: 0, start_sample: 0, end_sample: 16_000, blind_cut: false };
        context.store.add_window(id, &window, &[], 16_000).unwrap();
        context.store.end_session(id, 16_000, now.wall, now.wall).unwrap();
        let (status, diarization_status) = outcome;
        let finish = Finish {
            session: id,
            status,
            diarization_status,
            error: None,
            record: b"{}",
            revision: 1,
            parcel: Some((b"parcel", id)),
        };
        context.store.finish(&finish, now.wall).unwrap();
        if let Some(days) = days {
            let at = WallTime(now.wall.0 - (days * DAY_MS) as i64);
            let ack = Ack {
                version: 1,
                session: id.into(),
                revision: 1,
                sha256: id.into(),
                result: AckResult::Stored,
                reason: None,
                stored_at: at.to_string(),
                key_id: String::new(),
                signature: String::new(),
            };
            assert!(context.store.acknowledge(&ack, at).unwrap());
        }
    }

    /// Whether a session's recording, the key of its text, and its record are there.
    fn kept(context: &Context, id: &str) -> (bool, bool, bool) {
        let key = context.keys.get(id, Purpose::Content).unwrap().is_some();
        let has_record = key && context.store.record(id).unwrap().is_some();
        (context.spool_file(id).exists(), key, has_record)
    }

    fn a_while(context: &Context) {
        look(context).unwrap();
        crate::keeper::destroy_what_may_go(context).unwrap();
    }

    const UNDIARIZED: (Status, DiarizationStatus) = (Status::Done, DiarizationStatus::Failed);
    const FAILED: (Status, DiarizationStatus) = (Status::Failed, DiarizationStatus::Failed);

    fn synchronize(context: &Context) {
        let mark = context.root.time_synchronized();
        std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
        std::fs::write(mark, "").unwrap();
    }

    #[test]
    fn what_the_clinic_has_goes_after_its_days_and_what_it_has_not_stays() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path(), 7.0, 30.0);
        synchronize(&context);
        for (id, outcome, days) in [
            ("young", UNDIARIZED, Some(6.9)),
            ("old", UNDIARIZED, Some(7.1)),
            ("failed", FAILED, Some(7.1)),
            ("owed", FAILED, None),
            ("ancient", UNDIARIZED, Some(31.0)),
        ] {
            session(&context, id, outcome, days);
        }
        (0..3).for_each(|_| a_while(&context));
        assert_eq!(kept(&context, "young"), (true, true, true));
        assert_eq!(kept(&context, "old"), (false, true, true));
        assert_eq!(kept(&context, "failed"), (false, true, true));
        assert_eq!(kept(&context, "owed"), (true, true, true));
        assert_eq!(kept(&context, "ancient"), (false, false, false));
        let expired = |id: &str| context.store.session(id).unwrap().expired;
        assert_eq!(["old", "failed", "ancient"].map(expired), [false, true, true]);
        assert_eq!(context.store.balance().unwrap().findings, []);
    }

    /// A box without a battery wakes up in another year.
    #[test]
    fn nothing_goes_for_its_age_while_the_clock_follows_no_time_server() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path(), 7.0, 30.0);
        session(&context, "ancient", UNDIARIZED, Some(400.0));
        a_while(&context);
        assert_eq!(kept(&context, "ancient"), (true, true, true));
        synchronize(&context);
        (0..2).for_each(|_| a_while(&context));
        assert_eq!(kept(&context, "ancient"), (false, false, false));
    }
}
