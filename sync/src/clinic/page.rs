//! The pages: how every room is, what was said in a session, and the log-in. Nothing in them is from elsewhere.
//!
//! Templates are maud's, which escapes every value; there is no other way into a page. Style and script are files of their
//! own, so that the browser need run nothing that stands in a page.

mod alerts;
mod charts;
pub mod login;
mod rooms;
mod sessions;
pub mod transcript;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use shared::breaker::Service;
use shared::clock::WallTime;

use super::access::Person;
use super::http::guard::FORM_TOKEN;
use super::http::live::{Snapshot, Span};

/// Of every page.
pub const STYLE: &str = include_str!("page/dashboard.css");
/// Of the front page; without it the page is loaded anew now and then.
pub const SCRIPT: &str = include_str!("page/dashboard.js");

fn document(title: &str, body: &Markup) -> Markup {
    whole(title, &html! {}, body)
}

fn whole(title: &str, head: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Roomscribe" }
                link rel="stylesheet" href="/dashboard.css";
                (head)
            }
            body { (body) }
        }
    }
}

/// What stands above every page of somebody who is logged in.
fn bar(clinic: &str, person: &Person) -> Markup {
    html! {
        a.skip href="#main" { "Skip to content" }
        header.bar {
            a.home href="/" { (clinic) }
            @if let Some(login) = &person.login {
                form method="post" action="/logout" {
                    input type="hidden" name=(FORM_TOKEN) value=(login.form_token);
                    span.dim { (person.name) " · " (person.role) }
                    button.plain { "Log out" }
                }
            }
        }
    }
}

/// Why something is not done, to a person.
pub fn refused(why: &str) -> Response {
    told(StatusCode::FORBIDDEN, why)
}

/// An answer in one sentence.
pub fn told(status: StatusCode, sentence: &str) -> Response {
    let page = document(
        sentence,
        &html! {
            main.narrow #main {
                h1 { (sentence) }
                p { a href="/" { "To the rooms" } }
            }
        },
    );
    (status, page).into_response()
}

/// How every room is.
#[must_use]
pub fn front(clinic: &str, person: &Person, seen: &Snapshot, span: Span, now: WallTime) -> Markup {
    let head = html! {
        script src="/dashboard.js" defer {}
        noscript { meta http-equiv="refresh" content="15"; }
    };
    whole(
        clinic,
        &head,
        &html! {
            (bar(clinic, person))
            main #main {
                h1 { "Rooms of " (clinic) }
                p.notice #lost role="status" hidden { "No connection to the clinic server: what is shown may be old." }
                (live(person, seen, span, now))
            }
        },
    )
}

/// The part of the page that changes; each part in it by itself.
#[must_use]
pub fn live(person: &Person, seen: &Snapshot, span: Span, now: WallTime) -> Markup {
    html! {
        div #live data-events={ "/events?span=" (span.name()) } {
            div data-part="state" { (state(seen, now)) }
            section data-part="alerts" aria-live="polite" { (alerts::section(&seen.alerts)) }
            section data-part="rooms" { (rooms::cards(seen, now)) }
            section data-part="sessions" { (sessions::newest(&seen.sessions, person.role)) }
            section data-part="failures" { (sessions::failures(&seen.failures)) }
            section data-part="dead-letters" { (sessions::dead_letters(&seen.dead_letters)) }
            section data-part="charts" { (charts::section(seen.slots(span), span, now)) }
        }
    }
}

fn state(seen: &Snapshot, now: WallTime) -> Markup {
    html! {
        p {
            "Broker: "
            @if seen.connected { (mark("good", "connected")) } @else { (mark("bad", "not connected")) }
            " · " span.dim { "as of " (date(&now.to_string())) }
        }
    }
}

fn mark(class: &str, text: &str) -> Markup {
    html! { span class=(class) { (text) } }
}

/// What people call a service.
fn name(service: Service) -> &'static str {
    match service {
        Service::Transcription => "Transcription",
        Service::Diarization => "Diarization",
        Service::Sync => "Link",
    }
}

/// `2026-01-01T00:00:00.000Z` as people read it; what has another shape is shown as it is.
fn date(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

/// Minutes and seconds of a length that is never negative.
fn length(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests;
