//! The clinic's loop: takes what boxes send, and publishes the board and the alerts that hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::clock::WallTime;
use shared::error::report;
use shared::seal::{Ack, AckResult};
use shared::wire::{BoardAlert, BoxHealth, Event, Topic, Topics};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{error, info, warn};

use super::alerts::{self, Key, Moves};
use super::board::{Published, compose};
use super::ingest::{Label, forget, take};
use super::store::{BoxRow, ClinicStoreError};
use super::{Clinic, settings::ClinicSettings};
use crate::backoff::{Keeper, stay_connected};
use crate::heart::Heart;
use crate::room::farewell;
use crate::stop::Stop;
use crate::tls::Credentials;
use crate::uplink::{Broker, Identity, Line, LinkError, Message, News, OFFLINE, ONLINE, Publication};

/// The board and the alerts are published at most this often.
const BOARD_EVERY: Duration = Duration::from_secs(1);
/// The broker keeps parcels this long for a server that restarts; for one that is gone it must not, because the
/// shared subscription would go on giving it its part.
const SESSION_EXPIRY_S: u32 = 300;

/// Who this server is to the broker.
#[must_use]
pub fn identity(settings: &ClinicSettings, credentials: Option<Arc<dyn Credentials>>) -> Identity {
    let ClinicSettings { clinic, server, broker_host, broker_port, .. } = settings;
    Identity {
        client_id: format!("roomscribe-clinic-{clinic}-{server}"),
        host: broker_host.clone(),
        port: *broker_port,
        will: Publication::retained(Topics::new(clinic).board_status(server), OFFLINE),
        session_expiry_s: SESSION_EXPIRY_S,
        credentials,
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
    alerts: alerts::Published,
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
        let (published, alerts) = (Published::default(), alerts::Published::default());
        Self { clinic, topics: clinic.topics(), published, alerts }
    }

    async fn serve<L: Line>(&mut self, mut line: L, stop: &mut Stop, heart: &Heart) -> Result<(), LinkError> {
        let status = self.topics.board_status(&self.clinic.settings.server);
        line.publish(Publication::retained(status.clone(), ONLINE)).await?;
        line.subscribe(&self.topics.plain_subscriptions()).await?;
        line.subscribe(&self.topics.shared_subscriptions()).await?;
        line.subscribe(&alerts::subscriptions(&self.topics)).await?;
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
        let now = self.clinic.clock.now().wall;
        self.clinic.store.clean_up().map_err(|why| give_up(&why))?;
        let rows = self.clinic.store.boxes().map_err(|why| give_up(&why))?;
        let board = compose(&self.clinic.settings.clinic, &rows, now);
        let held = self.held(&rows, now).map_err(|why| give_up(&why))?;
        let mut news = self.published.update(&board, &self.topics);
        news.extend(self.alerts.update(&held, &self.topics));
        for publication in news {
            line.publish(publication).await?;
        }
        Ok(())
    }

    /// The alerts that hold. One that has begun or ended is told in the log, once it is stored.
    fn held(&self, rows: &[BoxRow], now: WallTime) -> Result<Vec<BoardAlert>, ClinicStoreError> {
        let since = self.clinic.store.alerts()?;
        let held = alerts::holding(rows, &since, now);
        let moves = Moves::between(&since, &held);
        if !moves.is_empty() {
            self.clinic.store.keep_alerts(&moves, now)?;
            tell(&moves, &held);
        }
        Ok(held)
    }

    async fn hear<L: Line>(&mut self, line: &mut L, news: News) -> Result<(), LinkError> {
        match news {
            News::Message(message) => {
                for answer in self.heed(&message).map_err(|why| give_up(&why))? {
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
    fn heed(&mut self, message: &Message) -> Result<Vec<Publication>, ClinicStoreError> {
        let now = self.clinic.clock.now().wall;
        match self.topics.parse(&message.topic) {
            Some(Topic::Parcel { box_id, session, revision }) => {
                return self.parcel(&Label { box_id, session, revision }, &message.payload);
            }
            Some(Topic::Withdrawal { box_id, session }) => {
                return self.withdrawal(&box_id, &session, message);
            }
            Some(Topic::Status(box_id)) => match std::str::from_utf8(&message.payload) {
                Ok(status @ (ONLINE | OFFLINE)) => self.clinic.store.keep_status(&box_id, status, now)?,
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            Some(Topic::Health(box_id)) => match serde_json::from_slice::<BoxHealth>(&message.payload) {
                Ok(health) if health.box_id == box_id && health.version == 1 => {
                    let seen = (!message.retained).then_some(now);
                    self.clinic.store.keep_box_health(&health, seen)?;
                    if let Some(seen) = seen {
                        self.clinic.store.keep_history(&health, seen)?;
                    }
                }
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            Some(Topic::Event(box_id)) => match serde_json::from_slice::<Event>(&message.payload) {
                Ok(event) if event.version == 1 => self.clinic.store.keep_event(&box_id, &event)?,
                Ok(_) | Err(_) => ignored(&message.topic),
            },
            // Only what the broker kept: what is published now is our own, and answering it would never end.
            None if alerts::is_alert(&self.topics, &message.topic) => {
                if message.retained {
                    self.alerts.found(&message.topic);
                }
            }
            Some(Topic::Ack(_)) | None => ignored(&message.topic),
        }
        Ok(Vec::new())
    }

    fn parcel(&self, label: &Label, payload: &[u8]) -> Result<Vec<Publication>, ClinicStoreError> {
        let words = take(self.clinic, label, payload)?;
        let Label { box_id, session, revision } = label;
        match words.first().map(|ack| (ack.result, ack.reason.as_deref())) {
            Some((result @ (AckResult::Stored | AckResult::Duplicate), _)) => {
                info!(session_id = session, "box" = box_id, revision, result = result.name(), "A parcel was taken.");
            }
            Some((AckResult::Refused | AckResult::Withdrawn, reason)) => {
                error!(session_id = session, "box" = box_id, revision, reason, "A parcel was refused for good.");
            }
            None => {}
        }
        self.publications(box_id, &words)
    }

    fn withdrawal(&self, box_id: &str, session: &str, message: &Message) -> Result<Vec<Publication>, ClinicStoreError> {
        let words = forget(self.clinic, box_id, session, &message.payload)?;
        match words.first().map(|ack| (ack.result, ack.reason.as_deref())) {
            None => ignored(&message.topic),
            Some((AckResult::Refused, reason)) => {
                error!(session_id = session, "box" = box_id, reason, "A withdrawal was refused.");
            }
            Some(_) => {
                info!(session_id = session, "box" = box_id, "Consent was withdrawn; nothing of the session is held.");
            }
        }
        self.publications(box_id, &words)
    }

    fn publications(&self, box_id: &str, words: &[Ack]) -> Result<Vec<Publication>, ClinicStoreError> {
        let topic = self.topics.ack(box_id);
        words.iter().map(|ack| Ok(Publication::once(topic.clone(), serde_json::to_vec(ack)?))).collect()
    }
}

fn tell(moves: &Moves, held: &[BoardAlert]) {
    for BoardAlert { box_id, alert, .. } in held.iter().filter(|held| moves.begun.contains(&Key::of(held))) {
        let (value, threshold, samples) = (alert.value, alert.threshold, alert.samples);
        let services: Vec<&str> = alert.services.iter().map(|service| service.name()).collect();
        let services = (!services.is_empty()).then(|| services.join(" "));
        warn!(alert = alert.alert.name(), "box" = box_id, value, threshold, samples, services, "An alert holds.");
    }
    for Key { alert, box_id } in &moves.ended {
        info!(alert = alert.name(), "box" = box_id, "An alert has ended.");
    }
}

fn ignored(topic: &str) {
    warn!(topic, "A message that is not part of the link was ignored.");
}

#[cfg(test)]
mod tests;
