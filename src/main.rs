//! The program. What it does is in the library; this reads the command line and the environment, once.

use std::process::ExitCode;

use clap::Parser as _;
use digitalmistress::commands::{Cli, run};

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let env = std::env::vars_os();
    run(&Cli::parse(), env.collect())
}
