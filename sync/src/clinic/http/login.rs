//! Logging in and out.

use std::time::Duration;

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;
use shared::error::report;
use tracing::{error, warn};
use zeroize::Zeroizing;

use super::guard::{From, Site, cookie, is_same, logged_in};
use super::{NoAnswer, ask};
use crate::clinic::access::gate::GateError;
use crate::clinic::access::token::Token;
use crate::clinic::access::{Deed, Entry, Person};
use crate::clinic::page;

#[derive(Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: Zeroizing<String>,
    form: String,
}

/// A form of its own for each, known again by a cookie: nobody is logged in by another site's form.
fn form(site: &Site, status: StatusCode, said: Option<&str>) -> Response {
    let token = match Token::generate() {
        Ok(token) => token.text(),
        Err(why) => {
            error!(error = %why, "The system gave no random numbers.");
            return NoAnswer.into_response();
        }
    };
    let cookie = site.door.cookie(site.door.form_cookie(), Some(&token));
    let page = page::login::render(&site.clinic.settings.clinic, &token, said);
    (status, [(header::SET_COOKIE, cookie)], page).into_response()
}

pub(super) async fn ask_who(State(site): State<Site>, headers: HeaderMap) -> Response {
    match logged_in(&site, &headers, true).await {
        Ok(Some(_)) => Redirect::to("/").into_response(),
        Ok(None) => form(&site, StatusCode::OK, None),
        Err(why) => why.into_response(),
    }
}

pub(super) async fn enter(
    State(site): State<Site>,
    from: From,
    headers: HeaderMap,
    sent: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let sent = sent.ok().filter(|Form(sent)| {
        cookie(&headers, site.door.form_cookie()).is_some_and(|known| !known.is_empty() && is_same(known, &sent.form))
    });
    let Some(Form(sent)) = sent else {
        return form(&site, StatusCode::FORBIDDEN, Some("This form was too old. Try again."));
    };
    let place = match site.clinic.gate.place().await {
        Ok(place) => place,
        Err(why) => return not_let_in(&site, &why),
    };
    let clinic = site.clinic.clone();
    let entered = tokio::task::spawn_blocking(move || {
        // The place is held for as long as the work lasts, also when nobody waits for it any more.
        let _place = place;
        clinic.gate.enter(&clinic.store, &sent.name, &sent.password, from.0.ip(), &clinic.clock.now())
    });
    match entered.await {
        Ok(Ok(token)) => {
            let login = site.door.cookie(site.door.login_cookie(), Some(&token.text()));
            let spent = site.door.cookie(site.door.form_cookie(), None);
            let cookies = AppendHeaders([(header::SET_COOKIE, login), (header::SET_COOKIE, spent)]);
            (cookies, Redirect::to("/")).into_response()
        }
        Ok(Err(why)) => not_let_in(&site, &why),
        Err(why) => {
            error!(error = %why, "A log-in was cut short.");
            NoAnswer.into_response()
        }
    }
}

fn not_let_in(site: &Site, why: &GateError) -> Response {
    match why {
        GateError::Wrong => form(site, StatusCode::UNAUTHORIZED, Some("Name or password is wrong.")),
        GateError::TooMany { wait } => {
            warn!("A log-in was refused after too many wrong passwords.");
            let said = format!("Too many wrong passwords. Try again in {}.", minutes(*wait));
            let mut response = form(site, StatusCode::TOO_MANY_REQUESTS, Some(&said));
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
            response
        }
        GateError::Busy => {
            form(site, StatusCode::SERVICE_UNAVAILABLE, Some("Too many people log in at once. Try again."))
        }
        GateError::Chance(_) | GateError::Store(_) => {
            error!(error = %report(why), "A log-in failed.");
            NoAnswer.into_response()
        }
    }
}

fn minutes(wait: Duration) -> String {
    match wait.as_secs().div_ceil(60) {
        0 | 1 => "a minute".into(),
        n => format!("{n} minutes"),
    }
}

pub(super) async fn leave(
    State(site): State<Site>,
    from: From,
    Extension(person): Extension<Person>,
) -> Result<Response, NoAnswer> {
    let now = site.clinic.clock.now().wall;
    ask(&site.clinic, move |store| {
        if let Some(login) = &person.login {
            store.end_login(&login.token_hash)?;
        }
        let address = from.0.ip().to_canonical().to_string();
        let (who, address) = (person.name.as_str(), Some(address.as_str()));
        store.write_down(&Entry { who, what: Deed::LoggedOut, session: None, address }, now)
    })
    .await?;
    let cookie = site.door.cookie(site.door.login_cookie(), None);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}
