//! What both ends of Roomscribe agree on. No device, no engine, no network.

pub mod breaker;
pub mod cause_text;
pub mod chance;
pub mod clock;
pub mod error;
pub mod guard;
pub mod log;
pub mod paths;
pub mod record;
pub mod retry;
pub mod seal;
pub mod settings;
pub mod store;
pub mod wire;
