//! The room's end: hands what the box owes to the broker and believes only the clinic's signed word.
//!
//! The loop here owns line and store; [`drain`] says what is next.

pub mod acks;
pub mod commands;
pub mod drain;
pub mod enrol;
mod events;
pub mod redeem;
pub mod renewal;

use std::sync::Arc;
use std::time::Duration;

use shared::breaker::StateName;
use shared::clock::Clock;
use shared::command::CommandName;
use shared::error::report;
use shared::paths::Root;
use shared::seal::{AckResult, ClinicPublic, sha256};
use shared::settings::Link;
use shared::store::{Parcel, Store, StoreError, WITHDRAWAL};
use shared::wire::{BoxHealth, Topic, Topics};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::backoff::{Keeper, stay_connected};
use crate::gate::Gate;
use crate::heart::Heart;
use crate::stop::Stop;
use crate::tls::Credentials;
use commands::Judge;
use renewal::Renewal;

use crate::uplink::{Broker, Correlation, Identity, Line, LinkError, Message, News, OFFLINE, ONLINE, Publication};
use acks::Disbelief;
use drain::{Debts, Drain, Step};
use events::Batch;

/// How often the store is asked for news.
const POLL: Duration = Duration::from_millis(500);
/// Parcels looked at together; far more than the window, so that some which fail do not hide the rest.
const OWED: u32 = 512;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The broker keeps acknowledgements this long for a box that is away; later the box sends again anyway.
const SESSION_EXPIRY_S: u32 = 24 * 3600;

/// One box's end of the link.
pub struct Room {
    /// Where recorder and link meet.
    pub store: Arc<Store>,
    /// The clinic.
    pub link: Link,
    /// Its public keys.
    pub keys: ClinicPublic,
    /// The machine's clocks, or a test's.
    pub clock: Arc<dyn Clock>,
    /// Where the recorder's control socket is found.
    pub root: Root,
    /// What the site allows to the clinic.
    pub allow: Vec<CommandName>,
}

/// Who this box is to the broker.
#[must_use]
pub fn identity(link: &Link, credentials: Option<Arc<dyn Credentials>>) -> Identity {
    let status = Topics::new(&link.clinic).status(&link.box_id);
    Identity {
        client_id: format!("roomscribe-{}-{}", link.clinic, link.box_id),
        host: link.broker_host.clone(),
        port: link.broker_port,
        will: Publication::retained(status, OFFLINE),
        session_expiry_s: SESSION_EXPIRY_S,
        credentials,
    }
}

/// The recorder keeps its health every ten seconds; three times that without news, and it is not running.
const RECORDER_SILENT: Duration = Duration::from_secs(30);

/// Serves until told to stop.
pub async fn run<B: Broker>(broker: B, room: Room, keeper: Keeper) {
    let mut desk = Desk {
        topics: Topics::new(&room.link.clinic),
        drain: Drain::new(Duration::from_secs_f64(room.link.ack_timeout)),
        batch: Batch::default(),
        complained: false,
        recorder: None,
        gate: keeper.gate.clone(),
        renewal: Renewal::new(room.root.clone()),
        room,
    };
    stay_connected(broker, keeper, async |line, stop: &mut Stop, heart: &Heart| desk.serve(line, stop, heart).await)
        .await;
}

struct Desk {
    room: Room,
    topics: Topics,
    drain: Drain,
    batch: Batch,
    complained: bool,
    /// When the recorder's health was last news: its date, and the uptime at which it was first seen.
    recorder: Option<(String, Duration)>,
    /// The breaker around connecting.
    gate: Option<Arc<Gate>>,
    renewal: Renewal,
}

/// The store failed: logged here, and the line is given up, so that the loop comes back after a wait.
fn give_up(why: &StoreError) -> LinkError {
    error!(error = %report(why), "The box's database failed.");
    LinkError::Store
}

impl Desk {
    fn uptime(&self) -> Duration {
        self.room.clock.now().uptime
    }

    async fn serve<L: Line>(&mut self, mut line: L, stop: &mut Stop, heart: &Heart) -> Result<(), LinkError> {
        self.drain.connected(line.packet_limit_bytes(), self.uptime());
        self.batch = Batch::default();
        let box_id = &self.room.link.box_id;
        let own = [self.topics.ack(box_id), self.topics.command_filter(box_id), self.topics.certificate_issued(box_id)];
        line.subscribe(&own).await?;
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => return self.leave(line).await,
                news = line.next() => self.hear(&mut line, news?).await?,
                _ = poll.tick() => {
                    self.heed_people()?;
                    self.renew(&mut line).await?;
                    self.speak(&mut line).await?;
                }
            }
            heart.beat();
        }
    }

    /// A breaker that a person holds open ends the line.
    fn heed_people(&self) -> Result<(), LinkError> {
        let Some(gate) = &self.gate else { return Ok(()) };
        gate.heed();
        match gate.state() {
            StateName::ForcedOpen => Err(LinkError::HeldOpen),
            StateName::Closed | StateName::Open | StateName::HalfOpen | StateName::Disabled => Ok(()),
        }
    }

    async fn hear<L: Line>(&mut self, line: &mut L, news: News) -> Result<(), LinkError> {
        match news {
            News::Message(message) => {
                match self.topics.parse(&message.topic) {
                    Some(Topic::Command { box_id, .. }) if box_id == self.room.link.box_id => {
                        self.obey(line, &message).await?;
                    }
                    Some(Topic::CertificateIssued(box_id)) if box_id == self.room.link.box_id => {
                        self.renewal.take(&message.payload);
                    }
                    _ => self.heed(&message)?,
                }
                line.settle(message.receipt).await?;
                // An acknowledgement makes room for the next parcel.
                self.speak(line).await
            }
            News::Delivered(ticket) => match self.batch.delivered(ticket) {
                Some(id) => self.room.store.events_sent(id).map_err(|why| give_up(&why)),
                None => Ok(()),
            },
            News::Refused(ticket) => {
                let events = self.batch.refused(ticket, self.uptime());
                warn!(events, "The broker refused a message.");
                Ok(())
            }
        }
    }

    async fn renew<L: Line>(&mut self, line: &mut L) -> Result<(), LinkError> {
        let Some(request) = self.renewal.due(&self.room.clock.now()) else { return Ok(()) };
        let topic = self.topics.certificate_request(&self.room.link.box_id);
        line.publish(Publication::once(topic, json(&request)?)).await.map(drop)
    }

    async fn obey<L: Line>(&self, line: &mut L, message: &Message) -> Result<(), LinkError> {
        let Room { store, link, keys, clock, root, allow } = &self.room;
        let (now, is_synchronized) = (clock.now().wall, root.time_synchronized().exists());
        let judge = Judge { keys, clinic: &link.clinic, box_id: &link.box_id, allow, now, is_synchronized };
        let recorder = commands::Socket(root.clone());
        let answer = commands::heed(&message.payload, &judge, store, &recorder).await;
        let Some(answer) = answer.map_err(|why| give_up(&why))? else { return Ok(()) };
        let (name, outcome) = (answer.name.name(), answer.outcome.name());
        info!(name, outcome, "The clinic is answered.");
        let order = Correlation { id: answer.id.clone(), response_topic: None, expires_s: None };
        let topic = self.topics.answer(&link.box_id, &answer.id);
        line.publish(Publication { order: Some(order), ..Publication::once(topic, json(&answer)?) }).await?;
        Ok(())
    }

    fn heed(&self, message: &Message) -> Result<(), LinkError> {
        let link = &self.room.link;
        if message.topic != self.topics.ack(&link.box_id) {
            return Ok(());
        }
        let ack = match acks::believe(&message.payload, &self.room.keys, &link.clinic, &link.box_id) {
            Ok(ack) => ack,
            Err(Disbelief::OtherKeys) => {
                info!("An acknowledgement by other keys than this box was told was passed over.");
                return Ok(());
            }
            Err(why) => {
                warn!(error = %why, "An acknowledgement was ignored.");
                return self.room.store.disbelieve("acknowledgement").map_err(|why| give_up(&why));
            }
        };
        let wall = self.room.clock.now().wall;
        let settled = self.room.store.acknowledge(&ack, wall).map_err(|why| give_up(&why))?;
        let (session_id, revision, result) = (&ack.session, ack.revision, ack.result.name());
        let reason = ack.reason.as_deref().unwrap_or("none given");
        match (ack.result, revision == WITHDRAWAL) {
            _ if !settled => info!(session_id, revision, result, "The clinic said again what it had said."),
            (AckResult::Refused, true) => {
                error!(session_id, reason, "The clinic does not destroy what it has of a withdrawn session.");
            }
            (AckResult::Refused, false) => {
                error!(session_id, revision, reason, "The clinic refused a parcel for good.");
            }
            (AckResult::Stored | AckResult::Duplicate | AckResult::Withdrawn, true) => {
                info!(session_id, "The clinic holds nothing of a withdrawn session.");
            }
            (AckResult::Stored | AckResult::Duplicate | AckResult::Withdrawn, false) => {
                info!(session_id, revision, result, "The clinic acknowledged a parcel.");
            }
        }
        Ok(())
    }

    async fn speak<L: Line>(&mut self, line: &mut L) -> Result<(), LinkError> {
        let store = self.room.store.clone();
        let lost = |why| give_up(&why);
        let kept = self.readable(store.health())?.flatten();
        let health = kept.map(|health| self.honest(health));
        let events = self.readable(store.unsent_events(events::BATCH))?.unwrap_or_default();
        let owed = store.owed(OWED).map_err(lost)?;
        loop {
            let now = self.uptime();
            let events_due = !events.is_empty() && self.batch.is_free(now);
            let debts = Debts { health: health.as_ref(), events: events_due, owed: &owed };
            match (self.drain.next(debts, now), &health) {
                (Step::Status, _) => {
                    line.publish(Publication::retained(self.status(), ONLINE)).await?;
                    self.drain.status_sent();
                }
                (Step::Health, Some(health)) => {
                    line.publish(Publication::retained(self.health(), json(health)?)).await?;
                    self.drain.health_sent(health, now);
                }
                (Step::Events, _) => {
                    for event in &events {
                        let topic = self.topics.event(&self.room.link.box_id);
                        let ticket = line.publish(Publication::once(topic, json(event)?)).await?;
                        self.batch.sent(event, ticket);
                    }
                }
                (Step::Parcel(parcel), _) => self.send(line, &parcel, now).await?,
                (Step::Rest, _) | (Step::Health, None) => return Ok(()),
            }
        }
    }

    /// A recorder that has said nothing for a while is not what it last said it was.
    fn honest(&mut self, mut health: BoxHealth) -> BoxHealth {
        let now = self.uptime();
        let since = match &self.recorder {
            Some((at, since)) if *at == health.at => *since,
            Some(_) | None => now,
        };
        self.recorder = Some((health.at.clone(), since));
        if now.saturating_sub(since) >= RECORDER_SILENT {
            health.capture.state = "silent".into();
        }
        health
    }

    /// A damaged row of health or events is told once and must not keep parcels back; a store that fails does.
    fn readable<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, LinkError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged(why)) => {
                if !std::mem::replace(&mut self.complained, true) {
                    error!(error = %why, "Health or events of the box cannot be read and are not sent.");
                }
                Ok(None)
            }
            Err(why) => Err(give_up(&why)),
        }
    }

    async fn send<L: Line>(&mut self, line: &mut L, parcel: &Parcel, now: Duration) -> Result<(), LinkError> {
        let Parcel { session, revision, .. } = parcel;
        if *revision == WITHDRAWAL {
            let message = self.room.store.withdrawal_message(session).map_err(|why| give_up(&why))?;
            let topic = self.topics.withdrawal(&self.room.link.box_id, session);
            line.publish(Publication::once(topic, message)).await?;
            let tries = self.drain.parcel_sent(parcel, now);
            info!(session_id = session, tries, "A withdrawal was sent.");
            return Ok(());
        }
        let bytes = self.room.store.parcel(session, *revision).map_err(|why| give_up(&why))?;
        let topic = self.topics.parcel(&self.room.link.box_id, session, *revision);
        match bytes {
            Some(bytes) if sha256(&bytes) != parcel.sha256 => {
                error!(session_id = session, revision, "A parcel is no longer what was sealed; it is not sent.");
                self.room.store.parcel_damaged(session, *revision).map_err(|why| give_up(&why))?;
                self.drain.set_aside(parcel);
            }
            Some(bytes) if self.drain.fits(bytes.len(), topic.len()) => {
                line.publish(Publication::once(topic, bytes)).await?;
                let tries = self.drain.parcel_sent(parcel, now);
                info!(session_id = session, revision, tries, "A parcel was sent.");
            }
            Some(bytes) => {
                error!(session_id = session, revision, bytes = bytes.len(), "A parcel is too large for the broker.");
                self.drain.set_aside(parcel);
            }
            None => self.drain.set_aside(parcel),
        }
        Ok(())
    }

    /// Takes leave: with a proper goodbye the broker publishes no last will, so `offline` is ours to say.
    async fn leave<L: Line>(&self, mut line: L) -> Result<(), LinkError> {
        farewell(&mut line, self.status()).await;
        line.close().await;
        Ok(())
    }

    fn status(&self) -> String {
        self.topics.status(&self.room.link.box_id)
    }

    fn health(&self) -> String {
        self.topics.health(&self.room.link.box_id)
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, LinkError> {
    serde_json::to_vec(value).map_err(|why| give_up(&why.into()))
}

/// Publishes `offline` and waits until the broker has it, for a while.
pub(crate) async fn farewell<L: Line>(line: &mut L, topic: String) {
    let said = async {
        let ticket = line.publish(Publication::retained(topic, OFFLINE)).await?;
        while line.next().await? != News::Delivered(ticket) {}
        Ok::<_, LinkError>(())
    };
    match tokio::time::timeout(GOODBYE, said).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => warn!(error = %report(&why), "The broker did not hear the goodbye."),
        Err(_) => warn!("The broker did not hear the goodbye in time."),
    }
}

#[cfg(test)]
mod tests;
