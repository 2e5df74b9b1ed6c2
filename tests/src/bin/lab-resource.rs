//! Does one operation on one resource as production does: see `ha_tests::kernel::resource`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match ha_tests::kernel::resource::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("lab-resource: {trouble}");
            ExitCode::FAILURE
        }
    }
}
