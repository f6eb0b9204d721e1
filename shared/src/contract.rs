//! Holds MQTT messages against `schema/asyncapi-v1.json`, the contract of the link; for tests alone.
//!
//! ```text
//! topic ─▶ the one channel whose address fits ─▶ retained as its sender says? ─▶ one of its messages allows the payload?
//! ```
//!
//! What is wrong is told by place, never by content: a payload may hold anything.

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::wire::ASYNCAPI;

/// The document is not one that messages can be held against.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// Not JSON.
    #[error("The document is not JSON")]
    Syntax,
    /// Something is not there.
    #[error("The document lacks {place}")]
    Missing {
        /// What, as a JSON pointer.
        place: String,
    },
    /// A schema is none.
    #[error("The document's schema at {place} cannot be used")]
    Schema {
        /// Which, as a JSON pointer.
        place: String,
    },
}

/// A message is not what the contract allows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// No channel has such a topic.
    #[error("{topic} is not in the contract")]
    Topic {
        /// Which.
        topic: String,
    },
    /// It is retained and must not be, or the other way round.
    #[error("A message on {channel} must be retained: {expected}")]
    Retained {
        /// Which channel.
        channel: String,
        /// Whether it must be.
        expected: bool,
    },
    /// None of the channel's messages allows it.
    #[error("A message on {channel} does not fit its schema at {places:?}")]
    Payload {
        /// Which channel.
        channel: String,
        /// Where: in the message, then in the schema.
        places: Vec<String>,
    },
}

enum Payload {
    Json(Validator),
    Text(Validator),
    Binary { starts_with: Vec<u8>, bytes: std::ops::RangeInclusive<u64> },
}

impl Payload {
    /// Where it does not fit; nothing if it does.
    fn misfits(&self, payload: &[u8]) -> Vec<String> {
        let nothing = || vec!["the whole of it".to_owned()];
        match self {
            Self::Json(schema) => {
                serde_json::from_slice(payload).map_or_else(|_| nothing(), |value| misfits(schema, &value))
            }
            Self::Text(schema) => {
                std::str::from_utf8(payload).map_or_else(|_| nothing(), |text| misfits(schema, &json!(text)))
            }
            Self::Binary { starts_with, bytes } => {
                let fits = payload.starts_with(starts_with) && bytes.contains(&(payload.len() as u64));
                if fits { Vec::new() } else { nothing() }
            }
        }
    }
}

/// Where a value does not fit a schema: places in both, and nothing of the value.
#[must_use]
pub fn misfits(schema: &Validator, value: &Value) -> Vec<String> {
    schema.iter_errors(value).map(|e| format!("{} against {}", e.instance_path(), e.schema_path())).collect()
}

/// The schema at a JSON pointer of a document, which may refer to others of it.
///
/// # Errors
/// [`ContractError`].
pub fn schema_at(document: &Value, pointer: &str) -> Result<Validator, ContractError> {
    if document.pointer(pointer).is_none() {
        return Err(ContractError::Missing { place: pointer.into() });
    }
    let schema =
        json!({"components": document["components"], "paths": document["paths"], "$ref": format!("#{pointer}")});
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|_| ContractError::Schema { place: pointer.into() })
}

struct Channel {
    name: String,
    topic: Validator,
    retained: bool,
    messages: Vec<Payload>,
}

/// The contract, ready to hold messages against.
pub struct Contract {
    channels: Vec<Channel>,
}

impl Contract {
    /// That of [`ASYNCAPI`].
    ///
    /// # Errors
    /// [`ContractError`].
    pub fn published() -> Result<Self, ContractError> {
        Self::of(&serde_json::from_str(ASYNCAPI).map_err(|_| ContractError::Syntax)?)
    }

    /// That of a document.
    ///
    /// # Errors
    /// [`ContractError`].
    pub fn of(document: &Value) -> Result<Self, ContractError> {
        let channels = document["channels"].as_object().ok_or_else(|| missing("/channels"))?;
        let channels = channels.iter().map(|(name, described)| channel(document, name, described));
        Ok(Self { channels: channels.collect::<Result<_, _>>()? })
    }

    /// The names of all channels.
    #[must_use]
    pub fn channels(&self) -> Vec<&str> {
        self.channels.iter().map(|channel| channel.name.as_str()).collect()
    }

    /// The channel that allows this message; `retained` as its publisher said, or `None` if that is not known.
    ///
    /// # Errors
    /// [`Breach`].
    pub fn check(&self, topic: &str, payload: &[u8], retained: Option<bool>) -> Result<&str, Breach> {
        let unknown = || Breach::Topic { topic: topic.into() };
        let channel = self.channels.iter().find(|c| c.topic.is_valid(&json!(topic))).ok_or_else(unknown)?;
        let name = &channel.name;
        if retained.is_some_and(|retained| retained != channel.retained) {
            return Err(Breach::Retained { channel: name.clone(), expected: channel.retained });
        }
        let mut places = Vec::new();
        for message in &channel.messages {
            let misfits = message.misfits(payload);
            if misfits.is_empty() {
                return Ok(name);
            }
            places.extend(misfits);
        }
        Err(Breach::Payload { channel: name.clone(), places })
    }
}

fn missing(place: impl Into<String>) -> ContractError {
    ContractError::Missing { place: place.into() }
}

/// What a `$ref` names, and its pointer.
fn followed<'a>(document: &'a Value, reference: &Value) -> Result<(&'a Value, String), ContractError> {
    let pointer = reference["$ref"].as_str().and_then(|r| r.strip_prefix('#')).ok_or_else(|| missing("a $ref"))?;
    Ok((document.pointer(pointer).ok_or_else(|| missing(pointer))?, pointer.to_owned()))
}

fn channel(document: &Value, name: &str, described: &Value) -> Result<Channel, ContractError> {
    let messages = described["messages"].as_object().ok_or_else(|| missing(format!("/channels/{name}/messages")))?;
    Ok(Channel {
        name: name.to_owned(),
        topic: topic(document, name, described)?,
        retained: is_retained(document, name)?,
        messages: messages.values().map(|message| payload(document, message)).collect::<Result<_, _>>()?,
    })
}

/// The address as a pattern: `{parameter}` is its `enum` or its `x-pattern`.
fn topic(document: &Value, name: &str, described: &Value) -> Result<Validator, ContractError> {
    let place = format!("/channels/{name}/address");
    let mut pattern = described["address"].as_str().ok_or_else(|| missing(&place))?.to_owned();
    for (parameter, reference) in described["parameters"].as_object().into_iter().flatten() {
        let (of, pointer) = followed(document, reference)?;
        let one_of = || Some(of["enum"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|"));
        let fits = of["x-pattern"].as_str().map(str::to_owned).or_else(one_of).ok_or_else(|| missing(pointer))?;
        pattern = pattern.replace(&format!("{{{parameter}}}"), &format!("(?:{fits})"));
    }
    let schema = json!({"type": "string", "pattern": format!("^{pattern}$")});
    jsonschema::draft202012::new(&schema).map_err(|_| ContractError::Schema { place })
}

/// As the channel's one sender says.
fn is_retained(document: &Value, channel: &str) -> Result<bool, ContractError> {
    let about = json!({"$ref": format!("#/channels/{channel}")});
    let operations = document["operations"].as_object().into_iter().flatten().map(|(_, operation)| operation);
    let mut senders = operations.filter(|o| o["action"] == "send" && o["channel"] == about);
    let sender = senders.next().ok_or_else(|| missing(format!("a sender on {channel}")))?;
    let retained = &sender["bindings"]["mqtt"]["retain"];
    retained.as_bool().ok_or_else(|| missing(format!("whether {channel} is retained")))
}

fn payload(document: &Value, reference: &Value) -> Result<Payload, ContractError> {
    let (message, pointer) = followed(document, reference)?;
    let (schema, place) = followed(document, &message["payload"])?;
    match message["contentType"].as_str() {
        Some("application/json") => schema_at(document, &place).map(Payload::Json),
        Some("text/plain") => schema_at(document, &place).map(Payload::Text),
        Some("application/octet-stream") => {
            let starts_with =
                schema["x-starts-with"].as_str().ok_or_else(|| missing(format!("{place}/x-starts-with")))?;
            let bytes = |limit: &str| schema[limit].as_u64().ok_or_else(|| missing(format!("{place}/{limit}")));
            let (least, most) = (bytes("x-min-bytes")?, bytes("x-max-bytes")?);
            Ok(Payload::Binary { starts_with: starts_with.into(), bytes: least..=most })
        }
        Some(_) | None => Err(missing(format!("a content type known here: {pointer}"))),
    }
}

#[cfg(test)]
mod tests;
