//! The clinic's loop: takes what boxes send, and publishes the board.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::error::report;
use shared::seal::AckResult;
use shared::wire::{BoxHealth, Event, Topic, Topics};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{error, info, warn};

use super::board::{Published, compose};
use super::ingest::{Label, take};
use super::store::ClinicStoreError;
use super::{Clinic, settings::ClinicSettings};
use crate::backoff::{Keeper, stay_connected};
use crate::heart::Heart;
use crate::room::farewell;
use crate::stop::Stop;
use crate::uplink::{Broker, Identity, Line, LinkError, Message, News, OFFLINE, ONLINE, Publication};

/// The board is published at most this often.
const BOARD_EVERY: Duration = Duration::from_secs(1);
/// The broker keeps parcels this long for a server that restarts; for one that is gone it must not, because the
/// shared subscription would go on giving it its part.
const SESSION_EXPIRY_S: u32 = 300;

/// Who this server is to the broker.
#[must_use]
pub fn identity(settings: &ClinicSettings) -> Identity {
    let ClinicSettings { clinic, server, broker_host, broker_port, .. } = settings;
    Identity {
        client_id: format!("roomscribe-clinic-{clinic}-{server}"),
        host: broker_host.clone(),
        port: *broker_port,
        will: Publication::retained(Topics::new(clinic).board_status(server), OFFLINE),
        session_expiry_s: SESSION_EXPIRY_S,
    }
}

/// Serves until told to stop.
pub async fn run<B: Broker>(broker: B, clinic: Arc<Clinic>, keeper: Keeper) {
    stay_connected(broker, keeper, async |line, stop: &mut Stop, heart: &Heart| {
        let ended = Desk::new(&clinic).serve(line, stop, heart).await;
        clinic.connected.store(false, Ordering::Relaxed);
        ended
    })
    .await;
}

/// The server's side of one line.
struct Desk<'a> {
    clinic: &'a Clinic,
    topics: Topics,
    published: Published,
}

/// The store failed: logged here, and the line is given up, so that what was not settled comes again.
fn give_up(why: &ClinicStoreError) -> LinkError {
    error!(error = %report(why), "The clinic's database failed.");
    LinkError::Store
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl<'a> Desk<'a> {
    fn new(clinic: &'a Clinic) -> Self {
        Self { clinic, topics: clinic.topics(), published: Published::default() }
    }

    async fn serve<L: Line>(&mut self, mut line: L, stop: &mut Stop, heart: &Heart) -> Result<(), LinkError> {
        let status = self.topics.board_status(&self.clinic.settings.server);
        line.publish(Publication::retained(status.clone(), ONLINE)).await?;
        line.subscribe(&self.topics.plain_subscriptions()).await?;
        line.subscribe(&self.topics.shared_subscriptions()).await?;
        self.clinic.connected.store(true, Ordering::Relaxed);
        let mut board = every(BOARD_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => {
                    farewell(&mut line, status).await;
                    line.close().await;
                    return Ok(());
                }
                // Before the news, so that many parcels cannot keep the board back.
                _ = board.tick() => self.publish_board(&mut line).await?,
                news = line.next() => self.hear(&mut line, news?).await?,
            }
            heart.beat();
        }
    }

    async fn publish_board<L: Line>(&mut self, line: &mut L) -> Result<(), LinkError> {
        let rows = self.clinic.store.boxes().map_err(|why| give_up(&why))?;
        let board = compose(&self.clinic.settings.clinic, &rows, self.clinic.clock.now().wall);
        for publication in self.published.update(&board, &self.topics) {
            line.publish(publication).await?;
        }
        Ok(())
    }

    async fn hear<L: Line>(&mut self, line: &mut L, news: News) -> Result<(), LinkError> {
        match news {
            News::Message(message) => {
                if let Some(answer) = self.heed(&message).map_err(|why| give_up(&why))? {
                    line.publish(answer).await?;
                }
                // Last: whatever is cut short before this, the broker sends the message again.
                line.settle(message.receipt).await
            }
            News::Delivered(_) => Ok(()),
            News::Refused(_) => {
                warn!("The broker refused a message.");
                Ok(())
            }
        }
    }

    /// Deals with a message; what is returned is to be published, and is true already.
    fn heed(&self, message: &Message) -> Result<Option<Publication>, ClinicStoreError> {
        let now = self.clinic.clock.now().wall;
        match self.topics.parse(&message.topic) {
            Some(Topic::Parcel { box_id, session, revision }) => {
                return self.parcel(&Label { box_id, session, revision }, &message.payload).map(Some);
            }
            Some(Topic::Status(box_id)) => match std::str::from_utf8(&message.payload) {
                Ok(status @ (ONLINE | OFFLINE)) => self.clinic.store.keep_status(&box_id, status, now)?,
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            Some(Topic::Health(box_id)) => match serde_json::from_slice::<BoxHealth>(&message.payload) {
                Ok(health) if health.box_id == box_id && health.version == 1 => {
                    self.clinic.store.keep_box_health(&health, (!message.retained).then_some(now))?;
                }
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            Some(Topic::Event(box_id)) => match serde_json::from_slice::<Event>(&message.payload) {
                Ok(event) if event.version == 1 => self.clinic.store.keep_event(&box_id, &event)?,
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            Some(Topic::Ack(_)) | None => ignored(&message.topic),
        }
        Ok(None)
    }

    fn parcel(&self, label: &Label, payload: &[u8]) -> Result<Publication, ClinicStoreError> {
        let ack = take(self.clinic, label, payload)?;
        let Label { box_id, session, revision } = label;
        match ack.result {
            AckResult::Stored | AckResult::Duplicate => {
                info!(
                    session_id = session,
                    "box" = box_id,
                    revision,
                    result = ack.result.name(),
                    "A parcel was taken."
                );
            }
            AckResult::Refused => {
                let reason = ack.reason.as_deref();
                error!(session_id = session, "box" = box_id, revision, reason, "A parcel was refused for good.");
            }
        }
        Ok(Publication::once(self.topics.ack(box_id), serde_json::to_vec(&ack)?))
    }
}

fn ignored(topic: &str) {
    warn!(topic, "A message that is not part of the link was ignored.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::{self, SESSION, World};
    use crate::uplink::scripted::{Far, ScriptedBroker};
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
}
