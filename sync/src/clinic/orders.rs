//! Orders to boxes: whoever may give one leaves it in the store; a server with a line publishes it, signed; the answer is kept
//! there, too. So it does not matter which server was asked, and a restart forgets none.

use shared::breaker::Service;
use shared::clock::WallTime;
use shared::command::{Answer, CommandName, Order};
use shared::wire::Topics;

use super::Clinic;
use super::settings::ClinicSettingsError;
use super::setup::check_box_id;
use super::store::{ClinicStore, ClinicStoreError};
use crate::uplink::{Correlation, Publication};

/// Seconds in which an order may be carried out, unless it is said otherwise: who gives it waits for that long.
pub const VALID_S: u32 = 60;
/// The longest that is taken: an order to stop must not stop the next day's session.
pub const LONGEST_S: u32 = 3600;
/// The longest answer that is read.
const ANSWER_BYTES: usize = 8 * 1024;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of which box.
    pub box_id: String,
    /// What.
    pub name: CommandName,
    /// For `withdraw` and `retry`.
    pub session: Option<String>,
    /// For `breaker-reset`.
    pub service: Option<Service>,
    /// For `start`.
    pub consent: Option<String>,
    /// The role of who asks.
    pub by: String,
    /// In how many seconds.
    pub valid_for_s: u32,
}

/// Why no order is given.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No box can be called so.
    #[error(transparent)]
    Name(#[from] ClinicSettingsError),
    /// Something that this command needs is missing, or something is there that it has no use for.
    #[error("{name} {expected}")]
    Arguments {
        /// Which command.
        name: CommandName,
        /// What it takes.
        expected: &'static str,
    },
    /// It is valid for too long, or for no time.
    #[error("an order is valid for 1 to {LONGEST_S} seconds")]
    Valid,
    /// See [`ClinicStoreError`].
    #[error(transparent)]
    Store(#[from] ClinicStoreError),
}

/// Gives an order: its id.
///
/// # Errors
/// [`OrderError`].
pub fn give(store: &ClinicStore, clinic: &str, wanted: Wanted, now: WallTime) -> Result<String, OrderError> {
    let Wanted { box_id, name, session, service, consent, by, valid_for_s } = wanted;
    check_box_id(&box_id)?;
    if !(1..=LONGEST_S).contains(&valid_for_s) {
        return Err(OrderError::Valid);
    }
    let is_session = session.as_deref().map(|id| uuid::Uuid::parse_str(id).is_ok());
    let (fits, expected) = match (name, is_session, service.is_some(), consent.is_some()) {
        (CommandName::Withdraw | CommandName::Retry, is_session, false, false) => {
            (is_session == Some(true), "takes a session, by its id")
        }
        (CommandName::BreakerReset, None, has_service, false) => (has_service, "takes a breaker"),
        (CommandName::Start, None, false, has_consent) => (has_consent, "takes what the consent rests on"),
        (CommandName::Withdraw | CommandName::Retry, ..) => (false, "takes a session and nothing else"),
        (CommandName::BreakerReset, ..) => (false, "takes a breaker and nothing else"),
        (CommandName::Start, ..) => (false, "takes what the consent rests on and nothing else"),
        (
            CommandName::Stop | CommandName::Pause | CommandName::Resume | CommandName::HealthCheck,
            session,
            has_service,
            has_consent,
        ) => (session.is_none() && !has_service && !has_consent, "takes nothing"),
    };
    if !fits {
        return Err(OrderError::Arguments { name, expected });
    }
    let id = uuid::Uuid::new_v4().to_string();
    let (clinic, issued_at) = (clinic.to_owned(), now.to_string());
    let order = Order {
        version: 1,
        id: id.clone(),
        clinic,
        box_id,
        name,
        session,
        service,
        consent,
        by,
        issued_at,
        valid_for_s,
    };
    store.order(&order, now.plus(std::time::Duration::from_secs(valid_for_s.into())))?;
    Ok(id)
}

/// What is to be published of the orders that wait, by order; each under all signing keys.
///
/// # Errors
/// [`ClinicStoreError`].
pub fn due(
    clinic: &Clinic,
    topics: &Topics,
    now: WallTime,
) -> Result<Vec<(String, Vec<Publication>)>, ClinicStoreError> {
    let orders = clinic.store.unpublished_orders(now)?;
    let publications = |order: &Order| -> Result<Vec<Publication>, ClinicStoreError> {
        let topic = topics.command(&order.box_id, order.name);
        let correlation = Correlation {
            id: order.id.clone(),
            response_topic: Some(topics.answer(&order.box_id, &order.id)),
            expires_s: Some(order.valid_for_s),
        };
        let signed = clinic.keys.command(order).into_iter().map(|command| {
            let once = Publication::once(topic.clone(), serde_json::to_vec(&command)?);
            Ok(Publication { order: Some(correlation.clone()), ..once })
        });
        signed.collect()
    };
    orders.iter().map(|order| Ok((order.id.clone(), publications(order)?))).collect()
}

/// Reads a box's answer. None, if it is none, or to another order.
#[must_use]
pub fn read(payload: &[u8], id: &str) -> Option<Answer> {
    if payload.len() > ANSWER_BYTES {
        return None;
    }
    serde_json::from_slice::<Answer>(payload).ok().filter(|answer| answer.version == 1 && answer.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::World;
    use shared::clock::Clock as _;
    use shared::command::Outcome;
    use std::time::Duration;

    const SESSION: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";

    fn wanted(name: CommandName) -> Wanted {
        let (session, service, consent) = (None, None, None);
        Wanted {
            box_id: "room-1".into(),
            name,
            session,
            service,
            consent,
            by: "administrator".into(),
            valid_for_s: VALID_S,
        }
    }

    fn answer(id: &str) -> Answer {
        let (id, name, at) = (id.to_owned(), CommandName::Pause, "2026-01-01T00:00:00.000Z".into());
        Answer { version: 1, id, name, outcome: Outcome::Done, message: None, at }
    }

    #[test]
    fn an_order_is_published_once_and_answered_by_its_box_once() {
        let world = World::new();
        let (clinic, now) = (&world.clinic, world.clock.now().wall);
        let topics = clinic.topics();
        let id = give(&clinic.store, "north", wanted(CommandName::Pause), now).unwrap();
        let all = due(clinic, &topics, now).unwrap();
        assert_eq!((all.len(), all[0].0.as_str(), all[0].1.len()), (1, id.as_str(), 1));
        let Publication { topic, order, retain, .. } = &all[0].1[0];
        assert_eq!((topic.as_str(), *retain), ("roomscribe/v1/north/room-1/cmd/pause", false));
        let correlation = order.clone().unwrap();
        assert_eq!(correlation.response_topic, Some(format!("roomscribe/v1/north/room-1/answer/{id}")));
        clinic.store.order_published(&id, now).unwrap();
        assert!(due(clinic, &topics, now).unwrap().is_empty());
        assert!(!clinic.store.answered("room-2", &answer(&id), now).unwrap(), "another box's");
        assert!(clinic.store.answered("room-1", &answer(&id), now).unwrap());
        assert!(!clinic.store.answered("room-1", &answer(&id), now).unwrap(), "again");
        assert_eq!(clinic.store.command(&id).unwrap().unwrap().outcome.as_deref(), Some("done"));
        assert_eq!(clinic.store.commands(9).unwrap().len(), 1);
    }

    #[test]
    fn an_order_whose_time_is_over_is_not_published_and_says_so_until_a_late_answer_comes() {
        let world = World::new();
        let (clinic, now) = (&world.clinic, world.clock.now().wall);
        let id = give(&clinic.store, "north", wanted(CommandName::Pause), now).unwrap();
        let later = now.plus(Duration::from_secs(61));
        assert!(due(clinic, &clinic.topics(), later).unwrap().is_empty());
        assert_eq!(clinic.store.command(&id).unwrap().unwrap().outcome.as_deref(), Some("unanswered"));
        assert!(clinic.store.answered("room-1", &answer(&id), later).unwrap());
        assert_eq!(clinic.store.command(&id).unwrap().unwrap().outcome.as_deref(), Some("done"));
    }

    #[test]
    fn an_order_that_lacks_something_or_has_too_much_is_not_given() {
        let world = World::new();
        let now = world.clock.now().wall;
        let session = Some(SESSION.to_owned());
        let bad = [
            wanted(CommandName::Withdraw),
            wanted(CommandName::Start),
            wanted(CommandName::BreakerReset),
            Wanted { session: Some("../x".into()), ..wanted(CommandName::Retry) },
            Wanted { session: session.clone(), ..wanted(CommandName::Stop) },
            Wanted { session: session.clone(), consent: Some("verbal".into()), ..wanted(CommandName::Withdraw) },
            Wanted { box_id: "board".into(), ..wanted(CommandName::Stop) },
            Wanted { valid_for_s: 0, ..wanted(CommandName::Stop) },
            Wanted { valid_for_s: LONGEST_S + 1, ..wanted(CommandName::Stop) },
        ];
        for wanted in bad {
            assert!(give(&world.clinic.store, "north", wanted.clone(), now).is_err(), "{wanted:?}");
        }
        assert!(world.clinic.store.commands(9).unwrap().is_empty());
        give(&world.clinic.store, "north", Wanted { session, ..wanted(CommandName::Withdraw) }, now).unwrap();
    }

    #[test]
    fn what_is_no_answer_to_this_order_is_none() {
        let text = serde_json::to_vec(&answer(SESSION)).unwrap();
        assert!(read(&text, SESSION).is_some());
        assert!(read(&text, "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a12").is_none());
        assert!(read(b"garbage", SESSION).is_none());
        assert!(read(&[text, vec![b' '; ANSWER_BYTES]].concat(), SESSION).is_none());
    }
}
