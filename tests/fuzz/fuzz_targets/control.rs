#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use roomscribe_fuzz::{Target as _, control::Controls};

thread_local! { static TARGET: RefCell<Controls> = RefCell::new(Controls::new()); }

fuzz_target!(|input: &[u8]| TARGET.with_borrow_mut(|target| target.run(input)));
