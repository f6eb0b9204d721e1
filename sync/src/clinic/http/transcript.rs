//! `GET /sessions/{id}`: what was said, to who may read it, once it is written down that they do.

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use shared::error::report;
use shared::record::Record;
use tracing::error;

use super::NoAnswer;
use super::guard::{From, Site};
use crate::clinic::access::{Deed, Entry, Person};
use crate::clinic::show::{self, ShowError};
use crate::clinic::{Clinic, page};

pub(super) async fn read(
    State(site): State<Site>,
    from: From,
    Extension(person): Extension<Person>,
    Path(session): Path<String>,
) -> Response {
    // What is no session's id is neither looked for nor written down.
    let Ok(session) = uuid::Uuid::parse_str(&session).map(|id| id.to_string()) else {
        return page::told(StatusCode::NOT_FOUND, "There is no such page.");
    };
    let (clinic, reader) = (site.clinic.clone(), person.clone());
    let address = from.0.ip().to_canonical().to_string();
    let opened = tokio::task::spawn_blocking(move || open(&clinic, &reader, &address, &session)).await;
    match opened {
        Ok(Ok(Some(record))) => {
            page::transcript::render(&site.clinic.settings.clinic, &person, &record).into_response()
        }
        Ok(Ok(None)) => page::refused("Only clinicians may read what was said."),
        Ok(Err(why)) => not_shown(&why),
        Err(why) => {
            error!(error = %why, "A reading was cut short.");
            NoAnswer.into_response()
        }
    }
}

/// The record, if this person may read it. It is written down first, whether they may or not.
fn open(clinic: &Clinic, person: &Person, address: &str, session: &str) -> Result<Option<Record>, ShowError> {
    let now = clinic.clock.now().wall;
    let entry = |what| Entry { who: &person.name, what, session: Some(session), address: Some(address) };
    if !person.role.may_read() {
        clinic.store.write_down(&entry(Deed::ReadRefused), now)?;
        return Ok(None);
    }
    let record = show::open(clinic, session)?;
    clinic.store.write_down(&entry(Deed::Read), now)?;
    Ok(Some(record))
}

fn not_shown(why: &ShowError) -> Response {
    match why {
        ShowError::NoSession => page::told(StatusCode::NOT_FOUND, "The clinic holds no such session."),
        ShowError::Withdrawn => {
            page::told(StatusCode::GONE, "Consent to this session was withdrawn: nothing of it is left.")
        }
        ShowError::Store(_) | ShowError::Sealed(_) => {
            error!(error = %report(why), "A session could not be shown.");
            page::told(StatusCode::SERVICE_UNAVAILABLE, "The session could not be opened; the server's log says why.")
        }
    }
}
