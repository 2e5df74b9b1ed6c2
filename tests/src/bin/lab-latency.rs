//! Measures how long reservations take: see `ha_tests::kernel::latency`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match ha_tests::kernel::latency::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("lab-latency: {trouble}");
            ExitCode::FAILURE
        }
    }
}
