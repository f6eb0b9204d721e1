//! Every input of `tests/fuzz/corpus`, given to what libFuzzer gave it to: `./dev fuzz` keeps there what reaches code that
//! nothing else reaches, and what once went wrong.

#![allow(clippy::expect_used, clippy::panic, reason = "what cannot be replayed has failed")]

use std::path::PathBuf;

#[path = "src/lib.rs"]
mod targets;

use targets::{Target, control::Controls, decode::Decoding, frame::Frames, parcel::Parcels};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = tests::repository().join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("a corpus");
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// Names each input before it is run; the name of the one that fails is the last.
fn replay<T: Target>(name: &str) {
    let mut target = T::new();
    for input in corpus(name) {
        println!("{}", input.display());
        target.run(&std::fs::read(&input).expect("a readable input"));
    }
}

#[test]
fn frames_of_the_corpus() {
    replay::<Frames>("frame");
}

#[test]
fn parcels_of_the_corpus() {
    replay::<Parcels>("parcel");
}

#[test]
fn requests_of_the_corpus() {
    replay::<Controls>("control");
}

#[test]
fn recordings_of_the_corpus() {
    replay::<Decoding>("decode");
}
