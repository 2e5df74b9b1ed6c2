//! Every loss of nodes that is worth a look: each single one, each pair, and so on until one is left.
//!
//! Decides which, so that many nodes are not too many runs.

use ha_core::name::NodeName;

/// Up to so many nodes, every combination is looked at.
const ALL_UP_TO: usize = 5;
/// Up to so many nodes, every pair is.
const PAIRS_UP_TO: usize = 8;

/// The combinations, those of fewer nodes first.
pub(crate) fn losses(nodes: &[NodeName]) -> Vec<Vec<NodeName>> {
    let count = nodes.len();
    if count == 1 {
        return vec![nodes.to_vec()];
    }
    if count > ALL_UP_TO {
        let pairs = if count <= PAIRS_UP_TO { combinations(nodes, 2) } else { Vec::new() };
        return combinations(nodes, 1).into_iter().chain(pairs).chain(combinations(nodes, count - 1)).collect();
    }
    (1..count).flat_map(|lost| combinations(nodes, lost)).collect()
}

/// Every choice of so many, in the order of the nodes.
fn combinations(nodes: &[NodeName], many: usize) -> Vec<Vec<NodeName>> {
    if many == 0 {
        return vec![Vec::new()];
    }
    let enough = (nodes.len() + 1).saturating_sub(many);
    let with = |(i, first): (usize, &NodeName)| {
        let first = first.clone();
        let rest = combinations(&nodes[i + 1..], many - 1);
        rest.into_iter().map(move |rest| std::iter::once(first.clone()).chain(rest).collect::<Vec<_>>())
    };
    nodes.iter().enumerate().take(enough).flat_map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeName> {
        (0..count).map(|i| NodeName::new(format!("n{i}")).unwrap()).collect()
    }

    #[test]
    fn of_three_nodes_each_one_each_pair_and_never_all() {
        let shown: Vec<String> =
            losses(&nodes(3)).iter().map(|lost| lost.iter().map(NodeName::as_str).collect()).collect();
        assert_eq!(shown, ["n0", "n1", "n2", "n0n1", "n0n2", "n1n2"]);
    }

    #[test]
    fn the_runs_stay_few_when_the_nodes_are_many() {
        assert_eq!([1, 2, 5, 8, 32].map(|count| losses(&nodes(count)).len()), [1, 2, 30, 44, 64]);
    }
}
