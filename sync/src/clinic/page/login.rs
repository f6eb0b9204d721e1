//! Where people log in.

use maud::{Markup, html};

use super::document;

/// The form, and why it is shown again.
#[must_use]
pub fn render(clinic: &str, form_token: &str, said: Option<&str>) -> Markup {
    document(
        &format!("Log in · {clinic}"),
        &html! {
            main.narrow #main {
                h1 { (clinic) }
                @if let Some(said) = said { p.notice role="alert" { (said) } }
                form.card method="post" action="/login" {
                    input type="hidden" name="form" value=(form_token);
                    label for="name" { "Name" }
                    input #name name="name" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64"
                        required autofocus;
                    label for="password" { "Password" }
                    input #password name="password" type="password" autocomplete="current-password" maxlength="256" required;
                    button { "Log in" }
                }
                p.dim { "Accounts are made on the clinic's server: " code { "roomscribe-clinic user add" } }
            }
        },
    )
}
