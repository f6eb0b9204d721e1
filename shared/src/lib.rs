//! What both ends of Roomscribe agree on. No device, no engine, no network.

pub mod ailment;
pub mod alert;
pub mod breaker;
pub mod card_name;
pub mod cause_text;
pub mod chance;
pub mod clock;
pub mod command;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod error;
pub mod guard;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod paths;
pub mod record;
pub mod retry;
pub mod seal;
pub mod settings;
pub mod store;
pub mod task;
pub mod wire;

pub mod whole_file;
