//! The box in the room: microphone to finished record. The engines live in child processes.

pub mod admission;
pub mod audio;
pub mod audit;
pub mod capture;
pub mod cli;
pub mod conclude;
pub mod context;
pub mod control;
pub mod daemon;
pub mod decode;
pub mod diarize;
pub mod doctor;
pub mod engine;
pub mod engines;
pub mod export;
pub mod forget;
pub mod import;
pub mod keeper;
pub mod label;
pub mod ladder;
pub mod ledger;
pub mod measure;
pub mod models;
pub mod panel;
pub mod prints;
pub mod queue;
pub mod replay;
pub mod retention;
pub mod sessions;
pub mod speech;
pub mod spool;
pub mod track;
pub mod verdict;
pub mod vitals;
pub mod voicing;
pub mod who;
pub mod windows;
pub mod worker;

#[cfg(test)]
mod sealing_tests;
