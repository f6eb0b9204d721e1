//! What a clinic asks of a box: an order, signed, and the box's answer.
//!
//! ```text
//! clinic: order ─▶ command {order, key id, signature} on {box}/cmd/{name} ─▶ box: believed? for me? new? in time? allowed?
//!         ◀─────────────── answer on {box}/answer/{id} ◀─── done, refused, failed, late, not allowed, interrupted
//! ```
//!
//! The order travels as the text that was signed, so that no reader has to write it anew to judge it. An order has an id, and
//! is carried out once; whoever sends it again gets the same answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::breaker::Service;

/// The longest order.
pub const MAX_ORDER_BYTES: usize = 4096;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandName {
    /// Begin a session.
    Start,
    /// End the one that is recorded.
    Stop,
    /// Off the record.
    Pause,
    /// On it again.
    Resume,
    /// Consent was withdrawn: destroy a session, here and at the clinic.
    Withdraw,
    /// Close a breaker.
    BreakerReset,
    /// Put a failed session to work again.
    Retry,
    /// Say how the box is.
    HealthCheck,
}

impl CommandName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Stop,
        Self::Pause,
        Self::Resume,
        Self::Withdraw,
        Self::BreakerReset,
        Self::Retry,
        Self::HealthCheck,
    ];

    /// As it stands in topics, settings and the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Withdraw => "withdraw",
            Self::BreakerReset => "breaker-reset",
            Self::Retry => "retry",
            Self::HealthCheck => "health-check",
        }
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CommandName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|c| c.name() == text).ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

/// What is asked, of whom, by whom, until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Always 1.
    pub version: u32,
    /// UUID; the correlation.
    pub id: String,
    /// Clinic id.
    pub clinic: String,
    /// Box id.
    #[serde(rename = "box")]
    pub box_id: String,
    /// What.
    pub name: CommandName,
    /// Of which session: for `withdraw` and `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Of which breaker: for `breaker-reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// What the consent rests on: for `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// The role of who asks at the clinic.
    pub by: String,
    /// When, RFC 3339 UTC.
    pub issued_at: String,
    /// Seconds from then on in which it may be carried out.
    pub valid_for_s: u32,
}

/// An order under the clinic's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// An [`Order`] as JSON, to the letter as it was signed.
    pub order: String,
    /// Which signing key, hexadecimal.
    pub key_id: String,
    /// Ed25519, hexadecimal.
    pub signature: String,
}

impl Command {
    /// What the signature is over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        ["roomscribe-command-v1", &self.key_id, &self.order].join("\n").into_bytes()
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is carried out.
    Done,
    /// The box says why it cannot be: nothing is recorded, there is no such session.
    Refused,
    /// The recorder does not answer.
    Failed,
    /// It came after its time.
    Late,
    /// The site does not allow it to the clinic.
    NotAllowed,
    /// The box lost power or was killed while it did it: it may be done or not.
    Interrupted,
}

impl Outcome {
    /// As it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::NotAllowed => "not_allowed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A box's answer, on `{box}/answer/{id}`. Nothing in it derives from what was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Always 1.
    pub version: u32,
    /// The order's.
    pub id: String,
    /// The order's.
    pub name: CommandName,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When, RFC 3339 UTC.
    pub at: String,
}
