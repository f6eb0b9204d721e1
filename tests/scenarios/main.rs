//! Scenarios: the real programs, real engines, a real broker, real faults.

#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

mod bad_input;
mod end_to_end;
mod guide_queries;
mod interruptions;
mod matrix;
mod process;
mod prometheus;
mod restart;
