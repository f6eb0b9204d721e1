//! The door to the broker: one connection at a time, and what comes through it.
//!
//! A [`Line`] is one connection. When it is lost it is dropped with everything that was queued on it; who owes
//! something sends it again on the next. So the store is the only memory of what is owed.

use std::future::Future;
use std::sync::Arc;

use crate::tls::{Credentials, TlsError};

#[cfg(test)]
pub mod scripted;

/// Payload of a status topic while its owner is connected.
pub const ONLINE: &str = "online";
/// Payload of a status topic when its owner has left, or was lost (last will).
pub const OFFLINE: &str = "offline";

/// Something to publish, QoS 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for those who come later.
    pub retain: bool,
    /// Of which order it is, or which it answers.
    pub order: Option<Correlation>,
}

/// What binds an order and its answer, as MQTT 5 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation {
    /// The order's id: the correlation data.
    pub id: String,
    /// Where the answer belongs; absent in an answer.
    pub response_topic: Option<String>,
    /// Seconds after which the broker gives it to nobody; absent in an answer.
    pub expires_s: Option<u32>,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publication({}, {} bytes, retain {})", self.topic, self.payload.len(), self.retain)
    }
}

impl Publication {
    /// For those who listen now.
    #[must_use]
    pub fn once(topic: String, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic, payload: payload.into(), retain: false, order: None }
    }

    /// For those who come later, too.
    #[must_use]
    pub fn retained(topic: String, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic, payload: payload.into(), retain: true, order: None }
    }
}

/// Names one publication on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names one received message on one line; [`Line::settle`] takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt(pub u16);

/// A received message. The broker sends it again until it is settled.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it was kept for us rather than published just now.
    pub retained: bool,
    /// To settle it with.
    pub receipt: Receipt,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({}, {} bytes, retained {})", self.topic, self.payload.len(), self.retained)
    }
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A message came.
    Message(Message),
    /// The broker has this publication. That does not mean that anybody else has it.
    Delivered(Ticket),
    /// The broker will not take this publication.
    Refused(Ticket),
}

/// Why there is no line, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection to its address.
    #[error("The broker cannot be reached")]
    Unreachable(#[source] std::io::Error),
    /// It did not answer in time.
    #[error("The broker did not answer in time")]
    Silent,
    /// Our own certificate or key cannot be used.
    #[error("The certificate for the broker cannot be used")]
    Credentials(#[source] TlsError),
    /// The broker's certificate is not the clinic's, or ours was not taken.
    #[error("No trust between here and the broker ({reason})")]
    Distrusted {
        /// As TLS says it.
        reason: String,
    },
    /// It answered no.
    #[error("The broker refused the connection ({reason})")]
    Rejected {
        /// MQTT's reason code.
        reason: String,
    },
    /// It answered no to a subscription.
    #[error("The broker refused a subscription")]
    SubscriptionRefused,
    /// The connection ended.
    #[error("The connection to the broker was lost ({reason})")]
    Lost {
        /// As the client library says it; never a payload.
        reason: String,
    },
    /// It takes nothing more.
    #[error("The broker takes no more messages")]
    Stuck,
    /// A person holds the circuit breaker open.
    #[error("The line was given up because a person holds its circuit breaker open")]
    HeldOpen,
    /// Our own store failed, so the line was given up: the broker sends again what was not settled.
    #[error("The line was given up because the store failed")]
    Store,
}

/// Who connects, and what the world hears if they are lost.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Client id, the same after every restart: the broker keeps messages for it.
    pub client_id: String,
    /// Broker host name or address.
    pub host: String,
    /// Broker port.
    pub port: u16,
    /// Published by the broker when the line is lost.
    pub will: Publication,
    /// Seconds the broker keeps messages for us while we are away.
    pub session_expiry_s: u32,
    /// How to prove that; without it the line is plain text.
    pub credentials: Option<Arc<dyn Credentials>>,
}

/// Makes lines.
pub trait Broker {
    /// What it makes.
    type Line: Line;

    /// Connects once; has a deadline of its own.
    ///
    /// # Errors
    /// [`LinkError`].
    fn connect(&mut self) -> impl Future<Output = Result<Self::Line, LinkError>>;
}

/// One connection.
pub trait Line {
    /// The largest packet the broker takes, if it says.
    fn packet_limit_bytes(&self) -> Option<usize>;

    /// Waits for news. May be dropped while it waits without losing any.
    ///
    /// # Errors
    /// [`LinkError`] once the line is lost.
    fn next(&mut self) -> impl Future<Output = Result<News, LinkError>>;

    /// Queues a publication; [`News::Delivered`] follows when the broker has it.
    ///
    /// # Errors
    /// [`LinkError`] if it cannot even be queued.
    fn publish(&mut self, publication: Publication) -> impl Future<Output = Result<Ticket, LinkError>>;

    /// Subscribes with QoS 1.
    ///
    /// # Errors
    /// [`LinkError`].
    fn subscribe(&mut self, filters: &[String]) -> impl Future<Output = Result<(), LinkError>>;

    /// The message is dealt with: the broker may forget it.
    ///
    /// # Errors
    /// [`LinkError`].
    fn settle(&mut self, receipt: Receipt) -> impl Future<Output = Result<(), LinkError>>;

    /// Says goodbye, so that the broker publishes no last will.
    fn close(self) -> impl Future<Output = ()>;
}
