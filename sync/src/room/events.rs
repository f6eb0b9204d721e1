//! Which events are on their way, so that one is marked as sent only when the broker has it.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::wire::Event;

use crate::uplink::Ticket;

/// Events sent together.
pub const BATCH: u32 = 32;
/// A broker that refuses an event is not asked again at once.
const PAUSE: Duration = Duration::from_secs(30);

/// At most one batch is on its way.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    waiting: BTreeSet<Ticket>,
    last: i64,
    not_before: Duration,
}

impl Batch {
    /// Whether another batch may leave.
    #[must_use]
    pub fn is_free(&self, now: Duration) -> bool {
        self.waiting.is_empty() && now >= self.not_before
    }

    /// One more event of the batch was published.
    pub fn sent(&mut self, event: &Event, ticket: Ticket) {
        self.waiting.insert(ticket);
        self.last = self.last.max(event.id);
    }

    /// The broker has a publication. Returns up to which event all are sent, if this one made the batch whole.
    pub fn delivered(&mut self, ticket: Ticket) -> Option<i64> {
        (self.waiting.remove(&ticket) && self.waiting.is_empty()).then_some(self.last)
    }

    /// The broker refused a publication. Returns whether it was one of these.
    pub fn refused(&mut self, ticket: Ticket, now: Duration) -> bool {
        let ours = self.waiting.contains(&ticket);
        if ours {
            self.waiting.clear();
            self.not_before = now + PAUSE;
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::wire::EventKind;

    fn event(id: i64) -> Event {
        let what = EventKind::Session { session: String::new(), status: shared::record::Status::Done };
        Event { version: 1, id, at: String::new(), what }
    }

    #[test]
    fn a_batch_is_sent_when_the_broker_has_all_of_it() {
        let mut batch = Batch::default();
        batch.sent(&event(4), Ticket(1));
        batch.sent(&event(5), Ticket(2));
        assert!(!batch.is_free(Duration::ZERO));
        assert_eq!((batch.delivered(Ticket(2)), batch.delivered(Ticket(9))), (None, None));
        assert_eq!(batch.delivered(Ticket(1)), Some(5));
        assert!(batch.is_free(Duration::ZERO));
    }

    #[test]
    fn a_refused_batch_is_tried_again_later() {
        let mut batch = Batch::default();
        batch.sent(&event(4), Ticket(1));
        assert!(!batch.refused(Ticket(3), Duration::ZERO) && batch.refused(Ticket(1), Duration::ZERO));
        assert!(!batch.is_free(Duration::from_secs(29)) && batch.is_free(PAUSE));
    }
}
