//! A guest of the kernel laboratory: `lab-guest power SPEC` is its power supply and `lab-guest boot SPEC` becomes its kernel, outside,
//! and with a kernel's arguments it ends it, for it to be started anew; `lab-guest serve SPEC` takes commands, inside; and as process number 1, inside, it makes the machine.
//! `lab-guest emulate KERNEL DIR PORT WORD…` becomes the emulator of the NVMe laboratory's guest, in which `lab-guest listen ADDRESS:PORT` takes commands.

use std::path::Path;
use std::process::ExitCode;

use ha_tests::Trouble;
use ha_tests::kernel::spec::SPEC;
use ha_tests::kernel::{Spec, init, nvme, power, remote};

fn main() -> ExitCode {
    if std::process::id() == 1 && std::env::var_os(SPEC).is_some() {
        init::run();
    }
    if std::process::id() == 1 && std::env::var_os(nvme::inside::ADDRESS).is_some() {
        nvme::inside::run();
    }
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument.starts_with(SPEC)) {
        return ExitCode::from(power::RESET);
    }
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "power", spec] => power::supply(Path::new(spec)),
        [_, "boot", spec] => power::boot(Path::new(spec)),
        [_, "serve", spec] => Spec::read(Path::new(spec)).and_then(|spec| remote::serve(&spec)),
        [_, "emulate", kernel, dir, port, ref words @ ..] => {
            nvme::emulate(Path::new(kernel), Path::new(dir), port, words)
        }
        [_, "listen", address] => remote::listen(address),
        _ => Err(Trouble::new(
            "usage: lab-guest power|boot|serve SPEC, lab-guest emulate KERNEL DIR PORT WORD…, lab-guest listen ADDRESS:PORT",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-guest: {trouble}");
            ExitCode::FAILURE
        }
    }
}
