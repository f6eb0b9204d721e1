//! The clinic's loop: takes what boxes send; and, of several servers the one that holds the lease, publishes the board
//! and the alerts that hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::clock::WallTime;
use shared::error::report;
use shared::seal::{Ack, AckResult};
use shared::wire::{BoardAlert, BoxHealth, CertificateIssued, CertificateRequest, Event, Topic, Topics};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{error, info, warn};

use super::alerts::{self, Key, Moves};
use super::board::{Published, compose};
use super::discovery::{self, Step, Told, Wanted};
use super::ingest::{Label, forget, is_date, take};
use super::lease::Tenure;
use super::store::{BoxRow, ClinicStoreError};
use super::{Clinic, orders, settings::ClinicSettings};
use crate::backoff::{Keeper, stay_connected};
use crate::heart::Heart;
use crate::pki::Holder;
use crate::room::farewell;
use crate::stop::Stop;
use crate::tls::Credentials;
use crate::uplink::{Broker, Identity, Line, LinkError, Message, News, OFFLINE, ONLINE, Publication};

/// The board and the alerts are published at most this often.
const BOARD_EVERY: Duration = Duration::from_secs(1);
/// The broker keeps parcels this long for a server that restarts; for one that is gone it must not, because the
/// shared subscription would go on giving it its part.
const SESSION_EXPIRY_S: u32 = 300;
/// The same where servers share a database: the broker goes on giving a dead one its part for so long, and boxes must send
/// that again.
const SHARED_EXPIRY_S: u32 = 15;

/// Who this server is to the broker.
#[must_use]
pub fn identity(clinic: &Clinic, credentials: Option<Arc<dyn Credentials>>) -> Identity {
    let session_expiry_s = if clinic.store.is_local() { SESSION_EXPIRY_S } else { SHARED_EXPIRY_S };
    let ClinicSettings { clinic, server, broker_host, broker_port, .. } = &clinic.settings;
    Identity {
        client_id: format!("roomscribe-clinic-{clinic}-{server}"),
        host: broker_host.clone(),
        port: *broker_port,
        will: Publication::retained(Topics::new(clinic).board_status(server), OFFLINE),
        session_expiry_s,
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
    clinic: &'a Arc<Clinic>,
    topics: Topics,
    tenure: Tenure,
    published: Published,
    alerts: alerts::Published,
    told: Told,
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
    fn new(clinic: &'a Arc<Clinic>) -> Self {
        let (published, alerts) = (Published::default(), alerts::Published::default());
        let tenure = Tenure::new(&clinic.settings.server);
        Self { clinic, topics: clinic.topics(), tenure, published, alerts, told: Told::default() }
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
                    self.give_back().await;
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
        self.clinic.aside(|clinic| clinic.store.clean_up()).await.map_err(|why| give_up(&why))?;
        if self.tenure.is_due(Instant::now()) {
            self.ask_for_lease(line).await?;
        }
        if !self.tenure.holds(Instant::now()) {
            return Ok(());
        }
        let now = self.clinic.clock.now().wall;
        let known = self.clinic.aside(move |clinic| {
            let rows = clinic.store.boxes()?;
            let alerts = held(clinic, &rows, now)?;
            Ok((compose(&clinic.settings.clinic, &rows, now), alerts, rows))
        });
        let (board, alerts, rows) = known.await.map_err(|why| give_up(&why))?;
        let mut news = self.published.update(&board, &self.topics);
        news.extend(self.alerts.update(&alerts, &self.topics));
        for publication in news {
            line.publish(publication).await?;
        }
        self.publish_orders(line).await?;
        self.tell_home_assistant(line, rows).await
    }

    async fn publish_orders<L: Line>(&mut self, line: &mut L) -> Result<(), LinkError> {
        let now = self.clinic.clock.now().wall;
        let due = self.clinic.aside(move |clinic| orders::due(clinic, &clinic.topics(), now)).await;
        for (id, publications) in due.map_err(|why| give_up(&why))? {
            for publication in publications {
                line.publish(publication).await?;
            }
            // A line that is lost before this publishes it again: a box carries it out once.
            let published = self.clinic.aside(move |clinic| clinic.store.order_published(&id, now)).await;
            published.map_err(|why| give_up(&why))?;
        }
        Ok(())
    }

    /// Of every box where that is switched on, and else of none.
    async fn tell_home_assistant<L: Line>(&mut self, line: &mut L, rows: Vec<BoxRow>) -> Result<(), LinkError> {
        let known = self.clinic.aside(move |clinic| {
            let (settings, remembered) = (&clinic.settings, clinic.store.discovered()?);
            let is_on = settings.home_assistant;
            let wanted =
                if is_on { discovery::of_all(&settings.clinic, &rows, &clinic.topics()) } else { Wanted::new() };
            // First, so that whatever is cut short after it can be cleared.
            for box_id in wanted.keys().filter(|box_id| !remembered.contains(*box_id)) {
                clinic.store.keep_discovered(box_id)?;
            }
            Ok((wanted, remembered))
        });
        let (wanted, remembered) = known.await.map_err(|why| give_up(&why))?;
        for step in self.told.update(wanted, &remembered, &self.topics) {
            match step {
                Step::Tell(publication) => drop(line.publish(publication).await?),
                Step::Clear(box_id, publication) => {
                    let ticket = line.publish(publication).await?;
                    self.told.clearing(ticket, box_id);
                }
            }
        }
        Ok(())
    }

    async fn answer(&self, box_id: String, id: &str, topic: &str, payload: &[u8]) -> Result<(), ClinicStoreError> {
        let Some(answer) = orders::read(payload, id) else {
            ignored(topic);
            return Ok(());
        };
        let (now, (name, outcome)) = (self.clinic.clock.now().wall, (answer.name.name(), answer.outcome.name()));
        let of = box_id.clone();
        if self.clinic.aside(move |clinic| clinic.store.answered(&of, &answer, now)).await? {
            info!("box" = box_id, name, outcome, "A box answered an order.");
        }
        Ok(())
    }

    /// Takes or renews the lease where that may be. Whoever is new in it knows nothing of what the broker keeps, and asks.
    async fn ask_for_lease<L: Line>(&mut self, line: &mut L) -> Result<(), LinkError> {
        let asked = Instant::now();
        let had = self.tenure.holds(asked);
        let row = self.clinic.aside(|clinic| clinic.store.lease()).await.map_err(|why| give_up(&why))?;
        let is_wanted = self.tenure.wants(row.as_ref(), Instant::now());
        let take = move |clinic: &Clinic| clinic.store.take_lease(&clinic.settings.server, row.as_ref());
        let is_taken = is_wanted && self.clinic.aside(take).await.map_err(|why| give_up(&why))?;
        self.tenure.settle(is_taken, asked);
        match (had, is_taken) {
            (false, true) => {
                info!("This server publishes the board.");
                (self.published, self.alerts) = (Published::default(), alerts::Published::default());
                line.subscribe(&alerts::subscriptions(&self.topics)).await?;
            }
            (true, false) => warn!("Another server publishes the board."),
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// So that another server need not wait until the lease ends. One that is not given back does end.
    async fn give_back(&mut self) {
        if !self.tenure.holds(Instant::now()) {
            return;
        }
        let given = self.clinic.aside(|clinic| match clinic.store.lease()? {
            Some(row) if row.holder == clinic.settings.server => clinic.store.take_lease("", Some(&row)),
            Some(_) | None => Ok(false),
        });
        if let Err(why) = given.await {
            warn!(error = %report(&why), "The lease of the board was not given back.");
        }
    }

    async fn hear<L: Line>(&mut self, line: &mut L, news: News) -> Result<(), LinkError> {
        match news {
            News::Message(message) => {
                let receipt = message.receipt;
                for answer in self.heed(message).await.map_err(|why| give_up(&why))? {
                    line.publish(answer).await?;
                }
                // Last: whatever is cut short before this, the broker sends the message again.
                line.settle(receipt).await
            }
            News::Delivered(ticket) => match self.told.delivered(ticket) {
                Some(box_id) => {
                    let forgotten = self.clinic.aside(move |clinic| clinic.store.forget_discovered(&box_id)).await;
                    forgotten.map_err(|why| give_up(&why))
                }
                None => Ok(()),
            },
            News::Refused(_) => {
                warn!("The broker refused a message.");
                Ok(())
            }
        }
    }

    /// Deals with a message; what is returned is to be published, and is true already.
    async fn heed(&mut self, message: Message) -> Result<Vec<Publication>, ClinicStoreError> {
        let now = self.clinic.clock.now().wall;
        let Message { topic, payload, retained, .. } = message;
        match self.topics.parse(&topic) {
            Some(Topic::Parcel { box_id, session, revision }) => {
                return self.parcel(Label { box_id, session, revision }, payload).await;
            }
            Some(Topic::Withdrawal { box_id, session }) => {
                return self.withdrawal(box_id, session, &topic, payload).await;
            }
            Some(Topic::Status(box_id)) => match std::str::from_utf8(&payload) {
                Ok(status @ (ONLINE | OFFLINE)) => {
                    let status = status.to_owned();
                    self.clinic.aside(move |clinic| clinic.store.keep_status(&box_id, &status, now)).await?;
                }
                Ok(_) | Err(_) => ignored(&topic),
            },
            Some(Topic::Health(box_id)) => match serde_json::from_slice::<BoxHealth>(&payload) {
                Ok(health) if health.box_id == box_id && health.version == 1 => {
                    let seen = (!retained).then_some(now);
                    self.clinic.aside(move |clinic| clinic.store.keep_box_health(&health, seen)).await?;
                }
                Ok(_) | Err(_) => ignored(&topic),
            },
            Some(Topic::Event(box_id)) => match serde_json::from_slice::<Event>(&payload) {
                Ok(event) if event.version == 1 && is_date(&event.at) => {
                    self.clinic.aside(move |clinic| clinic.store.keep_event(&box_id, &event)).await?;
                }
                Ok(_) | Err(_) => ignored(&topic),
            },
            // Only what the broker kept: what is published now is our own, and answering it would never end.
            None if alerts::is_alert(&self.topics, &topic) => {
                if retained {
                    self.alerts.found(&topic);
                }
            }
            Some(Topic::CertificateRequest(box_id)) => return self.certify(&box_id, &topic, &payload),
            Some(Topic::Answer { box_id, id }) => self.answer(box_id, &id, &topic, &payload).await?,
            Some(Topic::Ack(_) | Topic::Command { .. } | Topic::CertificateIssued(_)) | None => ignored(&topic),
        }
        Ok(Vec::new())
    }

    /// The broker let nobody ask but who has that box's certificate.
    fn certify(&self, box_id: &str, topic: &str, payload: &[u8]) -> Result<Vec<Publication>, ClinicStoreError> {
        let asked = serde_json::from_slice::<CertificateRequest>(payload).ok().filter(|asked| asked.version == 1);
        let (Some(authority), Some(asked)) = (&self.clinic.authority, asked) else {
            ignored(topic);
            return Ok(Vec::new());
        };
        match authority.sign(&asked.request, Holder::Room(box_id), self.clinic.clock.now().wall) {
            Ok(certificate) => {
                info!("box" = box_id, "A certificate was renewed.");
                let issued = serde_json::to_vec(&CertificateIssued { version: 1, certificate })?;
                Ok(vec![Publication::once(self.topics.certificate_issued(box_id), issued)])
            }
            Err(why) => {
                warn!("box" = box_id, error = %why, "A certificate was not renewed.");
                Ok(Vec::new())
            }
        }
    }

    async fn parcel(&self, label: Label, payload: Vec<u8>) -> Result<Vec<Publication>, ClinicStoreError> {
        let (of, clinic) = (label.clone(), self.clinic);
        let words = clinic.aside(move |clinic| take(clinic, &of, &payload)).await?;
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
        self.publications(&box_id, &words)
    }

    async fn withdrawal(
        &self,
        box_id: String,
        session: String,
        topic: &str,
        payload: Vec<u8>,
    ) -> Result<Vec<Publication>, ClinicStoreError> {
        let of = (box_id.clone(), session.clone());
        let words = self.clinic.aside(move |clinic| forget(clinic, &of.0, &of.1, &payload)).await?;
        match words.first().map(|ack| (ack.result, ack.reason.as_deref())) {
            None => ignored(topic),
            Some((AckResult::Refused, reason)) => {
                error!(session_id = session, "box" = box_id, reason, "A withdrawal was refused.");
            }
            Some(_) => {
                info!(session_id = session, "box" = box_id, "Consent was withdrawn; nothing of the session is held.");
            }
        }
        self.publications(&box_id, &words)
    }

    fn publications(&self, box_id: &str, words: &[Ack]) -> Result<Vec<Publication>, ClinicStoreError> {
        let topic = self.topics.ack(box_id);
        words.iter().map(|ack| Ok(Publication::once(topic.clone(), serde_json::to_vec(ack)?))).collect()
    }
}

/// The alerts that hold. One that has begun or ended is told in the log, once it is stored.
fn held(clinic: &Clinic, rows: &[BoxRow], now: WallTime) -> Result<Vec<BoardAlert>, ClinicStoreError> {
    let since = clinic.store.alerts()?;
    let held = alerts::holding(rows, &since, now);
    let moves = Moves::between(&since, &held);
    if !moves.is_empty() {
        clinic.store.keep_alerts(&moves, now)?;
        tell(&moves, &held);
    }
    Ok(held)
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
