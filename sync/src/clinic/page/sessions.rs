//! Sessions as tables of metadata.

use maud::{Markup, html};

use super::{date, length, mark};
use crate::clinic::access::Role;
use crate::clinic::store::{FailureGroup, SessionRow};

/// The newest. Only who may read what was said is shown a way to it.
pub(super) fn newest(rows: &[SessionRow], role: Role) -> Markup {
    html! {
        h2 #sessions { "Newest sessions" }
        @if rows.is_empty() {
            p.dim { "No session has arrived yet." }
        } @else {
            div.scroll #sessions-table tabindex="0" role="region" aria-labelledby="sessions" {
                table {
                    thead { tr {
                        th scope="col" { "Started" } th scope="col" { "Room" } th scope="col" { "Status" }
                        th scope="col" { "Speakers told apart" } th scope="col" { "Duration" }
                        th scope="col" { "Speakers" } th scope="col" { "Error" }
                    } }
                    tbody { @for row in rows { (line(row, role)) } }
                }
            }
        }
    }
}

/// Failed sessions by what they say.
pub(super) fn failures(groups: &[FailureGroup]) -> Markup {
    html! {
        h2 #failures { "Failures by message" }
        @if groups.is_empty() {
            p.dim { "No session has failed." }
        } @else {
            div.scroll #failures-table tabindex="0" role="region" aria-labelledby="failures" {
                table {
                    thead { tr {
                        th scope="col" { "Message" } th scope="col" { "Sessions" } th scope="col" { "Rooms" }
                        th scope="col" { "Last" }
                    } }
                    tbody { @for group in groups { tr {
                        td.wide data-label="Message" { (group.message) }
                        td data-label="Sessions" { (group.sessions) }
                        td data-label="Rooms" { (group.boxes) }
                        td data-label="Last" { (date(&group.last_at)) }
                    } } }
                }
            }
        }
    }
}

/// Sessions of which there is no transcript until somebody does something on the box.
pub(super) fn dead_letters(rows: &[SessionRow]) -> Markup {
    html! {
        h2 #dead-letters { "Dead letters" }
        @if rows.is_empty() {
            p.dim { "None." }
        } @else {
            p.dim { "Try one again on its box: " code { "roomscribe queue retry SESSION" } }
            div.scroll #dead-letters-table tabindex="0" role="region" aria-labelledby="dead-letters" {
                table {
                    thead { tr {
                        th scope="col" { "Started" } th scope="col" { "Room" } th scope="col" { "Error" }
                        th scope="col" { "Message" } th scope="col" { "Session" }
                    } }
                    tbody { @for row in rows { tr {
                        td data-label="Started" { (date(&row.started_at)) }
                        td data-label="Room" { (row.box_id) }
                        td data-label="Error" { (row.error_type.as_deref().unwrap_or("")) }
                        td.wide data-label="Message" { (row.error_message.as_deref().unwrap_or("")) }
                        td data-label="Session" { code { (row.session_id) } }
                    } } }
                }
            }
        }
    }
}

fn line(row: &SessionRow, role: Role) -> Markup {
    let status = mark(if row.status == "failed" { "bad" } else { "good" }, &row.status);
    let told_apart = mark(if row.diarization_status == "ok" { "good" } else { "warn" }, &row.diarization_status);
    let started = date(&row.started_at);
    html! {
        tr {
            td data-label="Started" {
                @if role.may_read() {
                    a id={ "s-" (row.session_id) } href={ "/sessions/" (row.session_id) } { (started) }
                } @else { (started) }
            }
            td data-label="Room" { (row.box_id) }
            td data-label="Status" { (status) }
            td data-label="Speakers told apart" { (told_apart) }
            td data-label="Duration" { (length(row.duration_s)) }
            td data-label="Speakers" { (row.speakers) }
            td.wide data-label="Error" { (row.error_message.as_deref().unwrap_or("")) }
        }
    }
}
