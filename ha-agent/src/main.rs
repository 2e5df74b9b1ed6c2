//! `ha`: the daemon, its local API and the command line, in one binary.
//!
//! Decides nothing about the cluster: `ha-core` thinks, `ha-resources` touches, and this talks.

mod api;
mod check;
mod cli;
mod config;
mod daemon;
mod demo;
mod exit;
mod render;
mod reservation;
mod simulate;
mod view;
mod words;

fn main() -> std::process::ExitCode {
    cli::main()
}
