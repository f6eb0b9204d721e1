//! What to send next: status before health before events before parcels.
//!
//! ```text
//! owed ─▶ due ─ sent ─▶ in flight (at most WINDOW) ─ timeout passes ─▶ due again, behind what was due before
//!          ▲                 │ the clinic's word: no longer owed, forgotten
//!          └── set aside ◀── too large for this connection
//! ```
//!
//! Parcels leave in the order in which they became due, and every try puts its parcel's next turn off. So a
//! parcel that nobody acknowledges cannot keep others back for longer than its timeout, and none is forgotten.
//!
//! A plain value: no clock, no store, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::store::Parcel;
use shared::wire::{BoxHealth, MAX_PARCEL_BYTES};

/// Parcels that were sent and whose timeout has not passed.
pub const WINDOW: usize = 8;
/// No parcel waits longer for its next try.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Health is repeated this often even if nothing has changed: it is the box's sign of life.
pub const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// Health that changes all the time (a meter, a countdown) is published this often.
pub const HEALTH_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// What MQTT adds to topic and payload, generously.
const PACKET_OVERHEAD_BYTES: usize = 64;

/// Names a parcel: session and revision.
pub type Key = (String, u32);

/// What the store holds to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Debts<'a> {
    /// The box's health as it was last kept.
    pub health: Option<&'a BoxHealth>,
    /// Whether there are events to send now.
    pub events: bool,
    /// Parcels, the oldest first.
    pub owed: &'a [Parcel],
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Publish `online`.
    Status,
    /// Publish the health.
    Health,
    /// Publish the events.
    Events,
    /// Publish this parcel.
    Parcel(Parcel),
    /// Nothing for now.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    due: Duration,
    tries: u32,
    set_aside: bool,
}

/// See the top of the file. Times are uptimes.
#[derive(Debug, Clone)]
pub struct Drain {
    ack_timeout: Duration,
    status_due: bool,
    health: Option<(BoxHealth, Duration)>,
    turns: BTreeMap<Key, Turn>,
    packet_limit: usize,
}

fn key(parcel: &Parcel) -> Key {
    (parcel.session.clone(), parcel.revision)
}

impl Drain {
    /// Waits `ack_timeout` for the first acknowledgement of a parcel, at least a second.
    #[must_use]
    pub fn new(ack_timeout: Duration) -> Self {
        Self {
            ack_timeout: ack_timeout.clamp(Duration::from_secs(1), LONGEST_TIMEOUT),
            status_due: true,
            health: None,
            turns: BTreeMap::new(),
            packet_limit: usize::MAX,
        }
    }

    /// A new line: everybody must hear that we are here, and what was sent once on the old one may have died with
    /// it. What was sent more often waits for its turn, so that a parcel which breaks lines does not break each.
    pub fn connected(&mut self, packet_limit: Option<usize>, now: Duration) {
        self.status_due = true;
        self.health = None;
        self.packet_limit = packet_limit.unwrap_or(usize::MAX);
        for turn in self.turns.values_mut() {
            turn.set_aside = false;
            if turn.tries == 1 {
                turn.due = turn.due.min(now);
            }
        }
    }

    /// What to do next.
    pub fn next(&mut self, debts: Debts<'_>, now: Duration) -> Step {
        self.observe(debts.owed, now);
        if self.status_due {
            return Step::Status;
        }
        if debts.health.is_some_and(|health| self.is_health_due(health, now)) {
            return Step::Health;
        }
        if debts.events {
            return Step::Events;
        }
        self.parcel(debts.owed, now).map_or(Step::Rest, |parcel| Step::Parcel(parcel.clone()))
    }

    fn observe(&mut self, owed: &[Parcel], now: Duration) {
        let mut known = std::mem::take(&mut self.turns);
        for parcel in owed {
            let key = key(parcel);
            let turn = known.remove(&key).unwrap_or(Turn { due: now, tries: 0, set_aside: false });
            self.turns.insert(key, turn);
        }
    }

    fn is_health_due(&self, health: &BoxHealth, now: Duration) -> bool {
        let Some((sent, at)) = &self.health else {
            return true;
        };
        let age = now.saturating_sub(*at);
        let same = BoxHealth { at: sent.at.clone(), ..health.clone() } == *sent;
        age >= if same { HEALTH_EVERY } else { HEALTH_AT_MOST_EVERY }
    }

    fn parcel<'a>(&self, owed: &'a [Parcel], now: Duration) -> Option<&'a Parcel> {
        if self.in_flight(now) >= WINDOW {
            return None;
        }
        let due = owed.iter().filter_map(|parcel| {
            let turn = self.turns.get(&key(parcel))?;
            (turn.due <= now && !turn.set_aside).then_some((turn.due, parcel))
        });
        // Of several that became due together the first is taken, which is the oldest.
        due.min_by_key(|(due, _)| *due).map(|(_, parcel)| parcel)
    }

    /// Parcels that were sent and whose timeout has not passed.
    #[must_use]
    pub fn in_flight(&self, now: Duration) -> usize {
        self.turns.values().filter(|turn| turn.tries > 0 && turn.due > now).count()
    }

    /// `online` was published.
    pub fn status_sent(&mut self) {
        self.status_due = false;
    }

    /// This health was published.
    pub fn health_sent(&mut self, health: &BoxHealth, now: Duration) {
        self.health = Some((health.clone(), now));
    }

    /// This parcel was published; says for which time.
    pub fn parcel_sent(&mut self, parcel: &Parcel, now: Duration) -> u32 {
        let Some(turn) = self.turns.get_mut(&key(parcel)) else {
            return 0;
        };
        let timeout = self.ack_timeout.saturating_mul(2_u32.saturating_pow(turn.tries)).min(LONGEST_TIMEOUT);
        turn.tries = turn.tries.saturating_add(1);
        turn.due = now + timeout;
        turn.tries
    }

    /// Whether this connection carries a payload of so many bytes on a topic of so many.
    #[must_use]
    pub fn fits(&self, payload_bytes: usize, topic_bytes: usize) -> bool {
        payload_bytes <= MAX_PARCEL_BYTES && payload_bytes + topic_bytes + PACKET_OVERHEAD_BYTES <= self.packet_limit
    }

    /// This parcel cannot leave on this connection; the others go on.
    pub fn set_aside(&mut self, parcel: &Parcel) {
        if let Some(turn) = self.turns.get_mut(&key(parcel)) {
            turn.set_aside = true;
        }
    }
}

#[cfg(test)]
mod tests;
