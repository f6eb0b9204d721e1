use super::*;
use crate::clinic::access::{Login, Role};
use crate::clinic::fixture::{self, SESSION};
use crate::clinic::store::{BoxRow, SessionRow};
use shared::breaker::StateName;
use shared::wire::WHOLE_CLINIC;

const NOW: WallTime = WallTime(1_767_225_600_000);
const EVIL: &str = "<script>alert('x')</script>\"&{{rooms}}";

fn row() -> SessionRow {
    SessionRow {
        session_id: SESSION.into(),
        box_id: EVIL.into(),
        revision: 1,
        created_at: fixture::DATE.into(),
        updated_at: fixture::DATE.into(),
        status: EVIL.into(),
        error_message: Some(EVIL.into()),
        error_type: None,
        diarization_status: EVIL.into(),
        started_at: EVIL.into(),
        ended_at: fixture::DATE.into(),
        duration_s: 65.0,
        speakers: 2,
        segments: 3,
        gaps: 0,
        time_quality: EVIL.into(),
    }
}

fn anna(role: Role) -> Person {
    let login = Some(Login { token_hash: [0; 32], form_token: "token".into() });
    Person { name: "anna".into(), role, login }
}

fn nothing() -> Snapshot {
    Snapshot::default()
}

#[test]
fn nothing_a_box_says_becomes_markup() {
    let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
    health.capture.state = EVIL.into();
    health.transcriber = Some(EVIL.into());
    health.breakers.get_mut(&Service::Transcription).unwrap().reason = Some(EVIL.into());
    let boxes = vec![BoxRow { box_id: EVIL.into(), said_online: true, health: Some(health), seen_at: Some(NOW) }];
    let alerts = [WHOLE_CLINIC, EVIL].map(|box_id| fixture::held(box_id, EVIL)).to_vec();
    let seen = Snapshot { connected: true, boxes, alerts, sessions: vec![row()], ..nothing() };
    let page = front(EVIL, &Person { name: EVIL.into(), ..anna(Role::Clinician) }, &seen, Span::Day, NOW).into_string();
    assert_eq!(page.matches("<script").count(), 1, "ours");
    let escaped = "&lt;script&gt;alert('x')&lt;/script&gt;&quot;&amp;{{rooms}}";
    assert!(page.contains(escaped), "{page}");
    assert!(page.matches(escaped).count() >= 12);
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_nothing_in_it_runs() {
    let page = front("north", &anna(Role::Admin), &nothing(), Span::Day, NOW).into_string();
    assert!(page.contains("<title>north · Roomscribe</title>") && page.contains("not connected"));
    assert!(page.contains("No alerts.") && !page.contains("Alerts"));
    for bad in ["http://", "https://", "<style", "style=", " onclick", "url("] {
        assert!(!page.contains(bad), "{bad}");
    }
    for bad in ["http:", "https:", "url(", "@import"] {
        assert!(!STYLE.contains(bad) && !SCRIPT.contains(bad), "{bad}");
    }
}

#[test]
fn only_who_may_read_is_shown_a_way_to_what_was_said() {
    let seen = Snapshot { sessions: vec![row()], ..nothing() };
    let link = format!("/sessions/{SESSION}");
    assert!(front("north", &anna(Role::Clinician), &seen, Span::Day, NOW).into_string().contains(&link));
    assert!(!front("north", &anna(Role::Admin), &seen, Span::Day, NOW).into_string().contains(&link));
}
