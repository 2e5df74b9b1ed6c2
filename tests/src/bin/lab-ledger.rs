//! `lab-ledger FILE ADDRESS:PORT`, with `HA_NODE` and `HA_EPOCH`: see `ha_tests::kernel::ledger`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, address] = &arguments[..] else {
        eprintln!("usage: lab-ledger FILE ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match ha_tests::kernel::ledger::serve(Path::new(file), address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-ledger: {trouble}");
            ExitCode::FAILURE
        }
    }
}
