//! Many simulations: `sim --seeds 10000`. Prints every seed that fails, and how to run it alone.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tests::sim;

/// Drives box, broker and clinic through faults in virtual time, one world a seed.
#[derive(Parser)]
#[command(after_help = "Example: sim --seeds 10000")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed, with its report.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Threads to use; 0 is one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Stop at the first seed that fails.
    #[arg(long)]
    first: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, seeds) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let (sessions, deaths) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_enough = arguments.first && failed.lock().is_ok_and(|f| !f.is_empty());
                    if number >= seeds || is_enough {
                        return;
                    }
                    match sim::run(from + number) {
                        Ok(report) => {
                            sessions.fetch_add(report.sessions as u64, Ordering::Relaxed);
                            deaths.fetch_add(u64::from(report.deaths), Ordering::Relaxed);
                        }
                        Err(why) => {
                            bar.suspend(|| println!("seed {}: {why}", from + number));
                            if let Ok(mut failed) = failed.lock() {
                                failed.push(from + number);
                            }
                        }
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_unstable();
    let tried = next.load(Ordering::Relaxed).min(seeds);
    println!(
        "{} of {tried} seeds passed: {} sessions, {} kills and power cuts",
        tried - failed.len() as u64,
        sessions.load(Ordering::Relaxed),
        deaths.load(Ordering::Relaxed)
    );
    if let Some(seed) = failed.first() {
        println!("Run one alone with: ./dev test --seed {seed}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
