use super::*;
use crate::clinic::fixture::{DATE, firing, health};
use AlertName::{BreakerOpen, ProcessingTime, RetryExhaustion, TranscriptionFailureRate};
use shared::breaker::StateName::Closed;
use shared::store::Rate;

const NOW: WallTime = WallTime(1_767_225_600_000);
const HOUR: Duration = Duration::from_secs(3600);

fn row(id: &str, alerts: Vec<Alert>, rates: Rates) -> BoxRow {
    let health = shared::wire::BoxHealth { alerts, rates, ..health(id, (Closed, 0), (Closed, 0)) };
    BoxRow { box_id: id.into(), said_online: true, health: Some(health), seen_at: Some(NOW) }
}

fn quiet(id: &str, alerts: Vec<Alert>) -> BoxRow {
    row(id, alerts, Rates::default())
}

fn calls(failed: u64, total: u64) -> Rates {
    let rate = Rate { failed, total };
    Rates { transcription: rate, diarization: rate, exhausted: rate, processing: vec![] }
}

fn key(alert: AlertName, box_id: &str) -> Key {
    Key { alert, box_id: box_id.into() }
}

fn keys(rows: &[BoxRow], now: WallTime) -> Vec<Key> {
    holding(rows, &Since::new(), now).iter().map(Key::of).collect()
}

fn published(news: &[Publication]) -> Vec<(&str, bool)> {
    assert!(news.iter().all(|publication| publication.retain));
    news.iter()
        .map(|p| (p.topic.trim_start_matches("roomscribe/v1/north/board/alerts/"), p.payload.is_empty()))
        .collect()
}

#[test]
fn what_a_box_judged_of_itself_is_taken_as_it_said() {
    let ok = Alert { state: AlertState::Ok, ..firing(RetryExhaustion) };
    let unsure = Alert { state: AlertState::InsufficientData, ..firing(ProcessingTime) };
    let rows = [quiet("a", vec![firing(BreakerOpen), ok, unsure]), quiet("b", vec![firing(TranscriptionFailureRate)])];
    let held = holding(&rows, &Since::from([(key(BreakerOpen, "a"), DATE.into())]), NOW.plus(HOUR));
    let told: Vec<_> = held.iter().map(|a| (a.alert.alert, a.box_id.as_str(), a.since.as_str())).collect();
    let later = NOW.plus(HOUR).to_string();
    assert_eq!(
        told,
        [(TranscriptionFailureRate, "b", later.as_str()), (BreakerOpen, "a", DATE)],
        "in the guide's order"
    );
}

#[test]
fn an_alert_of_a_box_that_is_away_stays_as_it_was_last_known() {
    let rows = [quiet("a", vec![firing(BreakerOpen)])];
    let online = |rows: &[BoxRow], now| holding(rows, &Since::new(), now).iter().map(|a| a.online).collect::<Vec<_>>();
    assert_eq!(online(&rows, NOW), [true]);
    assert_eq!(online(&rows, NOW.plus(24 * HOUR)), [false]);
    let left = BoxRow { said_online: false, ..rows[0].clone() };
    assert_eq!(online(&[left], NOW), [false]);
}

#[test]
fn rates_are_judged_over_all_boxes_and_breakers_are_not() {
    let rows = [row("a", vec![], calls(3, 12)), row("b", vec![], calls(0, 12)), quiet("c", vec![firing(BreakerOpen)])];
    let of_all = |alert| key(alert, WHOLE_CLINIC);
    let expected = [
        of_all(TranscriptionFailureRate),
        of_all(AlertName::DiarizationFailureRate),
        key(BreakerOpen, "c"),
        of_all(RetryExhaustion),
    ];
    assert_eq!(keys(&rows, NOW), expected);
    assert!(keys(&rows[..1], NOW).iter().all(|k| k.alert == RetryExhaustion), "twelve calls are too few");
}

#[test]
fn calls_that_a_box_told_of_too_long_ago_are_not_counted_as_of_now() {
    let rows = [row("a", vec![], calls(30, 30))];
    let minutes = |n: u32| NOW.plus(n * Duration::from_secs(60));
    let names = |now| keys(&rows, now).into_iter().map(|k| k.alert).collect::<Vec<_>>();
    assert!(names(minutes(14)).contains(&TranscriptionFailureRate));
    assert_eq!(names(minutes(15)), [RetryExhaustion], "a day is counted there");
    assert_eq!(names(minutes(24 * 60)), []);
}

#[test]
fn processing_time_is_judged_over_the_last_sessions_of_all_boxes() {
    let slow = |n| Rates { processing: vec![(1800.0, 60.0); n], ..Rates::default() };
    let held = holding(&[row("a", vec![], slow(2)), row("b", vec![], slow(3))], &Since::new(), NOW);
    assert_eq!((held.len(), Key::of(&held[0])), (1, key(ProcessingTime, WHOLE_CLINIC)));
    assert_eq!((held[0].alert.value, held[0].alert.samples, held[0].online), (Some(120.0), 5, true));
}

#[test]
fn an_alert_begins_once_and_ends_once() {
    let held = holding(&[quiet("a", vec![firing(BreakerOpen)])], &Since::new(), NOW);
    let begun = Moves::between(&Since::new(), &held);
    assert_eq!(begun, Moves { begun: vec![key(BreakerOpen, "a")], ended: vec![] });
    let since = Since::from([(key(BreakerOpen, "a"), DATE.into())]);
    assert!(Moves::between(&since, &held).is_empty());
    assert_eq!(Moves::between(&since, &[]), Moves { begun: vec![], ended: vec![key(BreakerOpen, "a")] });
}

#[test]
fn only_what_changed_is_published_and_what_ended_is_cleared_once() {
    let topics = Topics::new("north");
    let mut board = Published::default();
    let hold = |rows: &[BoxRow], now| holding(rows, &Since::from([(key(BreakerOpen, "a"), DATE.into())]), now);
    let rows = [quiet("a", vec![firing(BreakerOpen)])];
    let first = board.update(&hold(&rows, NOW), &topics);
    assert_eq!(published(&first), [("breaker_open/a", false)]);
    assert!(board.update(&hold(&rows, NOW.plus(Duration::from_secs(1))), &topics).is_empty());
    let away = board.update(&hold(&rows, NOW.plus(HOUR)), &topics);
    assert_eq!(published(&away), [("breaker_open/a", false)], "it is offline now");
    assert_eq!(published(&board.update(&[], &topics)), [("breaker_open/a", true)]);
    assert!(board.update(&[], &topics).is_empty());
}

#[test]
fn what_the_broker_kept_from_before_is_cleared_unless_it_holds() {
    let topics = Topics::new("north");
    let mut board = Published::default();
    for topic in ["breaker_open/a", "processing_time/board"] {
        board.found(&format!("roomscribe/v1/north/board/alerts/{topic}"));
    }
    let held = holding(&[quiet("a", vec![firing(BreakerOpen)])], &Since::new(), NOW);
    let news = board.update(&held, &topics);
    assert_eq!(published(&news), [("breaker_open/a", false), ("processing_time/board", true)]);
    board.found("roomscribe/v1/north/board/alerts/breaker_open/a");
    assert!(board.update(&held, &topics).is_empty(), "the broker told late what it had before");
}

#[test]
fn only_topics_of_the_six_alerts_are_an_alerts() {
    let topics = Topics::new("north");
    for alert in AlertName::ALL {
        assert!(is_alert(&topics, &topics.board_alert(alert, "room-1")));
        assert!(is_alert(&topics, &topics.board_alert(alert, "Not an id")), "so that it can be cleared");
    }
    for other in ["board/alerts/breaker_open", "board/alerts/breaker_open/a/b", "board/alerts/rain/a", "a/status"] {
        assert!(!is_alert(&topics, &format!("roomscribe/v1/north/{other}")), "{other}");
    }
    assert!(!is_alert(&topics, "roomscribe/v1/south/board/alerts/breaker_open/a"));
}
