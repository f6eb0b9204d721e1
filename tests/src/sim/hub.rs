//! An MQTT broker in virtual time, as unkind as the real world: it delays, doubles and reorders, loses what was not
//! settled with the connection, and forgets everything when it is restarted. What it acknowledges is not delivered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sync::uplink::{Broker, Identity, Line, LinkError, Message, News, Publication, Receipt, Ticket};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dice::SimDice;

/// What is watched of every publication, before anybody has it.
pub type Watch = Rc<dyn Fn(&str, &Publication)>;

/// A connected or remembered client.
#[derive(Default)]
struct Client {
    /// Which connection; 0 if there is none.
    epoch: u64,
    filters: Vec<String>,
    will: Option<Publication>,
    /// What the line will tell, and when.
    inbox: Vec<(Instant, News)>,
    /// Delivered or to be delivered, and not settled: topic, payload.
    unsettled: BTreeMap<u16, (String, Vec<u8>)>,
    next_receipt: u16,
    bell: Rc<Notify>,
}

struct State {
    clients: BTreeMap<String, Client>,
    retained: BTreeMap<String, Vec<u8>>,
    up: bool,
    epochs: u64,
    dice: SimDice,
    faults: bool,
    watch: Watch,
}

/// The broker. Clones are the same broker.
#[derive(Clone)]
pub struct Hub(Rc<RefCell<State>>);

/// Whether a topic fits a filter; a shared subscription is its filter, because there is one clinic server.
fn fits(filter: &str, topic: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            _ => return false,
        }
    }
}

impl Hub {
    /// A broker that is up.
    #[must_use]
    pub fn new(dice: SimDice, watch: Watch) -> Self {
        Self(Rc::new(RefCell::new(State {
            clients: BTreeMap::new(),
            retained: BTreeMap::new(),
            up: true,
            epochs: 0,
            dice,
            faults: true,
            watch,
        })))
    }

    /// No more losses, doubles and delays from here on.
    pub fn be_kind(&self) {
        self.0.borrow_mut().faults = false;
        self.set_up(true);
    }

    /// What is retained on a topic.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<Vec<u8>> {
        self.0.borrow().retained.get(topic).cloned()
    }

    /// Stops or starts it. It keeps nothing over a stop: neither sessions, nor queues, nor what was retained.
    pub fn set_up(&self, up: bool) {
        let mut state = self.0.borrow_mut();
        if state.up && !up {
            for client in state.clients.values_mut() {
                client.epoch = 0;
                client.bell.notify_waiters();
            }
            state.clients.clear();
            state.retained.clear();
        }
        state.up = up;
    }

    /// Cuts a client's connection; the broker says its last will.
    pub fn cut(&self, client: &str) {
        self.0.borrow_mut().cut(client);
    }

    /// The door of one client.
    #[must_use]
    pub fn door(&self, identity: Identity, is_alive: Rc<dyn Fn() -> bool>) -> SimBroker {
        SimBroker { hub: self.clone(), identity, is_alive }
    }
}

impl State {
    fn delay(&mut self) -> Duration {
        if self.faults && self.dice.happens(0.1) { self.dice.millis(200..6_000) } else { self.dice.millis(1..80) }
    }

    fn cut(&mut self, client: &str) {
        let Some(found) = self.clients.get_mut(client).filter(|c| c.epoch != 0) else { return };
        found.epoch = 0;
        found.inbox.clear();
        found.bell.notify_waiters();
        if let Some(will) = found.will.take() {
            self.route(client, will);
        }
    }

    fn route(&mut self, from: &str, publication: Publication) {
        (self.watch.clone())(from, &publication);
        let Publication { topic, payload, retain, .. } = publication;
        if retain {
            if payload.is_empty() {
                self.retained.remove(&topic);
            } else {
                self.retained.insert(topic.clone(), payload.clone());
            }
        }
        let names: Vec<String> = self.clients.keys().cloned().collect();
        for name in names {
            let copies = if self.faults && self.dice.happens(0.05) { 2 } else { 1 };
            for _ in 0..copies {
                let at = Instant::now() + self.delay();
                if let Some(client) = self.clients.get_mut(&name)
                    && client.filters.iter().any(|filter| fits(filter, &topic))
                {
                    client.deliver(&topic, &payload, false, at);
                }
            }
        }
    }
}

impl Client {
    fn deliver(&mut self, topic: &str, payload: &[u8], retained: bool, at: Instant) {
        self.next_receipt = self.next_receipt.checked_add(1).unwrap_or(1);
        let receipt = self.next_receipt;
        self.unsettled.insert(receipt, (topic.into(), payload.into()));
        if self.epoch != 0 {
            let message = Message { topic: topic.into(), payload: payload.into(), retained, receipt: Receipt(receipt) };
            self.inbox.push((at, News::Message(message)));
            self.bell.notify_waiters();
        }
    }
}

/// Connects one client.
pub struct SimBroker {
    hub: Hub,
    identity: Identity,
    is_alive: Rc<dyn Fn() -> bool>,
}

impl Broker for SimBroker {
    type Line = SimLine;

    async fn connect(&mut self) -> Result<SimLine, LinkError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut state = self.hub.0.borrow_mut();
        let is_unlucky = state.faults && state.dice.happens(0.1);
        if !state.up || is_unlucky || !(self.is_alive)() {
            return Err(LinkError::Silent);
        }
        let name = self.identity.client_id.clone();
        // A second connection of the same name ends the first.
        state.cut(&name);
        state.epochs += 1;
        let epoch = state.epochs;
        let client = state.clients.entry(name.clone()).or_default();
        (client.epoch, client.will) = (epoch, Some(self.identity.will.clone()));
        let again: Vec<(String, Vec<u8>)> = std::mem::take(&mut client.unsettled).into_values().collect();
        for (topic, payload) in again {
            client.deliver(&topic, &payload, false, Instant::now());
        }
        let bell = client.bell.clone();
        Ok(SimLine { hub: self.hub.clone(), name, epoch, tickets: 0, bell, is_alive: self.is_alive.clone() })
    }
}

/// One connection.
pub struct SimLine {
    hub: Hub,
    name: String,
    epoch: u64,
    tickets: u64,
    bell: Rc<Notify>,
    is_alive: Rc<dyn Fn() -> bool>,
}

fn lost() -> LinkError {
    LinkError::Lost { reason: "cut".into() }
}

impl SimLine {
    /// Does something with this connection's client, while there is one.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, LinkError> {
        let mut state = self.hub.0.borrow_mut();
        let is_mine = state.clients.get(&self.name).is_some_and(|c| c.epoch == self.epoch);
        // A machine whose power is cut says nothing more, though its program does not know yet.
        if is_mine && (self.is_alive)() { Ok(act(&mut state)) } else { Err(lost()) }
    }

    /// The next news that is due, or when the next is.
    fn due(&self) -> Result<Result<News, Option<Instant>>, LinkError> {
        let now = Instant::now();
        self.with(|state| {
            let Some(client) = state.clients.get_mut(&self.name) else { return Err(None) };
            let next = client.inbox.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(n, (at, _))| (n, *at));
            match next {
                Some((n, at)) if at <= now => Ok(client.inbox.remove(n).1),
                Some((_, at)) => Err(Some(at)),
                None => Err(None),
            }
        })
    }
}

impl Drop for SimLine {
    fn drop(&mut self) {
        let mut state = self.hub.0.borrow_mut();
        if state.clients.get(&self.name).is_some_and(|c| c.epoch == self.epoch) {
            state.cut(&self.name);
        }
    }
}

impl Line for SimLine {
    fn packet_limit_bytes(&self) -> Option<usize> {
        None
    }

    async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            let bell = self.bell.clone();
            let rung = bell.notified();
            match self.due()? {
                Ok(news) => return Ok(news),
                Err(Some(at)) => drop(tokio::time::timeout_at(at, rung).await),
                Err(None) => rung.await,
            }
        }
    }

    async fn publish(&mut self, publication: Publication) -> Result<Ticket, LinkError> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.with(|state| {
            // Lost on the way, with the connection; or taken, whatever becomes of it.
            if state.faults && state.dice.happens(0.02) {
                state.cut(&self.name);
                return;
            }
            let at = Instant::now() + state.delay();
            if let Some(client) = state.clients.get_mut(&self.name) {
                client.inbox.push((at, News::Delivered(ticket)));
                client.bell.notify_waiters();
            }
            // Acknowledged and lost all the same: what a broker without a disk does when it dies in between.
            let is_lost = state.faults && !publication.retain && state.dice.happens(0.03);
            if !is_lost {
                state.route(&self.name, publication);
            }
        })?;
        Ok(ticket)
    }

    async fn subscribe(&mut self, filters: &[String]) -> Result<(), LinkError> {
        self.with(|state| {
            for filter in filters {
                let kept: Vec<(String, Vec<u8>)> = state
                    .retained
                    .iter()
                    .filter(|(topic, _)| fits(filter, topic) && !filter.starts_with("$share"))
                    .map(|(topic, payload)| (topic.clone(), payload.clone()))
                    .collect();
                let Some(client) = state.clients.get_mut(&self.name) else { return };
                if !client.filters.contains(filter) {
                    client.filters.push(filter.clone());
                }
                for (topic, payload) in kept {
                    client.deliver(&topic, &payload, true, Instant::now());
                }
            }
        })
    }

    async fn settle(&mut self, receipt: Receipt) -> Result<(), LinkError> {
        self.with(|state| {
            if let Some(client) = state.clients.get_mut(&self.name) {
                client.unsettled.remove(&receipt.0);
            }
        })
    }

    async fn close(self) {
        let mut state = self.hub.0.borrow_mut();
        if let Some(client) = state.clients.get_mut(&self.name).filter(|c| c.epoch == self.epoch) {
            client.will = None;
        }
    }
}
