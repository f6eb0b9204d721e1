//! The real door: MQTT 5 by `rumqttc`, which is named nowhere else.
//!
//! Every line has an event loop of its own, polled by a task of its own: a poll that is dropped half-way loses
//! packets, and an event loop that reconnects by itself sends what the store may have settled since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, LastWill, Packet, PubAck, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as MqttError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsConfiguration, TlsError, Transport};
use shared::wire::MAX_PACKET_BYTES;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::uplink::{Broker, Correlation, Identity, Line, LinkError, Message, News, Publication, Receipt, Ticket};

const KEEP_ALIVE: Duration = Duration::from_secs(20);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Pings make the event loop turn every [`KEEP_ALIVE`]; one that does not is stuck in a write. A full parcel
/// gets this long, which a line of 120 kbit/s can do.
const STUCK: Duration = Duration::from_secs(300);
/// How long a publication may wait for a place in the queue.
const QUEUE_DEADLINE: Duration = Duration::from_secs(10);
const QUEUE: usize = 64;
/// Messages the broker may have sent and we not settled: this bounds the memory for incoming parcels.
const UNSETTLED: u16 = 16;
/// Publications the broker may not have acknowledged; the library holds a slot for each.
const UNACKNOWLEDGED: u16 = 100;

/// An MQTT 5 broker.
#[derive(Debug, Clone)]
pub struct MqttBroker {
    identity: Identity,
}

impl MqttBroker {
    /// The broker that `identity` names.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { identity }
    }

    fn options(&self) -> Result<MqttOptions, LinkError> {
        let Identity { client_id, host, port, will, session_expiry_s, credentials } = self.identity.clone();
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(session_expiry_s);
        properties.receive_maximum = Some(UNSETTLED);
        // The library reads its limit for incoming packets from here as well; without it, it is 10 KiB.
        properties.max_packet_size = u32::try_from(MAX_PACKET_BYTES).ok();
        let mut options = MqttOptions::new(client_id, host, port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_connect_properties(properties)
            .set_manual_acks(true)
            .set_outgoing_inflight_upper_limit(UNACKNOWLEDGED)
            .set_connection_timeout(CONNECT_DEADLINE.as_secs())
            .set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain, None));
        if let Some(credentials) = credentials {
            let config = credentials.client().map_err(LinkError::Credentials)?;
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(config)));
        }
        Ok(options)
    }
}

impl Broker for MqttBroker {
    type Line = MqttLine;

    async fn connect(&mut self) -> Result<MqttLine, LinkError> {
        let (client, mut events) = AsyncClient::new(self.options()?, QUEUE);
        let limit = match timeout(CONNECT_DEADLINE, events.poll()).await.map_err(|_| LinkError::Silent)? {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => connack.properties.and_then(|p| p.max_packet_size),
            Ok(_) => return Err(LinkError::Lost { reason: "no connection acknowledgement".into() }),
            Err(why) => return Err(translate(why)),
        };
        // Not bounded by itself, but by UNSETTLED and UNACKNOWLEDGED: a pump that waited here could not ping.
        let (tell, news) = mpsc::unbounded_channel();
        let queued = Arc::new(Mutex::new(VecDeque::new()));
        let pump = tokio::spawn(pump(events, tell, queued.clone()));
        Ok(MqttLine { client, news, queued, pump, tickets: 0, limit: limit.map(|l| l as usize) })
    }
}

/// One MQTT connection.
pub struct MqttLine {
    client: AsyncClient,
    news: mpsc::UnboundedReceiver<Result<News, LinkError>>,
    queued: Arc<Mutex<VecDeque<Ticket>>>,
    pump: JoinHandle<()>,
    tickets: u64,
    limit: Option<usize>,
}

impl Drop for MqttLine {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

fn properties(order: Correlation) -> PublishProperties {
    PublishProperties {
        response_topic: order.response_topic,
        correlation_data: Some(order.id.into_bytes().into()),
        message_expiry_interval: order.expires_s,
        ..PublishProperties::default()
    }
}

async fn queue<T, E>(request: impl Future<Output = Result<T, E>>) -> Result<T, LinkError> {
    match timeout(QUEUE_DEADLINE, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(LinkError::Lost { reason: "the connection has ended".into() }),
        Err(_) => Err(LinkError::Stuck),
    }
}

impl Line for MqttLine {
    fn packet_limit_bytes(&self) -> Option<usize> {
        self.limit
    }

    async fn next(&mut self) -> Result<News, LinkError> {
        let ended = || Err(LinkError::Lost { reason: "the connection has ended".into() });
        self.news.recv().await.unwrap_or_else(ended)
    }

    async fn publish(&mut self, publication: Publication) -> Result<Ticket, LinkError> {
        let Publication { topic, payload, retain, order } = publication;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        // Before the request, because the pump meets publications in the order of requests.
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).push_back(ticket);
        match order.map(properties) {
            None => queue(self.client.publish(topic, QoS::AtLeastOnce, retain, payload)).await?,
            Some(order) => {
                let sent = self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, order);
                queue(sent).await?;
            }
        }
        Ok(ticket)
    }

    async fn subscribe(&mut self, filters: &[String]) -> Result<(), LinkError> {
        let filters: Vec<_> = filters.iter().map(|f| Filter::new(f.clone(), QoS::AtLeastOnce)).collect();
        queue(self.client.subscribe_many(filters)).await
    }

    async fn settle(&mut self, receipt: Receipt) -> Result<(), LinkError> {
        // Packet id 0 marks QoS 0, which needs no acknowledgement.
        if receipt.0 == 0 {
            return Ok(());
        }
        let publish = Publish { pkid: receipt.0, qos: QoS::AtLeastOnce, ..Publish::default() };
        queue(self.client.ack(&publish)).await
    }

    async fn close(mut self) {
        if queue(self.client.disconnect()).await.is_ok() {
            // The pump ends when the broker has closed; it need not.
            drop(timeout(Duration::from_secs(1), &mut self.pump).await);
        }
    }
}

async fn pump(
    mut events: EventLoop,
    tell: mpsc::UnboundedSender<Result<News, LinkError>>,
    queued: Arc<Mutex<VecDeque<Ticket>>>,
) {
    let mut sent = BTreeMap::new();
    loop {
        let event = match timeout(STUCK, events.poll()).await {
            Ok(Ok(event)) => event,
            Ok(Err(why)) => return drop(tell.send(Err(translate(why)))),
            Err(_) => return drop(tell.send(Err(LinkError::Stuck))),
        };
        let news = match event {
            Event::Outgoing(Outgoing::Publish(id)) => {
                if let Some(ticket) = queued.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                    sent.insert(id, ticket);
                }
                continue;
            }
            Event::Outgoing(_) => continue,
            Event::Incoming(packet) => heard(packet, &mut sent),
        };
        if let Some(news) = news
            && tell.send(news).is_err()
        {
            return;
        }
    }
}

fn heard(packet: Packet, sent: &mut BTreeMap<u16, Ticket>) -> Option<Result<News, LinkError>> {
    match packet {
        Packet::Publish(publish) => Some(Ok(News::Message(Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.into(),
            retained: publish.retain,
            receipt: Receipt(publish.pkid),
        }))),
        Packet::PubAck(PubAck { pkid, reason, .. }) => sent.remove(&pkid).map(|ticket| match reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(News::Delivered(ticket)),
            _ => Ok(News::Refused(ticket)),
        }),
        Packet::SubAck(suback) => {
            let granted = suback.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
            (!granted).then_some(Err(LinkError::SubscriptionRefused))
        }
        _ => None,
    }
}

/// The library's errors may hold whole packets, so only what is known to be harmless is repeated.
fn translate(why: ConnectionError) -> LinkError {
    match why {
        ConnectionError::Io(source) | ConnectionError::Tls(TlsError::Io(source)) => match distrust(&source) {
            Some(reason) => LinkError::Distrusted { reason },
            None => LinkError::Unreachable(source),
        },
        ConnectionError::Tls(why) => LinkError::Distrusted { reason: why.to_string() },
        ConnectionError::Timeout(_) => LinkError::Silent,
        ConnectionError::ConnectionRefused(code) => LinkError::Rejected { reason: format!("{code:?}") },
        ConnectionError::NotConnAck(_) => LinkError::Rejected { reason: "it does not speak MQTT 5".into() },
        ConnectionError::RequestsDone => LinkError::Lost { reason: "closed here".into() },
        ConnectionError::MqttState(state) => match carried(&state).and_then(distrust) {
            Some(reason) => LinkError::Distrusted { reason },
            None => LinkError::Lost { reason: reason(&state) },
        },
    }
}

/// The input or output error that an error of the line carries.
fn carried(state: &StateError) -> Option<&std::io::Error> {
    match state {
        StateError::Io(source) | StateError::Deserialization(MqttError::Io(source)) => Some(source),
        _ => None,
    }
}

/// What TLS has against the other side, or that side against us: in TLS 1.3 it says so after the handshake.
fn distrust(source: &std::io::Error) -> Option<String> {
    source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).map(ToString::to_string)
}

fn reason(state: &StateError) -> String {
    match state {
        StateError::ServerDisconnect { reason_code, .. } => format!("the broker said {reason_code:?}"),
        StateError::ConnectionAborted => "closed by the broker".into(),
        StateError::AwaitPingResp => "no answer to a ping".into(),
        StateError::OutgoingPacketTooLarge { .. } | StateError::IncomingPacketTooLarge { .. } => {
            "a packet is too large".into()
        }
        StateError::Io(source) | StateError::Deserialization(MqttError::Io(source)) => source.kind().to_string(),
        _ => "the protocol was broken".into(),
    }
}
