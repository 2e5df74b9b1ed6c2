//! Utility by how busy the processors are: 100 for an idle machine, less for a busy one, never 0.
//!
//! Decides how the load average of the last minute (proc(5), `/proc/loadavg`), divided by the number of processors, becomes a utility: 100 up
//! to `idle`, 1 from `busy` on, in a straight line between. A busy machine can still serve, so this moves hierarchies only where they are
//! ranked by utility, and never takes one out of service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ha_core::driver::{Failed, Probe};
use ha_core::name::Utility;

/// What the operator says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadSpec {
    /// Up to this load of each processor the machine counts as idle. Default 0.5.
    pub idle: f64,
    /// From this load of each processor on it is of least use. Default 4.
    pub busy: f64,
    /// From one measurement to the next. Default 5 s.
    pub every: Duration,
}

impl Default for LoadSpec {
    fn default() -> LoadSpec {
        LoadSpec { idle: 0.5, busy: 4.0, every: Duration::from_secs(5) }
    }
}

impl LoadSpec {
    fn utility(&self, load: f64) -> u8 {
        let share = ((load - self.idle) / (self.busy - self.idle)).clamp(0.0, 1.0);
        // From 1 to 100, so it fits.
        #[expect(clippy::cast_sign_loss, reason = "from 1 to 100")]
        let utility = (100.0 - 99.0 * share).round() as u8;
        utility.clamp(1, 100)
    }
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Load {
    spec: LoadSpec,
    loadavg: PathBuf,
}

impl Load {
    /// A probe.
    pub fn new(spec: LoadSpec) -> Load {
        Load { spec, loadavg: PathBuf::from("/proc/loadavg") }
    }
}

fn last_minute(loadavg: &Path) -> Result<f64, Failed> {
    let cannot = |why: String| Failed(format!("cannot read the load from {}: {why}", loadavg.display()));
    let text = std::fs::read_to_string(loadavg).map_err(|e| cannot(e.to_string()))?;
    let load = text.split_whitespace().next().and_then(|word| word.parse().ok());
    load.filter(|load: &f64| load.is_finite()).ok_or_else(|| cannot(format!("it says {text:?}")))
}

#[async_trait]
impl Probe for Load {
    async fn measure(&self) -> Result<(Utility, String), Failed> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let load = last_minute(&self.loadavg)? / processors as f64;
        let utility = Utility::new(self.spec.utility(load)).map_err(Failed::new)?;
        Ok((utility, format!("the load of each of {processors} processors is {load:.2}")))
    }

    fn every(&self) -> Duration {
        self.spec.every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busier_machine_is_of_less_use_and_none_is_useless() {
        let spec = LoadSpec { idle: 1.0, busy: 3.0, ..LoadSpec::default() };
        let utilities = [0.0, 1.0, 2.0, 3.0, 1_000.0].map(|load| spec.utility(load));
        assert_eq!(utilities, [100, 100, 51, 1, 1]);
    }

    #[tokio::test]
    async fn this_machine_has_a_load() {
        let (utility, why) = Load::new(LoadSpec::default()).measure().await.unwrap();
        assert!((1..=100).contains(&utility.get()) && why.contains("the load of each of"), "{why}");
        let none = Load { loadavg: "/nonexistent".into(), ..Load::new(LoadSpec::default()) };
        assert!(none.measure().await.unwrap_err().0.contains("/nonexistent"));
    }
}
