//! The judge of invariants S1 and S4: reads what every instance of every service wrote to one shared log.
//!
//! Each service of a laboratory (see [`crate::service`]) appends a [`Line`] when it starts, every few milliseconds while it runs, and when it
//! stops in order. Appending is atomic and the log has one order, so the log is exactly what the services' writes to protected data would
//! have been. Judges that log; leaves it to the test what to do with the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::trouble::{Result, Trouble, While as _};
use crate::wait::eventually;

/// What an instance of a service says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It begins.
    Start,
    /// It runs.
    Tick,
    /// It ends in order; one that is killed says nothing.
    Stop,
}

/// One line of the log: `hierarchy node epoch run at kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The hierarchy that the instance belongs to.
    pub hierarchy: String,
    /// Where it runs.
    pub node: String,
    /// Under which tenure.
    pub epoch: u64,
    /// Which instance of the node: when it started, in nanoseconds since the machine booted.
    pub run: u64,
    /// When the line was written, in nanoseconds since the machine booted.
    pub at: u64,
    /// What it says.
    pub kind: Kind,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { hierarchy, node, epoch, run, at, kind } = self;
        let kind = match kind {
            Kind::Start => "start",
            Kind::Tick => "tick",
            Kind::Stop => "stop",
        };
        write!(f, "{hierarchy} {node} {epoch} {run} {at} {kind}")
    }
}

impl FromStr for Line {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self> {
        let [hierarchy, node, epoch, run, at, kind] = text.split(' ').collect::<Vec<_>>()[..] else {
            return Err(Trouble::new(format!("no line of a witness: {text:?}")));
        };
        let kind = match kind {
            "start" => Kind::Start,
            "tick" => Kind::Tick,
            "stop" => Kind::Stop,
            other => return Err(Trouble::new(format!("no kind of a witness's line: {other:?}"))),
        };
        let (epoch, run, at) = (epoch.parse()?, run.parse()?, at.parse()?);
        Ok(Line { hierarchy: hierarchy.to_owned(), node: node.to_owned(), epoch, run, at, kind })
    }
}

/// The time of one hierarchy on one node under one epoch, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Where.
    pub node: String,
    /// Under which epoch.
    pub epoch: u64,
    /// When the first instance wrote first, in nanoseconds since the machine booted.
    pub first: u64,
    /// When the last instance wrote last.
    pub last: u64,
    /// How many instances started in it.
    pub starts: u32,
}

/// What a log shows: for every hierarchy its tenures in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// By hierarchy.
    pub tenures: BTreeMap<String, Vec<Tenure>>,
}

impl Verdict {
    /// The tenures of one hierarchy; none if it never ran.
    pub fn of(&self, hierarchy: &str) -> &[Tenure] {
        self.tenures.get(hierarchy).map_or(&[], Vec::as_slice)
    }

    /// The nodes that a hierarchy was served by, in order, one for each tenure.
    pub fn nodes_of(&self, hierarchy: &str) -> Vec<&str> {
        self.of(hierarchy).iter().map(|tenure| tenure.node.as_str()).collect()
    }
}

/// The log.
pub struct Witness {
    path: PathBuf,
}

impl Witness {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        File::create(path).to("create the witness's log")?;
        Ok(Witness { path: path.to_owned() })
    }

    /// Every line so far, in the order in which they were written.
    pub fn lines(&self) -> Result<Vec<Line>> {
        // A node that loses power in the middle of a write cannot tear a line: appending is one step for the kernel. The last may be in the making.
        let text = fs::read_to_string(&self.path).to("read the witness's log")?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::parse).collect()
    }

    /// The last line of a hierarchy, if it ever ran.
    pub fn last(&self, hierarchy: &str) -> Result<Option<Line>> {
        Ok(self.lines()?.into_iter().rfind(|line| line.hierarchy == hierarchy))
    }

    /// Waits until the log shows what is wanted. An agent tells of a service as soon as it has started it, and the service of itself a moment later.
    pub fn until(&self, what: &str, wanted: impl Fn(&Verdict) -> bool) {
        eventually(what, || {
            let verdict = self.check().map_err(|trouble| trouble.to_string())?;
            if wanted(&verdict) { Ok(()) } else { Err(format!("{verdict:?}")) }
        });
    }

    /// Waits until a hierarchy was served by these nodes in this order, each in one tenure, and by no other.
    pub fn until_served_by(&self, hierarchy: &str, nodes: &[&str]) {
        self.until(&format!("{hierarchy} was served by {nodes:?}"), |verdict| verdict.nodes_of(hierarchy) == nodes);
    }

    /// Judges the whole log: see [`judge`].
    pub fn check(&self) -> Result<Verdict> {
        judge(&self.lines()?)
    }
}

/// Judges a log. Wrong is: a write of a node after another node's instance of the hierarchy has started (S1), a tenure whose epoch is not
/// greater than every earlier one's of that hierarchy (S4), and two nodes under one epoch.
pub fn judge(lines: &[Line]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (number, line) in lines.iter().enumerate() {
        let tenures = verdict.tenures.entry(line.hierarchy.clone()).or_default();
        let wrong = |what: &str, earlier: &Tenure| {
            Err(Trouble::new(format!("line {}: `{line}`: {what}; the latest tenure was {earlier:?}", number + 1)))
        };
        match tenures.last_mut() {
            Some(current) if current.node == line.node && current.epoch == line.epoch => {
                current.last = line.at;
                current.starts += u32::from(line.kind == Kind::Start);
            }
            Some(current) if line.kind != Kind::Start => {
                return wrong("S1: written by one who is no longer in service", current);
            }
            Some(current) if line.epoch <= current.epoch => return wrong("S4: the epoch is not greater", current),
            _ => tenures.push(Tenure {
                node: line.node.clone(),
                epoch: line.epoch,
                first: line.at,
                last: line.at,
                starts: 1,
            }),
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<Line> {
        text.lines().map(|line| line.trim().parse().unwrap()).collect()
    }

    #[test]
    fn an_orderly_history_is_told_as_its_tenures() {
        let lines = log("web alpha 1 10 10 start
             web alpha 1 10 12 tick
             db beta 1 11 13 start
             web alpha 1 10 14 stop
             web beta 2 20 20 start
             web beta 2 25 25 start
             web beta 2 25 27 tick");
        let verdict = judge(&lines).unwrap();
        assert_eq!(verdict.nodes_of("web"), ["alpha", "beta"]);
        assert_eq!(verdict.of("web")[1], Tenure { node: "beta".into(), epoch: 2, first: 20, last: 27, starts: 2 });
        assert_eq!(verdict.nodes_of("db"), ["beta"]);
        assert!(verdict.of("mail").is_empty());
    }

    #[test]
    fn one_write_after_another_node_has_started_breaks_s1() {
        let lines = log("web alpha 1 10 10 start\nweb beta 2 20 20 start\nweb alpha 1 10 21 tick");
        let wrong = judge(&lines).unwrap_err().to_string();
        assert!(wrong.contains("line 3") && wrong.contains("S1"), "{wrong}");
    }

    #[test]
    fn even_an_orderly_stop_is_too_late_after_another_has_started() {
        assert!(judge(&log("web alpha 1 10 10 start\nweb beta 2 20 20 start\nweb alpha 1 10 21 stop")).is_err());
    }

    #[test]
    fn an_epoch_that_returns_breaks_s4() {
        for epochs in [[1, 1], [2, 1]] {
            let text = format!("web alpha {} 10 10 start\nweb beta {} 20 20 start", epochs[0], epochs[1]);
            let wrong = judge(&log(&text)).unwrap_err().to_string();
            assert!(wrong.contains("S4"), "{wrong}");
        }
    }

    #[test]
    fn an_instance_of_an_older_tenure_of_the_same_node_breaks_s1() {
        assert!(judge(&log("web alpha 1 10 10 start\nweb alpha 2 20 20 start\nweb alpha 1 10 21 tick")).is_err());
    }

    #[test]
    fn lines_read_back_as_written() {
        let line = Line { hierarchy: "web".into(), node: "alpha".into(), epoch: 3, run: 4, at: 5, kind: Kind::Tick };
        assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        for broken in
            ["", "web alpha 1 2 3", "web alpha x 2 3 tick", "web alpha 1 2 3 jump", "web alpha 1 2 3 tick more"]
        {
            assert!(broken.parse::<Line>().is_err(), "{broken:?}");
        }
    }
}
