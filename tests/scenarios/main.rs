//! Scenarios: the real programs, real engines, a real broker, real faults.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a scenario that cannot go on has failed")]

mod audit;
mod bad_input;
mod clinic_keys;
mod clinic_servers;
mod clinic_store;
mod clinic_store_faults;
mod commands;
mod consent;
mod dead_letters;
mod doctor;
mod emulated_machine;
mod end_to_end;
mod engine_faults;
mod engine_nonsense;
mod engine_restarts;
mod exports;
mod full_disk;
mod guide_queries;
mod health;
mod interfaces;
mod interruptions;
mod kill_loop;
mod ledger;
mod matrix;
mod microphone;
mod monitoring;
mod odd_recordings;
mod power_cuts;
mod process;
mod prometheus;
mod relabel;
mod restart;
mod streaming;
mod surfaces;
mod voices;
