#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use roomscribe_fuzz::{Target as _, frame::Frames};

thread_local! { static TARGET: RefCell<Frames> = RefCell::new(Frames::new()); }

fuzz_target!(|input: &[u8]| TARGET.with_borrow_mut(|target| target.run(input)));
