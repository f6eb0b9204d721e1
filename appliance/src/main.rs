//! `roomscribe`: the daemon, its engine children and the field commands.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    appliance::cli::run(appliance::cli::Arguments::parse())
}
