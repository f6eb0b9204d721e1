//! The box in the room: microphone to finished record. The engines live in child processes.

pub mod audio;
pub mod capture;
pub mod cli;
pub mod conclude;
pub mod context;
pub mod control;
pub mod daemon;
pub mod decode;
pub mod diarize;
pub mod engine;
pub mod engines;
pub mod export;
pub mod import;
pub mod keeper;
pub mod label;
pub mod models;
pub mod sessions;
pub mod speech;
pub mod spool;
pub mod verdict;
pub mod windows;
pub mod worker;
