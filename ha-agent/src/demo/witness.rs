//! The witness of the demonstration: who ran when, from what the services stamped themselves (invariants S1 and S4).

use std::collections::BTreeMap;
use std::path::Path;

/// A tenure as its service stamped it: first and last moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamped {
    node: String,
    epoch: u64,
    first: u64,
    last: u64,
}

/// How many stamps there are, and everything in them that must never be.
pub(super) fn check(path: &Path) -> Result<(usize, Vec<String>), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    judge(&text)
}

fn judge(text: &str) -> Result<(usize, Vec<String>), String> {
    let mut tenures: BTreeMap<&str, Vec<Stamped>> = BTreeMap::new();
    let mut stamps = 0;
    // The last line may have been cut off by a SIGKILL, nothing else.
    for line in text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [hierarchy, node, epoch, at] = words[..] else { return Err(format!("not a stamp: {line:?}")) };
        let (Ok(epoch), Ok(at)) = (epoch.parse(), at.parse()) else { return Err(format!("not a stamp: {line:?}")) };
        stamps += 1;
        let of = tenures.entry(hierarchy).or_default();
        match of.iter_mut().find(|t| t.epoch == epoch && t.node == node) {
            Some(tenure) => tenure.last = tenure.last.max(at),
            None => of.push(Stamped { node: node.to_owned(), epoch, first: at, last: at }),
        }
    }
    let mut wrong = Vec::new();
    for (hierarchy, of) in &mut tenures {
        of.sort_by_key(|t| t.first);
        for pair in of.windows(2) {
            let [a, b] = pair else { continue };
            if b.first <= a.last {
                let (x, y) = (&a.node, &b.node);
                wrong.push(format!(
                    "S1: {hierarchy} ran on {x} (epoch {}) and {y} (epoch {}) at once",
                    a.epoch, b.epoch
                ));
            }
            if b.epoch <= a.epoch {
                wrong.push(format!("S4: {hierarchy} went from epoch {} to {}", a.epoch, b.epoch));
            }
        }
    }
    Ok((stamps, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenures_one_after_the_other_are_good() {
        assert_eq!(judge("web alpha 2 10\nweb alpha 2 20\nweb beta 3 21\n"), Ok((3, vec![])));
    }

    #[test]
    fn two_at_once_and_epochs_that_go_back_are_noticed() {
        let (_, wrong) = judge("web alpha 2 10\nweb beta 3 15\nweb alpha 2 20\n").unwrap();
        assert_eq!(wrong, ["S1: web ran on alpha (epoch 2) and beta (epoch 3) at once"]);
        let (_, wrong) = judge("web alpha 3 10\nweb beta 3 15\n").unwrap();
        assert_eq!(wrong, ["S4: web went from epoch 3 to 3"]);
        assert!(judge("web alpha\n").is_err());
    }
}
