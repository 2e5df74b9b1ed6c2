//! Claims a disk with reservations as production does: see `ha_tests::kernel::holder`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match ha_tests::kernel::holder::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-holder: {trouble}");
            ExitCode::FAILURE
        }
    }
}
