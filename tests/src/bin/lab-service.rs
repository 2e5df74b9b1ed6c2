//! The service of the laboratory's tests: see `ha_tests::service`.
//!
//! `lab-service [--listen ADDRESS:PORT] [--log FILE] [--hierarchy NAME] [--node NAME] [--epoch N] [--every MILLISECONDS]`. What is left out is taken from
//! `HA_HIERARCHY`, `HA_NODE` and `HA_EPOCH`, and the log from where the laboratory shows it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use ha_tests::boot::Machine;
use ha_tests::service::{Service, TICK};
use ha_tests::{Result, Trouble};

fn main() -> ExitCode {
    match service(std::env::args().skip(1)).and_then(|service| service.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("lab-service: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn service(mut arguments: impl Iterator<Item = String>) -> Result<Service> {
    let mut given = BTreeMap::new();
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| Trouble::new(format!("{option} needs a value")))?;
        given.insert(option, value);
    }
    let mut wanted = |option: &str, variable: &str| {
        let value = given.remove(option).or_else(|| std::env::var(variable).ok());
        value.ok_or_else(|| Trouble::new(format!("neither {option} nor {variable} is given")))
    };
    let hierarchy = wanted("--hierarchy", "HA_HIERARCHY")?;
    let node = wanted("--node", "HA_NODE")?;
    let epoch = wanted("--epoch", "HA_EPOCH")?.parse()?;
    let listen = given.remove("--listen");
    let every = given.remove("--every").map_or(Ok(TICK), |text| text.parse().map(Duration::from_millis))?;
    let log = given.remove("--log").map_or_else(Machine::witness, Into::into);
    if let Some(option) = given.keys().next() {
        return Err(Trouble::new(format!("there is no option {option}")));
    }
    Ok(Service { hierarchy, node, epoch, log, listen, every })
}
