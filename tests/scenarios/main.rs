//! Scenarios: the real programs, real engines, a real broker, real faults.

mod bad_input;
mod end_to_end;
mod matrix;
mod process;
mod restart;
