//! Topics and messages of the link, MQTT 5, root `roomscribe/v1/{clinic}`.
//!
//! Nothing on these topics but the sealed parcel derives from what was said. Ids are `[a-z0-9-]{1,32}`, so they
//! can never hold a topic separator or a wildcard.
//!
//! `schema/asyncapi-v1.json` is the contract: a topic or a field that is new here belongs there, and tests hold both
//! together.

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertName};
use crate::breaker::{Service, StateName};
use crate::command::CommandName;
use crate::guard::View;
use crate::store::Rates;

/// The contract, as `AsyncAPI` 3: every topic, its kind, who publishes, and every field.
pub const ASYNCAPI: &str = include_str!("../schema/asyncapi-v1.json");

/// The largest parcel the link carries.
pub const MAX_PARCEL_BYTES: usize = 4 * 1024 * 1024;

/// The largest packet: a parcel, its topic and MQTT's own bytes.
pub const MAX_PACKET_BYTES: usize = MAX_PARCEL_BYTES + 64 * 1024;

/// Stands for all boxes where a topic names one: no box can be called so.
pub const WHOLE_CLINIC: &str = "board";

/// A valid clinic, box or server id.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The topics of one clinic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

impl Topics {
    /// For clinic `clinic`.
    #[must_use]
    pub fn new(clinic: &str) -> Self {
        Self { root: format!("roomscribe/v1/{clinic}") }
    }

    /// Retained `online`; last will `offline`.
    #[must_use]
    pub fn status(&self, box_id: &str) -> String {
        format!("{}/{box_id}/status", self.root)
    }

    /// Retained [`BoxHealth`].
    #[must_use]
    pub fn health(&self, box_id: &str) -> String {
        format!("{}/{box_id}/health", self.root)
    }

    /// A sealed record.
    #[must_use]
    pub fn parcel(&self, box_id: &str, session: &str, revision: u32) -> String {
        format!("{}/{box_id}/parcel/{session}/{revision}", self.root)
    }

    /// Consent was withdrawn: a [`Withdrawal`].
    #[must_use]
    pub fn withdrawal(&self, box_id: &str, session: &str) -> String {
        format!("{}/{box_id}/withdrawal/{session}", self.root)
    }

    /// Signed acknowledgements to one box ([`crate::seal::Ack`]).
    #[must_use]
    pub fn ack(&self, box_id: &str) -> String {
        format!("{}/{box_id}/ack", self.root)
    }

    /// What the clinic asks of one box ([`crate::command::Command`]).
    #[must_use]
    pub fn command(&self, box_id: &str, name: CommandName) -> String {
        format!("{}/{box_id}/cmd/{name}", self.root)
    }

    /// The filter of all that the clinic asks of one box.
    #[must_use]
    pub fn command_filter(&self, box_id: &str) -> String {
        format!("{}/{box_id}/cmd/+", self.root)
    }

    /// A box's [`crate::command::Answer`].
    #[must_use]
    pub fn answer(&self, box_id: &str, id: &str) -> String {
        format!("{}/{box_id}/answer/{id}", self.root)
    }

    /// A box asks for a new certificate: a [`CertificateRequest`].
    #[must_use]
    pub fn certificate_request(&self, box_id: &str) -> String {
        format!("{}/{box_id}/certificate/request", self.root)
    }

    /// It is given one: a [`CertificateIssued`].
    #[must_use]
    pub fn certificate_issued(&self, box_id: &str) -> String {
        format!("{}/{box_id}/certificate/issued", self.root)
    }

    /// [`Event`]s of one box.
    #[must_use]
    pub fn event(&self, box_id: &str) -> String {
        format!("{}/{box_id}/event", self.root)
    }

    /// Retained `online` of a clinic server; last will `offline`.
    #[must_use]
    pub fn board_status(&self, server: &str) -> String {
        format!("{}/board/status/{server}", self.root)
    }

    /// Retained [`Board`].
    #[must_use]
    pub fn board_breakers(&self) -> String {
        format!("{}/board/breakers", self.root)
    }

    /// Retained [`BoardBreaker`].
    #[must_use]
    pub fn board_breaker(&self, box_id: &str, service: Service) -> String {
        format!("{}/board/breakers/{box_id}/{service}", self.root)
    }

    /// Retained [`BoardAlert`] while it holds, cleared when it ends. `box_id` is [`WHOLE_CLINIC`] for what is judged over
    /// all boxes together.
    #[must_use]
    pub fn board_alert(&self, alert: AlertName, box_id: &str) -> String {
        format!("{}/board/alerts/{}/{box_id}", self.root, alert.name())
    }

    /// A box to Home Assistant's MQTT discovery, retained where the clinic has that switched on. Not below the root: the
    /// address is Home Assistant's.
    #[must_use]
    pub fn discovery(&self, box_id: &str) -> String {
        let clinic = self.root.rsplit('/').next().unwrap_or_default();
        format!("homeassistant/device/roomscribe-{clinic}/{box_id}/config")
    }

    /// What a topic of this clinic means, or `None` for any other.
    #[must_use]
    pub fn parse(&self, topic: &str) -> Option<Topic> {
        let rest = topic.strip_prefix(&self.root)?.strip_prefix('/')?;
        let parts: Vec<&str> = rest.split('/').collect();
        let id = |s: &str| (is_id(s) && s != "board").then(|| s.to_owned());
        match parts[..] {
            [box_id, "status"] => Some(Topic::Status(id(box_id)?)),
            [box_id, "health"] => Some(Topic::Health(id(box_id)?)),
            [box_id, "ack"] => Some(Topic::Ack(id(box_id)?)),
            [box_id, "event"] => Some(Topic::Event(id(box_id)?)),
            [box_id, "certificate", "request"] => Some(Topic::CertificateRequest(id(box_id)?)),
            [box_id, "certificate", "issued"] => Some(Topic::CertificateIssued(id(box_id)?)),
            [box_id, "cmd", name] => Some(Topic::Command { box_id: id(box_id)?, name: name.parse().ok()? }),
            [box_id, "answer", order] => {
                Some(Topic::Answer { box_id: id(box_id)?, id: uuid::Uuid::parse_str(order).ok()?.to_string() })
            }
            [box_id, "withdrawal", session] => Some(Topic::Withdrawal {
                box_id: id(box_id)?,
                session: uuid::Uuid::parse_str(session).ok()?.to_string(),
            }),
            [box_id, "parcel", session, revision] => Some(Topic::Parcel {
                box_id: id(box_id)?,
                session: uuid::Uuid::parse_str(session).ok()?.to_string(),
                revision: revision.parse().ok().filter(|r| *r >= 1)?,
            }),
            _ => None,
        }
    }

    /// Everything that a box publishes. `box_id` may be what a broker's rules put in its place.
    #[must_use]
    pub fn written_by(&self, box_id: &str) -> [String; 7] {
        ["status", "health", "event", "parcel/+/+", "withdrawal/+", "answer/+", "certificate/request"]
            .map(|rest| format!("{}/{box_id}/{rest}", self.root))
    }

    /// Everything that a box may be told.
    #[must_use]
    pub fn read_by(&self, box_id: &str) -> [String; 3] {
        ["ack", "cmd/+", "certificate/issued"].map(|rest| format!("{}/{box_id}/{rest}", self.root))
    }

    /// The filter of all topics of the clinic.
    #[must_use]
    pub fn clinic_filter(&self) -> String {
        format!("{}/#", self.root)
    }

    /// The filter of every box's health.
    #[must_use]
    pub fn health_filter(&self) -> String {
        format!("{}/+/health", self.root)
    }

    /// The filter of what Home Assistant is told of.
    #[must_use]
    pub fn discovery_filter(&self) -> String {
        self.discovery("+")
    }

    /// The filter of what a dashboard reads.
    #[must_use]
    pub fn board_filter(&self) -> String {
        format!("{}/{WHOLE_CLINIC}/#", self.root)
    }

    /// What every clinic server subscribes to plainly.
    #[must_use]
    pub fn plain_subscriptions(&self) -> [String; 2] {
        [format!("{}/+/status", self.root), self.health_filter()]
    }

    /// What the clinic's servers share between them.
    #[must_use]
    pub fn shared_subscriptions(&self) -> [String; 5] {
        [
            format!("$share/roomscribe-clinic/{}/+/parcel/+/+", self.root),
            format!("$share/roomscribe-clinic/{}/+/withdrawal/+", self.root),
            format!("$share/roomscribe-clinic/{}/+/event", self.root),
            format!("$share/roomscribe-clinic/{}/+/answer/+", self.root),
            format!("$share/roomscribe-clinic/{}/+/certificate/request", self.root),
        ]
    }
}

/// A parsed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// See [`Topics::status`].
    Status(String),
    /// See [`Topics::health`].
    Health(String),
    /// See [`Topics::ack`].
    Ack(String),
    /// See [`Topics::event`].
    Event(String),
    /// See [`Topics::certificate_request`].
    CertificateRequest(String),
    /// See [`Topics::certificate_issued`].
    CertificateIssued(String),
    /// See [`Topics::command`].
    Command {
        /// To which box.
        box_id: String,
        /// What.
        name: CommandName,
    },
    /// See [`Topics::answer`].
    Answer {
        /// From which box.
        box_id: String,
        /// Of which order.
        id: String,
    },
    /// See [`Topics::parcel`].
    Parcel {
        /// From which box.
        box_id: String,
        /// UUID.
        session: String,
        /// From 1.
        revision: u32,
    },
    /// See [`Topics::withdrawal`].
    Withdrawal {
        /// From which box.
        box_id: String,
        /// UUID.
        session: String,
    },
}

/// Consent to a session was withdrawn, on `{box}/withdrawal/{session}`, QoS 1, until the clinic has acknowledged it with
/// revision 0 and the result `withdrawn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Always 1.
    pub version: u32,
    /// UUID.
    pub session: String,
    /// When, RFC 3339 UTC.
    pub at: String,
}

/// A box asks for a certificate that lasts longer, on `{box}/certificate/request`, QoS 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Always 1.
    pub version: u32,
    /// PKCS #10, PEM, by the key of the certificate that it has.
    pub request: String,
}

/// It is given one, on `{box}/certificate/issued`, QoS 1. A certificate is no secret, and a box takes only one that fits its key
/// and is signed by the authority it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIssued {
    /// Always 1.
    pub version: u32,
    /// PEM.
    pub certificate: String,
}

/// The guide's four keys, from `GET /health/audio-processing` on box and clinic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioProcessingHealth {
    /// State of the transcription breaker.
    pub transcription_circuit: StateName,
    /// State of the diarization breaker.
    pub diarization_circuit: StateName,
    /// Consecutive, now.
    pub transcription_failures: u32,
    /// Consecutive, now.
    pub diarization_failures: u32,
}

/// One breaker as health shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerHealth {
    /// The state.
    pub state: StateName,
    /// Failed calls in a row.
    pub failure_count: u32,
    /// Seconds until a call may try, rounded up; `null` if only a person can change that.
    pub retry_after_s: Option<u64>,
    /// Seconds since it was last closed; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_s: Option<u64>,
    /// What a health check has found, if that holds it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<View> for BreakerHealth {
    fn from(view: View) -> Self {
        Self {
            state: view.state,
            failure_count: view.failure_count,
            retry_after_s: view.retry_after.map(|d| d.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
            open_s: view.open_for.map(|d| d.as_secs()),
            reason: view.ailment.map(|ailment| ailment.explain()),
        }
    }
}

/// Sessions by what is still to be done for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueHealth {
    /// Being recorded or paused.
    pub recording: u64,
    /// Queued, processing or postponed.
    pub queued: u64,
    /// Done or failed, and the clinic has not said that it holds them.
    pub unacknowledged: u64,
    /// Failed, or refused by the clinic: kept, and a person must look.
    pub dead_lettered: u64,
}

/// What the board's own sensors say, where it has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BoardHealth {
    /// Degrees Celsius, the hottest zone.
    pub celsius: Option<f64>,
    /// Whether the firmware says that the supply is too weak now.
    pub under_voltage: Option<bool>,
    /// MiB of memory that are available.
    pub free_memory_mib: Option<u64>,
    /// MiB that are free on the data disk.
    pub free_disk_mib: Option<u64>,
}

/// What the microphone is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptureHealth {
    /// `idle`, `recording`, `paused` (off the record), `failing` (nothing is heard), or `silent` (the recorder itself has
    /// said nothing for long; told by the sync daemon).
    pub state: String,
    /// Seconds recorded in the present session.
    pub recorded_s: f64,
    /// Peak of the last second, dB relative to full scale.
    pub peak_dbfs: Option<f64>,
}

/// Retained on `{box}/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxHealth {
    /// Always 1.
    pub version: u32,
    /// Which box.
    #[serde(rename = "box")]
    pub box_id: String,
    /// When this was measured, RFC 3339 UTC.
    pub at: String,
    /// `synchronized` or `unsynchronized`.
    pub time_quality: crate::record::TimeQuality,
    /// By service name.
    pub breakers: std::collections::BTreeMap<Service, BreakerHealth>,
    /// Sessions by what is still to be done.
    pub queue: QueueHealth,
    /// The microphone.
    pub capture: CaptureHealth,
    /// Temperature, supply, memory, disk.
    #[serde(default)]
    pub board: BoardHealth,
    /// The transcription model in use, as the record names it; absent until one was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcriber: Option<String>,
    /// The six alerts, evaluated on the box.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// What they were evaluated from, for the clinic to add up over boxes.
    #[serde(default)]
    pub rates: Rates,
    /// Software version.
    pub software: String,
}

/// A breaker or session moved, on `{box}/event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Always 1.
    pub version: u32,
    /// Unique on this box and rising.
    pub id: i64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// What moved.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A breaker went from one state to another.
    Breaker {
        /// Which.
        service: Service,
        /// Before.
        from: StateName,
        /// After.
        to: StateName,
        /// Failed calls in a row.
        failure_count: u32,
    },
    /// A session reached a status.
    Session {
        /// UUID.
        session: String,
        /// Its status.
        status: crate::record::Status,
    },
}

/// One breaker of one box on the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardBreaker {
    /// Which box.
    #[serde(rename = "box")]
    pub box_id: String,
    /// Which service.
    pub service: Service,
    /// Whether the box is connected; if not, the rest is what was last known.
    pub online: bool,
    /// As the box last said.
    #[serde(flatten)]
    pub breaker: BreakerHealth,
    /// When the box measured it, RFC 3339 UTC.
    pub at: String,
}

/// An alert that holds, retained on `board/alerts/{alert}/{box}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoardAlert {
    /// Always 1.
    pub version: u32,
    /// Which box, or [`WHOLE_CLINIC`].
    #[serde(rename = "box")]
    pub box_id: String,
    /// The alert as it stands.
    #[serde(flatten)]
    pub alert: Alert,
    /// Since when it holds, as far as the clinic knows, RFC 3339 UTC.
    pub since: String,
    /// Whether the box is connected; if not, this is what was last known.
    pub online: bool,
}

/// The published breaker health of a clinic, retained on `board/breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Always 1.
    pub version: u32,
    /// Which clinic.
    pub clinic: String,
    /// When it was published, RFC 3339 UTC.
    pub at: String,
    /// The worst state and largest counts of all boxes.
    #[serde(flatten)]
    pub worst: AudioProcessingHealth,
    /// Every breaker of every box.
    pub breakers: Vec<BoardBreaker>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back_as_they_were_written() {
        let topics = Topics::new("north");
        let session = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
        assert_eq!(
            topics.parse(&topics.parcel("room-1", session, 2)),
            Some(Topic::Parcel { box_id: "room-1".into(), session: session.into(), revision: 2 })
        );
        assert_eq!(
            topics.parse(&topics.withdrawal("room-1", session)),
            Some(Topic::Withdrawal { box_id: "room-1".into(), session: session.into() })
        );
        assert_eq!(topics.parse(&topics.ack("room-1")), Some(Topic::Ack("room-1".into())));
    }

    #[test]
    fn foreign_and_malformed_topics_mean_nothing() {
        let topics = Topics::new("north");
        for bad in [
            "roomscribe/v1/south/room-1/status",
            "roomscribe/v1/north/Room 1/status",
            "roomscribe/v1/north/board/status",
            "roomscribe/v1/north/room-1/parcel/not-a-uuid/1",
            "roomscribe/v1/north/room-1/parcel/7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11/0",
        ] {
            assert_eq!(topics.parse(bad), None, "{bad}");
        }
    }
}
