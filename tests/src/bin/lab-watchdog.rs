//! A watchdog device made in user space: see `ha_tests::kernel::watchdog`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match ha_tests::kernel::watchdog::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-watchdog: {trouble}");
            ExitCode::FAILURE
        }
    }
}
