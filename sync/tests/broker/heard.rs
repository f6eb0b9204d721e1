//! Hears every message of a test's broker, and holds it against the contract of the link.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::contract::{Breach, Contract};
use shared::wire::Topics;
use sync::mqtt::MqttBroker;
use sync::uplink::{Broker as _, Identity, Line as _, LinkError, News, OFFLINE, Publication};
use tokio::task::JoinHandle;

/// How many messages were heard, and what of them is not in the contract.
type Heard = Arc<Mutex<(u64, Vec<String>)>>;

/// A listener for the whole life of a test.
pub struct Listener {
    heard: Heard,
    task: JoinHandle<()>,
}

fn note(heard: &Heard, breach: Option<Breach>) {
    let mut heard = heard.lock().unwrap();
    heard.0 += 1;
    heard.1.extend(breach.map(|breach| breach.to_string()));
}

async fn listen(identity: Identity, heard: &Heard, meant: &str) -> Result<(), LinkError> {
    let contract = Contract::published().unwrap();
    let mut line = MqttBroker::new(identity).connect().await?;
    line.subscribe(&["#".to_owned()]).await?;
    loop {
        let News::Message(message) = line.next().await? else { continue };
        // What is told while it happens is told without its flag, so the kind is not looked at here.
        let checked = contract.check(&message.topic, &message.payload, None);
        note(heard, checked.err().filter(|_| message.topic != meant));
        line.settle(message.receipt).await?;
    }
}

impl Listener {
    /// Listens at `port`, also to a broker that comes back; what the test means to be wrong is on the topic `meant`.
    pub fn start(port: u16, topics: &Topics, meant: String) -> Self {
        let heard = Heard::default();
        let ledger = heard.clone();
        let will = Publication::retained(topics.board_status("listener"), OFFLINE);
        let (client_id, host) = (format!("listener-{}", uuid::Uuid::new_v4()), "127.0.0.1".to_owned());
        let identity = Identity { client_id, host, port, will, session_expiry_s: 0, credentials: None };
        let task = tokio::spawn(async move {
            loop {
                // It ends with its line; the broker may be away.
                drop(listen(identity.clone(), &ledger, &meant).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { heard, task }
    }

    /// Ends it: all that it has heard must have been in the contract, and it must have heard something.
    pub fn end(self) {
        self.task.abort();
        let (messages, breaches) = &*self.heard.lock().unwrap();
        assert!(breaches.is_empty(), "not in the contract of the link: {breaches:#?}");
        assert!(*messages > 5, "{messages} messages were heard");
    }
}
