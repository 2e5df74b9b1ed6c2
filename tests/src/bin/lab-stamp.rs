//! Writes and reads blocks that say who wrote them: see `ha_tests::kernel::stamp`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match ha_tests::kernel::stamp::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("lab-stamp: {trouble}");
            ExitCode::FAILURE
        }
    }
}
