//! What the front page shows, and its event stream: the store is asked at most once a second, however many look on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use maud::Markup;
use serde::Deserialize;
use shared::clock::WallTime;
use shared::wire::BoardAlert;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior};

use super::guard::{Site, logged_in};
use super::{NoAnswer, ask};
use crate::clinic::access::Person;
use crate::clinic::alerts::holding;
use crate::clinic::board::is_online;
use crate::clinic::store::{BoxRow, ClinicStore, ClinicStoreError, FailureGroup, SessionRow, Slot};
use crate::clinic::{Clinic, page};

/// Sessions on the page, of each kind, and messages.
const ON_PAGE: u32 = 20;
/// The page is as old as this at most; as the board.
const EVERY: Duration = Duration::from_secs(1);
/// Event streams at once: each is a connection, and a look at the page each second.
const STREAMS: usize = 32;

/// How far charts look back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// A day.
    #[default]
    Day,
    /// A week.
    Week,
}

impl Span {
    /// As it stands in an address.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// As people read it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Day => "Last day",
            Self::Week => "Last week",
        }
    }

    /// How many stretches it is drawn in: about three points of the drawing for each.
    #[must_use]
    pub fn slots(self) -> i64 {
        match self {
            Self::Day => 96,
            Self::Week => 84,
        }
    }

    /// How long each is.
    #[must_use]
    pub fn slot_ms(self) -> i64 {
        match self {
            Self::Day => 15 * 60_000,
            Self::Week => 2 * 3_600_000,
        }
    }

    fn read(self, store: &ClinicStore, now: WallTime) -> Result<Vec<Slot>, ClinicStoreError> {
        let slot = Duration::from_millis(self.slot_ms().unsigned_abs());
        store.history(slot * u32::try_from(self.slots()).unwrap_or(u32::MAX), slot, now)
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    span: Span,
}

/// Charts, which are read once a minute: so often the page is told at least, and clocks that run on in it are set right.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Charts {
    /// Of this minute, since 1970.
    pub minute: i64,
    /// The last day.
    pub day: Vec<Slot>,
    /// The last week.
    pub week: Vec<Slot>,
}

/// What the page shows, whoever looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Whether there is a line to the broker.
    pub connected: bool,
    /// Every box.
    pub boxes: Vec<BoxRow>,
    /// Which of them are there.
    pub online: Vec<bool>,
    /// The alerts that hold.
    pub alerts: Vec<BoardAlert>,
    /// The newest sessions.
    pub sessions: Vec<SessionRow>,
    /// Failed sessions by what they say.
    pub failures: Vec<FailureGroup>,
    /// The newest failed sessions.
    pub dead_letters: Vec<SessionRow>,
    /// What charts are drawn from.
    pub charts: Arc<Charts>,
}

impl Snapshot {
    /// What the charts of a span are drawn from.
    #[must_use]
    pub fn slots(&self, span: Span) -> &[Slot] {
        match span {
            Span::Day => &self.charts.day,
            Span::Week => &self.charts.week,
        }
    }
}

/// The last look, shared by all who look on.
#[derive(Debug)]
pub struct Live {
    last: Mutex<Option<(Duration, Arc<Snapshot>)>>,
    streams: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self { last: Mutex::default(), streams: Arc::new(Semaphore::new(STREAMS)) }
    }
}

/// What is so now, or was less than a second ago.
pub(super) async fn look(clinic: &Arc<Clinic>) -> Result<Arc<Snapshot>, NoAnswer> {
    let mut last = clinic.live.last.lock().await;
    let now = clinic.clock.now();
    if let Some((at, seen)) = &*last
        && now.uptime.saturating_sub(*at) < EVERY
    {
        return Ok(seen.clone());
    }
    let connected = clinic.connected.load(Ordering::Relaxed);
    let minute = now.wall.0.div_euclid(60_000);
    let drawn = last.as_ref().map(|(_, seen)| seen.charts.clone()).filter(|charts| charts.minute == minute);
    let seen = ask(clinic, move |store| {
        let charts = match drawn {
            Some(charts) => charts,
            None => {
                let (day, week) = (Span::Day.read(store, now.wall)?, Span::Week.read(store, now.wall)?);
                Arc::new(Charts { minute, day, week })
            }
        };
        let (boxes, since) = (store.boxes()?, store.alerts()?);
        let alerts = holding(&boxes, &since, now.wall);
        let online = boxes.iter().map(|row| is_online(row, now.wall)).collect();
        let (sessions, failures) = (store.sessions(ON_PAGE)?, store.failure_groups(ON_PAGE)?);
        let dead_letters = store.failed_sessions(ON_PAGE)?;
        Ok(Snapshot { connected, boxes, online, alerts, sessions, failures, dead_letters, charts })
    })
    .await?;
    let seen = Arc::new(seen);
    *last = Some((now.uptime, seen.clone()));
    Ok(seen)
}

pub(super) async fn front(
    State(site): State<Site>,
    Extension(person): Extension<Person>,
    Query(wanted): Query<Wanted>,
) -> Result<Markup, NoAnswer> {
    let seen = look(&site.clinic).await?;
    Ok(page::front(&site.clinic.settings.clinic, &person, &seen, wanted.span, site.clinic.clock.now().wall))
}

/// One who looks on.
struct Watcher {
    site: Site,
    headers: HeaderMap,
    span: Span,
    ticks: Interval,
    told: Option<Arc<Snapshot>>,
    /// The stream's place, given back with it.
    _place: OwnedSemaphorePermit,
}

/// What happens next, as the stream's event; none after the last.
enum Next {
    Event(Event, Box<Watcher>),
    Last(Event),
}

impl Watcher {
    /// Waits for news. Who is logged in no more is told so, and no more. A store that fails is asked again.
    async fn next(mut self: Box<Self>) -> Next {
        loop {
            self.ticks.tick().await;
            let person = match logged_in(&self.site, &self.headers, false).await {
                Ok(Some(person)) => person,
                Ok(None) => return Next::Last(Event::default().event("ended").data("")),
                Err(NoAnswer) => continue,
            };
            let Ok(seen) = look(&self.site.clinic).await else { continue };
            if self.told.as_ref() == Some(&seen) {
                continue;
            }
            let html = page::live(&person, &seen, self.span, self.site.clinic.clock.now().wall).into_string();
            self.told = Some(seen);
            // As JSON: what a box said may hold line ends, which mean something in a stream.
            let Ok(event) = Event::default().event("page").json_data(html) else { continue };
            return Next::Event(event, self);
        }
    }
}

pub(super) async fn events(State(site): State<Site>, Query(wanted): Query<Wanted>, headers: HeaderMap) -> Response {
    let Ok(place) = site.clinic.live.streams.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open").into_response();
    };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Box::new(Watcher { site, headers, span: wanted.span, ticks, told: None, _place: place });
    let told = stream::unfold(Some(watcher), |watcher| async move {
        Some(match watcher?.next().await {
            Next::Event(event, watcher) => (Ok::<_, Infallible>(event), Some(watcher)),
            Next::Last(event) => (Ok(event), None),
        })
    });
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}
