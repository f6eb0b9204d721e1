//! Both ends of the link: what a box owes its clinic leaves it here, and the clinic takes it here.
//!
//! ```text
//! outbox ─▶ room::drain (what next) ─▶ room (the loop) ─▶ uplink (the door; mqtt is the real one)
//!        ─▶ clinic::serve (the loop) ─▶ clinic::ingest ─▶ clinic::store ─▶ signed ack ─▶ outbox
//! ```

pub mod backoff;
pub mod clinic;
pub mod code;
pub mod exit;
pub mod files;
pub mod gate;
pub mod heart;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod pki;
pub mod progress;
pub mod room;
pub mod stop;
pub mod tls;
pub mod uplink;
