//! A line whose other end is the test: the scripted twin of the broker.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Broker, Line, LinkError, Message, News, Publication, Receipt, Ticket};

/// The test's end of one line.
pub struct Far {
    tell: mpsc::UnboundedSender<Result<News, LinkError>>,
    /// What was published, in order.
    pub published: mpsc::UnboundedReceiver<(Ticket, Publication)>,
    /// What happened beside publishing, in order.
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Far {
    /// Lets a message come.
    pub fn send(&self, topic: &str, payload: &[u8], receipt: u16) {
        self.tell(topic, payload, receipt, false);
    }

    /// Lets a message come that the broker had kept.
    pub fn send_kept(&self, topic: &str, payload: &[u8], receipt: u16) {
        self.tell(topic, payload, receipt, true);
    }

    fn tell(&self, topic: &str, payload: &[u8], receipt: u16, retained: bool) {
        let message = Message { topic: topic.into(), payload: payload.into(), retained, receipt: Receipt(receipt) };
        let _ = self.tell.send(Ok(News::Message(message)));
    }

    /// Says that a publication was delivered.
    pub fn deliver(&self, ticket: Ticket) {
        let _ = self.tell.send(Ok(News::Delivered(ticket)));
    }

    /// Cuts the line.
    pub fn cut(&self) {
        let _ = self.tell.send(Err(LinkError::Lost { reason: "cut".into() }));
    }

    /// The next publication, delivered to the broker.
    pub async fn take(&mut self) -> Publication {
        let (ticket, publication) = self.published.recv().await.unwrap();
        self.deliver(ticket);
        publication
    }
}

/// The daemon's end of one line.
pub struct ScriptedLine {
    news: mpsc::UnboundedReceiver<Result<News, LinkError>>,
    publish: mpsc::UnboundedSender<(Ticket, Publication)>,
    log: Arc<Mutex<Vec<String>>>,
    tickets: u64,
    limit: Option<usize>,
}

/// Gives out lines that the test made before; once there are none, it is silent.
pub struct ScriptedBroker {
    /// From the last.
    lines: Vec<Option<ScriptedLine>>,
    tries: Arc<Mutex<Vec<Instant>>>,
}

impl ScriptedBroker {
    /// A broker for `N` connections, and their far ends.
    pub fn new<const N: usize>(limit: Option<usize>) -> (Self, [Far; N]) {
        let mut lines = Vec::new();
        let fars = std::array::from_fn(|_| {
            let (tell, news) = mpsc::unbounded_channel();
            let (publish, published) = mpsc::unbounded_channel();
            let log = Arc::new(Mutex::new(Vec::new()));
            lines.push(Some(ScriptedLine { news, publish, log: log.clone(), tickets: 0, limit }));
            Far { tell, published, log }
        });
        lines.reverse();
        (Self { lines, tries: Arc::default() }, fars)
    }

    /// Is silent so many times first.
    #[must_use]
    pub fn silent_first(mut self, times: usize) -> Self {
        self.lines.extend(std::iter::repeat_with(|| None).take(times));
        self
    }

    /// When it was asked to connect.
    pub fn tries(&self) -> Arc<Mutex<Vec<Instant>>> {
        self.tries.clone()
    }
}

impl Broker for ScriptedBroker {
    type Line = ScriptedLine;
    async fn connect(&mut self) -> Result<ScriptedLine, LinkError> {
        self.tries.lock().unwrap().push(Instant::now());
        self.lines.pop().flatten().ok_or(LinkError::Silent)
    }
}

impl Line for ScriptedLine {
    fn packet_limit_bytes(&self) -> Option<usize> {
        self.limit
    }
    async fn next(&mut self) -> Result<News, LinkError> {
        self.news.recv().await.unwrap_or(Err(LinkError::Silent))
    }
    async fn publish(&mut self, publication: Publication) -> Result<Ticket, LinkError> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.log.lock().unwrap().push(format!("publish {}", publication.topic));
        let _ = self.publish.send((ticket, publication));
        Ok(ticket)
    }
    async fn subscribe(&mut self, filters: &[String]) -> Result<(), LinkError> {
        self.log.lock().unwrap().extend(filters.iter().map(|f| format!("subscribe {f}")));
        Ok(())
    }
    async fn settle(&mut self, receipt: Receipt) -> Result<(), LinkError> {
        self.log.lock().unwrap().push(format!("settle {}", receipt.0));
        Ok(())
    }
    async fn close(self) {
        self.log.lock().unwrap().push("close".into());
    }
}
