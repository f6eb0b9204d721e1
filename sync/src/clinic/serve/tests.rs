use super::*;
use crate::clinic::fixture::{self, SESSION, World};
use crate::uplink::scripted::{Far, ScriptedBroker};
use shared::alert::{Alert, AlertName};
use shared::breaker::StateName::{Closed, Open};
use shared::chance::SeededDice;
use shared::seal::Ack;
use shared::wire::Board;

async fn play(world: &World, broker: ScriptedBroker, script: impl Future<Output = ()>) {
    let (stopper, stop) = Stop::new();
    let keeper = Keeper { dice: Box::new(SeededDice::from_seed(1)), stop, heart: Heart::unwatched(), gate: None };
    tokio::join!(run(broker, world.clinic.clone(), keeper), async {
        script.await;
        stopper.stop();
    });
}

async fn on(far: &mut Far, topic: &str) -> Vec<u8> {
    loop {
        let publication = far.take().await;
        if publication.topic == format!("roomscribe/v1/north/{topic}") {
            return publication.payload;
        }
    }
}

fn parcel_topic(revision: u32) -> String {
    Topics::new("north").parcel("room-1", SESSION, revision)
}

#[tokio::test(start_paused = true)]
async fn a_parcel_is_committed_then_acknowledged_then_settled() {
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    let log = far.log.clone();
    play(&world, broker, async {
        far.send(&parcel_topic(1), &world.parcel(&fixture::record(SESSION, 1)), 7);
        let ack: Ack = serde_json::from_slice(&on(&mut far, "room-1/ack").await).unwrap();
        assert!(world.public.believes(&ack, "north", "room-1") && ack.result == AckResult::Stored);
        assert!(world.clinic.store.held(SESSION, 1).unwrap().is_some());
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    let log = log.lock().unwrap();
    let at = |line: &str| log.iter().position(|l| l == line).unwrap();
    assert!(at("publish roomscribe/v1/north/room-1/ack") < at("settle 7"));
    assert_eq!(log[0], "publish roomscribe/v1/north/board/status/server-1");
    assert_eq!(log[log.len() - 2..], ["publish roomscribe/v1/north/board/status/server-1", "close"]);
}

#[tokio::test(start_paused = true)]
async fn a_line_cut_between_commit_and_settling_leads_to_a_duplicate() {
    let world = World::new();
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        let parcel = world.parcel(&fixture::record(SESSION, 1));
        first.send(&parcel_topic(1), &parcel, 7);
        on(&mut first, "room-1/ack").await;
        first.cut();
        second.send(&parcel_topic(1), &parcel, 8);
        let ack: Ack = serde_json::from_slice(&on(&mut second, "room-1/ack").await).unwrap();
        assert_eq!(ack.result, AckResult::Duplicate);
    })
    .await;
    assert_eq!(world.clinic.store.sessions(9).unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_board_follows_the_boxes_at_most_once_a_second() {
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        let board =
            async |far: &mut Far| -> Board { serde_json::from_slice(&on(far, "board/breakers").await).unwrap() };
        assert_eq!(board(&mut far).await.worst.transcription_circuit, Closed);
        let begun = tokio::time::Instant::now();
        for failures in 0..50 {
            let health = fixture::health("room-1", (Open, failures), (Closed, 0));
            far.send("roomscribe/v1/north/room-1/health", &serde_json::to_vec(&health).unwrap(), 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut boards = 0;
        loop {
            let board = board(&mut far).await;
            boards += 1;
            if board.worst.transcription_failures == 49 {
                break;
            }
        }
        assert!(boards <= begun.elapsed().as_secs() + 1, "{boards} in {:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_part_of_the_link_is_settled_and_changes_nothing() {
    let world = World::new();
    let (broker, [far]) = ScriptedBroker::new(None);
    let log = far.log.clone();
    play(&world, broker, async {
        let stranger = serde_json::to_vec(&fixture::health("room-2", (Open, 1), (Closed, 0))).unwrap();
        far.send("roomscribe/v1/north/room-1/health", &stranger, 1);
        far.send("roomscribe/v1/north/room-1/status", b"\xff", 2);
        far.send("roomscribe/v1/south/room-1/status", b"online", 3);
        far.send("roomscribe/v1/north/room-1/event", b"{}", 4);
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    assert!(world.clinic.store.boxes().unwrap().is_empty());
    assert_eq!(log.lock().unwrap().iter().filter(|l| l.starts_with("settle")).count(), 4);
}

const ALERTS: &str = "roomscribe/v1/north/board/alerts";

/// What is published about alerts within the next `seconds`: the end of the topic, and the payload.
async fn alerts_published(far: &mut Far, seconds: u64) -> Vec<(String, Vec<u8>)> {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut alerts = Vec::new();
    while let Ok((_, publication)) = far.published.try_recv() {
        if let Some(topic) = publication.topic.strip_prefix(ALERTS) {
            assert!(publication.retain);
            alerts.push((topic.trim_start_matches('/').to_owned(), publication.payload));
        }
    }
    alerts
}

fn says(far: &Far, alerts: Vec<Alert>) {
    let health = BoxHealth { alerts, ..fixture::health("room-1", (Closed, 0), (Closed, 0)) };
    far.send("roomscribe/v1/north/room-1/health", &serde_json::to_vec(&health).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_kept_by_the_broker_while_it_holds_and_cleared_when_it_ends() {
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        assert!(alerts_published(&mut far, 2).await.is_empty());
        says(&far, vec![fixture::firing(AlertName::BreakerOpen)]);
        let begun = alerts_published(&mut far, 2).await;
        assert_eq!((begun.len(), begun[0].0.as_str()), (1, "breaker_open/room-1"));
        let held: BoardAlert = serde_json::from_slice(&begun[0].1).unwrap();
        assert_eq!((held.since, held.alert), (world.now(), fixture::firing(AlertName::BreakerOpen)));
        // Its own words come back to it, as from every broker.
        far.send(&format!("{ALERTS}/breaker_open/room-1"), &begun[0].1, 2);
        assert!(alerts_published(&mut far, 3).await.is_empty(), "nothing has changed");
        says(&far, vec![]);
        assert_eq!(alerts_published(&mut far, 2).await, [("breaker_open/room-1".into(), vec![])]);
        far.send(&format!("{ALERTS}/breaker_open/room-1"), b"", 3);
        assert!(alerts_published(&mut far, 3).await.is_empty());
        assert!(world.clinic.store.alerts().unwrap().is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_publishes_what_holds_since_it_did_and_clears_what_does_not() {
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    let begun = world.now();
    play(&world, broker, async {
        says(&far, vec![fixture::firing(AlertName::BreakerOpen)]);
        assert_eq!(alerts_published(&mut far, 2).await.len(), 1);
    })
    .await;
    world.clock.pass(Duration::from_secs(3600));
    let world = world.killed();
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        first.send_kept(&format!("{ALERTS}/breaker_open/room-1"), b"as it was", 1);
        first.send_kept(&format!("{ALERTS}/retry_exhaustion/room-1"), b"long over", 2);
        first.send_kept(&format!("{ALERTS}/processing_time/board"), b"no JSON", 3);
        let mut published = alerts_published(&mut first, 3).await;
        let held: BoardAlert = serde_json::from_slice(&published.remove(0).1).unwrap();
        assert_eq!((held.since.as_str(), held.box_id.as_str(), held.online), (begun.as_str(), "room-1", false));
        let cleared = [("processing_time/board".into(), vec![]), ("retry_exhaustion/room-1".into(), vec![])];
        published.sort();
        assert_eq!(published, cleared);
        first.cut();
        let again = alerts_published(&mut second, 30).await;
        assert_eq!((again.len(), again[0].0.as_str()), (1, "breaker_open/room-1"), "a new line is told all that holds");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn alerts_that_change_all_the_time_are_published_at_most_once_a_second() {
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        for samples in 0..100 {
            says(&far, vec![Alert { samples, ..fixture::firing(AlertName::BreakerOpenLong) }]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let published = alerts_published(&mut far, 1).await;
        assert!((2..=7).contains(&published.len()), "{} in five seconds", published.len());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_several_servers_only_the_holder_of_the_lease_publishes_and_another_takes_over_when_it_dies() {
    let world = World::new();
    let store = &world.clinic.store;
    assert!(store.take_lease("server-2", None).unwrap());
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        says(&far, vec![fixture::firing(AlertName::BreakerOpen)]);
        far.send(&parcel_topic(1), &world.parcel(&fixture::record(SESSION, 1)), 7);
        on(&mut far, "room-1/ack").await;
        assert!(alerts_published(&mut far, 14).await.is_empty(), "parcels are everybody's, the board is not");
        // It is renewed once more; then its holder is dead.
        assert!(store.take_lease("server-2", store.lease().unwrap().as_ref()).unwrap());
        assert!(alerts_published(&mut far, 15).await.is_empty());
        assert_eq!(alerts_published(&mut far, 10).await.len(), 1);
        assert_eq!(store.lease().unwrap().unwrap().holder, "server-1");
    })
    .await;
    assert_eq!(store.lease().unwrap().unwrap().holder, "", "who stops gives it back");
}

const DISCOVERY: &str = "homeassistant/";

/// What is published to Home Assistant within the next `seconds`, delivered to the broker: topic, and whether it tells.
async fn told_home_assistant(far: &mut Far, seconds: u64) -> Vec<(String, bool)> {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut told = Vec::new();
    while let Ok((ticket, publication)) = far.published.try_recv() {
        far.deliver(ticket);
        if publication.topic.starts_with(DISCOVERY) {
            assert!(publication.retain);
            told.push((publication.topic, !publication.payload.is_empty()));
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn home_assistant_is_told_of_boxes_where_that_is_on_and_what_it_was_told_is_cleared_where_it_is_not() {
    let topic = "homeassistant/device/roomscribe-north/room-1/config".to_owned();
    let world = World::new();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        says(&far, vec![]);
        assert!(told_home_assistant(&mut far, 3).await.is_empty(), "it is off unless somebody switches it on");
    })
    .await;
    let world = world.with_home_assistant(true);
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        assert_eq!(told_home_assistant(&mut first, 3).await, [(topic.clone(), true)]);
        says(&first, vec![]);
        assert!(told_home_assistant(&mut first, 3).await.is_empty(), "nothing is new");
        first.cut();
        assert_eq!(told_home_assistant(&mut second, 30).await, [(topic.clone(), true)], "a broker may have forgotten");
    })
    .await;
    let world = world.with_home_assistant(false).killed();
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let cleared = std::iter::from_fn(|| first.published.try_recv().ok()).filter(|(_, p)| p.topic == topic).count();
        assert_eq!(cleared, 1, "once a line");
        assert_eq!(world.clinic.store.discovered().unwrap().len(), 1, "the broker has not said that it has it");
        first.cut();
        assert_eq!(told_home_assistant(&mut second, 30).await, [(topic, false)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.clinic.store.discovered().unwrap().is_empty());
    })
    .await;
}
