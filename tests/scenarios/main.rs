//! Scenarios: the real programs, real engines, a real broker, real faults.

#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

mod bad_input;
mod dead_letters;
mod doctor;
mod end_to_end;
mod health;
mod interruptions;
mod matrix;
mod process;
mod restart;
