//! A FHIR R4 `DocumentReference`. It names no person: whose session it is, is the clinic's to add.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use shared::record::{Record, Status};

use super::captions::vtt;
use super::{one_line, txt};

/// Where the record's times are no times, the fields that would hold them are left out.
pub(super) fn document_reference(record: &Record) -> Value {
    let started: Option<Timestamp> = record.started_at.parse().ok();
    let ended: Option<Timestamp> = record.ended_at.parse().ok();
    let made = ended.and_then(|ended| later(ended, record.processing.seconds_after_end));
    // A clock that was set back during the session does not end it before its start.
    let ended = ended.max(started.and_then(|started| later(started, record.duration_s)));
    let mut content = vec![attachment("text/plain; charset=UTF-8", "Transcript", &txt(record), made)];
    if record.status == Status::Done {
        content.push(attachment("text/vtt", "Transcript as captions", &vtt(record), made));
    }
    without_nulls(json!({
        "resourceType": "DocumentReference",
        "masterIdentifier": version(record, record.revision),
        "identifier": [{ "system": "urn:ietf:rfc:3986", "value": session(record) }],
        "status": "current",
        // No person has looked at it.
        "docStatus": "preliminary",
        "type": {
            "coding": [{ "system": "http://loinc.org", "code": "34109-9", "display": "Note" }],
            "text": "Session transcript",
        },
        "date": made,
        "author": [{ "type": "Device", "identifier": { "value": one_line(&record.box_id) } }],
        "relatesTo": (record.revision > 1).then(|| {
            let replaced = json!({ "type": "DocumentReference", "identifier": version(record, record.revision - 1) });
            json!([{ "code": "replaces", "target": replaced }])
        }),
        "description": "Transcript of a recorded session, made by a machine.",
        "securityLabel": [{
            "coding": [{
                "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
                "code": "R",
                "display": "restricted",
            }],
        }],
        "content": content,
        "context": started.map(|started| json!({ "period": { "start": started, "end": ended } })),
    }))
}

fn session(record: &Record) -> String {
    format!("urn:uuid:{}", one_line(&record.session_id))
}

/// The master identifier is of this revision alone.
fn version(record: &Record, revision: u32) -> Value {
    json!({ "system": session(record), "value": revision.to_string() })
}

fn later(than: Timestamp, seconds: f64) -> Option<Timestamp> {
    than.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()?.round(jiff::Unit::Millisecond).ok()
}

/// FHIR R4 wants the SHA-1, and both sum and size of the bytes before base64.
fn attachment(content_type: &str, title: &str, text: &str, made: Option<Timestamp>) -> Value {
    json!({ "attachment": {
        "contentType": content_type,
        "data": BASE64_STANDARD.encode(text),
        "size": text.len(),
        "hash": BASE64_STANDARD.encode(Sha1::digest(text)),
        "title": title,
        "creation": made,
    }})
}

/// FHIR has no nulls: what is not known is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
