//! Who asks, and whether they may: log-ins, tokens, forms that come from our own pages, and headers.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{ConnectInfo, Form, FromRef, FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use super::{NoAnswer, ask};
use crate::clinic::Clinic;
use crate::clinic::access::Person;
use crate::clinic::access::token::Token;
use crate::clinic::page;

/// Requests that are answered at once, event streams apart: a clinic has some dozens of people and programs.
const AT_ONCE: usize = 64;
/// A form holds a name, a password and a token.
pub const FORM_BYTES: usize = 4096;
/// The field of each form that shows that it is ours.
pub const FORM_TOKEN: &str = "form";

static PLACES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(AT_ONCE));

/// The way by which somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// HTTP on the loopback interface.
    Local,
    /// HTTP on a network: health and metrics alone, for passwords and names would travel in the clear.
    Open,
    /// HTTPS.
    Secure,
}

impl Door {
    /// Of a plain listener.
    #[must_use]
    pub fn plain(at: SocketAddr) -> Self {
        if at.ip().is_loopback() { Self::Local } else { Self::Open }
    }

    /// The cookie of a log-in. `__Host-` is only taken over HTTPS, from this very host.
    #[must_use]
    pub fn login_cookie(self) -> &'static str {
        match self {
            Self::Secure => "__Host-roomscribe",
            Self::Local | Self::Open => "roomscribe",
        }
    }

    /// The cookie of a log-in form.
    #[must_use]
    pub fn form_cookie(self) -> &'static str {
        match self {
            Self::Secure => "__Host-roomscribe-form",
            Self::Local | Self::Open => "roomscribe-form",
        }
    }

    /// A cookie for this host alone, that no script sees and no other site sends; `None` takes it away.
    #[must_use]
    pub fn cookie(self, name: &str, value: Option<&str>) -> String {
        let secure = match self {
            Self::Secure => "; Secure",
            Self::Local | Self::Open => "",
        };
        let ends = if value.is_none() { "; Max-Age=0" } else { "" };
        format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}{ends}", value.unwrap_or_default())
    }
}

/// What pages need.
#[derive(Clone)]
pub struct Site {
    /// Whose.
    pub clinic: Arc<Clinic>,
    /// By which way people come to it.
    pub door: Door,
}

impl FromRef<Site> for Arc<Clinic> {
    fn from_ref(site: &Site) -> Self {
        Self::clone(&site.clinic)
    }
}

/// A cookie of the request.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
}

/// Whether two tokens are the same, in a time that does not tell where they differ.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Whose log-in a request bears. `uses`: see [`crate::clinic::store::ClinicStore::who`].
pub(super) async fn logged_in(site: &Site, headers: &HeaderMap, uses: bool) -> Result<Option<Person>, NoAnswer> {
    let Some(token) = cookie(headers, site.door.login_cookie()).and_then(Token::read) else { return Ok(None) };
    let (hash, now) = (token.hash(), site.clinic.clock.now().wall);
    ask(&site.clinic, move |store| store.who(&hash, uses, now)).await
}

async fn whose_token(site: &Site, headers: &HeaderMap) -> Result<Option<Person>, NoAnswer> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")).and_then(Token::read) else {
        return Ok(None);
    };
    let hash = token.hash();
    ask(&site.clinic, move |store| store.whose_token(&hash)).await
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// For all paths but monitoring: the door, how many at once, and where a form comes from.
pub async fn door(State(site): State<Site>, request: Request, next: Next) -> Response {
    if site.door == Door::Open {
        let message = "Over HTTP, from another machine, there is health and metrics alone; come over HTTPS";
        return (StatusCode::FORBIDDEN, Json(json!({"error": message}))).into_response();
    }
    // Browsers say where a request was made; other programs say nothing, and bear no cookies that are not theirs.
    let from = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !is_read(request.method()) && from.is_some_and(|from| from != b"same-origin") {
        return page::refused("This form comes from another site.");
    }
    let Ok(_place) = PLACES.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once; try again").into_response();
    };
    next.run(request).await
}

/// The request as it came, if it is a form that bears the token.
async fn our_form(request: Request, expected: &str) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, FORM_BYTES).await.ok()?;
    let again = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let Form(fields) = Form::<Vec<(String, String)>>::from_request(again(), &()).await.ok()?;
    fields.iter().any(|(name, value)| name == FORM_TOKEN && is_same(value, expected)).then(again)
}

/// For pages: sends to the log-in who is not logged in; takes a form only with the token that its page was given.
pub async fn people(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let person = match logged_in(&site, request.headers(), true).await {
        Ok(Some(person)) => person,
        Ok(None) => return Redirect::to("/login").into_response(),
        Err(why) => return why.into_response(),
    };
    if !is_read(request.method()) {
        let expected = person.login.as_ref().map(|login| login.form_token.as_str()).unwrap_or_default();
        let Some(ours) = our_form(request, expected).await else {
            return page::refused("This form is too old, or not ours. Load the page again.");
        };
        request = ours;
    }
    request.extensions_mut().insert(person);
    next.run(request).await
}

/// For `/api/v1` and event streams: a token or a log-in, and reading alone.
pub async fn programs(State(site): State<Site>, mut request: Request, next: Next) -> Response {
    let found = match whose_token(&site, request.headers()).await {
        Ok(None) => logged_in(&site, request.headers(), true).await,
        found => found,
    };
    match found {
        Ok(Some(person)) => {
            request.extensions_mut().insert(person);
            next.run(request).await
        }
        Ok(None) => {
            let answer = Json(json!({"error": "Log in, or send a token: roomscribe-clinic token add NAME"}));
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response()
        }
        Err(why) => why.into_response(),
    }
}

/// Headers of every answer: nothing from elsewhere, no frame, no copy kept.
pub async fn headers(Extension(door): Extension<Door>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let mut set = |name: &'static str, value: &'static str| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    set(
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    );
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("referrer-policy", "no-referrer");
    set("cache-control", "no-store");
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    set("permissions-policy", "camera=(), geolocation=(), microphone=()");
    if door == Door::Secure {
        set("strict-transport-security", "max-age=31536000");
    }
    response
}

/// From where a request comes.
pub(super) type From = ConnectInfo<SocketAddr>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; roomscribe-form=x; roomscribe=y=z"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        let found = ["a", "roomscribe", "b", "rooms", "c"].map(|name| cookie(&headers, name));
        assert_eq!(found, [Some("1"), Some("y=z"), Some("2"), None, None]);
    }

    #[test]
    fn over_https_a_cookie_belongs_to_this_host_and_never_travels_in_the_clear() {
        let (name, door) = (Door::Secure.login_cookie(), Door::Secure);
        let expected = "__Host-roomscribe=t; Path=/; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(door.cookie(name, Some("t")), expected);
        assert!(!Door::Local.cookie("roomscribe", None).contains("Secure"));
        assert_eq!(Door::plain(([127, 0, 0, 1], 1).into()), Door::Local);
        assert_eq!(Door::plain(([0, 0, 0, 0], 1).into()), Door::Open);
    }
}
